"""Holding: creates over a request rate of their own wait here, as long as their team lets them.

One task for each team that has any gives them their turns (`throttling/rules/hold_line.py`); one that cannot go in time
is told so when its time is over and not before: whoever is told "no" at once asks again at once.
"""

import asyncio

from gateway.domain.ports.clock import Clock
from gateway.domain.ports.observers import LimitObserver
from gateway.errors import UpstreamUnavailable
from gateway.runtime.sleep import sleep_until_event
from gateway.runtime.tasks import Tasks
from gateway.throttling.rules import request_rates
from gateway.throttling.rules.hold_line import Buckets, HeldCreate, HoldLine
from gateway.throttling.rules.request_rates import RateExceeded

MAX_HELD = 1000
"""How many creates of one team are held at a time: each is a connection, and a body not yet read."""


class _TeamsLine:
    """The creates of one team that are held."""

    def __init__(self) -> None:
        self.line = HoldLine()
        self.answers: dict[HeldCreate, asyncio.Future[RateExceeded | None]] = {}
        self.changed = asyncio.Event()


class HoldQueue:
    """The creates that are held."""

    def __init__(self, clock: Clock, observer: LimitObserver) -> None:
        self._clock = clock
        self._observer = observer
        self._lines: dict[str, _TeamsLine] = {}
        self._tasks = Tasks()
        self._closed = False

    def __len__(self) -> int:
        return sum(len(teams.line) for teams in self._lines.values())

    def count(self, team: str | None) -> int:
        """Say how many creates of a team are held; of all teams, if none is named."""
        if team is None:
            return len(self)
        teams = self._lines.get(team)
        return len(teams.line) if teams is not None else 0

    def has_line(self, team: str) -> bool:
        """Whether creates of a team are held: who comes now stands with them."""
        return team in self._lines

    async def enqueue(self, team: str, buckets: Buckets, until: float) -> RateExceeded | None:
        """Charge a create to its buckets when they can bear it; if that is not before `until`, say which cannot.

        Raise `UpstreamUnavailable` when the gateway shuts down meanwhile.
        """
        began = self._clock.monotonic()
        if self._closed or until <= began:
            return request_rates.admit(buckets, began)
        teams = self._line(team)
        if len(teams.line) >= MAX_HELD:
            self._observer.create_held("full", 0.0)
            return request_rates.admit(buckets, began, held=True)
        held = teams.line.join(buckets, until)
        answer: asyncio.Future[RateExceeded | None] = asyncio.get_running_loop().create_future()
        teams.answers[held] = answer
        teams.changed.set()
        try:
            over = await answer
        except asyncio.CancelledError:
            teams.line.leave(held)
            teams.changed.set()
            if answer.done() and not answer.cancelled() and answer.exception() is None and answer.result() is None:
                request_rates.give_back(buckets)
            raise
        finally:
            del teams.answers[held]
        self._observer.create_held("admitted" if over is None else "refused", self._clock.monotonic() - began)
        return over

    def _line(self, team: str) -> _TeamsLine:
        teams = self._lines.get(team)
        if teams is None:
            teams = self._lines[team] = _TeamsLine()
            self._tasks.spawn(self._run(team, teams), f"hold {team}")
        return teams

    async def _run(self, team: str, teams: _TeamsLine) -> None:
        try:
            while True:
                teams.changed.clear()
                gone, pause = teams.line.step(self._clock.monotonic())
                for held, over in gone:
                    if not (answer := teams.answers[held]).done():
                        answer.set_result(over)
                    elif over is None:
                        request_rates.give_back(held.buckets)
                if not teams.line:
                    return
                await sleep_until_event(self._clock, pause, teams.changed)
        finally:
            del self._lines[team]

    async def close(self) -> None:
        """Send away all who are held; nobody is held from now on."""
        self._closed = True
        for teams in self._lines.values():
            for answer in teams.answers.values():
                if not answer.done():
                    answer.set_exception(UpstreamUnavailable("The gateway is shutting down.", retry_after=1))
        await self._tasks.close(0.0)
