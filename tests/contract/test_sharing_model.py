"""Random lives of shared runs, step by step against a plain model in memory that does the same, messages included.

Where the contract leaves a choice (several provisional runs, two ends at one moment) the model follows the store's.
"""

import asyncio
import itertools
from collections.abc import Awaitable
from typing import TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from msgspec.structs import replace

from gateway.domain.records import RunState, Source, Status
from gateway.errors import Conflict
from gateway.predictions.ports.predictions import Unchanged
from gateway.predictions.ports.sharing import (
    FinishedRuns,
    Hit,
    Idempotency,
    Joined,
    Mismatched,
    Nothing,
    OpenRuns,
    Pending,
    Replayed,
    ShareOutcome,
    ShareRequest,
    Started,
    StartOutcome,
)
from gateway.store.interface import Store
from gateway.webhooks.rules.deliveries import DeliveryState
from tests.support.audit import PURGE
from tests.support.records import NOW, Wish, ended, intent, live, moved, prediction
from tests.support.rounds import amounts, on_engine
from tests.support.sharing_model import Known, Life
from tests.support.stores import StoreMaker

T = TypeVar("T")


FINGERPRINTS = st.sampled_from([None, "F0", "F1"])


PROVISIONALS = st.sampled_from([None, None, "P0"])


LIVES = st.sampled_from([None, 3.0, 30.0])


HOOK = "https://receiver.example/hook"


_examples = itertools.count()


class Sharing(RuleBasedStateMachine):
    """One example: its ids, identities and team are its own, so that all examples share one store."""

    def __init__(self, store: Store, runner: asyncio.Runner) -> None:
        super().__init__()
        self.store = store
        self.runner = runner
        self.name = f"x{next(_examples)}"
        self.numbers = itertools.count()
        self.now = NOW
        self.runs: dict[str, Life] = {}
        self.keys: dict[str, tuple[Idempotency, str]] = {}
        self.touched: set[str] = set()

    def do(self, work: Awaitable[T]) -> T:
        async def done() -> T:
            return await work

        return self.runner.run(done())

    def some_run(self, data: st.DataObject) -> tuple[str, Life]:
        run_id = data.draw(st.sampled_from(sorted(self.runs)))
        self.touched.add(run_id)
        return run_id, self.runs[run_id]

    def run_of(self, prediction_id: str) -> Life | None:
        return next((life for life in self.runs.values() if prediction_id in life.predictions), None)

    def some_prediction(self, data: st.DataObject) -> str:
        run_id, life = self.some_run(data)
        return data.draw(st.sampled_from(sorted(life.predictions) or [run_id]))

    def of_mine(self, word: str | None) -> str | None:
        return None if word is None else f"{self.name}{word}"

    @rule(seconds=st.sampled_from([0.5, 2.0, 20.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(
        fingerprint=FINGERPRINTS,
        provisional=PROVISIONALS,
        may=st.tuples(*[st.sampled_from([True, True, True, False])] * 3),
        age=st.sampled_from([None, None, 5.0]),
        key=st.sampled_from([None, None, "k0", "k1"]),
        body=st.sampled_from(["body", "body", "other"]),
    )
    def someone_asks(
        self,
        fingerprint: str | None,
        provisional: str | None,
        may: tuple[bool, bool, bool],
        age: float | None,
        key: str | None,
        body: str,
    ) -> None:
        n = next(self.numbers)
        run_id, prediction_id = f"{self.name}run{n}", f"{self.name}p{n}"
        own_fingerprint, own_provisional = self.of_mine(fingerprint), self.of_mine(provisional)
        may_hit, may_join, may_start = may
        is_shared = fingerprint is not None or provisional is not None
        since = 0.0 if age is None else self.now - age
        wished = Wish(
            ShareRequest(
                prediction=prediction(prediction_id, run_id, team=self.name, created_at=self.now, webhook=HOOK),
                now=self.now,
                may_hit=FinishedRuns(own_fingerprint, since) if may_hit and own_fingerprint is not None else None,
                may_join=OpenRuns(own_fingerprint, own_provisional) if may_join and is_shared else None,
                idempotency=None if key is None else Idempotency(key, body, self.now + 15),
            ),
            intent(run_id, team=self.name, fingerprint=own_fingerprint, provisional=own_provisional),
        )
        expected, candidates = self.expected(wished, may_start=may_start)
        outcome = self.do(wished.start(self.store) if may_start else wished.share(self.store))
        assert type(outcome) is expected
        match outcome:
            case Replayed(view):
                assert view.prediction.id == self.keys[str(key)][1]
            case Hit() | Joined() | Started():
                self.note(wished, outcome, candidates)
            case _:
                assert not candidates

    def expected(self, wished: Wish, *, may_start: bool) -> tuple[type[StartOutcome | ShareOutcome], set[str]]:
        """Say which outcome a request has, and on which runs it can have it."""
        request, run = wished.request, wished.run
        if request.idempotency is not None and request.idempotency.key in self.keys:
            known, prediction_id = self.keys[request.idempotency.key]
            if request.now < known.expires_at:
                if known.body_digest != request.idempotency.body_digest:
                    return Mismatched, set()
                life = self.run_of(prediction_id)
                assert life is not None
                return (Replayed if life.shows(prediction_id) else Pending), set()
        if (wanted := request.may_hit) is not None:
            hits = {
                run_id: life.ended_at
                for run_id, life in self.runs.items()
                if life.fingerprint == wanted.fingerprint
                if life.cache_until is not None and self.now < life.cache_until
                if life.ended_at is not None and life.ended_at >= wanted.ended_since
            }
            if hits:
                return Hit, {run_id for run_id, at in hits.items() if at == max(hits.values())}
        joins = self.joinable(run.fingerprint, run.provisional)
        if request.may_join is not None and joins:
            return Joined, joins
        return (Started, {run.id}) if may_start else (Nothing, set())

    def joinable(self, fingerprint: str | None, provisional: str | None) -> set[str]:
        going = {run_id: life for run_id, life in self.runs.items() if life.is_open}
        same = {each for each, life in going.items() if fingerprint is not None and life.fingerprint == fingerprint}
        return same or {
            each
            for each, life in going.items()
            if provisional is not None and life.provisional == provisional
            if life.fingerprint is None or fingerprint is None
        }

    def note(self, wished: Wish, outcome: Hit | Joined | Started, candidates: set[str]) -> None:
        """Let the model do what the store has done."""
        asked, made, run = wished.request.prediction, outcome.view.prediction, outcome.view.run
        assert run.id in candidates
        self.touched.add(run.id)
        source = {Hit: Source.HIT, Joined: Source.JOINED}.get(type(outcome), asked.source)
        assert made == replace(asked, run_id=run.id, source=source)
        if isinstance(outcome, Started):
            identity = (wished.run.fingerprint, wished.run.provisional)
            if self.joinable(*identity):
                identity = (None, None)
            self.runs[run.id] = Life(*identity, starter=made.id)
        self.runs[run.id].predictions[made.id] = Known(source)
        if wished.request.idempotency is not None:
            self.keys[wished.request.idempotency.key] = (wished.request.idempotency, made.id)

    @precondition(lambda self: self.runs)
    @rule(data=st.data(), at_once=st.sampled_from([None, None, Status.SUCCEEDED, Status.FAILED]), lives=LIVES)
    def upstream_answers_the_create(self, data: st.DataObject, at_once: Status | None, lives: float | None) -> None:
        run_id, life = self.some_run(data)
        # Recording a create twice changes nothing, so some are recorded again.
        starter = f"{run_id}up"
        identity = {"fingerprint": life.fingerprint, "provisional": life.provisional, "team": self.name}
        cache_until = None if lives is None else self.now + lives
        run = (
            live(run_id, **identity)
            if at_once is None
            else ended(run_id, self.now, status=at_once, cache_until=cache_until, **identity)
        )
        created = prediction(starter, run_id, team=self.name, created_at=self.now, webhook=HOOK)
        view = self.do(self.store.record_created(run, created)).view
        assert view == self.do(self.store.prediction(starter))
        if life.upstream_id is not None:
            return
        if life.state is not RunState.ENDED:
            life.state = RunState.LIVE
            if at_once is not None:
                life.end(at_once, self.now, cache_until)
        life.upstream_id = run.upstream_id
        life.predictions[starter] = Known(life.predictions.pop(life.starter).source)
        self.keys = {
            key: (known, starter if prediction_id == life.starter else prediction_id)
            for key, (known, prediction_id) in self.keys.items()
        }
        life.starter = starter

    @precondition(lambda self: any(life.upstream_id for life in self.runs.values()))
    @rule(data=st.data())
    def an_orphan_of_another_is_taken_by_mistake(self, data: st.DataObject) -> None:
        owner = data.draw(st.sampled_from(sorted(each for each, life in self.runs.items() if life.upstream_id)))
        run_id, _ = self.some_run(data)
        if run_id == owner:
            return
        with pytest.raises(Conflict):
            self.do(
                self.store.record_created(
                    live(run_id, upstream_id=self.runs[owner].upstream_id), prediction(f"{run_id}stolen", run_id)
                )
            )

    @precondition(lambda self: self.runs)
    @rule(data=st.data())
    def a_create_came_to_nothing(self, data: st.DataObject) -> None:
        run_id, life = self.some_run(data)
        self.do(self.store.discard_intent(run_id))
        if life.state is RunState.INTENDED:
            del self.runs[run_id]
            self.keys = {key: known for key, known in self.keys.items() if known[1] not in life.predictions}

    @precondition(lambda self: self.runs)
    @rule(
        data=st.data(),
        status=st.sampled_from([Status.STARTING, Status.PROCESSING, *[Status.SUCCEEDED] * 3, Status.CANCELED]),
        lives=LIVES,
    )
    def news_come(self, data: st.DataObject, status: Status, lives: float | None) -> None:
        run_id, life = self.some_run(data)
        document = f"news{next(self.numbers)}".encode()
        until = None if lives is None else self.now + lives
        outcome = self.do(
            self.store.advance(
                run_id, status=status, document=document, stream_url=None, at=self.now, cache_until=until
            )
        )
        if life.state is RunState.ENDED or status.rank < life.status.rank:
            assert outcome == Unchanged()
            return
        assert moved(outcome).document == document
        if status.is_terminal:
            life.end(status, self.now, until)
        life.status = status

    @precondition(lambda self: self.runs)
    @rule(data=st.data(), by_deadline=st.booleans())
    def someone_leaves(self, data: st.DataObject, *, by_deadline: bool) -> None:
        prediction_id = self.some_prediction(data)
        life = self.run_of(prediction_id)
        cancellation = self.do(self.store.cancel(prediction_id, self.now, by_deadline=by_deadline))
        if life is None or not life.shows(prediction_id):
            assert cancellation is None
            return
        assert cancellation is not None
        known = life.predictions[prediction_id]
        changes = known.canceled_at is None and life.state is RunState.LIVE
        if changes:
            known.canceled_at = self.now
            aborts = by_deadline and life.status is Status.STARTING
            known.final_status = Status.ABORTED if aborts else Status.CANCELED
            known.left_untold = known.source is Source.JOINED and life.fingerprint is None
        is_last = (
            changes
            and life.asked_at is None
            and all(each.canceled_at is not None for each in life.predictions.values())
        )
        if is_last:
            life.asked_at = self.now
        assert (cancellation.changed, cancellation.is_last) == (changes, is_last)

    @precondition(lambda self: self.runs)
    @rule(data=st.data())
    def someone_parts(self, data: st.DataObject) -> None:
        prediction_id = self.some_prediction(data)
        life = self.run_of(prediction_id)
        self.do(self.store.detach(prediction_id))
        if life is not None and life.predictions[prediction_id].source is Source.JOINED:
            del life.predictions[prediction_id]
            self.keys = {key: known for key, known in self.keys.items() if known[1] != prediction_id}

    @precondition(lambda self: self.runs)
    @rule(data=st.data(), word=FINGERPRINTS, lives=LIVES)
    def the_model_is_named(self, data: st.DataObject, word: str | None, lives: float | None) -> None:
        run_id, life = self.some_run(data)
        fingerprint = self.of_mine(word)
        until = None if lives is None else self.now + lives
        is_taken = any(other.is_open and other.fingerprint == fingerprint for other in self.runs.values())
        if life.fingerprint is None and life.provisional is not None and not is_taken:
            life.fingerprint = fingerprint
        life.provisional = None
        settled = self.do(self.store.settle_identity(run_id, fingerprint, until))
        assert settled == (life.fingerprint == fingerprint)
        if settled and fingerprint is not None and life.status is Status.SUCCEEDED and until is not None:
            life.cache_until = until

    @rule()
    def the_cache_is_purged(self) -> None:
        kept = [life for life in self.runs.values() if life.cache_until is not None]
        assert self.do(self.store.purge_cache(PURGE, team=self.name)) == len(kept)
        for life in kept:
            life.cache_until = None
        self.touched |= set(self.runs)

    @invariant()
    def the_store_says_what_the_model_says(self) -> None:
        for run_id in self.touched:
            self.do(self.compare(run_id))
        self.touched.clear()

    async def compare(self, run_id: str) -> None:
        run, life = await self.store.run(run_id), self.runs.get(run_id)
        known = {each.id: each for each in await self.store.predictions_of(run_id)}
        if life is None:
            assert run is None
            assert known == {}
            return
        assert run is not None
        assert (run.state, run.status, run.upstream_id) == (life.state, life.status, life.upstream_id)
        assert (run.fingerprint, run.provisional, run.leader_id) == (
            life.fingerprint,
            life.provisional,
            life.starter,
        )
        assert (run.cancel_asked_at, run.ended_at, run.cache_until) == (life.asked_at, life.ended_at, life.cache_until)
        assert {
            each: Known(stored.source, stored.canceled_at, stored.final_status) for each, stored in known.items()
        } == life.predictions
        messages = await self.store.deliveries(team=self.name)
        reported = {each.prediction_id for each in messages if each.run_id == run_id}
        assert reported == {each for each in known if life.tells(each)}
        places = await self.store.deliveries(team=self.name, state=DeliveryState.RESERVED)
        assert {each.prediction_id for each in places if each.run_id == run_id} == set(known) - reported
        for prediction_id in known:
            view = await self.store.prediction(prediction_id)
            assert (view is not None) == life.shows(prediction_id)
            assert view is None or view.run == run

    def teardown(self) -> None:
        for run_id in self.runs:
            self.do(self.compare(run_id))
        stats = self.do(self.store.cache_stats(self.now, self.name))
        living = [life for life in self.runs.values() if life.cache_until is not None and self.now < life.cache_until]
        assert stats.entries == len(living)
        places = sum(len(life.predictions) for life in self.runs.values())
        assert self.do(self.store.delivery_counts()).taken.get(self.name, 0) == places


@pytest.mark.parametrize("examples", amounts(40, 1000))
def test_random_histories_match_the_model_in_memory(engine: str, in_order: StoreMaker, examples: int) -> None:
    """In any order of events no caller is lost, no other run is cancelled, and no fingerprint has two runs."""
    store = in_order()
    with asyncio.Runner() as runner:
        runner.run(store.open())
        try:
            run_state_machine_as_test(
                lambda: Sharing(store, runner),
                settings=settings(
                    max_examples=on_engine(engine, examples),
                    stateful_step_count=30,
                    deadline=None,
                    derandomize=True,
                    suppress_health_check=list(HealthCheck),
                ),
            )
        finally:
            runner.run(store.close())
