"""Room in the output store: it is made before bytes come in, and what nobody needs any more is deleted.

Records come first on the way in and last on the way out, so that no byte is without one: an object is claimed before it
is written, and forgotten after it is deleted. Whoever dies in between leaves a claim that ends, or an object that is
doomed, and the next turn of `clean` does the rest.
"""

import asyncio
import logging
from collections.abc import Callable

from gateway.domain.ports.clock import Clock
from gateway.domain.ports.observers import DeliveryObserver
from gateway.errors import GatewayError
from gateway.outputs.ports import GoneReason, Outputs, OutputStore

logger = logging.getLogger(__name__)

CLAIM_SECONDS = 3600.0
"""How long bytes may take to arrive: longer than any transfer and upload together."""
_TAKE_SECONDS = 600.0
_STEP = 50
_PAUSE_BETWEEN_STEPS = 0.05


class OutputEviction:
    """Keeps the output store within its bounds: of bytes, of age, and of need."""

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
    ) -> None:
        self._records = records
        self._store = store
        self._clock = clock
        self._observer = observer
        self._max_bytes = max_bytes
        self._ttl_seconds = ttl_seconds
        self._on_gone = on_gone
        self._every_seconds = every_seconds

    async def claim(self, sha256: str, size: int) -> bool:
        """Announce an object and make room for it. False if one of the same bytes is being deleted."""
        now = self._clock.now()
        if not await self._records.claim_object(sha256, size, now, now + CLAIM_SECONDS):
            return False
        if await self._evict(now):
            await self._delete_doomed()
        return True

    async def lost(self, sha256: str) -> None:
        """Let an object go whose bytes cannot be read: links fall back to upstream's."""
        if await self._records.drop_object(sha256):
            logger.error("a stored output is lost", extra={"sha256": sha256})
            self._gone("lost", 1)

    async def run(self) -> None:
        """Clean for ever, at once at first. A store that is away is tried again at the next turn."""
        while True:
            try:
                await self.clean()
            except GatewayError as exc:
                logger.warning("the output store could not be cleaned", extra={"reason": exc.detail})
            await self._clock.sleep(self._every_seconds)

    async def clean(self) -> None:
        """Let go of what is past its time or has no room, and delete what nobody needs."""
        now = self._clock.now()
        await self._expire(now)
        await self._evict(now)
        await self._delete_doomed()
        held = await self._records.output_stats()
        self._observer.outputs_held(held.objects, held.bytes)

    async def _expire(self, now: float) -> None:
        dropped = _STEP
        while dropped == _STEP:
            dropped = await self._records.drop_old_copies(now - self._ttl_seconds, _STEP)
            self._gone("expired", dropped)
            await asyncio.sleep(_PAUSE_BETWEEN_STEPS)

    async def _evict(self, now: float) -> int:
        """Let the least recently used go until the rest fits; return how many went."""
        evicted = 0
        while went := await self._records.evict_objects(self._max_bytes, now, _STEP):
            self._gone("evicted", went)
            evicted += went
        return evicted

    def _gone(self, reason: GoneReason, count: int) -> None:
        if count:
            self._observer.outputs_gone(reason, count)
            self._on_gone()

    async def _delete_doomed(self) -> None:
        now = self._clock.now()
        while doomed := await self._records.take_doomed(now, now + _TAKE_SECONDS, _STEP):
            for sha256 in doomed:
                await self._store.delete(sha256)
                await self._records.forget_object(sha256)
            self._observer.outputs_deleted(len(doomed))


async def let_go_of_all(records: Outputs) -> None:
    """Take every copy out of its run: there is no output store any more that could give their bytes."""
    while await records.drop_old_copies(float("inf"), _STEP):
        pass
