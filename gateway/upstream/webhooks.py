"""Sends webhook deliveries to callers' receivers: one attempt per call, with a timeout, to allowed addresses only.

A request carries no credentials and no cookies, and uses no proxy from the environment. Redirects are not followed. Of
the response only the status and `Retry-After` are used.
"""

import asyncio
import email.utils
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import aiohttp
import msgspec
from aiohttp.abc import AbstractResolver
from yarl import URL

from gateway import __version__
from gateway.domain import urls
from gateway.domain.ports.clock import Clock
from gateway.runtime.live import LiveSettings
from gateway.upstream.ssrf_guard import OwnThreads, guarded_connector, is_refusal
from gateway.webhooks.rules.deliveries import Receipt, Result

if TYPE_CHECKING:
    from gateway.webhooks.ports import WebhookTransport

# A response that is read to its end allows reuse of the connection. A longer response is not read to its end.
_MAX_RESPONSE_BYTES = 16 * 1024
_SUCCESSES = range(200, 300)


class TransportSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Allowed addresses, and timeouts in seconds."""

    allow_private: bool = False
    allow_http: bool = False
    max_connections: int = 64
    connect_seconds: float = 5.0
    total_seconds: float = 15.0
    """Receivers should respond within a few seconds (docs/replicate-api.md, Webhooks)."""
    answer_seconds: float = 1.0
    """Longest time to read a response after its status."""


class WebhookSender:
    """Sends webhook deliveries."""

    def __init__(
        self,
        settings: LiveSettings[TransportSettings],
        clock: Clock,
        *,
        resolver: AbstractResolver | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._resolver = resolver or OwnThreads()
        self._tls = tls
        self._allow_private = settings.value.allow_private
        self._session = self._opened(settings.value)
        self._in_use: Counter[aiohttp.ClientSession] = Counter()
        """Requests in progress, of sessions that have any."""

    def _opened(self, settings: TransportSettings) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=guarded_connector(
                allow_private=settings.allow_private,
                max_connections=settings.max_connections,
                resolver=self._resolver,
                tls=self._tls,
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            auto_decompress=False,
            timeout=aiohttp.ClientTimeout(total=settings.total_seconds, sock_connect=settings.connect_seconds),
            headers={"User-Agent": f"replicate-gateway/{__version__}"},
            skip_auto_headers=("Accept-Encoding",),
        )

    @asynccontextmanager
    async def _current_session(self) -> AsyncIterator[aiohttp.ClientSession]:
        settings, before = self._settings.value, self._session
        if settings.allow_private != self._allow_private:
            # Addresses are judged when a connection is made, so those that are open are not used again.
            self._allow_private = settings.allow_private
            self._session = self._opened(settings)
            await self._close_unused(before)
        session = self._session
        self._in_use[session] += 1
        try:
            yield session
        finally:
            self._in_use[session] -= 1
            await self._close_unused(session)

    async def _close_unused(self, session: aiohttp.ClientSession) -> None:
        """Forget a session without requests in progress. Close it if new requests use another one."""
        if not self._in_use[session]:
            del self._in_use[session]
            if session is not self._session:
                await session.close()

    async def send(self, url: str, headers: Mapping[str, str], body: bytes) -> Receipt:
        """Send a delivery, one attempt, and return its outcome. Does not raise for failures."""
        try:
            # Not normalised further: receivers may match the query exactly (docs/replicate-api.md, Webhooks).
            target = URL(urls.as_sent(url), encoded=True)
        except ValueError:
            return Receipt(Result.REFUSED, "not a URL")
        if target.scheme != "https" and not (target.scheme == "http" and self._settings.value.allow_http):
            return Receipt(Result.REFUSED, "only https is allowed")
        try:
            return await self._post(target, headers, body)
        except TimeoutError:
            return Receipt(Result.TIMEOUT, "no answer in time")
        except aiohttp.ClientError as exc:
            if is_refusal(exc):
                return Receipt(Result.REFUSED, "the address is not allowed")
            return Receipt(Result.UNREACHABLE, _reason(exc))
        except (OSError, ValueError) as exc:
            # For example a host name that cannot be encoded.
            return Receipt(Result.UNREACHABLE, type(exc).__name__)

    async def _post(self, url: URL, headers: Mapping[str, str], body: bytes) -> Receipt:
        content = {"Content-Type": "application/json"}
        async with (
            self._current_session() as session,
            session.post(url, data=body, headers={**content, **headers}, allow_redirects=False) as response,
        ):
            await self._drain(response)
            if response.status in _SUCCESSES:
                return Receipt(Result.DELIVERED)
            retry_after = _retry_after(response.headers.get("Retry-After"), self._clock.now())
            return Receipt(Result.ANSWERED, f"answered {response.status}", retry_after)

    async def _drain(self, response: aiohttp.ClientResponse) -> None:
        """Read the rest of a short response, so that its connection can be reused; else close the connection."""
        remaining = _MAX_RESPONSE_BYTES
        with suppress(aiohttp.ClientError, TimeoutError):
            async with asyncio.timeout(self._settings.value.answer_seconds):
                while remaining > 0 and (chunk := await response.content.read(remaining)):
                    remaining -= len(chunk)
        if not response.content.at_eof():
            response.close()

    async def close(self) -> None:
        """Close all connections."""
        for session in {*self._in_use, self._session}:
            await session.close()


def _reason(error: aiohttp.ClientError) -> str:
    """Describe an error, without text that the receiver controls."""
    match error:
        case aiohttp.ClientConnectorDNSError():
            return "the host has no address"
        case aiohttp.ClientSSLError():
            return "no trusted TLS connection"
        case aiohttp.ClientConnectorError():
            return "no connection"
        case aiohttp.ServerDisconnectedError() | aiohttp.ClientOSError():
            return "the connection was lost"
        case aiohttp.InvalidURL():
            return "not a URL"
    return "no HTTP answer"


def _retry_after(value: str | None, now: float) -> float | None:
    """Return the seconds that `Retry-After` names, given as seconds or as a date; `None` if it is absent or invalid."""
    if value is None:
        return None
    if value.isascii() and value.isdigit() and len(value) < 10:
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - now)
    except (ValueError, OverflowError):
        return None


if TYPE_CHECKING:
    _: type[WebhookTransport] = WebhookSender
