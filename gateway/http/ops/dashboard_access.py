"""Who looks at the console, and the forms that they send.

The operators' token shows every team; a team's key shows that team. See docs/dashboard.md, Access.
"""

import asyncio
import hmac
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs, urlencode

from aiohttp import web

from gateway.access import sessions
from gateway.access.rules.sign_in import CONSOLE, page_after
from gateway.access.sessions import Viewer
from gateway.dashboard import assets
from gateway.dashboard.frame import Frame
from gateway.domain.audit import Actor
from gateway.domain.scopes import Scope
from gateway.domain.teams import Caller
from gateway.errors import BadRequest, Forbidden, GatewayError, Unauthenticated
from gateway.http import base_url, errors
from gateway.http.keys import ACCESS, AUTHENTICATOR, SESSIONS
from gateway.http.ops.guards import count_wrong_credential, is_ops_token

if TYPE_CHECKING:
    from gateway.dashboard.render import Renderer

PATH: Final = CONSOLE
SIGN_IN: Final = f"{PATH}/sign-in"
COOKIE: Final = "gateway_dashboard"
ADMIN_COOKIE: Final = "gateway_admin"
"""An operator's session, for the routes below `/admin`."""
COOKIES: Final = {COOKIE: PATH, ADMIN_COOKIE: "/admin"}
"""The cookies of an operator's session, with their paths: other routes never get them."""
NEXT: Final = "next"
"""The parameter with the page to open after a sign-in."""
FORM_TOKEN: Final = "form_token"  # noqa: S105 - the name of a field
HTML: Final = "text/html"

_FORM: Final = "application/x-www-form-urlencoded"
_FORM_SECONDS: Final = 10.0
_MAX_FORM_BYTES: Final = 16_384
_MAX_FIELDS: Final = 64

RENDERER: web.AppKey[Any] = web.AppKey("renderer", object)
"""A `Renderer`; `None` if its dependencies are not installed."""
ASSETS = web.AppKey("assets", dict[str, assets.Asset])


class Visit:
    """A request of somebody who may see the console."""

    def __init__(self, request: web.Request, viewer: Viewer, renderer: "Renderer") -> None:
        self.request = request
        self.viewer = viewer
        self.caller = viewer.caller
        """The team member; `None` for the operators."""
        self.renderer = renderer

    @property
    def team(self) -> str | None:
        """The team whose data is shown; `None` for all."""
        return self.viewer.team

    @property
    def may_manage(self) -> bool:
        """Whether the visitor may change anything: operators, leads, and keys with the scope `keys`."""
        return self.caller is None or self.caller.may(Scope.KEYS)

    def require_manager(self) -> None:
        """Raise `Forbidden` unless the visitor may change something."""
        if not self.may_manage:
            raise Forbidden("This needs a key with the scope 'keys'.")

    @property
    def actor(self) -> Actor:
        """The visitor in the audit log."""
        return self.viewer.actor

    def frame(self, page: str, entry: str | None = None) -> Frame:
        """Return what surrounds a page, which belongs to an entry of the navigation."""
        return Frame(
            page=page,
            entry=entry,
            team=self.team,
            may_manage=self.may_manage,
            can_sign_out=COOKIE in self.request.cookies,
            form_token=form_token(self.request),
        )

    async def page(self, name: str, *, entry: str | None = None, status: int = 200, **content: Any) -> web.Response:
        """Answer with a page. Rendering is slow, so it runs in a thread."""
        return html(await asyncio.to_thread(self.renderer.page, self.frame(name, entry), **content), status=status)


Handler = Callable[[Visit], Awaitable[web.StreamResponse]]


def with_renderer(
    handler: Callable[[web.Request, "Renderer"], Awaitable[web.StreamResponse]],
) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """Give a handler what renders pages. Without the extra, say how to install it."""

    async def handle(request: web.Request) -> web.StreamResponse:
        renderer = request.app[RENDERER]
        return _not_installed(request) if renderer is None else await handler(request, renderer)

    return handle


def for_visitors(handler: Handler) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """Make a handler of visits one of requests. Redirect browsers that are not signed in."""

    @with_renderer
    async def handle(request: web.Request, renderer: "Renderer") -> web.StreamResponse:
        try:
            viewer = await viewer_of(request)
        except Unauthenticated:
            if "Authorization" in request.headers:
                raise
            return redirect(sign_in_for(request))
        visit = Visit(request, viewer, renderer)
        try:
            return await handler(visit)
        except GatewayError as exc:
            if not _wants_page(request):
                raise
            return await visit.page(
                "problem", entry="", status=errors.status_of(exc), title=exc.title, detail=exc.detail
            )

    return handle


def _wants_page(request: web.Request) -> bool:
    """Return whether a browser asks for a page, which shows errors as pages too."""
    return HTML in request.headers.get("Accept", "")


async def viewer_of(request: web.Request) -> Viewer:
    """Return who is signed in. Raise `Unauthenticated`, `Forbidden`, or `RateLimited` after wrong credentials."""
    authorization = request.headers.get("Authorization")
    if authorization is not None:
        if is_ops_token(request, authorization.removeprefix("Bearer ").strip()):
            return Viewer()
        try:
            return await authenticate_key(request, authorization)
        except Unauthenticated:
            count_wrong_credential(request)
            raise
    if request.app[ACCESS].value.ops_token is None:
        return Viewer()
    cookie = request.cookies.get(COOKIE)
    if cookie is None:
        raise Unauthenticated("You are not signed in.")
    viewer = await request.app[SESSIONS].read(cookie)
    if viewer.caller is not None and not viewer.leads_team:
        _require_team_member(viewer.caller)
    return viewer


async def authenticate_key(request: web.Request, authorization: str) -> Viewer:
    """Return the team member whose key it is. Raise `Unauthenticated` or `Forbidden`."""
    caller = await request.app[AUTHENTICATOR].authenticate(authorization, None)
    _require_team_member(caller)
    return Viewer(caller=caller)


def _require_team_member(caller: Caller) -> None:
    """Raise `Forbidden` for browser tokens, and keys without the scope `predict`."""
    if caller.is_public or not caller.may(Scope.PREDICT):
        raise Forbidden("This key may not see its team's usage. Use a server key with the scope 'predict'.")


def sign_in_for(request: web.Request) -> str:
    """Return the address of the sign-in page, which leads back to the page that was asked for."""
    asked = page_after(request.path_qs if request.method == "GET" else PATH)
    return SIGN_IN if asked == PATH else f"{SIGN_IN}?{urlencode({NEXT: asked})}"


def open_session(request: web.Request, response: web.Response, session: str, *, is_operator: bool) -> None:
    """Give a session to the browser. An operator's opens the routes below `/admin` too."""
    for name in COOKIES if is_operator else (COOKIE,):
        response.set_cookie(
            name,
            session,
            max_age=sessions.TTL_SECONDS,
            path=COOKIES[name],
            secure=base_url.is_ops_secure(request),
            httponly=True,
            samesite="Strict",
        )
    if not is_operator:
        # Of an operator who used this browser before and has not signed out.
        response.del_cookie(ADMIN_COOKIE, path=COOKIES[ADMIN_COOKIE])


def form_token(request: web.Request) -> str:
    """Return what the forms of a visitor must send back, as protection against cross-site request forgery."""
    return request.app[SESSIONS].form_token(request.cookies.get(COOKIE, ""))


async def read_form(request: web.Request) -> Mapping[str, list[str]]:
    """Read a form of the console's own page. Raise `BadRequest` for another body, `Forbidden` for another page's."""
    if not base_url.is_own_page(request):
        raise Forbidden("This form can only be submitted from the gateway's own page.")
    fields = await read_fields(request)
    given = "".join(fields.get(FORM_TOKEN, []))
    if not hmac.compare_digest(given.encode(), form_token(request).encode()):
        raise Forbidden("This form has expired. Reload the page and try again.")
    return fields


async def read_fields(request: web.Request) -> Mapping[str, list[str]]:
    """Read the fields of a form. Raise `BadRequest` for any other body."""
    if request.content_type != _FORM:
        raise BadRequest(f"The body must be {_FORM}.")
    if (request.content_length or 0) > _MAX_FORM_BYTES:
        raise BadRequest(f"The form has more than {_MAX_FORM_BYTES} bytes.")
    try:
        async with asyncio.timeout(_FORM_SECONDS):
            body = await request.content.readexactly(request.content_length or 0)
        return parse_qs(body.decode(), max_num_fields=_MAX_FIELDS)
    except (ValueError, EOFError, TimeoutError, ConnectionError, web.RequestPayloadError) as exc:
        raise BadRequest("The form could not be read.") from exc


def html(text: str, *, status: int = 200) -> web.Response:
    """Return a page."""
    return web.Response(status=status, text=text, content_type=HTML)


def _not_installed(request: web.Request) -> web.Response:
    """Say how to install what the console needs."""
    body = request.app[ASSETS][assets.MISSING].body
    return web.Response(status=501, body=body, content_type=HTML, charset="utf-8")


def next_page(request: web.Request, cursor: str | None, name: str = "cursor") -> str | None:
    """Return the address of the page after this one, for a link; `None` at the end."""
    return None if cursor is None else str(request.rel_url.update_query({name: cursor}))


def redirect(path: str) -> web.Response:
    """Send the browser to another page, with GET."""
    return web.Response(status=303, headers={"Location": path})
