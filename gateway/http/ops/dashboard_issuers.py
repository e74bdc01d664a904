"""Signing in to the console at an issuer: the way there and the way back. See docs/identities.md."""

import asyncio
from typing import TYPE_CHECKING, Final
from urllib.parse import urlencode, urlsplit

from aiohttp import web

from gateway.access.rules.sign_in_attempts import TTL_SECONDS
from gateway.errors import BadRequest, Forbidden, GatewayError, IssuerUnavailable, NotFound, RateLimited
from gateway.http import base_url, errors
from gateway.http.keys import ACCESS, CONSOLE_SIGN_IN, SESSIONS, SETTINGS
from gateway.http.ops.dashboard_access import (
    NEXT,
    PATH,
    SIGN_IN,
    html,
    open_session,
    redirect,
    with_renderer,
)
from gateway.http.ops.guards import SIGN_IN_ATTEMPTS, address_of, is_loopback

if TYPE_CHECKING:
    from gateway.dashboard.render import Renderer

START: Final = f"{SIGN_IN}/start"
CALLBACK: Final = f"{SIGN_IN}/callback"
"""Where issuers send browsers back to, each to an address of its own: the redirect URI, without origin and name.

So an issuer cannot send somebody to another one and have the code from there brought to itself (RFC 9700, 4.4)."""
ATTEMPT_COOKIE: Final = "gateway_sign_in"


def add_routes(app: web.Application) -> None:
    """Register the routes."""
    app.router.add_get(START, start, allow_head=False)
    app.router.add_get(f"{CALLBACK}/{{issuer}}", finish, allow_head=False)


def choices(request: web.Request, asked: str) -> list[tuple[str, str]]:
    """Return the issuers of the sign-in page, each with its address: at the origin that it sends browsers back to."""
    origin = request.app[SETTINGS].value.ops_public_url or ""
    return [
        (name, f"{origin}{START}?{urlencode({'issuer': name, NEXT: asked})}")
        for name in request.app[CONSOLE_SIGN_IN].issuers
    ]


def refused(
    request: web.Request, renderer: "Renderer", refusal: GatewayError, message: str | None = None, asked: str = PATH
) -> web.Response:
    """Answer with the sign-in page, which says why nobody is signed in. `message` is about the secret of its form."""
    shown, is_secret_wrong = message or refusal.detail, message is not None
    page = renderer.sign_in(shown, choices(request, asked), asked, is_secret_wrong=is_secret_wrong)
    response = html(page, status=errors.status_of(refusal))
    if refusal.retry_after is not None:
        response.headers["Retry-After"] = str(refusal.retry_after)
    return response


@with_renderer
async def start(request: web.Request, renderer: "Renderer") -> web.Response:
    """Handle `GET /dashboard/sign-in/start?issuer=&next=`: send the browser to an issuer."""
    if request.app[ACCESS].value.ops_token is None:
        return redirect(PATH)
    name, asked = request.query.get("issuer", ""), request.query.get(NEXT, "")
    try:
        started = await request.app[CONSOLE_SIGN_IN].start(name, _redirect_uri(request, name), asked)
    except (BadRequest, Forbidden, NotFound, IssuerUnavailable) as exc:
        return refused(request, renderer, exc)
    response = redirect(started.url)
    response.set_cookie(
        ATTEMPT_COOKIE,
        started.cookie,
        max_age=TTL_SECONDS,
        path=SIGN_IN,
        secure=base_url.is_ops_secure(request),
        httponly=True,
        # The browser comes back from another site.
        samesite="Lax",
    )
    return response


@with_renderer
async def finish(request: web.Request, renderer: "Renderer") -> web.Response:
    """Handle `GET /dashboard/sign-in/callback/<issuer>`: an issuer's answer. Open a session."""
    if request.app[ACCESS].value.ops_token is None:
        return redirect(PATH)
    if request.headers.get("Sec-Fetch-Dest", "document") != "document":
        # A page of another site cannot use up the attempts of whoever looks at it.
        raise Forbidden("An issuer sends the whole window back, not a part of a page.")
    attempts, address, name = request.app[SIGN_IN_ATTEMPTS], address_of(request), request.match_info["issuer"]
    try:
        attempts.begin(address)
        person, page = await request.app[CONSOLE_SIGN_IN].finish(
            name, request.cookies.get(ATTEMPT_COOKIE, ""), _given_once(request), _redirect_uri(request, name)
        )
    except (BadRequest, Forbidden, IssuerUnavailable, RateLimited) as exc:
        response = refused(request, renderer, exc)
    else:
        attempts.succeeded(address)
        # A page, not a redirect: on a way that began at another site, browsers keep back cookies of SameSite=Strict.
        response = html(await asyncio.to_thread(renderer.signed_in, page))
        session = request.app[SESSIONS].open_for(person)
        open_session(request, response, session, is_operator=person.team is None)
    response.del_cookie(ATTEMPT_COOKIE, path=SIGN_IN)
    return response


def _given_once(request: web.Request) -> dict[str, str]:
    """Return the query. A parameter that is given twice counts as absent (RFC 6749, 3.1)."""
    query = request.query
    return {name: query[name] for name in query if len(query.getall(name)) == 1}


def _redirect_uri(request: web.Request, name: str) -> str:
    """Return where an issuer of that name sends the browser back to. Raise `Forbidden` if the config does not say."""
    origin = base_url.ops_origin(request)
    if request.app[SETTINGS].value.ops_public_url is None and not is_loopback(urlsplit(origin).hostname or ""):
        raise Forbidden("Signing in at an issuer needs [ops] public_url, the address at which people open the console.")
    return f"{origin}{CALLBACK}/{name}"
