"""Whether the gateway can do its work: the store answers, and upstream takes the account's token.

Upstream is asked rarely, however often a prober asks us.
"""

import asyncio
from collections.abc import Callable, Mapping

import msgspec

from gateway.domain.ports.clock import Clock
from gateway.domain.ports.upstream import Upstream
from gateway.errors import GatewayError
from gateway.operations.ports import Ping

_UPSTREAM_TTL_SECONDS = 60.0
_AFTER_TROUBLE_SECONDS = 5.0
_PATIENCE_SECONDS = 5.0
_OK = "ok"


class Report(msgspec.Struct, frozen=True):
    """What a readiness probe says."""

    ready: bool
    checks: Mapping[str, str]


class Health:
    """Answers readiness probes."""

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
        """Check what readiness needs."""
        checks = {"store": await self._store_says(), "upstream": await self._upstream_check()}
        if self.draining:
            checks["gateway"] = "shutting down"
        return Report(all(says == _OK for says in checks.values()), checks)

    async def _store_says(self) -> str:
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
                lasts = _UPSTREAM_TTL_SECONDS if self._upstream_says == _OK else _AFTER_TROUBLE_SECONDS
                self._ask_again_at = now + lasts
            return self._upstream_says

    async def _ask(self) -> str:
        try:
            # A prober has little patience; upstream's deadlines are for callers.
            async with asyncio.timeout(_PATIENCE_SECONDS):
                answer = await self._upstream.read("account.get", "/account")
        except TimeoutError:
            return "Replicate does not answer in time."
        except GatewayError as exc:
            return exc.detail
        return _OK if answer.is_ok else f"GET /account answered {answer.status}"
