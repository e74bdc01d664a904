"""Random histories of money on the real store, against plain arithmetic (docs/architecture.md, Invariants 7).

Many ask at once, runs are created, joined, hit, cancelled, discarded and end with other costs than estimated; the
gateway dies in between; the clock runs over midnights and ends of months, and back. After each step everything adds up.
"""

import asyncio
import itertools
from collections.abc import Awaitable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from msgspec.structs import replace

from gateway.domain.ledger import By, Settlement, Usage
from gateway.domain.limits import SubjectKind
from gateway.domain.quota import Counters, ReservationRequest, RunLimits
from gateway.domain.records import Status
from gateway.money.rules.audit import Tally
from gateway.predictions.ports.sharing import (
    FinishedRuns,
    Hit,
    Joined,
    OpenRuns,
    Refused,
    ShareRequest,
    Started,
    StartOutcome,
)
from gateway.store.interface import Store
from tests.support.audit import BY_TEST
from tests.support.records import NOW, Wish, ended, intent, live, prediction
from tests.support.rounds import amounts, on_engine
from tests.support.stores import StoreMaker

T = TypeVar("T")
AMOUNTS = st.sampled_from([0, 1, 7, 30, 100])
PLACES = st.sampled_from([None, None, 1, 3])
LIMITS = st.sampled_from([None, 0, 60, 150, 400])
FINGERPRINTS = st.sampled_from([None, None, "F0", "F1"])
USERS = st.sampled_from([None, "ann", "bob"])
TAGS = {None: "", "ann": '{"project":"ann"}', "bob": '{"feature":"x","project":"bob"}'}
"""Every request has tags by its user, so usage by tag is that by user."""
_TERMINAL = [Status.SUCCEEDED, Status.SUCCEEDED, Status.FAILED, Status.CANCELED]
_DAY = 86_400.0
_examples = itertools.count()


@dataclass
class Stack:
    """One file, and the process that has it open."""

    another: StoreMaker
    runner: asyncio.Runner
    store: Store = field(init=False)
    days: set[int] = field(default_factory=set)

    def open(self) -> None:
        self.store = self.another()
        self.do(self.store.open())

    def do(self, work: Awaitable[T]) -> T:
        async def done() -> T:
            return await work

        return self.runner.run(done())


@dataclass
class Limits:
    per_day: int | None
    per_month: int | None
    per_user: int | None
    per_tag: int | None
    concurrent: int | None


@dataclass
class Run:
    team: str
    user: str | None
    fingerprint: str | None
    estimate: int
    state: str = "intended"
    cost: int = 0
    settled_at: float = 0.0
    joined: int = 0
    hits: int = 0
    is_asked_to_cancel: bool = False
    may_be_hit: bool = False
    """Whether it answers equal requests: among several, which it is that does, does not matter here."""


class Money(RuleBasedStateMachine):
    """One example has teams of its own, so that all share one file."""

    def __init__(self, stack: Stack) -> None:
        super().__init__()
        self.stack = stack
        self.name = f"x{next(_examples)}"
        self.numbers = itertools.count()
        self.now = NOW
        self.runs: dict[str, Run] = {}
        self.adjusted: list[tuple[str, int, float]] = []
        self.slack: dict[str, int] = {"red": 0, "blue": 0}
        """By how much runs that were admitted cost more than was held for them, and what corrections took."""
        self.limits: dict[str, Limits] = {}

    @initialize(
        red=st.builds(Limits, LIMITS, LIMITS, LIMITS, LIMITS, PLACES),
        blue=st.builds(Limits, LIMITS, LIMITS, LIMITS, LIMITS, PLACES),
    )
    def begin(self, red: Limits, blue: Limits) -> None:
        self.limits = {"red": red, "blue": blue}

    # Steps

    @rule(seconds=st.sampled_from([1.0, 3600.0, 5 * 3600.0, _DAY, 9 * _DAY, -3600.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(
        wishes=st.lists(st.tuples(AMOUNTS, FINGERPRINTS, USERS), min_size=1, max_size=7),
        team=st.sampled_from(["red", "red", "blue"]),
    )
    def many_ask_at_once(self, wishes: list[tuple[int, str | None, str | None]], team: str) -> None:
        asked, expected, limits = [], [], self.limits[team]
        for amount, fingerprint, user in wishes:
            n = next(self.numbers)
            own = RunLimits(
                of=SubjectKind.TEAM,
                scope=f"team/{self.team(team)}",
                concurrent=limits.concurrent,
                microusd_per_day=limits.per_day,
                microusd_per_month=limits.per_month,
            )
            allowances = [own]
            if user is not None:
                scope = f"user/team {self.team(team)}: {user}"
                allowances.append(RunLimits(of=SubjectKind.USER, scope=scope, microusd_per_day=limits.per_user))
                scope = self.tag_scope(team, user)
                allowances.append(RunLimits(of=SubjectKind.TAG, scope=scope, microusd_per_month=limits.per_tag))
            asked.append(self.wish(n, team, user, fingerprint, ReservationRequest(amount, amount, tuple(allowances))))
            expected.append(self.expect(n, team, user, fingerprint, amount))

        async def all_at_once() -> list[Any]:
            return await asyncio.gather(*(each.start(self.stack.store) for each in asked))

        assert [type(outcome) for outcome in self.stack.do(all_at_once())] == expected

    def wish(self, n: int, team: str, user: str | None, fingerprint: str | None, demand: ReservationRequest) -> Wish:
        identity = None if fingerprint is None else f"{self.name}{team}{fingerprint}"
        run_id, whose = f"{self.name}r{n}", {"team": self.team(team), "key_id": f"{self.team(team)}key"}
        request = ShareRequest(
            prediction=prediction(f"{self.name}p{n}", run_id, user=user, tags=TAGS[user], created_at=self.now, **whose),
            now=self.now,
            may_hit=None if identity is None else FinishedRuns(identity),
            may_join=None if identity is None else OpenRuns(identity),
        )
        return Wish(request, intent(run_id, fingerprint=identity, intended_at=self.now, **whose), demand)

    def expect(self, n: int, team: str, user: str | None, fingerprint: str | None, amount: int) -> type[StartOutcome]:
        """Say what one of them comes to, after those before it."""
        same = [run for run in self.runs.values() if fingerprint is not None and run.fingerprint == fingerprint]
        same = [run for run in same if run.team == team]
        if hits := [run for run in same if run.may_be_hit]:
            hits[0].hits += 1
            self.stack.days.add(int(self.now // _DAY))
            return Hit
        if joins := [run for run in same if run.state in ("intended", "live") and not run.is_asked_to_cancel]:
            joins[0].joined += 1
            return Joined
        limits, held, held_of_user = self.limits[team], self.held(team), self.held(team, user)
        is_refused = (
            (limits.concurrent is not None and self.open(team) >= limits.concurrent)
            or self.over(limits.per_day, self.spent(team, "%Y-%m-%d") + held, amount)
            or self.over(limits.per_month, self.spent(team, "%Y-%m") + held, amount)
            or (user and self.over(limits.per_user, self.spent(team, "%Y-%m-%d", user) + held_of_user, amount))
            or (user and self.over(limits.per_tag, self.spent(team, "%Y-%m", user) + held_of_user, amount))
        )
        if is_refused:
            return Refused
        self.runs[f"{self.name}r{n}"] = Run(team, user, fingerprint, amount)
        return Started

    @precondition(lambda self: any(run.state == "intended" for run in self.runs.values()))
    @rule(data=st.data(), at_once=st.sampled_from([None, None, *_TERMINAL]), cost=AMOUNTS)
    def upstream_answers(self, data: st.DataObject, at_once: Status | None, cost: int) -> None:
        run_id, run = self.some(data, "intended")
        whose = {"team": self.team(run.team), "key_id": f"{self.team(run.team)}key"}
        starter = prediction(f"{run_id}up", run_id, user=run.user, tags=TAGS[run.user], **whose)
        whose["leader_id"] = starter.id
        if at_once is None:
            made = live(run_id, **whose)
            run.state = "live"
        else:
            made = ended(run_id, self.now, status=at_once, cache_until=self.now + 10**9, **whose)
            self.end(run, cost, at_once)
        for _ in range(2):
            self.stack.do(self.stack.store.record_created(made, starter, self.settlement(cost)))

    @precondition(lambda self: any(run.state == "intended" for run in self.runs.values()))
    @rule(data=st.data())
    def a_create_comes_to_nothing(self, data: st.DataObject) -> None:
        """Upstream refused it, or it was not found."""
        run_id, _ = self.some(data, "intended")
        self.stack.do(self.stack.store.discard_intent(run_id))
        del self.runs[run_id]

    @precondition(lambda self: any(run.state == "live" for run in self.runs.values()))
    @rule(data=st.data(), status=st.sampled_from(_TERMINAL), cost=AMOUNTS, seen_by=st.sampled_from([1, 1, 2, 5]))
    def a_run_ends(self, data: st.DataObject, status: Status, cost: int, seen_by: int) -> None:
        """Poll, webhook and answer to the cancel tell it at once: the first word counts."""
        run_id, run = self.some(data, "live")

        async def all_at_once() -> None:
            await asyncio.gather(
                *(
                    self.stack.store.advance(
                        run_id,
                        status=status,
                        document=b"done",
                        stream_url=None,
                        at=self.now,
                        cache_until=self.now + 10**9,
                        settlement=self.settlement(cost if number == 0 else 99_999),
                    )
                    for number in range(seen_by)
                )
            )

        self.stack.do(all_at_once())
        self.end(run, cost, status)

    @precondition(lambda self: any(run.state == "live" for run in self.runs.values()))
    @rule(data=st.data())
    def its_callers_leave(self, data: st.DataObject) -> None:
        """Everybody cancels; the run goes on until upstream says how it ended, and costs what it cost."""
        run_id, run = self.some(data, "live")
        for each in self.stack.do(self.stack.store.predictions_of(run_id)):
            self.stack.do(self.stack.store.cancel(each.id, self.now))
        run.is_asked_to_cancel = True

    @rule(team=st.sampled_from(["red", "blue"]), amount=st.sampled_from([-50, 20]))
    def somebody_corrects(self, team: str, amount: int) -> None:
        self.stack.do(self.stack.store.adjust(self.team(team), amount, "why", self.now, actor=BY_TEST))
        self.adjusted.append((team, amount, self.now))
        self.slack[team] += max(0, amount)
        self.stack.days.add(int(self.now // _DAY))

    @rule()
    def the_gateway_dies(self) -> None:
        """Another process opens the file; the old one is gone."""
        old = self.stack.store
        self.stack.open()
        self.stack.do(old.close())
        assert self.stack.do(self.stack.store.recount_meters()) == 0

    # Invariants

    @invariant()
    def everything_adds_up(self) -> None:
        for team in self.limits:
            scope, name = f"team/{self.team(team)}", self.team(team)
            tagged = {self.tag_scope(team, user): user for user in ("ann", "bob")}
            meters = self.stack.do(self.stack.store.meters([scope, *tagged], self.now))
            meter = meters[scope]
            day, month, held = self.spent(team, "%Y-%m-%d"), self.spent(team, "%Y-%m"), self.held(team)
            assert meter == Counters(
                open=self.open(team),
                held_microusd=held,
                held_milliseconds=held,
                day_microusd=day,
                day_milliseconds=self.spent(team, "%Y-%m-%d", adjusted=False),
                month_microusd=month,
                month_milliseconds=self.spent(team, "%Y-%m", adjusted=False),
                full_at=meter.full_at,
            )
            # Each value of a tag has the money of its user, whether it has a budget or not.
            for of_tag, user in tagged.items():
                found = (each := meters[of_tag]).held_microusd, each.day_microusd, each.month_microusd
                expected = (self.spent(team, window, user) for window in ("%Y-%m-%d", "%Y-%m"))
                assert found == (self.held(team, user), *expected)
            limits = self.limits[team]
            for limit, spent, window in ((limits.per_day, day, "%Y-%m-%d"), (limits.per_month, month, "%Y-%m")):
                assert limit is None or spent + held <= limit + self.slack[team] + self.past_credit(team, window)
            assert limits.concurrent is None or self.open(team) <= limits.concurrent
            settled = [run for run in self.runs.values() if run.team == team and run.state == "ended"]
            rows = self.stack.do(self.stack.store.usage(By.TEAM, since=0, until=10**6, team=name))
            usage = rows[0] if rows else Usage(team=name)
            spent = sum(run.cost for run in settled)
            assert usage == Usage(
                team=name,
                runs=len(settled),
                joined=sum(run.joined for run in settled),
                hits=sum(run.hits for run in settled),
                milliseconds=spent,
                microusd=spent + sum(amount for whose, amount, _ in self.adjusted if whose == team),
                saved_microusd=sum(run.cost * (run.joined + run.hits) for run in settled),
            )
            assert self.by(By.TAG, name, tag="project") == self.by(By.USER, name)
        assert not any(
            each.run_id.startswith(self.name) for each in self.stack.do(self.stack.store.stuck_reservations(10))
        )

    def by(self, by: By, team: str, **tag: str) -> dict[str | None, Usage]:
        rows = self.stack.do(self.stack.store.usage(by, since=0, until=10**6, team=team, **tag))
        # Nothing is left of a join that was taken back.
        return {str(row.what or ""): replace(row, what=None) for row in rows if row != Usage(team=team, what=row.what)}

    # Expected sums

    def tag_scope(self, team: str, user: str) -> str:
        return f"tag/team {self.team(team)}: project={user}"

    def team(self, team: str) -> str:
        return f"{self.name}{team}"

    def some(self, data: st.DataObject, state: str) -> tuple[str, Run]:
        run_id = data.draw(st.sampled_from(sorted(each for each, run in self.runs.items() if run.state == state)))
        return run_id, self.runs[run_id]

    def settlement(self, cost: int) -> Settlement:
        return Settlement(at=self.now, microusd=cost, milliseconds=cost, target="acme/toy")

    def end(self, run: Run, cost: int, status: Status) -> None:
        run.state, run.cost, run.settled_at = "ended", cost, self.now
        run.may_be_hit = status is Status.SUCCEEDED and run.fingerprint is not None
        self.slack[run.team] += max(0, cost - run.estimate)
        self.stack.days.add(int(self.now // _DAY))

    def open(self, team: str) -> int:
        return sum(run.team == team and run.state != "ended" for run in self.runs.values())

    def held(self, team: str, user: str | None = None) -> int:
        runs = [run for run in self.runs.values() if run.team == team and run.state != "ended"]
        return sum(run.estimate for run in runs if user is None or run.user == user)

    def spent(self, team: str, window: str, user: str | None = None, *, adjusted: bool = True) -> int:
        now = datetime.fromtimestamp(self.now, UTC).strftime(window)
        runs = [run for run in self.runs.values() if run.team == team and run.state == "ended"]
        lines = [(run.cost, run.settled_at) for run in runs if user is None or run.user == user]
        if adjusted and user is None:
            lines += [(amount, at) for whose, amount, at in self.adjusted if whose == team]
        return sum(amount for amount, at in lines if datetime.fromtimestamp(at, UTC).strftime(window) == now)

    def past_credit(self, team: str, window: str) -> int:
        """Return the credit of other windows: a run that it let in, and that still goes on, counts in this one."""
        now = datetime.fromtimestamp(self.now, UTC).strftime(window)
        lines = [(amount, at) for whose, amount, at in self.adjusted if whose == team and amount < 0]
        return -sum(amount for amount, at in lines if datetime.fromtimestamp(at, UTC).strftime(window) != now)

    @staticmethod
    def over(limit: int | None, used: int, amount: int) -> bool:
        return limit is not None and amount > 0 and used + amount > limit


@pytest.mark.parametrize("examples", amounts(25, 1000))
def test_random_histories_of_money_add_up(engine: str, in_order: StoreMaker, examples: int) -> None:
    """No budget overspent, no slot leaked, nothing settled twice, and every sum equals that of its lines."""
    with asyncio.Runner() as runner:
        stack = Stack(in_order, runner)
        stack.open()
        try:
            run_state_machine_as_test(
                lambda: Money(stack),
                settings=settings(
                    max_examples=on_engine(engine, examples),
                    stateful_step_count=30,
                    deadline=None,
                    derandomize=True,
                    suppress_health_check=list(HealthCheck),
                ),
            )
            for day in stack.days:
                audited = stack.do(stack.store.audit_day(day, 0, 10**6))
                tally = Tally()
                tally.add(audited)
                assert audited.stored is not None
                assert tally.drift(audited.stored) == []
        finally:
            runner.run(stack.store.close())
