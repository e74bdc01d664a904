"""Server of the demo page: serves its files and mints browser tokens.

A model for any web site. The team's key stays on this server. The page gets a token that lives for minutes, works from
the page's origin only, and can run only the models that the page needs. A real site would authenticate the visitor
first and pass the visitor's id as `user`.
"""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp
import msgspec
from aiohttp import web

from gateway.demo import receiver
from gateway.demo.assets import INDEX, Asset
from gateway.demo.receiver import WebhookReceiver

TOKEN_SECONDS: Final = 600
PRELOAD: Final = {
    "text": {"prompt": "Write about three sleepy llamas", "max_tokens": 160, "seed": 41},
    "image": {"prompt": "A quiet lake under two moons", "seed": 41},
}
"""Inputs of the runs that are made at the start, so that the page begins with results."""
_MINT_SECONDS: Final = 10
_MOST_BYTES: Final = 64 * 1024
_MOST_OF_A_PAGE: Final = 1024
_GRACE_SECONDS: Final = 0.5
_JSON: Final = "application/json"


class _TokenRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of the page's token request."""

    team: str


class _MintedToken(msgspec.Struct, frozen=True):
    """The part of the gateway's response that is used."""

    token: str


class PageServer:
    """Serves the demo page on its own origin."""

    def __init__(
        self,
        *,
        assets: Mapping[str, Asset],
        page_origins: Collection[str],
        gateway_origin: str,
        image_origins: Collection[str],
        keys: Mapping[str, str],
        about: Mapping[str, Any],
    ) -> None:
        self._assets = assets
        self._page_origins = frozenset(page_origins)
        self._page_hosts = frozenset(urlsplit(origin).netloc for origin in page_origins)
        self._gateway_origin = gateway_origin
        self._keys = keys
        self._models = about["models"]
        self._teams = about["teams"]
        self._receiver = WebhookReceiver(gateway_origin, min(page_origins), about["models"]["text"])
        self._about = msgspec.json.encode(about)
        self._headers = {
            "Content-Security-Policy": _policy(gateway_origin, image_origins),
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Cross-Origin-Opener-Policy": "same-origin",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
            "Cache-Control": "no-store",
        }
        self._session: aiohttp.ClientSession | None = None

    @asynccontextmanager
    async def serving(self, listener: socket.socket) -> AsyncIterator[None]:
        """Serve on an open socket until the context exits."""
        app = web.Application(client_max_size=_MOST_BYTES, middlewares=[self._own_host_only])
        app.router.add_get("/", self._index)
        app.router.add_get("/demo.json", self._settings)
        app.router.add_get("/{name}", self._asset)
        app.router.add_post("/token", self._token)
        app.router.add_post("/webhook", self._webhook)
        app.router.add_get("/webhook/events", self._receiver.events)
        app.router.add_post(receiver.PATH, self._receiver.receive)
        app.on_response_prepare.append(self._add_headers)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=_GRACE_SECONDS)
        timeout = aiohttp.ClientTimeout(total=_MINT_SECONDS)
        async with aiohttp.ClientSession(timeout=timeout, cookie_jar=aiohttp.DummyCookieJar()) as self._session:
            await runner.setup()
            try:
                await web.SockSite(runner, listener).start()
                preloading = [asyncio.create_task(self._preload(kind)) for kind in PRELOAD]
                try:
                    yield
                finally:
                    for task in preloading:
                        task.cancel()
                    await asyncio.gather(*preloading, return_exceptions=True)
            finally:
                await runner.cleanup()

    async def _preload(self, kind: str) -> None:
        """Run a model as the first team, which the page offers first. The page then shows a hit or joins the run."""
        assert self._session is not None
        url = f"{self._gateway_origin}/v1/models/{self._models[kind]}/predictions"
        headers = {"Authorization": f"Bearer {self._keys[self._teams[0]]}"}
        # Without a result the page shows an empty box, as for every other problem of a model.
        with contextlib.suppress(TimeoutError, aiohttp.ClientError):
            async with self._session.post(url, json={"input": PRELOAD[kind]}, headers=headers):
                pass

    @web.middleware
    async def _own_host_only(self, request: web.Request, handler: Any) -> web.StreamResponse:
        # Prevents DNS rebinding: another host name must not become an origin of this server.
        if request.headers.get("Host") not in self._page_hosts:
            return web.Response(status=421, text="This server only accepts its own host names.\n")
        response: web.StreamResponse = await handler(request)
        return response

    async def _add_headers(self, _: web.Request, response: web.StreamResponse) -> None:
        response.headers.update(self._headers)

    async def _index(self, _: web.Request) -> web.Response:
        return _serve(self._assets[INDEX])

    async def _asset(self, request: web.Request) -> web.Response:
        asset = self._assets.get(request.match_info["name"])
        if asset is None:
            raise web.HTTPNotFound
        return _serve(asset)

    async def _settings(self, _: web.Request) -> web.Response:
        return web.Response(body=self._about, content_type=_JSON)

    async def _token(self, request: web.Request) -> web.Response:
        """Mint a browser token. Only for this page: browsers send `Origin` with every POST."""
        if request.headers.get("Origin") not in self._page_origins:
            return _refuse(403, "Tokens are issued to the page of this server only.")
        body = await request.read()
        if len(body) > _MOST_OF_A_PAGE:
            return _refuse(413, "The request is too large.")
        try:
            team = msgspec.json.decode(body, type=_TokenRequest).team
            key = self._keys[team]
        except (msgspec.MsgspecError, UnicodeDecodeError, KeyError):
            return _refuse(422, 'Expected the name of a team: {"team": "…"}')
        try:
            token = await self._mint(key, request.headers["Origin"])
        except (TimeoutError, aiohttp.ClientError, msgspec.MsgspecError):
            return _refuse(502, "The gateway did not issue a token.")
        return web.json_response({"token": token, "team": team, "ttl_seconds": TOKEN_SECONDS}, status=201)

    async def _webhook(self, request: web.Request) -> web.Response:
        """Create a prediction with a webhook, with the team's key: pages may not name receivers."""
        if request.headers.get("Origin") not in self._page_origins:
            return _refuse(403, "Only the page of this server may do this.")
        assert self._session is not None
        team = self._teams[0]
        try:
            prediction = await self._receiver.create(self._session, team, self._keys[team])
        except (TimeoutError, aiohttp.ClientError, msgspec.MsgspecError):
            return _refuse(502, "The gateway did not create the prediction.")
        return web.json_response({"prediction": prediction}, status=201)

    async def _mint(self, key: str, page_origin: str) -> str:
        assert self._session is not None
        body = {
            "ttl_seconds": TOKEN_SECONDS,
            "scopes": ["predict"],
            "models": list(self._models.values()),
            "origins": [page_origin],
            # The page gets a new token when one expires, and goes on with its predictions: both are this user's.
            "user": "visitor",
        }
        async with self._session.post(
            f"{self._gateway_origin}/gateway/tokens", json=body, headers={"Authorization": f"Bearer {key}"}
        ) as response:
            response.raise_for_status()
            return msgspec.json.decode(await response.read(), type=_MintedToken).token


def _policy(gateway_origin: str, image_origins: Collection[str]) -> str:
    """Return the Content-Security-Policy: own files, the gateway, and images. Nothing inline."""
    return "; ".join(
        (
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            f"connect-src 'self' {gateway_origin}",
            f"img-src 'self' {' '.join(image_origins)}",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",
        )
    )


def _serve(asset: Asset) -> web.Response:
    return web.Response(body=asset.body, content_type=asset.content_type, charset="utf-8")


def _refuse(status: int, detail: str) -> web.Response:
    return web.json_response({"detail": detail, "status": status}, status=status)
