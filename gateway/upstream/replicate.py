"""The client of Replicate's API. It is the only module that holds and sends the account's token.

The token is sent to the configured origin only: redirects are not followed, and each URL is the base URL plus a path
that the gateway builds. Reads are retried where that is safe, creates never (docs/architecture.md, Invariants 8).
"""

import asyncio
import io
import math
import random
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial

import aiohttp
import msgspec
from yarl import URL

from gateway.domain.ports.clock import Clock
from gateway.domain.ports.observers import UpstreamObserver
from gateway.domain.ports.tracing import Call, NoTracer, Tracer
from gateway.domain.upstream_response import Answer, as_json, passable
from gateway.errors import (
    UpstreamBroken,
    UpstreamTimeout,
    UpstreamTokenRefused,
    UpstreamUnavailable,
    UpstreamUncertain,
    UpstreamUnreadable,
)
from gateway.runtime.live import LiveSettings
from gateway.throttling.upstream_limiter import UpstreamLimiter
from gateway.upstream import retry
from gateway.upstream.breaker import Breaker, BreakerState
from gateway.upstream.pools import ConnectionPool, Pool
from gateway.upstream.response_body import WITHHELD, BodyReader, without
from gateway.upstream.send_guard import NotPermitted
from gateway.upstream.sent_request import SentRequest

_WHOLE_BODY = 256 * 1024
"""A larger body is written in pieces, between which others are served."""
_LONGEST_UPLOAD_SECONDS = 24 * 3600.0
_JSON = {"Accept": "application/json", "Content-Type": "application/json"}
_MAY_NOT_SEND = "This node of the gateway may not send it at the moment. Nothing was sent."


class UpstreamSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Base URL, timeouts and limits. Times in seconds, sizes in bytes."""

    base_url: str
    connect_seconds: float = 5.0
    read_seconds: float = 30.0
    """Longest time without data, and longest duration, of an API call."""
    transfer_seconds: float = 600.0
    """Longest time without data of an upload, and longest duration of a download."""
    idle_seconds: float = 30.0
    """Longest time without data from upstream during a download."""
    max_connections: int = 200
    max_answer_bytes: int = 64 * 1024 * 1024
    breaker_threshold: int = 10
    breaker_seconds: float = 5.0


class UpstreamCredentials(msgspec.Struct, frozen=True):
    """The account's token."""

    token: str


class Download(msgspec.Struct):
    """A response whose body is read from `chunks`."""

    status: int
    headers: Mapping[str, str]
    chunks: AsyncIterator[bytes]


class ReplicateClient:
    """Sends requests to upstream with the account's token.

    Every method raises `UpstreamUnavailable` if nothing was sent, `RateLimited` if the account's rate limit left no
    room in time, `UpstreamTokenRefused` on a 401, and the errors that its docstring adds. Any other response of
    upstream, errors included, is returned unchanged, except that HTML pages become JSON.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        credentials: LiveSettings[UpstreamCredentials],
        settings: UpstreamSettings,
        clock: Clock,
        observer: UpstreamObserver,
        *,
        call_limiter: UpstreamLimiter | None = None,
        tracer: Tracer | None = None,
        uploads: ConnectionPool | None = None,
        downloads: ConnectionPool | None = None,
    ) -> None:
        self.pool = ConnectionPool(Pool.API, session, settings.max_connections, observer)
        self._uploads = uploads or self.pool
        self._bodies = BodyReader(settings.max_answer_bytes)
        self._downloads = downloads or self.pool
        self._call_limiter = call_limiter
        self._tracer = tracer or NoTracer()
        self._authorization: Mapping[str, str] = {}
        self._token_bytes: tuple[bytes, ...] = ()
        self._tokens: tuple[str, ...] = ()
        """The token and the previous one: answers to requests that were sent with the previous one may still arrive."""
        self._use_token(credentials.value)
        credentials.subscribe(self._use_token)
        self._settings = settings
        # Silence cannot last longer than the whole, so it needs no timer of its own.
        self._timeout = self._timeout_of(settings.read_seconds, None)
        self._clock = clock
        self._observer = observer
        self.breaker = Breaker(threshold=settings.breaker_threshold, open_seconds=settings.breaker_seconds)
        self.token_refused_at: float | None = None
        """When upstream last refused the token, until it takes it again."""

    @property
    def pools(self) -> tuple[ConnectionPool, ...]:
        """Its connections, by kind of call."""
        return (self.pool, self._uploads, self._downloads)

    @property
    def is_failing(self) -> bool:
        """Whether upstream is known to refuse the token, or not to respond."""
        return (
            self.token_refused_at is not None or self.breaker.state(self._clock.monotonic()) is not BreakerState.CLOSED
        )

    def _use_token(self, credentials: UpstreamCredentials) -> None:
        token = credentials.token
        if not self._tokens or self._tokens[0] != token:
            self._authorization = {"Authorization": f"Bearer {token}"}
            self._tokens = (token, *self._tokens[:1])
            self._token_bytes = tuple(each.encode() for each in self._tokens)

    async def read(
        self,
        operation: str,
        path: str,
        *,
        method: str = "GET",
        query: str = "",
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Send a read; retry on throttling, HTML error pages and lost connections.

        Raise `UpstreamTimeout`, or `UpstreamBroken` for an invalid response. If the last attempt got an error response,
        return that. May be cancelled.
        """
        attempt = 0
        while True:
            attempt += 1
            answer: Answer | None = None
            error: UpstreamTimeout | UpstreamBroken | None = None
            try:
                answer = await self._exchange(operation, method, path, query, body, headers or _JSON)
                if not retry.is_worth_retrying(answer):
                    return answer
            except UpstreamUncertain as exc:
                error = UpstreamTimeout("Replicate did not respond in time.")
                error.__cause__ = exc
            except UpstreamUnreadable:
                raise
            except UpstreamBroken as exc:
                error = exc
            # Jitter is not security-relevant.
            pause = retry.pause(attempt, answer, random.random())  # noqa: S311
            if pause is None:
                if answer is not None:
                    return answer
                assert error is not None
                raise error
            self._observer.upstream_retried()
            await self._clock.sleep(pause)

    async def send(
        self,
        operation: str,
        method: str,
        path: str,
        body: bytes | None = None,
        *,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Send a write, exactly one attempt.

        Raise `UpstreamUncertain` if upstream may have received it and no valid response came. With a response of 500
        and above the write may have been carried out too; the caller has to decide what to do.
        """
        try:
            return await self._exchange(operation, method, path, "", body, {**_JSON, **(headers or {})})
        except UpstreamBroken as exc:
            raise UpstreamUncertain(f"{exc.detail} The request may have been carried out.") from exc

    async def upload(self, operation: str, path: str, body: AsyncIterator[bytes], content_type: str) -> Answer:
        """Stream `body` to upstream, one attempt. If `body` raises, the upload is aborted and its error raised here.

        `transfer_seconds` bounds the time without data from upstream, not the total time: callers may upload slowly.
        """
        failures: list[Exception] = []
        loop, idle = asyncio.get_running_loop(), self._settings.transfer_seconds

        async def recorded() -> AsyncIterator[bytes]:
            # aiohttp reports an exception of the body as a lost connection; keep the original.
            try:
                async for chunk in body:
                    deadline.reschedule(loop.time() + idle)
                    yield chunk
            except Exception as exc:
                failures.append(exc)
                raise

        headers = {"Accept": "application/json", "Content-Type": content_type}
        request = self._exchange(
            operation,
            "POST",
            path,
            "",
            recorded(),
            headers,
            pool=self._uploads,
            # Upstream sends nothing during a long upload, so only the total is limited.
            timeout=self._timeout_of(_LONGEST_UPLOAD_SECONDS, None),
            failures=failures,
        )
        try:
            async with asyncio.timeout(idle) as deadline:
                return await request
        except TimeoutError as exc:
            self.breaker.failed(self._clock.monotonic())
            raise UpstreamUncertain("Replicate did not accept or answer the upload in time.") from exc

    @asynccontextmanager
    async def download(self, operation: str, path: str, *, query: str = "") -> AsyncIterator[Download]:
        """Open a response whose body is read within the context.

        Raise `UpstreamUncertain` or `UpstreamBroken`, also while the chunks are read.
        """
        if self._call_limiter is not None and not self._call_limiter.take(operation):
            await self._call_limiter.permit(operation)
        timeout = self._timeout_of(self._settings.transfer_seconds, self._settings.idle_seconds)
        async with self._downloads.connection(self._settings.connect_seconds * 2):
            with self._started(operation, "GET") as sent:
                call = self._send(self._downloads, "GET", path, query, None, {"Accept": "*/*"}, sent.call, timeout)
                async with await call as response:
                    sent.outcome = str(response.status)
                    self._check_response(response)
                    headers = passable(response.headers)
                    if self._call_limiter is not None:
                        self._call_limiter.observe_response(operation, Answer(response.status, headers, b""))
                    if _contains(headers, self._tokens):
                        raise UpstreamUnreadable(WITHHELD)
                    yield Download(response.status, headers, without(response.content.iter_any(), self._token_bytes))

    async def _exchange(
        self,
        operation: str,
        method: str,
        path: str,
        query: str,
        body: bytes | AsyncIterator[bytes] | None,
        headers: Mapping[str, str],
        pool: ConnectionPool | None = None,
        timeout: aiohttp.ClientTimeout | None = None,
        failures: Sequence[Exception] = (),
    ) -> Answer:
        """Send one request, and read the response.

        If `failures` is not empty when the connection fails, the caller's body failed: its error is raised unchanged,
        and not counted as a failure of upstream. One coroutine for all of it: every poll comes here.
        """
        limiter, pool = self._call_limiter, pool or self.pool
        if limiter is not None and not limiter.take(operation):
            await limiter.permit(operation)
        await pool.take(self._settings.connect_seconds * 2)
        try:
            with self._started(operation, method, failures) as sent:
                call = self._send(pool, method, path, query, body, headers, sent.call, timeout or self._timeout)
                async with await call as response:
                    sent.outcome = str(response.status)
                    self._check_response(response)
                    content, has_token = await self._bodies.read(response, self._token_bytes)
        finally:
            pool.give_back()
        answer = as_json(Answer(response.status, passable(response.headers), content))
        if limiter is not None:
            limiter.observe_response(operation, answer)
        if has_token or _contains(answer.headers, self._tokens):
            # A debugging proxy, for example, may echo the request. Callers must not see the token.
            raise UpstreamUnreadable(WITHHELD)
        return answer

    def _started(self, operation: str, method: str, failures: Sequence[Exception] = ()) -> SentRequest:
        """Return the context of a request that is about to be sent. Raise `UpstreamUnavailable` if none may be sent."""
        if (wait := self.breaker.refuses_for(self._clock.monotonic())) > 0:
            raise UpstreamUnavailable("Replicate is not responding at the moment.", retry_after=max(1, round(wait)))
        failed = partial(self._failed, failures)
        return SentRequest(operation, self._tracer.call(operation, method), self._observer, failed)

    def _send(
        self,
        pool: ConnectionPool,
        method: str,
        path: str,
        query: str,
        body: bytes | AsyncIterator[bytes] | None,
        headers: Mapping[str, str],
        call: Call,
        timeout: aiohttp.ClientTimeout,
    ) -> Awaitable[aiohttp.ClientResponse]:
        return pool.session.request(
            method,
            URL(f"{self._settings.base_url}{path}{'?' + query if query else ''}", encoded=True),
            data=io.BytesIO(body) if isinstance(body, bytes) and len(body) > _WHOLE_BODY else body,
            headers={**headers, **call.headers, **self._authorization},
            allow_redirects=False,
            timeout=timeout,
        )

    def _timeout_of(self, total: float, idle: float | None) -> aiohttp.ClientTimeout:
        return aiohttp.ClientTimeout(
            total=total,
            sock_connect=self._settings.connect_seconds,
            connect=self._settings.connect_seconds * 2,
            sock_read=idle,
            # aiohttp rounds long times up to whole seconds.
            ceil_threshold=math.inf,
        )

    def _failed(self, failures: Sequence[Exception], exc: Exception) -> tuple[str, Exception]:
        """Return what became of a request, and the error to raise. Count the failure of upstream."""
        is_unreachable = isinstance(exc, (aiohttp.ConnectionTimeoutError, aiohttp.ClientConnectorError))
        if isinstance(exc, NotPermitted):
            return "withheld", UpstreamUnavailable(_MAY_NOT_SEND, retry_after=1)
        if failures and not is_unreachable and not isinstance(exc, TimeoutError):
            return "abandoned", failures[0]
        self.breaker.failed(self._clock.monotonic())
        if is_unreachable:
            return "unreachable", UpstreamUnavailable("Replicate could not be reached.", retry_after=1)
        if isinstance(exc, TimeoutError):
            text = "Replicate did not respond in time; the request may have been carried out."
            return "timeout", UpstreamUncertain(text)
        return "broken", UpstreamBroken("The connection to Replicate was lost before its response was complete.")

    def _check_response(self, response: aiohttp.ClientResponse) -> None:
        """Update the breaker and the token's state. Raise `UpstreamTokenRefused`, or `UpstreamUnreadable`."""
        if response.status >= 500:
            self.breaker.failed(self._clock.monotonic())
        else:
            self.breaker.succeeded()
        if response.status == 401:
            self.token_refused_at = self._clock.now()
            raise UpstreamTokenRefused("Replicate refused the gateway's own token. Contact the gateway's operator.")
        self.token_refused_at = None
        if 300 <= response.status < 400 and response.status != 304:
            # Not worth a retry: the next response will be the same.
            raise UpstreamUnreadable("Replicate responded with a redirect, which the gateway does not follow.")


def _contains(headers: Mapping[str, str], tokens: tuple[str, ...]) -> bool:
    """Return whether one of the tokens is in a header of an answer."""
    for token in tokens:
        for value in headers.values():
            if token in value:
                return True
    return False
