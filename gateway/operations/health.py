"""Readiness checks: the store works, and upstream accepts the account's token.

The result for upstream is cached, so the number of probes does not change the number of requests to upstream.
"""

import asyncio
from collections.abc import Callable, Mapping

import msgspec

from gateway.domain.ports.clock import Clock
from gateway.domain.ports.upstream import Upstream
from gateway.errors import GatewayError
from gateway.operations.ports import Ping

_UPSTREAM_TTL_SECONDS = 60.0
_AFTER_FAILURE_SECONDS = 5.0
_TIMEOUT_SECONDS = 5.0
_OK = "ok"


class Report(msgspec.Struct, frozen=True):
    """The result of a readiness probe."""

    ready: bool
    checks: Mapping[str, str]


class Health:
    """Runs readiness checks."""

    def __init__(self, store: Ping, upstream: Upstream, clock: Clock, token_is_refused: Callable[[], bool]) -> None:
        self._store = store
        self._upstream = upstream
        self._clock = clock
        self._token_is_refused = token_is_refused
        self._lock = asyncio.Lock()
        self._upstream_says = ""
        self._ask_again_at = 0.0
        self.draining = False

    async def report(self) -> Report:
        """Run all checks. Each result is `ok` or a description of the failure."""
        checks = {"store": await self._store_check(), "upstream": await self._upstream_check()}
        if self.draining:
            checks["gateway"] = "shutting down"
        return Report(all(result == _OK for result in checks.values()), checks)

    async def _store_check(self) -> str:
        try:
            await self._store.ping()
        except GatewayError as exc:
            return exc.detail
        return _OK

    async def _upstream_check(self) -> str:
        async with self._lock:
            now = self._clock.monotonic()
            stale = self._upstream_says == _OK and self._token_is_refused()
            if not self._upstream_says or now >= self._ask_again_at or stale:
                self._upstream_says = await self._ask()
                ttl = _UPSTREAM_TTL_SECONDS if self._upstream_says == _OK else _AFTER_FAILURE_SECONDS
                self._ask_again_at = now + ttl
            return self._upstream_says

    async def _ask(self) -> str:
        try:
            # Probes time out sooner than the upstream client does.
            async with asyncio.timeout(_TIMEOUT_SECONDS):
                answer = await self._upstream.read("account.get", "/account")
        except TimeoutError:
            return "Replicate did not answer in time."
        except GatewayError as exc:
            return exc.detail
        return _OK if answer.is_ok else f"GET /account answered {answer.status}"
