"""Deadlines: `Cancel-After`, kept for each prediction, whichever other predictions share its run.

See docs/architecture.md, Decisions 6.

One task sleeps until the nearest deadline. Deadlines are in the store, so a restart loses none.
"""

import asyncio
import heapq
import logging
from collections.abc import Awaitable, Callable

from gateway.domain.ports.clock import Clock
from gateway.errors import GatewayError, NotFound
from gateway.predictions.ports.sharing import Sharing
from gateway.runtime.sleep import sleep_until_event

logger = logging.getLogger(__name__)

_PAGE = 500
_AFTER_ERROR_SECONDS = 1.0
_AFTER_DEFECT_SECONDS = 30.0


class Deadlines:
    """Calls `expire` with the id of each prediction whose deadline has come."""

    def __init__(
        self,
        store: Sharing,
        clock: Clock,
        expire: Callable[[str], Awaitable[None]],
        may_act: Callable[[], bool] = lambda: True,
    ) -> None:
        """Take `expire`, called with a prediction's id, and `may_act`: whether the node has its lease."""
        self._may_act = may_act
        self._store = store
        self._clock = clock
        self._expire = expire
        self._heap: list[tuple[float, str]] = []
        self._known: set[str] = set()
        """The predictions in the heap."""
        self._nearer: asyncio.Event = asyncio.Event()

    @property
    def pending(self) -> int:
        """How many deadlines are still to come."""
        return len(self._heap)

    async def resume(self) -> None:
        """Add the deadlines of this node's runs that the store has. One that is added twice changes nothing."""
        after = ""
        while predictions := await self._store.deadlines(after=after, limit=_PAGE):
            after = predictions[-1].id
            for prediction in predictions:
                if prediction.deadline_at is not None:
                    self.add(prediction.deadline_at, prediction.id)

    def add(self, at: float, prediction_id: str) -> None:
        """Add a deadline, unless it was added before. If the prediction has ended by then, `expire` changes nothing."""
        if prediction_id in self._known:
            return
        self._known.add(prediction_id)
        heapq.heappush(self._heap, (at, prediction_id))
        if self._heap[0] == (at, prediction_id):
            self._nearer.set()

    async def run(self) -> None:
        """Call `expire` at each deadline, until cancelled. A call that fails is repeated later."""
        while True:
            self._nearer.clear()
            if not self._heap:
                await self._nearer.wait()
                continue
            at, prediction_id = self._heap[0]
            if (remaining := at - self._clock.now()) > 0:
                await sleep_until_event(self._clock, remaining, self._nearer)
                continue
            if not self._may_act():
                await self._clock.sleep(_AFTER_ERROR_SECONDS)
                continue
            heapq.heappop(self._heap)
            self._known.discard(prediction_id)
            try:
                await self._expire(prediction_id)
            except NotFound:
                logger.info("the deadline of a deleted prediction has passed")
            except GatewayError as exc:
                logger.warning("a deadline could not be kept yet", extra={"reason": exc.detail})
                self.add(self._clock.now() + _AFTER_ERROR_SECONDS, prediction_id)
            except Exception:
                # The deadlines of all other predictions depend on this task.
                logger.exception("a deadline could not be kept", extra={"prediction": prediction_id})
                self.add(self._clock.now() + _AFTER_DEFECT_SECONDS, prediction_id)
