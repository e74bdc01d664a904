"""The usage page on the ops listener: who may look at what, the page itself, and the stream that keeps it new.

Operators see every team, by their token; a team's people see their team, by a key of theirs. A browser shows either
once, in a form, and gets a cookie that no script can read and no other site can send. Programs send `Authorization`.
"""

import asyncio
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs

import msgspec
from aiohttp import web

from gateway.access import sessions
from gateway.dashboard import assets
from gateway.domain.scopes import Scope
from gateway.domain.teams import Caller
from gateway.errors import BadRequest, Forbidden, NotFound, RateLimited, StoreUnavailable, Unauthenticated
from gateway.http import base_url, errors
from gateway.http.keys import ACCESS, AUTHENTICATOR, BOARDS, CLOCK, METRICS, SESSIONS
from gateway.http.ops.dashboard_streams import OPEN_PAGES
from gateway.http.ops.token import is_operators
from gateway.http.response_body import CallerLeft, cut, send
from gateway.http.sse.connection import HEADERS as STREAM_HEADERS
from gateway.runtime.sleep import sleep_until_event

if TYPE_CHECKING:
    from gateway.dashboard.render import Renderer

PATH: Final = "/dashboard"
COOKIE: Final = "gateway_dashboard"

_SIGN_IN: Final = f"{PATH}/sign-in"
_EVERY_SECONDS: Final = 2.0
_WRITE_SECONDS: Final = 10.0
_FORM_SECONDS: Final = 10.0
_MOST_FORM_BYTES: Final = 4096
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
    # With `no-referrer` a browser would not say from where a form comes.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cache-Control": "no-store",
}

RENDERER: web.AppKey[Any] = web.AppKey("renderer", object)
"""A `Renderer`; `None` where what draws the page is not installed."""
ASSETS = web.AppKey("assets", dict[str, assets.Asset])


def is_part_of_it(request: web.Request) -> bool:
    """Whether a request is the page's, which asks by itself who looks."""
    return request.path == PATH or request.path.startswith(f"{PATH}/")


def add_routes(app: web.Application) -> None:
    """Register the page."""
    app.router.add_get(PATH, show_page)
    app.router.add_get(_SIGN_IN, show_sign_in)
    app.router.add_post(_SIGN_IN, sign_in)
    app.router.add_post(f"{PATH}/sign-out", sign_out)
    app.router.add_get(f"{PATH}/events", events)
    app.router.add_get(f"{PATH}/files/{{name}}", show_file)
    app.on_response_prepare.append(_add_headers)
    app.on_shutdown.append(_end_streams)


async def show_page(request: web.Request) -> web.Response:
    """`GET /dashboard`."""
    renderer = _renderer(request)
    if renderer is None:
        return _missing(request)
    try:
        viewer = await _viewer(request)
    except Unauthenticated:
        if "Authorization" in request.headers:
            raise
        return _to(_SIGN_IN)
    board = await request.app[BOARDS].board(_team(viewer))
    # Drawing takes its time, and reads files of its library.
    return _html(await asyncio.to_thread(renderer.page, board, can_sign_out=COOKIE in request.cookies))


async def show_sign_in(request: web.Request) -> web.Response:
    """`GET /dashboard/sign-in`."""
    renderer = _renderer(request)
    if renderer is None:
        return _missing(request)
    if request.app[ACCESS].value.ops_token is None:
        return _to(PATH)
    return _html(renderer.sign_in())


async def sign_in(request: web.Request) -> web.Response:
    """`POST /dashboard/sign-in`: a token or a key for a cookie."""
    renderer = _renderer(request)
    if renderer is None:
        return _missing(request)
    if not base_url.is_own_page(request):
        raise Forbidden("This form is sent by the gateway's own page only.")
    secret = await _read_secret(request)
    try:
        viewer = None if is_operators(request, secret) else await _holder(request, f"Bearer {secret}")
    except (Unauthenticated, Forbidden) as exc:
        trouble = exc.detail if isinstance(exc, Forbidden) else "That is neither the operators' token nor a valid key."
        return _html(renderer.sign_in(trouble), status=errors.status_of(exc))
    response = _to(PATH)
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
    """`POST /dashboard/sign-out`."""
    if not base_url.is_own_page(request):
        raise Forbidden("This form is sent by the gateway's own page only.")
    response = _to(_SIGN_IN)
    response.del_cookie(COOKIE, path=PATH)
    return response


async def show_file(request: web.Request) -> web.Response:
    """`GET /dashboard/files/…`: scripts and styles, which hold no secret."""
    asset = request.app[ASSETS].get(request.match_info["name"])
    if asset is None:
        raise NotFound
    return web.Response(body=asset.body, content_type=asset.content_type, charset="utf-8")


async def events(request: web.Request) -> web.StreamResponse:
    """`GET /dashboard/events`: the parts of the page that have changed, as they change."""
    renderer = _renderer(request)
    if renderer is None:
        return _missing(request)
    whose = _team(await _viewer(request))
    try:
        with request.app[OPEN_PAGES].place(whose):
            return await _keep_new(request, renderer, whose)
    except RateLimited as exc:
        request.app[METRICS].refused(type(exc).__name__)
        raise


async def _keep_new(request: web.Request, renderer: "Renderer", whose: str | None) -> web.StreamResponse:
    response = web.StreamResponse(headers=STREAM_HEADERS)
    await response.prepare(request)
    closing, shown = request.app[OPEN_PAGES].closing, dict[str, str]()
    try:
        while not closing.is_set():
            await _send(request, response, await _news(request, renderer, whose, shown))
            await sleep_until_event(request.app[CLOCK], _EVERY_SECONDS, closing)
            if not await _is_still(request, whose):
                await _send(request, response, _SIGNED_OUT)
                break
    except (CallerLeft, ConnectionError):
        # It comes back by itself, if anybody looks.
        return response
    except TimeoutError:
        # Whoever does not read is let go.
        cut(request)
    return response


async def _news(request: web.Request, renderer: "Renderer", whose: str | None, shown: dict[str, str]) -> bytes:
    """Write an event of what is not shown yet; the time of the figures is always new."""
    try:
        board = await request.app[BOARDS].board(whose)
    except StoreUnavailable:
        return b":\n\n"
    sections = await asyncio.to_thread(renderer.sections, board)
    changed = {name: html for name, html in sections.items() if shown.get(name) != html}
    shown.update(changed)
    # JSON writes line ends as \n: one line of an event holds it.
    return b"event: board\ndata: " + msgspec.json.encode(changed) + b"\n\n"


async def _send(request: web.Request, response: web.StreamResponse, data: bytes) -> None:
    async with asyncio.timeout(_WRITE_SECONDS):
        await send(request, response, data)


async def _viewer(request: web.Request) -> Caller | None:
    """Say who looks: a team's caller, or (`None`) the operators. Raise `Unauthenticated` or `Forbidden`."""
    authorization = request.headers.get("Authorization")
    if authorization is not None:
        if is_operators(request, authorization.removeprefix("Bearer ").strip()):
            return None
        return await _holder(request, authorization)
    if request.app[ACCESS].value.ops_token is None:
        _check_host(request)
        return None
    cookie = request.cookies.get(COOKIE)
    if cookie is None:
        raise Unauthenticated("You are not signed in.")
    return _checked(await request.app[SESSIONS].read(cookie))


async def _is_still(request: web.Request, whose: str | None) -> bool:
    """Say whether who looks may go on: a key may have been revoked, and a session may be over."""
    try:
        return _team(await _viewer(request)) == whose
    except (Unauthenticated, Forbidden):
        return False
    except StoreUnavailable:
        return True


async def _holder(request: web.Request, authorization: str) -> Caller | None:
    return _checked(await request.app[AUTHENTICATOR].authenticate(authorization, None))


def _checked(caller: Caller | None) -> Caller | None:
    """Raise `Forbidden` for a key that is not for its team's own people."""
    if caller is not None and (caller.is_public or not caller.may(Scope.PREDICT)):
        raise Forbidden("This key may not see what its team used.")
    return caller


def _team(viewer: Caller | None) -> str | None:
    return None if viewer is None else viewer.team.name


def _check_host(request: web.Request) -> None:
    """Without a token the listener is on loopback: a foreign name that was made to lead here opens nothing."""
    host = request.url.host or ""
    try:
        is_here = ip_address(host).is_loopback
    except ValueError:
        is_here = host == "localhost"
    if not is_here:
        raise Forbidden("Without an operators' token the page is for this machine, by its own address only.")


async def _read_secret(request: web.Request) -> str:
    """Read what was typed into the form. Raise `BadRequest` for what the form does not send."""
    if request.content_type != _FORM:
        raise BadRequest("Expected the form.")
    try:
        async with asyncio.timeout(_FORM_SECONDS):
            body = await request.content.readexactly(min(request.content_length or 0, _MOST_FORM_BYTES))
        fields = parse_qs(body.decode(), max_num_fields=4)
    except (ValueError, EOFError, TimeoutError, ConnectionError, web.RequestPayloadError) as exc:
        raise BadRequest("The form could not be read.") from exc
    return "".join(fields.get("secret", [])).strip()


def _renderer(request: web.Request) -> "Renderer | None":
    renderer: Renderer | None = request.app[RENDERER]
    return renderer


def _html(text: str, *, status: int = 200) -> web.Response:
    return web.Response(status=status, text=text, content_type=_HTML)


def _missing(request: web.Request) -> web.Response:
    body = request.app[ASSETS][assets.MISSING].body
    return web.Response(status=501, body=body, content_type=_HTML, charset="utf-8")


def _to(path: str) -> web.Response:
    return web.Response(status=303, headers={"Location": path})


async def _add_headers(request: web.Request, response: web.StreamResponse) -> None:
    if is_part_of_it(request):
        for name, value in _HEADERS.items():
            response.headers.setdefault(name, value)
        response.headers["Server"] = errors.SERVER


async def _end_streams(app: web.Application) -> None:
    app[OPEN_PAGES].closing.set()
