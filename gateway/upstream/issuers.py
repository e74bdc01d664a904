"""Asks issuers for their keys, and for who signed in: with deadlines and bounds, at allowed addresses only.

The operator names an issuer; the issuer names the addresses of its keys and endpoints. So every address passes the SSRF
guard, and redirects are not followed. Only the token endpoint gets a credential: the one for this issuer.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Self

import aiohttp
import msgspec
from aiohttp.abc import AbstractResolver
from yarl import URL

from gateway import __version__
from gateway.access.ports import KeysUnread
from gateway.access.rules import discovery
from gateway.access.rules.issuers import KeyLocation
from gateway.access.rules.sign_in import CodeExchange
from gateway.domain import urls
from gateway.upstream.ssrf_guard import OwnThreads, guarded_connector, is_refusal

if TYPE_CHECKING:
    from gateway.access.ports import KeySource, SignInSource


class IssuerClientSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Deadlines in seconds, and the number of connections."""

    total_seconds: float = 5.0
    """For all that one call asks for."""
    connect_seconds: float = 3.0
    max_connections: int = 8


class IssuerClient:
    """Asks issuers. Use as an async context manager."""

    def __init__(
        self,
        settings: IssuerClientSettings,
        *,
        resolver: AbstractResolver | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._settings = settings
        self._resolver = resolver
        self._tls = tls
        self._sessions: dict[bool, aiohttp.ClientSession] = {}
        """By whether private addresses are allowed."""
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        for allow_private in (False, True):
            session = self._opened(allow_private=allow_private)
            self._sessions[allow_private] = await self._stack.enter_async_context(session)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._stack.aclose()

    def _opened(self, *, allow_private: bool) -> aiohttp.ClientSession:
        settings = self._settings
        return aiohttp.ClientSession(
            connector=guarded_connector(
                allow_private=allow_private,
                max_connections=settings.max_connections,
                resolver=self._resolver or OwnThreads(),
                tls=self._tls,
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            auto_decompress=False,
            timeout=aiohttp.ClientTimeout(total=settings.total_seconds, sock_connect=settings.connect_seconds),
            headers={
                "User-Agent": f"replicate-gateway/{__version__}",
                "Accept": "application/json",
                "Accept-Encoding": "identity",
            },
        )

    async def read(self, where: KeyLocation) -> bytes:
        """Return an issuer's JWKS. Raise `KeysUnread`, within seconds, for any failure."""
        async with self._deadline():
            url = where.jwks_url
            if url is None:
                url = _jwks_url(await self._get(discovery.url_of(where.issuer), where), where.issuer)
            return await self._get(url, where)

    async def configuration(self, where: KeyLocation) -> bytes:
        """Return an issuer's OpenID configuration. Raise `KeysUnread`, within seconds, for any failure."""
        async with self._deadline():
            return await self._get(discovery.url_of(where.issuer), where)

    async def redeem(self, where: KeyLocation, url: str, request: CodeExchange) -> tuple[int, bytes]:
        """Send a request to an issuer's token endpoint. Return status and body, or raise `KeysUnread`."""
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        if request.authorization is not None:
            headers["Authorization"] = request.authorization
        async with (
            self._deadline(),
            self._session(where).post(
                URL(urls.as_sent(url), encoded=True), data=request.body, headers=headers, allow_redirects=False
            ) as response,
        ):
            return response.status, await _body(response, where)

    @asynccontextmanager
    async def _deadline(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._settings.total_seconds):
                yield
        except TimeoutError as exc:
            raise KeysUnread("timeout", "no answer in time") from exc
        except aiohttp.ClientError as exc:
            if is_refusal(exc):
                raise KeysUnread("refused", "its address is private (allow_private_addresses)") from exc
            raise KeysUnread("unreachable", f"no connection, or it was lost ({type(exc).__name__})") from exc
        except (OSError, ValueError) as exc:
            raise KeysUnread("unreachable", f"no connection ({type(exc).__name__})") from exc

    def _session(self, where: KeyLocation) -> aiohttp.ClientSession:
        return self._sessions[where.allow_private_addresses]

    async def _get(self, url: str, where: KeyLocation) -> bytes:
        sent = URL(urls.as_sent(url), encoded=True)
        async with self._session(where).get(sent, allow_redirects=False) as response:
            if response.status != 200:
                raise KeysUnread("status", f"it responded with {response.status}")
            return await _body(response, where)


async def _body(response: aiohttp.ClientResponse, where: KeyLocation) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > where.max_bytes:
            response.close()
            raise KeysUnread("too_large", f"it sends more than {where.max_bytes} bytes (jwks_max_bytes)")
    return bytes(body)


def _jwks_url(document: bytes, issuer: str) -> str:
    try:
        return discovery.jwks_url_in(document, issuer)
    except ValueError as exc:
        raise KeysUnread("invalid", "its OpenID configuration is not valid for this issuer") from exc


if TYPE_CHECKING:
    _: type[KeySource] = IssuerClient
    _s: type[SignInSource] = IssuerClient
