"""Delete data and records that are past their retention (docs/architecture.md, Retention).

Works in small steps, so that it delays no request.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial

from gateway.domain import documents
from gateway.domain.ports.audit import AuditLog
from gateway.domain.ports.clock import Clock
from gateway.domain.ports.observers import PredictionObserver
from gateway.domain.ports.records import Files, Keys
from gateway.domain.records import Run
from gateway.errors import GatewayError
from gateway.operations.settings import RetentionSettings
from gateway.outputs.rules.outputs import FETCH_SECONDS
from gateway.predictions.ports.sharing import CreateStore
from gateway.runtime.live import LiveSettings

logger = logging.getLogger(__name__)

_STEP = 50
_CLEARED_STEP = 10
"""Runs that are read at a time to remove their data: each has a document."""
_PAUSE_BETWEEN_STEPS = 0.05
_DAY = 86_400.0


class Janitor:
    """Evicts cache entries, removes the data of ended runs, and deletes what is old, once a minute."""

    def __init__(
        self,
        predictions: CreateStore,
        files: Files,
        audit: AuditLog,
        keys: Keys,
        clock: Clock,
        settings: LiveSettings[RetentionSettings],
        *,
        on_cleared: Callable[[], None],
        observer: PredictionObserver | None = None,
        every_seconds: float = 60.0,
        is_leader: Callable[[], bool] = lambda: True,
        forget_sessions: Callable[[int], Awaitable[int]] | None = None,
    ) -> None:
        """Take `is_leader`: of several nodes, only that one cleans. `forget_sessions` deletes their own old records."""
        self._forget_sessions = forget_sessions
        self._is_leader = is_leader
        self._predictions = predictions
        self._files = files
        self._audit = audit
        self._keys = keys
        self._clock = clock
        self._settings = settings
        self._on_cleared = on_cleared
        self._observer = observer
        self._every_seconds = every_seconds

    async def run(self) -> None:
        """Clean periodically until cancelled. When the store fails, the next pass tries again."""
        while True:
            await self._clock.sleep(self._every_seconds)
            try:
                if self._is_leader():
                    await self.clean()
            except GatewayError as exc:
                logger.warning("janitor interrupted", extra={"reason": exc.detail})

    async def clean(self) -> None:
        """Delete everything that is due."""
        now = self._clock.now()
        await self._evict(now)
        await self._clear_data(now)
        await _in_steps(partial(self._predictions.delete_records, now - self._settings.value.retain_days * _DAY))
        await _in_steps(partial(self._files.delete_expired_files, now))
        await _in_steps(partial(self._predictions.delete_expired_idempotency, now))
        if self._forget_sessions is not None:
            await _in_steps(self._forget_sessions)
        # As long as the audit log names them.
        await _in_steps(partial(self._keys.delete_old_keys, now - self._settings.value.audit_days * _DAY))
        await _in_steps(partial(self._audit.delete_old_audit_entries, now - self._settings.value.audit_days * _DAY))

    async def _evict(self, now: float) -> None:
        evicted = await _in_steps(partial(self._predictions.evict_cache, self._settings.value.max_cache_bytes, now))
        if self._observer is not None:
            self._observer.cache_evicted(evicted)
            kept = await self._predictions.cache_stats(now)
            self._observer.cache_kept(kept.entries, kept.bytes)

    async def _clear_data(self, now: float) -> None:
        before = now - self._settings.value.retain_data_seconds
        # A caller that hit the result at the last moment needs time to read it.
        while runs := await self._predictions.runs_to_clear(before, now - FETCH_SECONDS, _CLEARED_STEP):
            for run in runs:
                await self._predictions.clear_data(run.id, _cleared(run))
            self._on_cleared()
            await asyncio.sleep(_PAUSE_BETWEEN_STEPS)


def _cleared(run: Run) -> bytes:
    try:
        return documents.without_data(run.document)
    except ValueError:
        # The document is damaged. Remove all of it, and keep only that there was a run.
        logger.exception("unreadable document removed entirely", extra={"run": run.id})
        return documents.skeleton(run.upstream_id or "", run.status)


async def _in_steps(delete: Callable[[int], Awaitable[int]]) -> int:
    deleted, total = _STEP, 0
    while deleted == _STEP:
        deleted = await delete(_STEP)
        total += deleted
        await asyncio.sleep(_PAUSE_BETWEEN_STEPS)
    return total
