"""Keep the output store within its limits: make room for new objects, and delete objects that no run needs.

Every stored byte has a record at all times: an object is claimed before its bytes are written, and its record is
deleted after its bytes. A process that dies in between leaves a claim that expires, or an object that is marked for
deletion, and the next pass of `clean` finishes the work.
"""

import asyncio
import logging
from collections.abc import Callable

from gateway.domain.ports.clock import Clock
from gateway.domain.ports.observers import DeliveryObserver
from gateway.errors import GatewayError
from gateway.outputs.ports import Outputs, OutputStore, RemovalReason

logger = logging.getLogger(__name__)

CLAIM_SECONDS = 3600.0
"""How long a claim lasts: longer than the deadlines of a download and an upload together."""
_DELETION_CLAIM_SECONDS = 600.0
_STEP = 50
_PAUSE_BETWEEN_STEPS = 0.05


class OutputEviction:
    """Removes copies that are too old or exceed the size limit, and deletes objects that no run needs."""

    def __init__(
        self,
        records: Outputs,
        store: OutputStore,
        clock: Clock,
        observer: DeliveryObserver,
        *,
        max_bytes: int,
        ttl_seconds: float,
        on_gone: Callable[[], None],
        every_seconds: float = 60.0,
        is_leader: Callable[[], bool] = lambda: True,
    ) -> None:
        """Take `is_leader`: only then copies are looked for that are too old, or no longer needed."""
        self._is_leader = is_leader
        self._records = records
        self._store = store
        self._clock = clock
        self._observer = observer
        self._max_bytes = max_bytes
        self._ttl_seconds = ttl_seconds
        self._on_gone = on_gone
        self._every_seconds = every_seconds

    async def claim(self, sha256: str, size: int) -> bool:
        """Claim an object and make room for it. Return `False` if an object with the same bytes is being deleted."""
        now = self._clock.now()
        if not await self._records.claim_object(sha256, size, now, now + CLAIM_SECONDS):
            return False
        if await self._evict(now):
            await self._delete_marked()
        return True

    async def lost(self, sha256: str) -> None:
        """Remove an object whose bytes cannot be read. Predictions show upstream's links again."""
        if await self._records.drop_object(sha256):
            logger.error("stored output lost", extra={"sha256": sha256})
            self._count_removed("lost", 1)

    async def run(self) -> None:
        """Clean at once and then periodically, until cancelled. When the store fails, the next pass tries again."""
        while True:
            try:
                if self._is_leader():
                    await self.clean()
            except GatewayError as exc:
                logger.warning("output store cleanup failed", extra={"reason": exc.detail})
            await self._clock.sleep(self._every_seconds)

    async def clean(self) -> None:
        """Remove copies that are too old or exceed the size limit, and delete objects that no run needs."""
        now = self._clock.now()
        await self._expire(now)
        await self._evict(now)
        await self._delete_marked()
        held = await self._records.output_stats()
        self._observer.outputs_held(held.objects, held.bytes)

    async def _expire(self, now: float) -> None:
        dropped = _STEP
        while dropped == _STEP:
            dropped = await self._records.drop_old_copies(now - self._ttl_seconds, _STEP)
            self._count_removed("expired", dropped)
            await asyncio.sleep(_PAUSE_BETWEEN_STEPS)

    async def _evict(self, now: float) -> int:
        """Mark the least recently used objects for deletion until the rest fits; return how many were marked."""
        evicted = 0
        while marked := await self._records.evict_objects(self._max_bytes, now, _STEP):
            self._count_removed("evicted", marked)
            evicted += marked
        return evicted

    def _count_removed(self, reason: RemovalReason, count: int) -> None:
        if count:
            self._observer.outputs_gone(reason, count)
            self._on_gone()

    async def _delete_marked(self) -> None:
        now = self._clock.now()
        while marked := await self._records.claim_deletions(now, now + _DELETION_CLAIM_SECONDS, _STEP):
            for sha256 in marked:
                await self._store.delete(sha256)
                await self._records.delete_object_record(sha256)
            self._observer.outputs_deleted(len(marked))


async def remove_all_copies(records: Outputs) -> None:
    """Remove all copies from their runs. For a config without an output store, in which no copy can be served."""
    while await records.drop_old_copies(float("inf"), _STEP):
        pass
