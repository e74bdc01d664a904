"""Reads the keys of issuers: with deadlines and bounds, from allowed addresses only, without credentials.

The operator names an issuer; the issuer names the address of its keys. So every address passes the SSRF guard, and
redirects are not followed.
"""

import asyncio
import ssl
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Self

import aiohttp
import msgspec
from aiohttp.abc import AbstractResolver
from yarl import URL

from gateway import __version__
from gateway.access.ports import KeysUnread
from gateway.access.rules import discovery
from gateway.access.rules.issuers import KeyLocation
from gateway.domain import urls
from gateway.upstream.ssrf_guard import OwnThreads, guarded_connector, is_refusal

if TYPE_CHECKING:
    from gateway.access.ports import KeySource


class KeyReaderSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Deadlines in seconds, and the number of connections."""

    total_seconds: float = 5.0
    """For both documents together."""
    connect_seconds: float = 3.0
    max_connections: int = 8


class KeyReader:
    """Reads the JWKS of issuers. Use as an async context manager."""

    def __init__(
        self,
        settings: KeyReaderSettings,
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
        try:
            async with asyncio.timeout(self._settings.total_seconds):
                url = where.jwks_url
                if url is None:
                    document = await self._get(discovery.url_of(where.issuer), where)
                    url = _jwks_url(document, where.issuer)
                return await self._get(url, where)
        except TimeoutError as exc:
            raise KeysUnread("timeout", "no answer in time") from exc
        except aiohttp.ClientError as exc:
            if is_refusal(exc):
                raise KeysUnread("refused", "its address is private (allow_private_addresses)") from exc
            raise KeysUnread("unreachable", f"no connection, or it was lost ({type(exc).__name__})") from exc
        except (OSError, ValueError) as exc:
            raise KeysUnread("unreachable", f"no connection ({type(exc).__name__})") from exc

    async def _get(self, url: str, where: KeyLocation) -> bytes:
        session = self._sessions[where.allow_private_addresses]
        async with session.get(URL(urls.as_sent(url), encoded=True), allow_redirects=False) as response:
            if response.status != 200:
                raise KeysUnread("status", f"it responded with {response.status}")
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
    _: type[KeySource] = KeyReader
