"""Takes tokens from what no node holds of request rates, for many requests in one step.

While a step runs, requests gather for the next one, so a busy node makes larger steps, not more.
"""

import asyncio
import logging
from collections.abc import Callable

from gateway.errors import GatewayError
from gateway.runtime.tasks import Tasks
from gateway.throttling.ports import DividedRates
from gateway.throttling.rules.divided_rate import Taken, Want

logger = logging.getLogger(__name__)

_MOST_AT_ONCE = 200
_MOST_RETURNED = 1000


class PermitDesk:
    """Asks the store for tokens. `number` is this node's."""

    def __init__(self, store: DividedRates, number: Callable[[], int]) -> None:
        self._store = store
        self._number = number
        self._waiting: list[tuple[tuple[Want, ...], asyncio.Future[Taken]]] = []
        self._returned: list[tuple[Want, ...]] = []
        self._is_asking = False
        self._tasks = Tasks()
        self.granted = 0
        self.refused = 0

    async def take(self, wanted: tuple[Want, ...]) -> Taken:
        """Take a token of each, or none. Raise `StoreUnavailable`. Safe to cancel: tokens are put back."""
        answer: asyncio.Future[Taken] = asyncio.get_running_loop().create_future()
        self._waiting.append((wanted, answer))
        self._ask()
        try:
            return await answer
        except asyncio.CancelledError:
            if answer.done() and not answer.cancelled() and answer.exception() is None:
                self._put_back_all(wanted, answer.result())
            raise

    def put_back(self, want: Want) -> None:
        """Return a token that was not used. Best effort: one that is lost makes the rate no higher."""
        if len(self._returned) < _MOST_RETURNED:
            self._returned.append((Want(want.name, want.rate, count=-1),))
            self._ask()

    def _put_back_all(self, wanted: tuple[Want, ...], taken: Taken) -> None:
        if taken.refused is None:
            for want in wanted:
                self.put_back(want)

    def _ask(self) -> None:
        if not self._is_asking:
            self._is_asking = True
            self._tasks.spawn(self._run(), "permits")

    async def _run(self) -> None:
        try:
            while self._waiting or self._returned:
                returned, self._returned = self._returned, []
                batch, self._waiting = self._waiting[:_MOST_AT_ONCE], self._waiting[_MOST_AT_ONCE:]
                try:
                    taken = await self._store.take_permits(
                        self._number(), [*returned, *(wanted for wanted, _ in batch)]
                    )
                except Exception as exc:
                    # Also for a defect: nothing else would answer those who wait.
                    if not isinstance(exc, GatewayError):
                        logger.exception("tokens could not be taken")
                    for _, answer in batch:
                        if not answer.done():
                            answer.set_exception(exc)
                    continue
                for (wanted, answer), each in zip(batch, taken[len(returned) :], strict=True):
                    self._answer(wanted, answer, each)
        finally:
            self._is_asking = False

    def _answer(self, wanted: tuple[Want, ...], answer: asyncio.Future[Taken], taken: Taken) -> None:
        if taken.refused is None:
            self.granted += 1
        else:
            self.refused += 1
        if not answer.done():
            answer.set_result(taken)
        else:
            self._put_back_all(wanted, taken)

    async def close(self) -> None:
        """Finish the step in progress."""
        await self._tasks.close(0.0)
