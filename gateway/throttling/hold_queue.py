"""Queue for creates that exceed a request rate of the caller. Each waits for up to its team's `max_wait_seconds`.

Each team with queued creates has one task, which releases them in the order of `throttling/rules/hold_line.py`. A
create that cannot be released in time is refused at once, with the time to retry.
"""

import asyncio
from functools import partial

from gateway.domain.create_request import AddDepartureListener, no_departure
from gateway.domain.ports.clock import Clock
from gateway.domain.ports.observers import LimitObserver
from gateway.errors import CallerLeft, UpstreamUnavailable
from gateway.runtime.sleep import sleep_until_event
from gateway.runtime.tasks import Tasks
from gateway.throttling.rules.hold_line import Admit, Buckets, HeldCreate, HoldLine
from gateway.throttling.rules.request_rates import RateExceeded, RequestRates

MAX_HELD = 1000
"""Maximum number of queued creates per team. Each holds a connection whose body has not been read."""

LEFT_FOR_A_RATE = "The client disconnected while its create was held for a rate."


class _TeamQueue:
    """The queued creates of one team and the task that releases them."""

    def __init__(self, admit: Admit) -> None:
        self.line = HoldLine(admit)
        self.answers: dict[HeldCreate, asyncio.Future[RateExceeded | None]] = {}
        self.changed = asyncio.Event()

    def too_long_wait(self, buckets: Buckets, now: float, until: float) -> RateExceeded | None:
        """Return the rate that cannot admit a new create by `until`, if there is one."""
        over = self.line.least_wait(buckets, now)
        return over if over is not None and over.seconds > until - now else None

    def leave(self, held: HeldCreate) -> None:
        """Answer a create whose caller has disconnected, so that it is not ahead of others any more."""
        answer = self.answers[held]
        if not answer.done():
            self.line.leave(held)
            answer.set_exception(CallerLeft(LEFT_FOR_A_RATE))
            self.changed.set()


class HoldQueue:
    """Hold creates until their request rates admit them."""

    def __init__(self, clock: Clock, observer: LimitObserver, rates: RequestRates | None = None) -> None:
        self._clock = clock
        self._observer = observer
        self._rates = rates or RequestRates()
        self._lines: dict[str, _TeamQueue] = {}
        self._tasks = Tasks()
        self._closed = False

    def __len__(self) -> int:
        return sum(len(teams.line) for teams in self._lines.values())

    def count(self, team: str | None) -> int:
        """Return the number of queued creates of a team; of all teams if `team` is `None`."""
        if team is None:
            return len(self)
        teams = self._lines.get(team)
        return len(teams.line) if teams is not None else 0

    def has_line(self, team: str) -> bool:
        """Return whether a team has queued creates. If so, a new create has to queue too, or it would overtake them."""
        return team in self._lines

    async def enqueue(
        self,
        team: str,
        buckets: Buckets,
        until: float,
        add_departure_listener: AddDepartureListener = no_departure,
    ) -> RateExceeded | None:
        """Wait until all `buckets` admit a create and charge it to them.

        Return `None` if admitted, else the exceeded rate. A create is refused at `until` (monotonic time), or at once
        if the team's queue is full, or too long for it to be admitted by then. Raise `UpstreamUnavailable` if the
        gateway shuts down meanwhile, `CallerLeft` at once if the client disconnects. Safe to cancel: a charge that was
        already made is undone.
        """
        began = self._clock.monotonic()
        if self._closed or until <= began:
            return self._rates.admit(buckets, began)
        teams = self._line(team)
        if len(teams.line) >= MAX_HELD:
            self._observer.create_held("full", 0.0)
            return self._rates.admit(buckets, began, held=True)
        if (too_long := teams.too_long_wait(buckets, began, until)) is not None:
            self._observer.create_held("too_long", 0.0)
            return too_long
        held = teams.line.join(buckets, until)
        answer: asyncio.Future[RateExceeded | None] = asyncio.get_running_loop().create_future()
        teams.answers[held] = answer
        remove_listener = add_departure_listener(partial(teams.leave, held))
        teams.changed.set()
        try:
            over = await answer
        except asyncio.CancelledError:
            teams.line.leave(held)
            teams.changed.set()
            if answer.done() and not answer.cancelled() and answer.exception() is None and answer.result() is None:
                self._rates.give_back(buckets)
            raise
        except CallerLeft:
            self._observer.create_held("left", self._clock.monotonic() - began)
            raise
        finally:
            remove_listener()
            del teams.answers[held]
        self._observer.create_held("admitted" if over is None else "refused", self._clock.monotonic() - began)
        return over

    def _line(self, team: str) -> _TeamQueue:
        teams = self._lines.get(team)
        if teams is None:
            teams = self._lines[team] = _TeamQueue(self._rates.admit)
            self._tasks.spawn(self._run(team, teams), f"hold {team}")
        return teams

    async def _run(self, team: str, teams: _TeamQueue) -> None:
        try:
            while True:
                teams.changed.clear()
                released, pause = await self._step(teams.line)
                for held, over in released:
                    answer = teams.answers.get(held)
                    if answer is not None and not answer.done():
                        answer.set_result(over)
                    elif over is None:
                        self._rates.give_back(held.buckets)
                if not teams.line:
                    return
                await sleep_until_event(self._clock, pause, teams.changed)
        except Exception as exc:
            # Nothing else would answer those who wait.
            for answer in teams.answers.values():
                if not answer.done():
                    answer.set_exception(exc)
            raise
        finally:
            del self._lines[team]

    async def _step(self, line: HoldLine) -> tuple[list[tuple[HeldCreate, RateExceeded | None]], float]:
        """Release creates: see `HoldLine.step`."""
        return line.step(self._clock.monotonic())

    async def close(self) -> None:
        """Fail all queued creates with `UpstreamUnavailable` and stop queueing new ones."""
        self._closed = True
        for teams in self._lines.values():
            for answer in teams.answers.values():
                if not answer.done():
                    answer.set_exception(UpstreamUnavailable("The gateway is shutting down.", retry_after=1))
        await self._tasks.close(0.0)
