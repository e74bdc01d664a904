"""Whether this process can serve, and what else is wrong.

A probe fails only for causes of this process: it shuts down, or its store cannot be read or written. What all processes
share, such as Replicate, its token or a database of several processes, makes it *degraded*: to take every process out
of the load balancer would only turn a part of the errors into all of them.

Replicate is asked at most once a minute, however often a prober asks.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping

import msgspec

from gateway.domain.ports.clock import Clock
from gateway.domain.ports.upstream import Upstream
from gateway.errors import GatewayError, StoreTaken
from gateway.operations.ports import Ping

logger = logging.getLogger(__name__)

_UPSTREAM_TTL_SECONDS = 60.0
_AFTER_FAILURE_SECONDS = 5.0
_TIMEOUT_SECONDS = 5.0
_WATCH_SECONDS = 10.0
OK = "ok"
"""The result of a check that did not fail."""


class Report(msgspec.Struct, frozen=True):
    """The answer to a readiness probe."""

    ready: bool
    """Whether this process can serve."""
    degraded: bool
    """Whether a check failed although this process can serve."""
    checks: Mapping[str, str]

    @property
    def status(self) -> str:
        """The state in a word or two."""
        return "not ready" if not self.ready else "degraded" if self.degraded else "ready"


class Health:
    """Runs readiness checks."""

    def __init__(
        self,
        store: Ping,
        upstream: Upstream,
        clock: Clock,
        is_failing: Callable[[], bool],
        calls_wait: Callable[[], bool] = lambda: False,
        is_shut_out: Callable[[], bool] = lambda: False,
    ) -> None:
        """Take `is_failing`, whether calls upstream are known to fail, and `calls_wait`: for a connection.

        `is_shut_out` says whether the process has lost its lease as one of the nodes that serve from its store.
        """
        self._is_shut_out = is_shut_out
        self._store = store
        self._upstream = upstream
        self._clock = clock
        self._is_failing = is_failing
        self._calls_wait = calls_wait
        self._lock = asyncio.Lock()
        self._upstream_result = ""
        self._ask_again_at = 0.0
        self._store_result = OK
        self._is_taken = False
        self.draining = False

    async def report(self) -> Report:
        """Check what readiness needs."""
        await self._check_store()
        await self._check_upstream()
        checks = self.known()
        return Report(self.is_ready, any(result != OK for result in checks.values()), checks)

    def known(self) -> Mapping[str, str]:
        """Return the results of the last checks, without asking anybody."""
        store = self._store_result
        checks = {"store": store, "upstream": self._upstream_result or OK}
        if self._calls_wait():
            checks["connections"] = "All connections to Replicate are in use."
        if self._is_shut_out():
            checks["node"] = "The lease of this node is lost. Others have taken over its runs; it joins again."
        if self.draining:
            checks["gateway"] = "shutting down"
        elif store == OK and (failure := self._store.recent_failure) is not None:
            checks["store"] = f"{failure} Other operations succeed."
        return checks

    @property
    def is_ready(self) -> bool:
        """Whether this process could serve at the last check, but for what all processes share."""
        is_own_cause = self._store_result != OK and (self._is_taken or not self._store.is_shared)
        return not self.draining and not is_own_cause and not self._is_shut_out()

    def degraded(self) -> Mapping[str, float]:
        """Return 1 for each cause of degradation, as known without asking anybody."""
        upstream = self._is_failing() or self._upstream_result not in ("", OK)
        return {
            "upstream": float(upstream),
            "store": float(self._store.recent_failure is not None),
            "database": float(self._store.is_shared and self._store_result != OK),
            "connections": float(self._calls_wait()),
        }

    async def watch(self) -> None:
        """Check the store until cancelled, so that metrics and log show a failure even if nothing probes."""
        while True:
            await self._clock.sleep(_WATCH_SECONDS)
            await self._check_store()

    async def _check_store(self) -> str:
        before, result = self._store_result, OK
        try:
            await self._store.ping()
        except GatewayError as exc:
            result, self._is_taken = exc.detail, isinstance(exc, StoreTaken)
        self._store_result = result
        if (before == OK) != (result == OK):
            if result == OK:
                logger.warning("the store works again")
            else:
                logger.warning("the store cannot be used", extra={"reason": result})
        return result

    async def _check_upstream(self) -> str:
        async with self._lock:
            now = self._clock.monotonic()
            stale = self._upstream_result == OK and self._is_failing()
            if not self._upstream_result or now >= self._ask_again_at or stale:
                self._upstream_result = await self._ask()
                ttl = _UPSTREAM_TTL_SECONDS if self._upstream_result == OK else _AFTER_FAILURE_SECONDS
                self._ask_again_at = now + ttl
            return self._upstream_result

    async def _ask(self) -> str:
        try:
            # Probes time out sooner than the upstream client does.
            async with asyncio.timeout(_TIMEOUT_SECONDS):
                answer = await self._upstream.read("account.get", "/account")
        except TimeoutError:
            return "Replicate did not answer in time."
        except GatewayError as exc:
            return exc.detail
        return OK if answer.is_ok else f"GET /account answered {answer.status}"
