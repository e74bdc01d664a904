"""Rate limiter for one of the account's rates: permits are immediate while available, else queued fairly by team.

Each waiter owns only a future. One task (`run`) sleeps until the next permit or the next deadline, whichever is first,
and resolves the futures concerned. While the queue is empty the task sleeps until the first waiter joins.
"""

import asyncio
import math

from gateway.domain.ports.clock import Clock
from gateway.domain.rates import Rate
from gateway.domain.teams import Teams
from gateway.errors import UpstreamUnavailable
from gateway.runtime.live import LiveSettings
from gateway.runtime.sleep import sleep_until_event
from gateway.runtime.tasks import run_until_first
from gateway.throttling.rules.adaptive_rate import LearnedRate
from gateway.throttling.rules.fair_queue import FairQueue, QueuePosition
from gateway.throttling.settings import Lane, ThrottlingSettings, weights_of

MAX_WAITING = 1000
"""Maximum number of waiters per team. Within the default `max_wait_seconds` of 20 s, Replicate's documented 600 creates
a minute serve 200; waiters further back would only time out."""


class FairLimiter:
    """Grant permits at one of the account's rates, shared among teams in proportion to their weights.

    A reload of the config applies to those who wait already.
    """

    def __init__(
        self, lane: Lane, settings: LiveSettings[ThrottlingSettings], teams: LiveSettings[Teams], clock: Clock
    ) -> None:
        self._lane = lane
        self._settings = settings
        self._teams = teams
        self._clock = clock
        self.rate = self._new_rate(settings.value.rate_of(lane))
        self._queue = FairQueue(weights_of(teams.value), max_waiting=MAX_WAITING)
        self._granted: dict[QueuePosition, asyncio.Future[bool]] = {}
        self._changed = asyncio.Event()
        self._closed = False
        settings.subscribe(lambda _: self._apply())
        teams.subscribe(lambda _: self._apply())

    def _apply(self) -> None:
        self.rate.configure(self._settings.value.rate_of(self._lane))
        self._queue.reweigh(weights_of(self._teams.value))
        self._changed.set()

    def _new_rate(self, configured: Rate) -> LearnedRate:
        return LearnedRate(configured)

    def __len__(self) -> int:
        return len(self._queue)

    def take(self) -> bool:
        """Take a permit without waiting; return `False` if none is available or others are already waiting."""
        now = self._clock.monotonic()
        if self._queue.total or self.rate.wait(now) > 0:
            return False
        self.rate.take(now)
        return True

    def give_back(self) -> None:
        """Return an unused permit; the next waiter gets it."""
        self.rate.give_back()
        self._changed.set()

    def least_wait(self, name: str) -> float:
        """Return the seconds that a new waiter of a team waits at least: each of the team's others goes before it."""
        return self.rate.wait(self._clock.monotonic()) + self._queue.waiting(name) * self.rate.rate.interval

    def is_full(self, name: str) -> bool:
        """Return whether a team has reached `MAX_WAITING` waiters."""
        return self._queue.is_full(name)

    async def permit(self, name: str, until: float, *, returned: bool) -> bool:
        """Wait for a permit on behalf of a team; return `False` if none was granted before `until` (monotonic time).

        `returned` puts the waiter ahead of the team's other waiters: upstream refused its previous permit with a 429.
        Raise `UpstreamUnavailable` if the gateway shuts down meanwhile. Safe to cancel: the queue position is removed
        and a permit that was already granted is returned.
        """
        if self._closed:
            raise _shutting_down()
        if until <= self._clock.monotonic():
            return False
        position = self._queue.join(name, until, returned=returned)
        granted: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._granted[position] = granted
        if len(self._queue) == 1 or self._queue.next_deadline() == until:
            # Due before the time `run` sleeps until. In all other cases `run` wakes early enough.
            self._changed.set()
        try:
            return await granted
        except asyncio.CancelledError:
            self._queue.leave(position)
            if granted.done() and not granted.cancelled() and granted.exception() is None and granted.result():
                # The permit was granted, but the waiter was cancelled before it could use it.
                self.give_back()
            raise
        finally:
            del self._granted[position]

    async def run(self) -> None:
        """Grant permits until cancelled."""
        while True:
            self._changed.clear()
            pause = self._step()
            if pause is None:
                await self._changed.wait()
            else:
                await sleep_until_event(self._clock, pause, self._changed)

    def _step(self) -> float | None:
        """Grant available permits and time out expired waiters; return seconds until the next step, `None` if empty."""
        now = self._clock.monotonic()
        while self._queue and self.rate.wait(now) <= 0:
            position = self._queue.next()
            assert position is not None
            granted = self._granted[position]
            if not granted.done():
                self.rate.take(now)
                granted.set_result(True)
        for position in self._queue.expired(now):
            if not (granted := self._granted[position]).done():
                granted.set_result(False)
        deadline = self._queue.next_deadline()
        return None if deadline is None else min(self.rate.wait(now), deadline - now)

    def expected_seconds(self) -> int:
        """Estimate how many seconds a new waiter would wait for a permit, rounded up; at least 1."""
        wait = self.rate.wait(self._clock.monotonic()) + len(self._queue) * self.rate.rate.interval
        return max(1, math.ceil(wait))

    async def finish(self, seconds: float) -> None:
        """Wait until nobody waits for a permit, for `seconds` at most."""
        until = self._clock.monotonic() + seconds
        while self._granted and (left := until - self._clock.monotonic()) > 0:
            await run_until_first(asyncio.wait([*self._granted.values()]), self._clock.sleep(left))

    def close(self) -> None:
        """Fail all waiters with `UpstreamUnavailable`, and every later call of `permit` too."""
        self._closed = True
        self._fail_waiting(_shutting_down())

    def _fail_waiting(self, error: UpstreamUnavailable) -> None:
        for position, granted in self._granted.items():
            if not granted.done():
                self._queue.leave(position)
                granted.set_exception(error)


def _shutting_down() -> UpstreamUnavailable:
    return UpstreamUnavailable("The gateway is shutting down.", retry_after=1)
