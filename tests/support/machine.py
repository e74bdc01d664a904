"""Random interleavings of what callers, upstream, time and death do, against a small model of what callers may see."""

import asyncio
import shutil
import tempfile
from collections.abc import Coroutine
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gateway.domain import quota
from gateway.domain.create_body import CreateBody
from gateway.domain.create_request import CreateCommand, Created
from gateway.domain.documents import shown_status
from gateway.domain.ledger import By, Usage
from gateway.domain.limits import SubjectKind
from gateway.domain.records import Kind, Prediction, RunState, Source, Status
from gateway.domain.scopes import Scope
from gateway.domain.targets import parse_version
from gateway.domain.teams import Caller, Team
from gateway.domain.upstream_response import Answer
from gateway.errors import Conflict, NotFound, UpstreamUnavailable, UpstreamUncertain
from tests.support.clock import ManualClock
from tests.support.fake_upstream import MODEL, VERSION, FakeUpstream, Sent, UpstreamRun
from tests.support.lives import Life
from tests.support.stores import Backend, sqlite_maker

TEAMS = ("alpha", "beta")
_SEARCH_SECONDS = 600.0
_USD_PER_SECOND = Decimal("0.000975")
"""What the default hardware costs."""
# A deadline, a look and a cancel have this long to come through once time moves on.
_LAG = 0.5
_AWHILE = 45.0
_MOST_DEATHS = 2
_UNHEARD = ("lost", "broken", "killed")
FORMS = ("named", "bare")
PROMPTS = ("one", "one", "two", "own")
KEYS = (None, None, "key")
OUTCOMES = ("created", "created", "created", "lost", "broken", "refused", "unreachable")

pick = st.integers(min_value=0, max_value=1000)


def caller(team: str) -> Caller:
    """Make a caller of a team that may run anything."""
    scopes = frozenset(Scope) - {Scope.ACCOUNT}
    return Caller(team=Team(name=team, scopes=scopes), key_id="key", scopes=scopes, models=(("*",),))


class PatientClock(ManualClock):
    """A clock that lets the store's threads finish before the next sleeper wakes."""

    life: Life

    async def advance(self, seconds: float) -> None:
        """Let time pass, waking each sleeper at its own time, with all that follows done before the next wakes."""
        end = self._passed + seconds
        await self.life.quiet()
        while self._sleepers and self._sleepers[0][0] <= end:
            due = self._sleepers[0][0]
            self._passed = max(self._passed, due)
            while self._sleepers and self._sleepers[0][0] <= due:
                _, _, sleeper = self._sleepers.pop(0)
                self._sleepers.sort()
                if not sleeper.done():
                    sleeper.set_result(None)
            await self.life.quiet()
        self._passed = end
        await self.life.quiet()


@dataclass
class Ask:
    """One create of one caller."""

    team: str
    prompt: str
    order: CreateCommand
    task: asyncio.Task[Created | Answer]
    is_checked: bool = False


@dataclass
class Given:
    """An id that a caller got."""

    team: str
    run_id: str
    prompt: str
    deadline_at: float | None
    is_left: bool = False
    """Whether its caller has asked to cancel it."""
    is_ended: bool = False
    """Whether the answer to that has come."""
    shown: Status = Status.STARTING
    """The newest status that its caller has seen."""


class Interleavings(RuleBasedStateMachine):
    """Each rule is something that happens; after each, callers look at what they were given."""

    def __init__(self, backend: Backend = sqlite_maker) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.loop.set_exception_handler(lambda _, context: self.wrongs.append(f"unheard: {context}"))
        self.folder = Path(tempfile.mkdtemp())
        self.another = backend(self.folder)
        self.clock = PatientClock()
        self.upstream = FakeUpstream(self.clock)
        self.upstream.on_send, self.upstream.on_cancel = self._sent, self._cancel_arrives
        self.asks: list[Ask] = []
        self.given: dict[str, Given] = {}
        self.keyed: dict[tuple[str, str], str] = {}
        self.reported: set[str] = set()
        self.listed: dict[str, str] = {}
        self.wrongs: list[str] = []
        self.deaths = 0
        self.own = 0

    def run_on(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Do something and everything that follows from it."""

        async def whole() -> Any:
            result = await work
            await self.life.quiet()
            return result

        return self.loop.run_until_complete(whole())

    async def _nothing(self) -> None:
        """Let things settle."""

    @initialize(callers=st.integers(min_value=0, max_value=3), is_served=st.booleans())
    def begin(self, callers: int, *, is_served: bool) -> None:
        """Start the first gateway, and let some callers of one image come."""
        self._live()
        for number in range(callers):
            self.ask("alpha", ("named", "bare")[number % 2], "one", None, None)
        if is_served and self.upstream.waiting:
            self.serve()

    def _live(self) -> None:
        self.life = self.clock.life = Life(self.another(), self.upstream, self.clock)
        self.run_on(self.life.begin())

    # What callers do

    @rule(
        team=st.sampled_from(TEAMS),
        form=st.sampled_from(FORMS),
        what=st.sampled_from(PROMPTS),
        deadline=st.sampled_from([None, None, None, 5.0, 20.0]),
        key=st.sampled_from(KEYS),
    )
    def ask(self, team: str, form: str, what: str, deadline: float | None, key: str | None) -> None:
        """Somebody asks: for one of two images that others ask for too, or for a throw of the dice."""
        if what == "own":
            self.own += 1
            prompt, seed = f"own {self.own} of {team}", ""
        else:
            prompt, seed = f"{what} of {team}", ',"seed":7'
        version = VERSION if form == "bare" else f"{MODEL}:{VERSION}"
        target = parse_version(version)
        order = CreateCommand(
            kind=Kind.PREDICTION,
            operation="predictions.create",
            path="/predictions",
            target=target,
            body=CreateBody(input=f'{{"prompt":"{prompt}"{seed}}}'.encode(), target=target, version=version),
            cancel_after=deadline,
            cancel_after_header=f"{deadline:.0f}" if deadline else None,
            idempotency_key=f"{key} {prompt} {form}" if key else None,
        )
        self._ask(team, prompt, order)

    @precondition(lambda self: self.asks)
    @rule(which=pick)
    def ask_again(self, which: int) -> None:
        """A caller repeats a request, because of a lost connection or an error: with its key, or for a shared run."""
        before = self.asks[which % len(self.asks)]
        if before.order.idempotency_key is not None or not before.prompt.startswith("own"):
            self._ask(before.team, before.prompt, before.order)

    def _ask(self, team: str, prompt: str, order: CreateCommand) -> None:
        async def begin() -> asyncio.Task[Created | Answer]:
            return asyncio.create_task(self.life.creates.create(caller(team), order))

        self.asks.append(Ask(team, prompt, order, self.run_on(begin())))
        self._hear()

    @precondition(lambda self: any(not each.task.done() for each in self.asks))
    @rule(which=pick)
    def disconnect(self, which: int) -> None:
        """A caller hangs up before the answer."""
        waiting = [each for each in self.asks if not each.task.done()]
        waiting[which % len(waiting)].task.cancel()
        self.run_on(self._nothing())

    @precondition(lambda self: self.given)
    @rule(which=pick)
    def cancel(self, which: int) -> None:
        """A caller cancels its own."""
        prediction_id = list(self.given)[which % len(self.given)]
        mine = self.given[prediction_id]
        mine.is_left = True

        async def begin() -> asyncio.Task[Any]:
            return asyncio.create_task(self.life.predictions.cancel(caller(mine.team), prediction_id))

        def answered(task: asyncio.Task[Any]) -> None:
            if not task.cancelled():
                mine.is_ended = True
                self._see(prediction_id, shown_status(task.result()))

        self.run_on(begin()).add_done_callback(answered)
        self.run_on(self._nothing())

    @rule(team=st.sampled_from(TEAMS))
    def browse(self, team: str) -> None:
        """Somebody lists what the team has: every id in it is one that was seen."""

        async def begin() -> asyncio.Task[Any]:
            return asyncio.create_task(self.life.predictions.list(caller(team), Kind.PREDICTION))

        def answered(task: asyncio.Task[Any]) -> None:
            if not task.cancelled():
                self.listed |= {view.prediction.id: team for view in task.result().items}

        self.run_on(begin()).add_done_callback(answered)
        self.run_on(self._nothing())

    # What upstream does

    @precondition(lambda self: any(each.run is None for each in self.upstream.waiting))
    @rule(which=pick)
    def take(self, which: int) -> None:
        """Upstream takes a create; its answer is still to come."""
        waiting = [each for each in self.upstream.waiting if each.run is None]
        self.upstream.take(waiting[which % len(waiting)])

    @precondition(lambda self: self.upstream.waiting)
    @rule(
        which=pick,
        outcome=st.sampled_from(OUTCOMES),
    )
    def answer(self, which: int, outcome: str) -> None:
        """A create is answered, or its answer is lost; upstream may have taken it or not."""
        waiting = self.upstream.waiting
        sent = waiting[which % len(waiting)]
        if sent.run is not None and outcome in ("refused", "unreachable"):
            outcome = "lost"
        self.upstream.answer(sent, outcome)
        self.run_on(self._nothing())
        self._hear()

    @precondition(lambda self: self.upstream.waiting)
    @rule()
    def serve(self) -> None:
        """Upstream has a good moment: it creates all that was asked for."""
        for sent in self.upstream.waiting:
            self.upstream.answer(sent, "created")
        self.run_on(self._nothing())
        self._hear()

    @precondition(lambda self: any(not each.is_over for each in self.upstream.runs.values()))
    @rule(which=pick, status=st.sampled_from(["processing", "succeeded", "succeeded", "failed"]))
    def move(self, which: int, status: str) -> None:
        """A run goes on, or ends."""
        runs = [each for each in self.upstream.runs.values() if not each.is_over]
        run = runs[which % len(runs)]
        if status == "processing":
            run.status = status
        else:
            self.upstream.end(run, "canceled" if run.cancels and which % 2 else status)

    @rule(late=st.booleans(), fail=st.integers(min_value=0, max_value=2))
    def make_cancels_hard(self, *, late: bool, fail: int) -> None:
        """From now on cancels take their time, and the next few come to nothing."""
        self.upstream.cancels_late, self.upstream.cancels_fail = late, fail

    # What time, the disk and death do

    @rule(seconds=st.sampled_from([0.1, 1.0, 6.0]))
    def wait(self, seconds: float) -> None:
        """Time passes."""
        self.run_on(self.clock.advance(seconds))
        self._hear()

    @precondition(lambda self: not self.life.gate.is_held)
    @rule()
    def hold(self) -> None:
        """The store becomes slow: from now on its steps are let through one by one."""
        self.life.gate.is_held = True

    @precondition(lambda self: self.life.gate.waiting)
    @rule(steps=st.integers(min_value=1, max_value=4), write_first=st.booleans())
    def let(self, steps: int, *, write_first: bool) -> None:
        """Some steps of the store are done."""
        for _ in range(min(steps, self.life.gate.waiting)):
            self.life.gate.let(write_first=write_first)
            self.run_on(self._nothing())
        self._hear()

    @precondition(lambda self: self.life.gate.is_held)
    @rule()
    def release(self) -> None:
        """The store is quick again."""
        self._release()

    def _release(self) -> None:
        while self.life.gate.waiting:
            self.life.gate.let(write_first=False)
            self.run_on(self._nothing())
        self.life.gate.is_held = False
        self._hear()

    @precondition(lambda self: self.deaths < _MOST_DEATHS)
    @rule(taken=st.booleans())
    def crash(self, *, taken: bool) -> None:
        """The gateway is killed; what it had sent upstream is taken there, or is not. Another one starts."""
        self.loop.run_until_complete(self.life.die())
        self.deaths += 1
        for sent in self.upstream.waiting:
            if taken:
                self.upstream.take(sent)
            sent.outcome = "killed"
        self._hear()
        self._live()

    # What is checked

    def _hear(self) -> None:
        """Look at the answers that callers have had since."""
        for each in self.asks:
            if each.is_checked or not each.task.done():
                continue
            each.is_checked = True
            if each.task.cancelled():
                continue
            match each.task.exception():
                case None:
                    self._told(each, each.task.result())
                case UpstreamUncertain():
                    assert self._had(each.prompt, "lost", "broken", "killed"), "uncertain for no reason"
                case UpstreamUnavailable():
                    assert self._had(each.prompt, "unreachable", "lost", "broken", "killed"), (
                        "unavailable for no reason"
                    )
                case Conflict():
                    assert each.order.idempotency_key is not None, "a conflict without a key"
                case exception:
                    raise exception

    def _had(self, prompt: str, *outcomes: str) -> bool:
        return any(each.prompt == prompt and each.outcome in outcomes for each in self.upstream.sent) or (
            "killed" in outcomes and self.deaths > 0
        )

    def _told(self, ask: Ask, created: Created | Answer) -> None:
        if isinstance(created, Answer):
            assert self._had(ask.prompt, "refused"), "refused although upstream did not"
            return
        view = created.view
        prediction_id, key = view.prediction.id, (ask.team, ask.order.idempotency_key or "")
        assert view.prediction.team == ask.team
        if created.is_replay:
            assert self.keyed.get(key, prediction_id) == prediction_id, "a key gave another prediction"
        else:
            assert prediction_id not in self.reported, "one id was given to two"
            self.reported.add(prediction_id)
            # Its replay may have been quicker.
            known = self.keyed.get(key, prediction_id)
            assert known == prediction_id or not key[1], "a key that had its prediction led to another"
        if key[1]:
            self.keyed[key] = prediction_id
        if prediction_id not in self.given:
            deadline_at = view.prediction.deadline_at
            self.given[prediction_id] = Given(ask.team, view.run.id, ask.prompt, deadline_at)
        truth = self.upstream.runs.get(view.run.upstream_id or "")
        assert truth is not None, "a prediction of no run"
        assert truth.prompt == ask.prompt, "a prediction of another request's run"

    def _left(self, mine: Given) -> bool:
        return mine.is_left or (mine.deadline_at is not None and mine.deadline_at <= self.clock.now())

    def _sent(self, prompt: str) -> None:
        """A create arrives upstream: nothing equal may be in progress, and nothing may be sent twice."""
        before: list[Sent] = [each for each in self.upstream.sent if each.prompt == prompt]
        for each in before:
            if each.outcome in ("refused", "unreachable"):
                continue
            if each.run is None:
                self.wrongs.append(f"{prompt} was sent again, and what became of the first time is not known")
            elif prompt.startswith("own"):
                self.wrongs.append(f"{prompt} was run twice")
            elif not each.run.is_over and not self._abandoned(each.run):
                self.wrongs.append(f"{prompt} runs already")

    def _abandoned(self, run: UpstreamRun) -> bool:
        users = self._users(run)
        return run.cancels + run.cancels_failed > 0 or (bool(users) and all(self._left(each) for each in users))

    def _users(self, run: UpstreamRun) -> list[Given]:
        run_ids = {row.run_id for name, row in self.given.items() if name == run.id}
        return [
            each
            for each in self.given.values()
            if each.prompt == run.prompt and (not run_ids or each.run_id in run_ids)
        ]

    def _cancel_arrives(self, run: UpstreamRun) -> None:
        """Upstream is asked to cancel: every caller that got the run must have left it."""
        run_creator = self.given.get(run.id)
        if run_creator is not None:
            killed = [
                each for each in self.given.values() if each.run_id == run_creator.run_id and not self._left(each)
            ]
            if killed:
                self.wrongs.append(f"a neighbour's run was cancelled: {killed}")
        if run.cancels and not self.deaths:
            self.wrongs.append(f"{run.id} was cancelled twice")

    def _see(self, prediction_id: str, status: Status) -> None:
        """A caller sees a status: it only moves forward, and an end is an end."""
        mine = self.given[prediction_id]
        assert status.rank >= mine.shown.rank, f"{prediction_id} went back from {mine.shown} to {status}"
        assert not mine.shown.is_terminal or status == mine.shown, f"{prediction_id} was {mine.shown}, now {status}"
        mine.shown = status

    @invariant()
    def everybody_sees_what_is_theirs(self) -> None:
        """Every id that was given out resolves, with a status that the model allows; nothing wrong has been noted."""
        assert not self.wrongs, self.wrongs
        if not hasattr(self, "life") or self.life.gate.is_held:
            return
        for prediction_id, mine in self.given.items():
            view = self.run_on(self.life.predictions.get(caller(mine.team), prediction_id))
            assert view.run.id == mine.run_id
            status, truth = shown_status(view), self.upstream.runs[view.run.upstream_id]
            self._see(prediction_id, status)
            if status.is_terminal and status != truth.status:
                assert self._left(mine), f"{prediction_id} is {status}, upstream says {truth.status}"
            if mine.is_ended:
                assert status.is_terminal, "a cancelled prediction goes on"
            if mine.deadline_at is not None and mine.deadline_at + _LAG < self.clock.now():
                assert status.is_terminal, "a deadline was not kept"
            other = next(team for team in TEAMS if team != mine.team)
            try:
                self.run_on(self.life.predictions.get(caller(other), prediction_id))
            except NotFound:
                continue
            raise AssertionError("a foreign prediction was shown")

    def _all_listed_is_still_there(self) -> None:
        for prediction_id, team in self.listed.items():
            view = self.run_on(self.life.predictions.get(caller(team), prediction_id))
            assert view.prediction.team == team

    def teardown(self) -> None:
        """Let everything come to its end, and look at what is left."""
        try:
            if hasattr(self, "life") and not self.wrongs:
                self._end()
        finally:
            if hasattr(self, "life"):
                self.loop.run_until_complete(self.life.die())
            self.loop.close()
            shutil.rmtree(self.folder, ignore_errors=True)

    def _end(self) -> None:
        self._release()
        self.upstream.cancels_fail = 0
        while self.upstream.waiting:
            self.upstream.answer(self.upstream.waiting[0], "created")
            self.run_on(self._nothing())
            self._hear()
        self.run_on(self.clock.advance(_AWHILE))
        self._hear()
        self.everybody_sees_what_is_theirs()
        self._no_run_has_leaked()
        self._all_listed_is_still_there()
        for run in self.upstream.runs.values():
            if not run.is_over:
                self.upstream.end(run, "canceled" if run.cancels else "succeeded")
        self.run_on(self.clock.advance(_AWHILE))
        self.everybody_sees_what_is_theirs()
        assert all(each.shown.is_terminal for each in self.given.values()), "somebody waits forever"
        self.run_on(self.clock.advance(_SEARCH_SECONDS + _AWHILE))
        left = self.run_on(self.life.store.open_runs())
        assert not left, f"never settled: {left}"
        self._money_adds_up()
        assert all(each.task.done() for each in self.asks), "a caller was never answered"
        assert not self.wrongs, self.wrongs

    def _money_adds_up(self) -> None:
        """Each run of upstream's is paid for once; whoever shared one saved its cost; nothing is held any more."""
        now = self.clock.now()
        lines = self.run_on(self.life.store.newest_spend(10_000))
        by_run = {line.run_id: line.microusd for line in lines}
        assert len(by_run) == len(lines), "a run was settled twice"
        costs = {name: self._cost(run) for name, run in self.upstream.runs.items()}
        found = {}
        for run_id, microusd in by_run.items():
            run = self.run_on(self.life.store.run(run_id))
            found[run.upstream_id] = microusd
        assert found == costs
        for team in TEAMS:
            scope = quota.scope(SubjectKind.TEAM, team)
            meter = self.run_on(self.life.store.meters([scope], now))[scope]
            assert (meter.open, meter.held_microusd, meter.held_milliseconds) == (0, 0, 0), "something is still held"
            rows = self.run_on(self.life.store.usage(By.TEAM, since=0, until=10**6, team=team))
            spent = sum(line.microusd for line in lines if line.team == team)
            saved = sum(by_run[each.run_id] for each in self._sharing(team))
            assert [(row.microusd, row.saved_microusd) for row in rows or [Usage()]] == [(spent, saved)]
        assert self.run_on(self.life.store.recount_meters()) == 0

    def _sharing(self, team: str) -> list[Prediction]:
        runs = {line.run_id for line in self.run_on(self.life.store.newest_spend(10_000))}
        known = [each for run_id in runs for each in self.run_on(self.life.store.predictions_of(run_id))]
        return [each for each in known if each.team == team and each.source in (Source.JOINED, Source.HIT)]

    def _cost(self, run: UpstreamRun) -> int:
        seconds = 0 if run.status == "aborted" else run.seconds
        return int((Decimal(str(seconds)) * _USD_PER_SECOND * 10**6).to_integral_value())

    def _no_run_has_leaked(self) -> None:
        """Every run of upstream's is somebody's, and is cancelled if nobody wants it, once."""
        open_runs = self.run_on(self.life.store.open_runs())
        for run in self.upstream.runs.values():
            assert self.run_on(self.life.store.owns_upstream_id(run.id)), f"{run.id} is nobody's"
        for run in open_runs:
            if run.state is not RunState.LIVE:
                continue
            users = self.run_on(self.life.store.predictions_of(run.id))
            truth = self.upstream.runs[run.upstream_id]
            if all(each.canceled_at is not None for each in users):
                assert truth.cancels, f"nobody wants {run.upstream_id}, and upstream was not asked to cancel"
            else:
                assert not truth.cancels, f"{run.upstream_id} was cancelled, and is wanted"
