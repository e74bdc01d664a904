"""The dashboard on the ops listener: sign-in, the page, and the event stream that updates it.

The operators' token shows every team; a team's key shows that team. A browser submits either once, in a form, and gets
a cookie that is HttpOnly and SameSite=Strict. Programs send `Authorization`.
"""

import asyncio
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs

import msgspec
from aiohttp import web

from gateway.access import sessions
from gateway.dashboard import assets
from gateway.domain.scopes import Scope
from gateway.domain.teams import Caller
from gateway.errors import BadRequest, Forbidden, NotFound, RateLimited, StoreUnavailable, Unauthenticated
from gateway.http import base_url, errors, request_limits
from gateway.http.keys import ACCESS, AUTHENTICATOR, CLOCK, DASHBOARD, METRICS, SESSIONS
from gateway.http.ops.dashboard_streams import OPEN_PAGES
from gateway.http.ops.guards import SIGN_IN_ATTEMPTS, is_ops_token
from gateway.http.response_body import ClientDisconnected, abort, send
from gateway.http.server import end_with_input
from gateway.http.sse.connection import HEADERS as STREAM_HEADERS
from gateway.runtime.sleep import sleep_until_event

if TYPE_CHECKING:
    from gateway.dashboard.render import Renderer

PATH: Final = "/dashboard"
COOKIE: Final = "gateway_dashboard"

_SIGN_IN: Final = f"{PATH}/sign-in"
_UPDATE_SECONDS: Final = 2.0
_WRITE_SECONDS: Final = 10.0
_FORM_SECONDS: Final = 10.0
_MAX_FORM_BYTES: Final = 4096
_HTML: Final = "text/html"
_FORM: Final = "application/x-www-form-urlencoded"
_SIGNED_OUT: Final = b"event: signed-out\ndata: {}\n\n"
_HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types gateway"
    ),
    "X-Content-Type-Options": "nosniff",
    # With `no-referrer` browsers would send `Origin: null` with a form.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cache-Control": "no-store",
}

RENDERER: web.AppKey[Any] = web.AppKey("renderer", object)
"""A `Renderer`; `None` if its dependencies are not installed."""
ASSETS = web.AppKey("assets", dict[str, assets.Asset])


def is_dashboard(request: web.Request) -> bool:
    """Return whether a request is for the dashboard, which has its own authentication."""
    return request.path == PATH or request.path.startswith(f"{PATH}/")


def add_routes(app: web.Application) -> None:
    """Register the dashboard's routes."""
    app.router.add_get(PATH, show_page)
    app.router.add_get(_SIGN_IN, show_sign_in)
    app.router.add_post(_SIGN_IN, sign_in)
    app.router.add_post(f"{PATH}/sign-out", sign_out)
    app.router.add_get(f"{PATH}/events", events)
    app.router.add_get(f"{PATH}/files/{{name}}", show_file)
    app.on_response_prepare.append(_add_headers)
    app.on_shutdown.append(_end_streams)


async def show_page(request: web.Request) -> web.Response:
    """Handle `GET /dashboard`. Redirect browsers that are not signed in."""
    renderer = _renderer(request)
    if renderer is None:
        return _not_installed(request)
    try:
        viewer = await _viewer(request)
    except Unauthenticated:
        if "Authorization" in request.headers:
            raise
        return _redirect(_SIGN_IN)
    board = await request.app[DASHBOARD].board(_team(viewer))
    # Rendering is slow and reads template files, so it runs in a thread.
    return _html(await asyncio.to_thread(renderer.page, board, can_sign_out=COOKIE in request.cookies))


async def show_sign_in(request: web.Request) -> web.Response:
    """Handle `GET /dashboard/sign-in`. Redirect to the dashboard if no operators' token is configured."""
    renderer = _renderer(request)
    if renderer is None:
        return _not_installed(request)
    if request.app[ACCESS].value.ops_token is None:
        return _redirect(PATH)
    return _html(renderer.sign_in())


async def sign_in(request: web.Request) -> web.Response:
    """Handle `POST /dashboard/sign-in`: exchange the operators' token or a key for a session cookie."""
    renderer = _renderer(request)
    if renderer is None:
        return _not_installed(request)
    if not base_url.is_own_page(request):
        raise Forbidden("This form can only be submitted from the gateway's own page.")
    secret = await _read_secret(request)
    attempts, address = request.app[SIGN_IN_ATTEMPTS], request_limits.rate_limited_address(request.remote or "")
    try:
        attempts.begin(address)
        viewer = None if is_ops_token(request, secret) else await _authenticate_key(request, f"Bearer {secret}")
    except (Unauthenticated, Forbidden, RateLimited) as exc:
        wrong = isinstance(exc, Unauthenticated)
        message = "That is neither the operators' token nor a valid key." if wrong else exc.detail
        refused = _html(renderer.sign_in(message), status=errors.status_of(exc))
        if exc.retry_after is not None:
            refused.headers["Retry-After"] = str(exc.retry_after)
        return refused
    attempts.succeeded(address)
    response = _redirect(PATH)
    response.set_cookie(
        COOKIE,
        request.app[SESSIONS].open(viewer),
        max_age=sessions.TTL_SECONDS,
        path=PATH,
        secure=base_url.is_secure(request),
        httponly=True,
        samesite="Strict",
    )
    return response


async def sign_out(request: web.Request) -> web.Response:
    """Handle `POST /dashboard/sign-out`: delete the session cookie."""
    if not base_url.is_own_page(request):
        raise Forbidden("This form can only be submitted from the gateway's own page.")
    response = _redirect(_SIGN_IN)
    response.del_cookie(COOKIE, path=PATH)
    return response


async def show_file(request: web.Request) -> web.Response:
    """Handle `GET /dashboard/files/…`: scripts and styles. They are public."""
    asset = request.app[ASSETS].get(request.match_info["name"])
    if asset is None:
        raise NotFound
    return web.Response(body=asset.body, content_type=asset.content_type, charset="utf-8")


async def events(request: web.Request) -> web.StreamResponse:
    """Handle `GET /dashboard/events`: stream the sections of the page that changed."""
    renderer = _renderer(request)
    if renderer is None:
        return _not_installed(request)
    team = _team(await _viewer(request))
    try:
        with request.app[OPEN_PAGES].place(team):
            return await _send_updates(request, renderer, team)
    except RateLimited as exc:
        request.app[METRICS].refused(type(exc).__name__)
        raise


async def _send_updates(request: web.Request, renderer: "Renderer", team: str | None) -> web.StreamResponse:
    response = web.StreamResponse(headers=STREAM_HEADERS)
    end_with_input(request)
    await response.prepare(request)
    closing, shown = request.app[OPEN_PAGES].closing, dict[str, str]()
    try:
        while not closing.is_set():
            await _send(request, response, await _changed_sections(request, renderer, team, shown))
            await sleep_until_event(request.app[CLOCK], _UPDATE_SECONDS, closing)
            if not await _may_continue(request, team):
                await _send(request, response, _SIGNED_OUT)
                break
    except (ClientDisconnected, ConnectionError):
        # EventSource reconnects by itself.
        return response
    except TimeoutError:
        # The client stopped reading.
        abort(request)
    return response


async def _changed_sections(
    request: web.Request, renderer: "Renderer", team: str | None, shown: dict[str, str]
) -> bytes:
    """Return an event with the sections that differ from `shown`, which is updated; a comment without a store."""
    try:
        board = await request.app[DASHBOARD].board(team)
    except StoreUnavailable:
        return b":\n\n"
    sections = await asyncio.to_thread(renderer.sections, board)
    changed = {name: html for name, html in sections.items() if shown.get(name) != html}
    shown.update(changed)
    # JSON escapes line breaks, so the data fits in one `data` line.
    return b"event: board\ndata: " + msgspec.json.encode(changed) + b"\n\n"


async def _send(request: web.Request, response: web.StreamResponse, data: bytes) -> None:
    async with asyncio.timeout(_WRITE_SECONDS):
        await send(request, response, data)


async def _viewer(request: web.Request) -> Caller | None:
    """Return the signed-in caller, or `None` for the operators. Raise `Unauthenticated` or `Forbidden`."""
    authorization = request.headers.get("Authorization")
    if authorization is not None:
        if is_ops_token(request, authorization.removeprefix("Bearer ").strip()):
            return None
        return await _authenticate_key(request, authorization)
    if request.app[ACCESS].value.ops_token is None:
        return None
    cookie = request.cookies.get(COOKIE)
    if cookie is None:
        raise Unauthenticated("You are not signed in.")
    return _require_team_member(await request.app[SESSIONS].read(cookie))


async def _may_continue(request: web.Request, team: str | None) -> bool:
    """Return whether the viewer is still signed in: the key may be revoked, or the session expired."""
    try:
        return _team(await _viewer(request)) == team
    except (Unauthenticated, Forbidden):
        return False
    except StoreUnavailable:
        return True


async def _authenticate_key(request: web.Request, authorization: str) -> Caller | None:
    return _require_team_member(await request.app[AUTHENTICATOR].authenticate(authorization, None))


def _require_team_member(caller: Caller | None) -> Caller | None:
    """Return the caller. Raise `Forbidden` for browser tokens, and keys without the scope `predict`."""
    if caller is not None and (caller.is_public or not caller.may(Scope.PREDICT)):
        raise Forbidden("This key may not see its team's usage. Use a server key with the scope 'predict'.")
    return caller


def _team(viewer: Caller | None) -> str | None:
    return None if viewer is None else viewer.team.name


async def _read_secret(request: web.Request) -> str:
    """Read the secret from the form. Raise `BadRequest` for any other body."""
    if request.content_type != _FORM:
        raise BadRequest(f"The body must be {_FORM}.")
    try:
        async with asyncio.timeout(_FORM_SECONDS):
            body = await request.content.readexactly(min(request.content_length or 0, _MAX_FORM_BYTES))
        fields = parse_qs(body.decode(), max_num_fields=4)
    except (ValueError, EOFError, TimeoutError, ConnectionError, web.RequestPayloadError) as exc:
        raise BadRequest("The form could not be read.") from exc
    return "".join(fields.get("secret", [])).strip()


def _renderer(request: web.Request) -> "Renderer | None":
    renderer: Renderer | None = request.app[RENDERER]
    return renderer


def _html(text: str, *, status: int = 200) -> web.Response:
    return web.Response(status=status, text=text, content_type=_HTML)


def _not_installed(request: web.Request) -> web.Response:
    body = request.app[ASSETS][assets.MISSING].body
    return web.Response(status=501, body=body, content_type=_HTML, charset="utf-8")


def _redirect(path: str) -> web.Response:
    return web.Response(status=303, headers={"Location": path})


async def _add_headers(request: web.Request, response: web.StreamResponse) -> None:
    if is_dashboard(request):
        for name, value in _HEADERS.items():
            response.headers.setdefault(name, value)
        response.headers["Server"] = errors.SERVER


async def _end_streams(app: web.Application) -> None:
    app[OPEN_PAGES].closing.set()
