"""The Replicate client: the only place that holds the account's token and the only one that sends it.

The token goes to the configured origin and nowhere else: redirects are not followed, and a URL is always the base plus
a path of ours. Reads are repeated where that is safe, creates never (docs/architecture.md, Invariants 8).
"""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial

import aiohttp
import msgspec
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type
from yarl import URL

from gateway import __version__
from gateway.domain import retry
from gateway.domain.ports.clock import Clock
from gateway.domain.ports.observers import UpstreamObserver
from gateway.domain.ports.tracing import NoTracer, Tracer
from gateway.domain.upstream_response import Answer, as_json, passable
from gateway.errors import (
    UpstreamBroken,
    UpstreamTimeout,
    UpstreamTokenRefused,
    UpstreamUnavailable,
    UpstreamUncertain,
)
from gateway.runtime.live import LiveSettings
from gateway.throttling.ports import CallLimiter
from gateway.upstream.breaker import Breaker

_JSON = {"Accept": "application/json", "Content-Type": "application/json"}


class UpstreamSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Where upstream is and how long it may take. Times in seconds, sizes in bytes."""

    base_url: str
    connect_seconds: float = 5.0
    read_seconds: float = 30.0
    """Longest silence, and longest whole answer of an API call."""
    transfer_seconds: float = 600.0
    """Longest whole upload or download."""
    max_connections: int = 200
    max_answer_bytes: int = 64 * 1024 * 1024
    breaker_threshold: int = 10
    breaker_seconds: float = 5.0


class UpstreamCredentials(msgspec.Struct, frozen=True):
    """The account's token."""

    token: str


class Download(msgspec.Struct):
    """An answer whose body is still to be read."""

    status: int
    headers: Mapping[str, str]
    chunks: AsyncIterator[bytes]


class ReplicateClient:
    """Sends requests to upstream with the account's token.

    Every method raises `UpstreamUnavailable` when nothing was sent, `RateLimited` when the account had no turn for it,
    `UpstreamTokenRefused` on a 401, and what its docstring adds. What upstream answers otherwise, errors too, is
    returned as it is; HTML pages become JSON.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        credentials: LiveSettings[UpstreamCredentials],
        settings: UpstreamSettings,
        clock: Clock,
        observer: UpstreamObserver,
        *,
        call_limiter: CallLimiter | None = None,
        tracer: Tracer | None = None,
    ) -> None:
        self._session = session
        self._pacer = call_limiter
        self._tracer = tracer or NoTracer()
        self._authorization: Mapping[str, str] = {}
        self._tokens: tuple[str, ...] = ()
        """The token, and the one before it: answers to what was sent with that may be under way."""
        self._use_token(credentials.value)
        credentials.subscribe(self._use_token)
        self._settings = settings
        self._clock = clock
        self._observer = observer
        self.breaker = Breaker(threshold=settings.breaker_threshold, open_seconds=settings.breaker_seconds)
        self.token_refused_at: float | None = None
        """When upstream last refused the token, until it takes it again."""

    def _use_token(self, credentials: UpstreamCredentials) -> None:
        token = credentials.token
        if not self._tokens or self._tokens[0] != token:
            self._authorization = {"Authorization": f"Bearer {token}"}
            self._tokens = (token, *self._tokens[:1])

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
        """Ask for something; repeat on throttling, edge pages and lost connections.

        Raise `UpstreamTimeout`, or `UpstreamBroken` when what came is no answer.
        """
        retries = AsyncRetrying(
            stop=_is_last,
            retry=retry_if_exception_type(_Retry),
            wait=_pause,
            before_sleep=lambda _: self._observer.upstream_retried(),
            sleep=self._clock.sleep,
            retry_error_callback=_last_word,
        )
        attempt = partial(self._attempt, operation, method, path, query, body, headers)
        answer: Answer = await retries(attempt)
        return answer

    async def _attempt(
        self,
        operation: str,
        method: str,
        path: str,
        query: str,
        body: bytes | None,
        headers: Mapping[str, str] | None,
    ) -> Answer:
        try:
            answer = await self._exchange(operation, method, path, query, body, headers or _JSON)
        except UpstreamUncertain as exc:
            raise _Retry(None, UpstreamTimeout("Replicate did not answer in time.")) from exc
        except UpstreamBroken as exc:
            raise _Retry(None, exc) from exc
        if retry.is_worth_retrying(answer):
            raise _Retry(answer, None)
        return answer

    async def send(
        self,
        operation: str,
        method: str,
        path: str,
        body: bytes | None = None,
        *,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Send something that changes upstream: once, whatever happens.

        Raise `UpstreamUncertain` when it may have been received and no answer came. An answer of 500 and above leaves
        that open too; what follows from it is the caller's to judge.
        """
        try:
            return await self._exchange(operation, method, path, "", body, {**_JSON, **(headers or {})})
        except UpstreamBroken as exc:
            raise UpstreamUncertain(f"{exc.detail} The request may have been carried out.") from exc

    async def upload(self, operation: str, path: str, body: AsyncIterator[bytes], content_type: str) -> Answer:
        """Send a body as it comes in. What `body` raises is raised here, with the upload abandoned."""
        failures: list[Exception] = []

        async def watched() -> AsyncIterator[bytes]:
            # aiohttp turns what a body raises into a lost connection; the caller must hear the reason.
            try:
                async for chunk in body:
                    yield chunk
            except Exception as exc:
                failures.append(exc)
                raise

        headers = {"Accept": "application/json", "Content-Type": content_type}
        return await self._exchange(
            operation, "POST", path, "", watched(), headers, total=self._settings.transfer_seconds, failures=failures
        )

    @asynccontextmanager
    async def download(self, operation: str, path: str, *, query: str = "") -> AsyncIterator[Download]:
        """Open an answer and read its body chunk by chunk within the context."""
        async with self._request(
            operation, "GET", path, query, None, {"Accept": "*/*"}, total=self._settings.transfer_seconds
        ) as response:
            headers = passable(response.headers)
            self._heard(operation, Answer(response.status, headers, b""))
            yield Download(response.status, headers, response.content.iter_any())

    async def _exchange(
        self,
        operation: str,
        method: str,
        path: str,
        query: str,
        body: bytes | AsyncIterator[bytes] | None,
        headers: Mapping[str, str],
        total: float | None = None,
        failures: Sequence[Exception] = (),
    ) -> Answer:
        request = self._request(operation, method, path, query, body, headers, total=total, failures=failures)
        async with request as response:
            answer = as_json(Answer(response.status, passable(response.headers), await self._body_of(response)))
        self._heard(operation, answer)
        if any(_holds(answer, token) for token in self._tokens):
            # Whoever echoes it (a debugging proxy, say), callers are not to see it.
            raise UpstreamBroken("Replicate's answer held the gateway's own credentials and was withheld.")
        return answer

    def _heard(self, operation: str, answer: Answer) -> None:
        if self._pacer is not None:
            self._pacer.observe_response(operation, answer)

    async def _body_of(self, response: aiohttp.ClientResponse) -> bytes:
        chunks, size = [], 0
        async for chunk in response.content.iter_any():
            size += len(chunk)
            if size > self._settings.max_answer_bytes:
                raise UpstreamBroken("Replicate's answer is larger than the gateway takes.")
            chunks.append(chunk)
        return b"".join(chunks)

    @asynccontextmanager
    async def _request(
        self,
        operation: str,
        method: str,
        path: str,
        query: str,
        body: bytes | AsyncIterator[bytes] | None,
        headers: Mapping[str, str],
        *,
        total: float | None = None,
        failures: Sequence[Exception] = (),
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send one request, and translate every failure until the body has been read.

        What is in `failures` by then has gone wrong with the caller's body: it is raised as it is, and not counted
        against upstream.
        """
        settings = self._settings
        if self._pacer is not None and not self._pacer.take(operation):
            await self._pacer.permit(operation)
        url = URL(f"{settings.base_url}{path}{'?' + query if query else ''}", encoded=True)
        timeout = aiohttp.ClientTimeout(
            total=total or settings.read_seconds,
            sock_connect=settings.connect_seconds,
            connect=settings.connect_seconds * 2,
            # While a long body goes up, silence is no sign of death: the total bounds it.
            sock_read=None if total else settings.read_seconds,
        )
        if (wait := self.breaker.refuses_for(self._clock.monotonic())) > 0:
            raise UpstreamUnavailable("Replicate does not answer at the moment.", retry_after=max(1, round(wait)))
        began, outcome = time.perf_counter(), "failed"
        call = self._tracer.call(operation, method)
        try:
            async with self._session.request(
                method,
                url,
                data=body,
                headers={**headers, **call.headers, **self._authorization},
                allow_redirects=False,
                timeout=timeout,
            ) as response:
                outcome = str(response.status)
                self._judge(response)
                yield response
        except (aiohttp.ConnectionTimeoutError, aiohttp.ClientConnectorError) as exc:
            outcome = "unreachable"
            self.breaker.failed(self._clock.monotonic())
            raise UpstreamUnavailable("Replicate could not be reached.", retry_after=1) from exc
        except TimeoutError as exc:
            outcome = "timeout"
            self.breaker.failed(self._clock.monotonic())
            raise UpstreamUncertain("Replicate did not answer in time; the request may have been carried out.") from exc
        except aiohttp.ClientError as exc:
            if failures:
                outcome = "abandoned"
                raise failures[0] from None
            outcome = "broken"
            self.breaker.failed(self._clock.monotonic())
            raise UpstreamBroken("The connection to Replicate was lost before its answer was complete.") from exc
        except asyncio.CancelledError:
            outcome = "abandoned"
            raise
        finally:
            call.ended(outcome)
            self._observer.upstream_answered(operation, outcome, time.perf_counter() - began)

    def _judge(self, response: aiohttp.ClientResponse) -> None:
        """Feed the breaker and the token's state; refuse what is no answer of the API."""
        if response.status >= 500:
            self.breaker.failed(self._clock.monotonic())
        else:
            self.breaker.succeeded()
        if response.status == 401:
            self.token_refused_at = self._clock.now()
            raise UpstreamTokenRefused("Replicate refused the gateway's own credentials. Please tell its operator.")
        self.token_refused_at = None
        if 300 <= response.status < 400 and response.status != 304:
            raise UpstreamBroken("Replicate answered with a redirect, which the gateway does not follow.")


class _Retry(Exception):
    """One attempt came to nothing: an answer worth repeating, or an error."""

    def __init__(self, answer: Answer | None, error: Exception | None) -> None:
        super().__init__()
        self.answer = answer
        self.error = error


def _holds(answer: Answer, token: str) -> bool:
    return token.encode() in answer.body or any(token in value for value in answer.headers.values())


def _failure(state: RetryCallState) -> _Retry:
    failure = state.outcome.exception() if state.outcome else None
    assert isinstance(failure, _Retry)
    return failure


def _pause_of(state: RetryCallState) -> float | None:
    # Jitter spreads callers; it needs no secrecy.
    return retry.pause(state.attempt_number, _failure(state).answer, random.random())  # noqa: S311


def _is_last(state: RetryCallState) -> bool:
    return _pause_of(state) is None


def _pause(state: RetryCallState) -> float:
    return _pause_of(state) or 0.0


def _last_word(state: RetryCallState) -> Answer:
    failure = _failure(state)
    if failure.answer is not None:
        return failure.answer
    assert failure.error is not None
    raise failure.error


def new_session(max_connections: int) -> aiohttp.ClientSession:
    """Open the connection pool. Nothing of the environment (proxies, netrc) and no cookie finds its way in.

    Idle connections are given up before upstream would close them, so that a create seldom meets a dying one.
    """
    connector = aiohttp.TCPConnector(limit=max_connections, keepalive_timeout=15, ttl_dns_cache=60)
    session = aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,
        headers={"User-Agent": f"replicate-gateway/{__version__}"},
    )
    # aiohttp would by itself send reads and deletes once more when a pooled connection is lost. What is repeated, and
    # how often, is decided here; aiohttp has no public word for it.
    session._retry_connection = False  # noqa: SLF001
    return session
