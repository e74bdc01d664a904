"""A lane: turns at one of the account's rates, taken at once while there are any, else queued for fairly.

Nothing here belongs to one waiter but its future: one task (`run`) sleeps until the next turn or the next deadline,
whichever comes first, and wakes who is concerned. While nobody waits it sleeps until somebody does.
"""

import asyncio
import math
from collections.abc import Mapping

from gateway.domain.ports.clock import Clock
from gateway.domain.rates import Rate
from gateway.errors import UpstreamUnavailable
from gateway.runtime.sleep import sleep_until_event
from gateway.throttling.rules.adaptive_rate import LearnedRate
from gateway.throttling.rules.fair_queue import FairQueue, QueuePosition

MAX_WAITING = 1000
"""How many may wait on behalf of one team in one lane. Within the longest hold, 20 s unless set, the documented 600
creates a minute serve 200; what stands behind these waits for nothing but its refusal."""


class FairLimiter:
    """Gives turns to those who ask, by the weight of whom they ask for."""

    def __init__(self, rate: LearnedRate, weights: Mapping[str, float], clock: Clock) -> None:
        self.rate = rate
        self._clock = clock
        self._queue = FairQueue(weights, max_waiting=MAX_WAITING)
        self._turns: dict[QueuePosition, asyncio.Future[bool]] = {}
        self._changed = asyncio.Event()
        self._closed = False

    def configure(self, rate: Rate, weights: Mapping[str, float]) -> None:
        """Go by another rate and other weights, also for those who wait already."""
        self.rate.configure(rate)
        self._queue.reweigh(weights)
        self._changed.set()

    def __len__(self) -> int:
        return len(self._queue)

    def take(self) -> bool:
        """Take a turn, if there is one to be had at once and nobody waits for it."""
        if self._queue:
            return False
        now = self._clock.monotonic()
        if self.rate.wait(now) > 0:
            return False
        self.rate.take(now)
        return True

    def give_back(self) -> None:
        """Return a turn that was not used: the next in line has it."""
        self.rate.give_back()
        self._changed.set()

    def is_full(self, name: str) -> bool:
        """Whether as many wait on somebody's behalf as may."""
        return self._queue.is_full(name)

    async def permit(self, name: str, until: float, *, returned: bool) -> bool:
        """Queue for a turn on somebody's behalf; return whether it came in time.

        Raise `UpstreamUnavailable` when the gateway shuts down meanwhile. Whoever is cancelled here leaves no trace.
        """
        if self._closed:
            raise _shutting_down()
        if until <= self._clock.monotonic():
            return False
        place = self._queue.join(name, until, returned=returned)
        turn: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._turns[place] = turn
        if len(self._queue) == 1 or self._queue.next_deadline() == until:
            # Sooner than what `run` sleeps for; otherwise it wakes in time by itself.
            self._changed.set()
        try:
            return await turn
        except asyncio.CancelledError:
            self._queue.leave(place)
            if turn.done() and not turn.cancelled() and turn.exception() is None and turn.result():
                # Given, and not heard of any more.
                self.give_back()
            raise
        finally:
            del self._turns[place]

    async def run(self) -> None:
        """Give turns for ever."""
        while True:
            self._changed.clear()
            pause = self._step()
            if pause is None:
                await self._changed.wait()
            else:
                await sleep_until_event(self._clock, pause, self._changed)

    def _step(self) -> float | None:
        """Give the turns that there are and end the waits that are over; return how long nothing will happen."""
        now = self._clock.monotonic()
        while self._queue and self.rate.wait(now) <= 0:
            place = self._queue.next()
            assert place is not None
            turn = self._turns[place]
            if not turn.done():
                self.rate.take(now)
                turn.set_result(True)
        for place in self._queue.expired(now):
            if not (turn := self._turns[place]).done():
                turn.set_result(False)
        deadline = self._queue.next_deadline()
        return None if deadline is None else min(self.rate.wait(now), deadline - now)

    def expected_seconds(self) -> int:
        """Return, in whole seconds, when somebody who comes now may expect a turn; at least one."""
        wait = self.rate.wait(self._clock.monotonic()) + len(self._queue) * self.rate.rate.interval
        return max(1, math.ceil(wait))

    def close(self) -> None:
        """Send away all who wait; nobody waits from now on."""
        self._closed = True
        for place, turn in self._turns.items():
            if not turn.done():
                self._queue.leave(place)
                turn.set_exception(_shutting_down())


def _shutting_down() -> UpstreamUnavailable:
    return UpstreamUnavailable("The gateway is shutting down.", retry_after=1)
