"""Admission: creates that are about to lead wait here while a rate, or the number of runs under way, is in the way.

The store decides, in the step that would record the intent (`Sharing.start`); nothing is recorded while a create waits.
Those whom the same limit keeps waiting stand in one line, in the order in which they came. A budget lets nobody wait.
"""

import asyncio
import itertools
from bisect import insort
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import msgspec

from gateway.domain import quota
from gateway.domain.create_request import CreateCommand
from gateway.domain.limits import SubjectKind
from gateway.domain.ports.clock import Clock
from gateway.domain.ports.observers import LimitObserver
from gateway.domain.quota import Allowance, Granted, LimitKind, LimitStatus, Refused, ReservationRequest
from gateway.domain.run_end import RunEnded
from gateway.domain.teams import Caller
from gateway.errors import BudgetExceeded, GatewayError, RateLimited, UpstreamUnavailable
from gateway.money.ports import Ledger
from gateway.money.rules import refusals
from gateway.runtime.sleep import sleep_until_event

MAX_WAITING = 1000
"""How many creates of one team wait at a time: each is a connection, and a body in memory."""


class WaitForLimit(msgspec.Struct, frozen=True):
    """A create has to wait for a limit. Nothing was recorded."""

    refused: Refused | None
    """The limit that refused it; `None` if a create that came earlier waits for the same limit."""


class QueueEntry:
    """One create's place among those who wait, by the order of arrival."""

    __slots__ = (
        "_limit_queue",
        "_since",
        "command",
        "demand",
        "line",
        "number",
        "scopes",
        "team",
        "turn",
        "waited_for",
    )

    def __init__(
        self,
        limit_queue: "LimitQueue",
        caller: Caller,
        command: CreateCommand,
        demand: ReservationRequest,
        number: int,
    ) -> None:
        self._limit_queue = limit_queue
        self.team = caller.team.name
        self.command = command
        self.demand = demand
        self.number = number
        self.scopes = tuple(each.scope for each in demand.allowances)
        self.line: str | None = None
        """The scope in whose line it stands."""
        self.turn = asyncio.Event()
        self.waited_for: LimitStatus | None = None
        """The limit that was in the way last."""
        self._since = limit_queue.monotonic()

    @property
    def waited_seconds(self) -> float:
        """How long ago it took its place."""
        return self._limit_queue.monotonic() - self._since

    def __lt__(self, other: "QueueEntry") -> bool:
        return self.number < other.number

    def check_turn(self) -> WaitForLimit | None:
        """Return `WaitForLimit` if a create that came earlier waits for one of the same limits."""
        return None if self._limit_queue.is_behind(self) is None else WaitForLimit(None)

    async def wait(self, refused: Refused | None) -> None:
        """Wait until another try makes sense. Raise `RateLimited` when the caller has waited long enough."""
        await self._limit_queue.wait(self, refused)

    def leave(self) -> None:
        """Wait no longer. One that waits again has the place of its arrival."""
        self._limit_queue.leave(self)


class _Line:
    """Those who wait for one scope's limits, and which of them was in the way when somebody last tried."""

    __slots__ = ("places", "refused")

    def __init__(self) -> None:
        self.places: list[QueueEntry] = []
        self.refused: Refused | None = None


class LimitQueue:
    """Lets creates wait, first come, first served."""

    def __init__(self, ledger: Ledger, clock: Clock, observer: LimitObserver) -> None:
        self._ledger = ledger
        self._clock = clock
        self._observer = observer
        self._lines: dict[str, _Line] = {}
        self._waiting: Counter[str] = Counter()
        self._numbers = itertools.count()
        self._is_closing = False
        self._on_exhausted: list[Callable[[str, str], None]] = []

    def add_budget_exhausted_listener(self, callback: Callable[[str, str], None]) -> None:
        """Call `callback` with the team and the budget's name when a budget of a team refuses a create."""
        self._on_exhausted.append(callback)

    @property
    def waiting(self) -> int:
        """How many creates wait."""
        return self._waiting.total()

    def monotonic(self) -> float:
        """Tell the time by which waiting is measured."""
        return self._clock.monotonic()

    def waiting_of(self, team: str | None) -> int:
        """Say how many creates of a team wait; of all teams, if none is named."""
        return self.waiting if team is None else self._waiting[team]

    @contextmanager
    def place(self, caller: Caller, command: CreateCommand, demand: ReservationRequest) -> Iterator[QueueEntry]:
        """Give a create its place, which it leaves at the end of the context."""
        place = QueueEntry(self, caller, command, demand, next(self._numbers))
        try:
            yield place
        finally:
            self.leave(place)

    def is_behind(self, place: QueueEntry) -> str | None:
        """Return a scope for which somebody waits who came before."""
        for scope in place.scopes:
            line = self._lines.get(scope)
            if line is not None and line.places[0] < place:
                return scope
        return None

    def refusal(self, refused: Refused, demand: ReservationRequest, team: str) -> GatewayError:
        """Turn a refusal into the error that its caller gets, and count it."""
        standing = refused.standing
        self._observer.quota_refused(team, standing.sort)
        if standing.of is SubjectKind.TEAM and standing.sort.is_budget:
            for callback in self._on_exhausted:
                callback(team, standing.name)
        retry_after = quota.seconds_to_wait(refused.retry_after)
        made = BudgetExceeded if refused.standing.sort.is_budget else RateLimited
        return made(
            refusals.detail_of(refused, demand), retry_after=retry_after, limit=refusals.shown(refused.standing)
        )

    async def foresee(self, demand: ReservationRequest, patience: float) -> Refused | None:
        """Say which limit would refuse a create now. A rate that is free again within `patience` would not."""
        now = self._clock.now()
        meters = await self._ledger.meters([allowance.scope for allowance in demand.allowances], now)
        decision = quota.decide(meters, demand, now)
        if isinstance(decision, Granted):
            return None
        is_held = decision.standing.sort is LimitKind.RATE and decision.retry_after <= patience
        return None if is_held else decision

    async def wait(self, place: QueueEntry, refused: Refused | None) -> None:
        """Wait until it is a place's turn to try."""
        scope = self.is_behind(place) if refused is None else refused.standing.scope
        if scope is None:
            # Whoever was before it has gone meanwhile.
            return
        self._stand(place, scope, refused)
        line = self._lines[scope]
        is_first = line.places[0] is place
        seconds = refused.retry_after if is_first and refused is not None else float("inf")
        left = place.command.hold_until - self._clock.monotonic()
        if left > 0:
            await sleep_until_event(self._clock, min(seconds, left), place.turn)
        place.turn.clear()
        if self._is_closing or place.command.has_left():
            raise UpstreamUnavailable("The gateway is shutting down, or the caller has left.", retry_after=1)
        if self._clock.monotonic() >= place.command.hold_until:
            known = refused or line.refused
            assert known is not None
            raise self.refusal(known, place.demand, place.team)

    def _stand(self, place: QueueEntry, scope: str, refused: Refused | None) -> None:
        """Stand in a line, at the place of one's arrival."""
        if place.line != scope:
            if place.line is None and self._waiting[place.team] >= MAX_WAITING:
                known = refused or self._lines[scope].refused
                assert known is not None
                raise self.refusal(known, place.demand, place.team)
            self.leave(place)
            line = self._lines.setdefault(scope, _Line())
            insort(line.places, place)
            place.line = scope
            self._waiting[place.team] += 1
        line = self._lines[scope]
        if refused is not None:
            line.refused = refused
        if line.refused is not None:
            place.waited_for = line.refused.standing

    def leave(self, place: QueueEntry) -> None:
        """Take a place out of its line, if it stands in one, and let the next one try."""
        if place.line is None:
            return
        line = self._lines[place.line]
        was_first = line.places[0] is place
        line.places.remove(place)
        if not line.places:
            del self._lines[place.line]
        elif was_first:
            line.places[0].turn.set()
        place.line = None
        self._waiting[place.team] -= 1
        if not self._waiting[place.team]:
            del self._waiting[place.team]

    def freed(self, team: str) -> None:
        """Let those of a team try again who are first in a line: one of its runs has ended, or came to nothing."""
        for line in self._lines.values():
            if line.places[0].team == team:
                line.places[0].turn.set()

    def on_run_ended(self, ended: RunEnded) -> None:
        """Let creates try again that wait for the place of a run."""
        self.freed(ended.run.team)

    def close(self) -> None:
        """Send away all who wait."""
        self._is_closing = True
        for line in self._lines.values():
            for place in line.places:
                place.turn.set()


def allowances_of(caller: Caller, user: str | None, address: str | None = None) -> tuple[Allowance, ...]:
    """Return the limits on runs that a create must pass, of everybody under whom it is counted."""
    given = (Allowance.of_subject(subject) for subject in caller.subjects(user, address))
    return tuple(allowance for allowance in given if not allowance.is_unlimited)
