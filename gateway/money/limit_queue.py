"""Queue for creates that exceed a predictions-per-minute or concurrency limit, or find no place for their webhook.

The store decides whether a create is admitted, in the transaction that records its prediction (`Sharing.share` and
`start`). Nothing is recorded while a create waits. Creates that wait for the limits of the same scope form one queue,
in order of arrival. A create over a budget is refused at once: it never waits. Nor does one that a rate cannot admit
before its `hold_until`.
"""

import asyncio
import itertools
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache
from operator import attrgetter

import msgspec

from gateway.domain import quota, webhook_places
from gateway.domain.create_request import CreateCommand
from gateway.domain.limits import Limits, Subject, SubjectKind
from gateway.domain.ports.clock import Clock
from gateway.domain.ports.observers import LimitObserver
from gateway.domain.quota import Granted, LimitKind, LimitStatus, Refused, ReservationRequest, RunLimits
from gateway.domain.run_end import RunEnded
from gateway.domain.tags import NONE
from gateway.domain.teams import Caller, Team
from gateway.errors import BudgetExceeded, CallerLeft, GatewayError, RateLimited, UpstreamUnavailable
from gateway.money.ports import Ledger
from gateway.money.rules import refusals
from gateway.runtime.sleep import sleep_until_event

_SCOPE = attrgetter("scope")
SECONDS_PER_MINUTE = 60.0

_WITH_ALERTS = (SubjectKind.TEAM, SubjectKind.KEY, SubjectKind.USER, SubjectKind.TAG)
MAX_WAITING = 1000
"""Maximum number of waiting creates per team. Each holds a connection and a body in memory."""


class WaitForLimit(msgspec.Struct, frozen=True):
    """A create has to wait for a limit. Nothing was recorded."""

    refused: Refused | None
    """The limit that refused it; `None` if a create that came earlier waits for the same limit."""


class QueueEntry:
    """One create, ordered by arrival. It is in a queue only while it waits."""

    __slots__ = (
        "_limit_queue",
        "command",
        "demand",
        "is_priced",
        "line",
        "number",
        "scopes",
        "team",
        "turn",
        "waited_for",
        "webhook_scopes",
    )

    def __init__(self, limit_queue: "LimitQueue", caller: Caller, command: CreateCommand) -> None:
        """Let the entry leave when the create ends, however it ends."""
        self._limit_queue = limit_queue
        self.team = caller.team.name
        self.command = command
        self.number = next(limit_queue.numbers)
        self.webhook_scopes: tuple[str, ...] = ()
        """The scopes in whose queues it waits for a place for its webhook."""
        if command.body.webhook is not None:
            self.webhook_scopes = webhook_places.scopes_of(self.team, is_public=caller.is_public)
        self.is_priced = False
        self.demand = quota.NO_RESERVATION
        """What it reserves; nothing until it has tried to start a run, since a hit needs no price."""
        self.scopes = self.webhook_scopes
        self.line: str | None = None
        """The scope in whose queue it waits; `None` while it does not wait."""
        self.turn = asyncio.Event()
        self.waited_for: LimitStatus | None = None
        """The last limit that it exceeded."""

    def __lt__(self, other: "QueueEntry") -> bool:
        return self.number < other.number

    def price(self, demand: ReservationRequest) -> None:
        """Set what its run reserves, and so the limits that it can wait for."""
        self.is_priced = True
        self.demand = demand
        self.scopes = (*map(_SCOPE, demand.allowances), *self.webhook_scopes)

    def check_turn(self, *, for_webhook: bool = False) -> WaitForLimit | None:
        """Return `WaitForLimit` if a create that came earlier waits for one of the same limits.

        `for_webhook` asks only about the place for its webhook, which is all that a hit or a join needs.
        """
        scopes = self.webhook_scopes if for_webhook else self.scopes
        return None if not scopes or self._limit_queue.is_behind(self, scopes) is None else WaitForLimit(None)

    async def wait(self, refused: Refused | None) -> None:
        """Wait until a new attempt can succeed.

        Raise `RateLimited` at the create's `hold_until`, at once if a rate cannot admit it before, or if the team's
        queue is full; `UpstreamUnavailable` if the gateway shuts down, `CallerLeft` if the caller has disconnected.
        """
        await self._limit_queue.wait(self, refused)

    def leave(self) -> None:
        """Leave the queue. An entry that waits again returns to its position by arrival."""
        self._limit_queue.leave(self)


class _ScopeQueue:
    """The entries that wait for one scope's limits, and the refusal that the last attempt got."""

    __slots__ = ("entries", "refused", "refused_at")

    def __init__(self) -> None:
        self.entries: list[QueueEntry] = []
        self.refused: Refused | None = None
        self.refused_at = 0.0

    def refused_for_longer(self, entry: QueueEntry, seconds: float, now: float) -> Refused | None:
        """Return the refusal, with the time to retry, if a rate cannot admit the entry within `seconds`.

        Each entry before it takes one token of that rate, unless its caller has left. For other limits the wait is
        unknown.
        """
        if self.refused is None or self.refused.status.kind is not LimitKind.RATE or seconds <= 0:
            return None
        first = max(0.0, self.refused_at + self.refused.retry_after - now)
        interval = SECONDS_PER_MINUTE / self.refused.status.limit
        ahead = bisect_left(self.entries, entry)
        if first + ahead * interval <= seconds:
            return None
        ahead = sum(not each.command.has_left() for each in self.entries[:ahead])
        wait = first + ahead * interval
        return Refused(self.refused.status, wait) if wait > seconds else None


class LimitQueue:
    """Makes creates wait for limits, first come, first served."""

    def __init__(self, ledger: Ledger, clock: Clock, observer: LimitObserver) -> None:
        self._ledger = ledger
        self._clock = clock
        self._observer = observer
        self._queues: dict[str, _ScopeQueue] = {}
        self._waiting: Counter[str] = Counter()
        self.numbers = itertools.count()
        """The order of arrival."""
        self._is_closing = False
        self._on_exhausted: list[Callable[[str, RunLimits, str], None]] = []
        self._on_freed: list[Callable[[str], None]] = []

    def add_budget_exhausted_listener(self, callback: Callable[[str, RunLimits, str], None]) -> None:
        """Call `callback` when a budget refuses a create: with the team, the limits, and the budget's name in them."""
        self._on_exhausted.append(callback)

    def add_freed_listener(self, callback: Callable[[str], None]) -> None:
        """Call `callback` with a team whose creates may have room again."""
        self._on_freed.append(callback)

    @property
    def waiting(self) -> int:
        """Number of waiting creates."""
        return self._waiting.total()

    def waiting_of(self, team: str | None) -> int:
        """Return the number of waiting creates of a team; of all teams if `team` is `None`."""
        return self.waiting if team is None else self._waiting[team]

    def is_behind(self, entry: QueueEntry, scopes: Sequence[str]) -> str | None:
        """Return one of the entry's `scopes` for which an earlier entry waits; `None` if there is none."""
        for scope in scopes:
            queue = self._queues.get(scope)
            if queue is not None and queue.entries[0] < entry:
                return scope
        return None

    def refusal(self, refused: Refused, demand: ReservationRequest, team: str) -> GatewayError:
        """Count a refusal and return the error for its caller: `BudgetExceeded` or `RateLimited`."""
        status = refused.status
        self._observer.quota_refused(team, status.kind)
        can_pass_later = refused.retry_after != quota.NEVER
        if status.of in _WITH_ALERTS and status.kind.is_budget and can_pass_later:
            for limits in demand.allowances:
                if limits.scope == status.scope:
                    for callback in self._on_exhausted:
                        callback(team, limits, status.name)
        retry_after = quota.seconds_to_wait(refused.retry_after) if can_pass_later else None
        error_class = BudgetExceeded if status.kind.is_budget else RateLimited
        return error_class(refusals.detail_of(refused, demand), retry_after=retry_after, limit=refusals.shown(status))

    async def predict_refusal(self, demand: ReservationRequest, patience: float) -> Refused | None:
        """Return the refusal that a create would get now, or `None` if it would be admitted.

        A create that exceeds only a rate, and that rate for at most `patience` seconds, counts as admitted: it would
        wait.
        """
        now = self._clock.now()
        meters = await self._ledger.meters([allowance.scope for allowance in demand.allowances], now)
        decision = quota.decide(meters, demand, now)
        if isinstance(decision, Granted):
            return None
        is_held = decision.status.kind is LimitKind.RATE and decision.retry_after <= patience
        return None if is_held else decision

    async def wait(self, entry: QueueEntry, refused: Refused | None) -> None:
        """Wait until the entry is first in its queue and its limit may admit it: see `QueueEntry.wait`."""
        scope = self.is_behind(entry, entry.scopes) if refused is None else refused.status.scope
        if scope is None:
            # The earlier entries have left since `check_turn`.
            return
        self._join(entry, scope, refused)
        queue = self._queues[scope]
        is_first = queue.entries[0] is entry
        seconds = refused.retry_after if is_first and refused is not None else float("inf")
        began = self._clock.monotonic()
        left = entry.command.hold_until - began
        if (too_late := queue.refused_for_longer(entry, left, self._clock.now())) is not None:
            raise self.refusal(too_late, entry.demand, entry.team)
        if left > 0 and not entry.command.has_left():
            remove_listener = entry.command.add_departure_listener(entry.turn.set)
            try:
                await sleep_until_event(self._clock, min(seconds, left), entry.turn)
            finally:
                remove_listener()
                if entry.waited_for is not None:
                    entry.command.hold.add(self._clock.monotonic() - began, entry.waited_for)
        entry.turn.clear()
        if self._is_closing:
            raise UpstreamUnavailable("The gateway is shutting down.", retry_after=1)
        if entry.command.has_left():
            raise CallerLeft("The client disconnected while its create was held for a limit.")
        if self._clock.monotonic() >= entry.command.hold_until:
            known = refused or queue.refused
            assert known is not None
            raise self.refusal(known, entry.demand, entry.team)

    def _join(self, entry: QueueEntry, scope: str, refused: Refused | None) -> None:
        """Put an entry into a scope's queue, at its position by arrival. Raise if the team has too many waiting."""
        position: int | None = None
        if entry.line != scope:
            if entry.line is None and self._waiting[entry.team] >= MAX_WAITING:
                known = refused or self._queues[scope].refused
                assert known is not None
                raise self.refusal(known, entry.demand, entry.team)
            self.leave(entry)
            queue = self._queues.setdefault(scope, _ScopeQueue())
            position = bisect_left(queue.entries, entry)
            queue.entries.insert(position, entry)
            entry.line = scope
            self._waiting[entry.team] += 1
        queue = self._queues[scope]
        if refused is not None:
            queue.refused, queue.refused_at = refused, self._clock.now()
        if position is not None:
            self._wake_late(queue, position + 1)
        if queue.refused is not None:
            entry.waited_for = queue.refused.status

    def _wake_late(self, queue: _ScopeQueue, position: int) -> None:
        """Wake the entries from a position on that are too late for their rate, now that another one goes first.

        They are refused when they wait again. Creates that arrive together can be refused by the store, and so join, in
        another order than that of their arrival.
        """
        now, monotonic = self._clock.now(), self._clock.monotonic()
        for entry in queue.entries[position:]:
            if queue.refused_for_longer(entry, entry.command.hold_until - monotonic, now) is not None:
                entry.turn.set()

    def leave(self, entry: QueueEntry) -> None:
        """Remove an entry from its queue, if it is in one, and wake the next entry if it was first."""
        if entry.line is None:
            return
        queue = self._queues[entry.line]
        was_first = queue.entries[0] is entry
        queue.entries.remove(entry)
        if not queue.entries:
            del self._queues[entry.line]
        elif was_first:
            queue.entries[0].turn.set()
        entry.line = None
        self._waiting[entry.team] -= 1
        if not self._waiting[entry.team]:
            del self._waiting[entry.team]

    def freed(self, team: str, *, is_elsewhere: bool = False) -> None:
        """Wake a team's entries that are first in a queue. Call when a run of the team has ended or was dropped.

        `is_elsewhere`: it was a run of another node, so the listeners are not called.
        """
        if not is_elsewhere:
            for callback in self._on_freed:
                callback(team)
        for queue in self._queues.values():
            if queue.entries[0].team == team:
                queue.entries[0].turn.set()

    def retry(self) -> None:
        """Wake the first entry of every queue. Call when limits have changed."""
        for queue in self._queues.values():
            queue.entries[0].turn.set()

    def on_run_ended(self, ended: RunEnded) -> None:
        """Let creates try again that wait for the place of a run."""
        self.freed(ended.run.team)

    def close(self) -> None:
        """Fail all waiting creates with `UpstreamUnavailable`."""
        self._is_closing = True
        for queue in self._queues.values():
            for entry in queue.entries:
                entry.turn.set()


def run_limits_of(
    caller: Caller, user: str | None, address: str | None = None, tagged: str = NONE
) -> tuple[RunLimits, ...]:
    """Return the limits on runs that apply to a create: of its team, key, user, address and cost tags.

    Subjects without limits are left out.
    """
    subjects = caller.subjects(user, address, tagged)
    if not subjects:
        return ()
    return tuple(filter(None, map(_run_limits_of, subjects)))


def run_limits_of_team(team: Team) -> RunLimits | None:
    """Return the limits on runs of a team itself; `None` if it has none."""
    return _run_limits_of(Subject(SubjectKind.TEAM, team.name, team.allowance.own, "team"))


def run_limits_of_key(key_id: str, limits: Limits) -> RunLimits | None:
    """Return the limits on runs of a key itself; `None` if it has none."""
    return _run_limits_of(Subject(SubjectKind.KEY, key_id, limits, "key"))


def run_limits_of_tags(team: Team, tagged: str) -> tuple[RunLimits, ...]:
    """Return the limits on runs of a team's cost tags."""
    return tuple(filter(None, map(_run_limits_of, team.limits_of_tags(tagged))))


@lru_cache(maxsize=1024)
def _run_limits_of(subject: Subject) -> RunLimits | None:
    allowance = RunLimits.of_subject(subject)
    return None if allowance.is_unlimited else allowance
