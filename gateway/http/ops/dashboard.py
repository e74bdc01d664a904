"""The dashboard on the ops listener: sign-in, the page, and the event stream that updates it.

The operators' token shows every team; a team's key shows that team. A browser submits either once, in a form, or comes
back from an issuer (`dashboard_issuers`), and gets a cookie that is HttpOnly and SameSite=Strict. Programs send
`Authorization`.
"""

import asyncio
from typing import TYPE_CHECKING, Final

import msgspec
from aiohttp import web

from gateway.access.rules.sign_in import page_after
from gateway.access.sessions import Viewer
from gateway.errors import Forbidden, NotFound, RateLimited, StoreUnavailable, Unauthenticated
from gateway.http import base_url, errors
from gateway.http.keys import ACCESS, CLOCK, DASHBOARD, METRICS, SESSIONS
from gateway.http.ops import dashboard_issuers, dashboard_keys, dashboard_pages, dashboard_predictions
from gateway.http.ops.dashboard_access import (
    ASSETS,
    COOKIES,
    NEXT,
    PATH,
    SIGN_IN,
    Visit,
    authenticate_key,
    for_visitors,
    html,
    open_session,
    read_fields,
    redirect,
    viewer_of,
    with_renderer,
)
from gateway.http.ops.dashboard_streams import OPEN_PAGES
from gateway.http.ops.guards import SIGN_IN_ATTEMPTS, address_of, is_ops_token
from gateway.http.response_body import ClientDisconnected, abort, begin, send
from gateway.http.server import end_with_input
from gateway.http.sse.connection import HEADERS as STREAM_HEADERS
from gateway.runtime.sleep import sleep_until_event

if TYPE_CHECKING:
    from gateway.dashboard.render import Renderer

_UPDATE_SECONDS: Final = 2.0
_WRITE_SECONDS: Final = 10.0
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


def is_dashboard(request: web.Request) -> bool:
    """Return whether a request is for the dashboard, which has its own authentication."""
    return request.path == PATH or request.path.startswith(f"{PATH}/")


def add_routes(app: web.Application) -> None:
    """Register the dashboard's routes."""
    app.router.add_get(PATH, show_overview)
    app.router.add_get(SIGN_IN, show_sign_in)
    app.router.add_post(SIGN_IN, sign_in)
    app.router.add_post(f"{PATH}/sign-out", sign_out)
    app.router.add_get(f"{PATH}/events", events)
    app.router.add_get(f"{PATH}/files/{{name}}", show_file)
    dashboard_pages.add_routes(app)
    dashboard_predictions.add_routes(app)
    dashboard_keys.add_routes(app)
    dashboard_issuers.add_routes(app)
    app.on_response_prepare.append(_add_headers)
    app.on_shutdown.append(_end_streams)


@for_visitors
async def show_overview(visit: Visit) -> web.Response:
    """Handle `GET /dashboard`."""
    request = visit.request
    board = await request.app[DASHBOARD].board(visit.team)
    # Rendering is slow and reads template files, so it runs in a thread.
    return html(await asyncio.to_thread(visit.renderer.overview, board, visit.frame("board")))


@with_renderer
async def show_sign_in(request: web.Request, renderer: "Renderer") -> web.Response:
    """Handle `GET /dashboard/sign-in`. Redirect to the dashboard if no operators' token is configured."""
    asked = page_after(request.query.get(NEXT, ""))
    if request.app[ACCESS].value.ops_token is None:
        return redirect(asked)
    return html(renderer.sign_in(None, dashboard_issuers.choices(request, asked), asked))


@with_renderer
async def sign_in(request: web.Request, renderer: "Renderer") -> web.Response:
    """Handle `POST /dashboard/sign-in`: exchange the operators' token or a key for a session cookie."""
    if not base_url.is_own_page(request):
        raise Forbidden("This form can only be submitted from the gateway's own page.")
    fields = await read_fields(request)
    secret = "".join(fields.get("secret", [])).strip()
    asked = page_after("".join(fields.get(NEXT, [])))
    attempts, address = request.app[SIGN_IN_ATTEMPTS], address_of(request)
    try:
        attempts.begin(address)
        viewer = Viewer() if is_ops_token(request, secret) else await authenticate_key(request, f"Bearer {secret}")
    except (Unauthenticated, Forbidden, RateLimited) as exc:
        wrong = isinstance(exc, Unauthenticated)
        message = "That is neither the operators' token nor a valid key." if wrong else exc.detail
        return dashboard_issuers.refused(request, renderer, exc, message, asked)
    attempts.succeeded(address)
    response = redirect(asked)
    session = request.app[SESSIONS].open(viewer.caller)
    open_session(request, response, session, is_operator=viewer.caller is None)
    return response


async def sign_out(request: web.Request) -> web.Response:
    """Handle `POST /dashboard/sign-out`: delete the session cookie."""
    if not base_url.is_own_page(request):
        raise Forbidden("This form can only be submitted from the gateway's own page.")
    response = redirect(SIGN_IN)
    for name, path in COOKIES.items():
        response.del_cookie(name, path=path)
    return response


async def show_file(request: web.Request) -> web.Response:
    """Handle `GET /dashboard/files/…`: scripts and styles. They are public."""
    asset = request.app[ASSETS].get(request.match_info["name"])
    if asset is None:
        raise NotFound
    return web.Response(body=asset.body, content_type=asset.content_type, charset="utf-8")


@with_renderer
async def events(request: web.Request, renderer: "Renderer") -> web.StreamResponse:
    """Handle `GET /dashboard/events`: stream the sections of the page that changed."""
    team = (await viewer_of(request)).team
    try:
        with request.app[OPEN_PAGES].place(team):
            return await _send_updates(request, renderer, team)
    except RateLimited as exc:
        request.app[METRICS].refused(type(exc).__name__)
        raise


async def _send_updates(request: web.Request, renderer: "Renderer", team: str | None) -> web.StreamResponse:
    response = web.StreamResponse(headers=STREAM_HEADERS)
    closing, shown = request.app[OPEN_PAGES].closing, dict[str, str]()
    try:
        end_with_input(request)
        await begin(request, response)
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


async def _may_continue(request: web.Request, team: str | None) -> bool:
    """Return whether the viewer is still signed in: the key may be revoked, or the session expired."""
    try:
        return (await viewer_of(request)).team == team
    except (Unauthenticated, Forbidden, RateLimited):
        return False
    except StoreUnavailable:
        return True


async def _add_headers(request: web.Request, response: web.StreamResponse) -> None:
    if is_dashboard(request):
        for name, value in _HEADERS.items():
            response.headers.setdefault(name, value)
        response.headers["Server"] = errors.SERVER


async def _end_streams(app: web.Application) -> None:
    app[OPEN_PAGES].closing.set()
