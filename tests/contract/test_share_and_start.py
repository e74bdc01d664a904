"""How a prediction is created: as a hit, joined, on a run of its own, or not at all. One step decides."""

import itertools

import pytest
from msgspec.structs import replace

from gateway.domain.records import Kind, PredictionView, RunState, Source, Status
from gateway.errors import Conflict
from gateway.predictions.ports.sharing import FinishedRuns, Hit, Joined, Nothing, OpenRuns, Started
from gateway.store.interface import Store
from tests.support.records import (
    NOW,
    ended,
    finish,
    go,
    join,
    lead,
    live,
    prediction,
    share,
    start,
    view_of,
    wish,
)


async def test_whoever_finds_nothing_leads(store: Store) -> None:
    """The intent is recorded with its prediction as the leader, whose source stays as it was given."""
    wished = wish("1", fingerprint="F", provisional="P", prediction_={"source": Source.BYPASS, "user": "ann"})
    recorded, starter = replace(wished.run, leader_id="p1"), wished.request.prediction
    assert await wished.start(store) == Started(PredictionView(starter, recorded))
    assert await store.run("run1") == recorded
    assert await store.open_runs() == [recorded]
    assert await store.predictions_of("run1") == [starter]


async def test_the_prediction_belongs_to_the_run_that_is_led(store: Store) -> None:
    outcome = await start(store, "1", prediction_={"run_id": "to be said"})
    assert view_of(outcome).prediction == prediction("p1", "run1")


async def test_whoever_finds_an_intent_joins_it(store: Store) -> None:
    """The second caller does not wait for the answer to the first one's create to be counted in."""
    led = await lead(store, "1", fingerprint="F")
    outcome = await start(store, "2", fingerprint="F", prediction_={"webhook": "https://x.example/"})
    joined = prediction("p2", "run1", source=Source.JOINED, webhook="https://x.example/")
    assert outcome == Joined(PredictionView(joined, led))
    assert await store.predictions_of("run1") == [prediction(), joined]
    assert await store.run("run2") is None


async def test_whoever_finds_a_live_run_joins_it(store: Store) -> None:
    run = await go(store, "1", fingerprint="F")
    assert run == live(fingerprint="F", leader_id="up1")
    outcome = await start(store, "2", fingerprint="F")
    assert outcome == Joined(PredictionView(prediction("p2", "run1", source=Source.JOINED), run))
    assert await store.prediction("p2") == PredictionView(prediction("p2", "run1", source=Source.JOINED), run)


async def test_whoever_finds_a_finished_run_hits_it(store: Store) -> None:
    """The answer is there at once, with an id of its own that resolves."""
    await go(store, "1", fingerprint="F")
    run = await finish(store, "1")
    assert run.cache_until == NOW + 1000
    outcome = await start(store, "2", fingerprint="F", now=NOW + 20)
    assert outcome == Hit(PredictionView(prediction("p2", "run1", source=Source.HIT), run), 0)
    assert await store.prediction("p2") == PredictionView(prediction("p2", "run1", source=Source.HIT), run)
    assert await store.run("run2") is None


@pytest.mark.parametrize("may_start", [True, False])
@pytest.mark.parametrize("may_join", [True, False])
@pytest.mark.parametrize("may_hit", [True, False])
@pytest.mark.parametrize("there", ["nothing", "open", "finished", "both"])
async def test_the_first_way_that_is_allowed_is_taken(
    store: Store, there: str, *, may_hit: bool, may_join: bool, may_start: bool
) -> None:
    """`no-cache` joins and does not hit; `only-if-cached` does not lead; and each takes what it can get."""
    if there in ("finished", "both"):
        await go(store, "1", fingerprint="F")
        await finish(store, "1")
    if there in ("open", "both"):
        await go(store, "2", fingerprint="F", may_hit=False)
    ask = start if may_start else share
    outcome = await ask(store, "3", fingerprint="F", may_hit=may_hit, may_join=may_join)
    expected: type[Hit | Joined | Started]
    if may_hit and there in ("finished", "both"):
        expected, run_id = Hit, "run1"
    elif may_join and there in ("open", "both"):
        expected, run_id = Joined, "run2"
    elif may_start:
        expected, run_id = Started, "run3"
    else:
        assert outcome == Nothing()
        assert await store.run("run3") is None
        for each in ("run1", "run2"):
            assert "p3" not in [known.id for known in await store.predictions_of(each)]
        return
    assert isinstance(outcome, expected)
    assert view_of(outcome).run.id == run_id
    assert view_of(outcome).run == await store.run(run_id)
    assert view_of(outcome).prediction in await store.predictions_of(run_id)


async def test_a_run_that_may_not_be_joined_stays_the_one_to_join(store: Store) -> None:
    """Someone insists on a run of their own: it is recorded without an identity, and takes nobody from the first."""
    await go(store, "1", fingerprint="F", provisional="P")
    for name, fingerprint in (("2", "F"), ("3", None)):
        outcome = await start(store, name, fingerprint=fingerprint, provisional="P", may_hit=False, may_join=False)
        assert isinstance(outcome, Started)
        assert (view_of(outcome).run.fingerprint, view_of(outcome).run.provisional) == (None, None)
        assert await store.run(f"run{name}") == view_of(outcome).run
    await store.record_created(live("run2", fingerprint="F", provisional="P"), prediction("up2", "run2"))
    recorded = await store.run("run2")
    assert recorded is not None
    assert recorded.fingerprint is None
    joined = await join(store, "4")
    assert joined.view.run.id == "run1"


async def test_identities_do_not_mix(store: Store) -> None:
    """Other input, other scope, no identity at all: each has a run of its own."""
    for name, fingerprint in (("1", "F"), ("2", "f"), ("3", "F "), ("4", None), ("5", None), ("6", "")):
        await lead(store, name, fingerprint=fingerprint, may_hit=True, may_join=True)
    assert len(await store.open_runs()) == 6


async def test_a_run_that_is_asked_to_cancel_is_not_joined(store: Store) -> None:
    await go(store, "1", fingerprint="F")
    await store.cancel("up1", NOW + 1)
    assert isinstance(await start(store, "2", fingerprint="F"), Started)


@pytest.mark.parametrize("status", [Status.FAILED, Status.CANCELED, Status.ABORTED])
async def test_what_did_not_succeed_answers_nobody(store: Store, status: Status) -> None:
    """Negative results are not cached: the next caller tries anew."""
    await go(store, "1", fingerprint="F")
    run = await finish(store, "1", status=status)
    assert run.cache_until is None
    assert isinstance(await start(store, "2", fingerprint="F"), Started)


async def test_what_succeeded_after_a_cancel_answers_later_callers(store: Store) -> None:
    """Upstream finished all the same: the money is spent, so the result is used (docs/architecture.md, Create)."""
    await go(store, "1", fingerprint="F")
    await store.cancel("up1", NOW + 1)
    run = await finish(store, "1")
    assert (run.cache_until, run.cancel_asked_at) == (NOW + 1000, NOW + 1)
    assert isinstance(await start(store, "2", fingerprint="F"), Hit)


async def test_a_run_answers_until_its_time_is_over(store: Store) -> None:
    await go(store, "1", fingerprint="F")
    await finish(store, "1", cache_until=NOW + 100)
    assert isinstance(await share(store, "2", now=NOW + 99.9, fingerprint="F"), Hit)
    assert isinstance(await share(store, "3", now=NOW + 100, fingerprint="F"), Nothing)


async def test_a_run_without_a_time_answers_nobody(store: Store) -> None:
    await go(store, "1", fingerprint="F")
    await finish(store, "1", cache_until=None)
    assert isinstance(await start(store, "2", fingerprint="F"), Started)


async def test_a_caller_may_want_it_younger(store: Store) -> None:
    """`max-age`: the end must not lie too far back; just as far is near enough."""
    await go(store, "1", fingerprint="F")
    await finish(store, "1", at=NOW + 9)
    assert isinstance(await share(store, "2", ended_since=NOW + 9.1, fingerprint="F"), Nothing)
    assert isinstance(await share(store, "3", ended_since=NOW + 9, fingerprint="F"), Hit)


@pytest.mark.parametrize("order", list(itertools.permutations([1, 2, 3])))
async def test_the_newest_result_answers(store: Store, order: tuple[int, ...]) -> None:
    """`no-cache` made a new result: it takes the place of the old one, in whatever order they were recorded."""
    for n in order:
        await store.record_created(
            ended(f"run{n}", NOW + n, fingerprint="F", cache_until=NOW + 50 if n == 3 else NOW + 100),
            prediction(f"up{n}", f"run{n}"),
        )
    outcome = await start(store, "8", fingerprint="F")
    assert view_of(outcome).run.id == "run3"
    outcome = await start(store, "9", fingerprint="F", now=NOW + 60)
    assert view_of(outcome).run.id == "run2"


async def test_cleared_data_answers_nobody(store: Store) -> None:
    await go(store, "1", fingerprint="F")
    await finish(store, "1")
    await store.clear_data("run1", b"removed")
    assert isinstance(await start(store, "2", fingerprint="F"), Started)


async def test_a_run_that_ended_with_its_create_answers_later_callers(store: Store) -> None:
    """Upstream's answer to the create was terminal already."""
    await lead(store, "1", fingerprint="F")
    await store.record_created(ended(cache_until=NOW + 100), prediction("up1", "run1"))
    assert isinstance(await start(store, "2", fingerprint="F"), Hit)


async def test_only_an_identity_is_kept_for_later(store: Store) -> None:
    """A request that was bypassed leaves nothing to hit, whatever its tracker says of its age."""
    await lead(store, "1")
    await store.record_created(ended("run1", cache_until=NOW + 100), prediction("up1", "run1"))
    await go(store, "2")
    assert (await finish(store, "2")).cache_until is None
    run = await store.run("run1")
    assert run is not None
    assert run.cache_until is None
    assert (await store.cache_stats(NOW)).entries == 0


async def test_an_end_that_overtook_the_create_can_be_hit(store: Store) -> None:
    """Upstream's webhook was faster than its answer: the hit's id resolves at once, the leader's when it has one."""
    await lead(store, "1", fingerprint="F")
    await finish(store, "1")
    assert isinstance(await start(store, "2", fingerprint="F"), Hit)
    assert await store.prediction("p2") is not None
    assert await store.prediction("p1") is None
    await store.record_created(live(), prediction("up1", "run1"))
    run = await store.run("run1")
    assert run is not None
    assert (run.state, run.leader_id, run.cache_until) == (RunState.ENDED, "up1", NOW + 1000)
    assert await store.prediction("up1") == PredictionView(prediction("up1", "run1"), run)


async def test_a_provisional_identity_joins_while_the_model_is_unknown(store: Store) -> None:
    """A burst of `run("owner/name:version")` on a cold gateway: all wait with the first one."""
    led = await lead(store, "1", provisional="P")
    outcome = await start(store, "2", provisional="P")
    assert isinstance(outcome, Joined)
    assert outcome.view.run == led
    # Another process knows the model already.
    outcome = await start(store, "3", fingerprint="F", provisional="P")
    assert isinstance(outcome, Joined)
    assert outcome.view.run == led
    await lead(store, "4", provisional="p")


async def test_who_does_not_know_the_model_joins_who_does(store: Store) -> None:
    await lead(store, "1", fingerprint="F", provisional="P")
    assert isinstance(await start(store, "2", provisional="P"), Joined)


async def test_final_identities_decide_over_provisional_ones(store: Store) -> None:
    """The version's schema came out differently in between: the two requests are not the same."""
    await lead(store, "1", fingerprint="F", provisional="P")
    await lead(store, "2", fingerprint="G", provisional="P")
    outcome = await start(store, "3", provisional="P", run={"intended_at": NOW + 1})
    assert view_of(outcome).run.id == "run1"


async def test_a_fingerprint_is_looked_for_before_a_provisional_identity(store: Store) -> None:
    await lead(store, "1", provisional="P")
    await lead(store, "2", fingerprint="F")
    outcome = await start(store, "3", fingerprint="F", provisional="P")
    assert view_of(outcome).run.id == "run2"


async def test_an_id_begins_once(store: Store) -> None:
    """A step that is repeated by mistake neither moves a prediction nor writes over a run."""
    await lead(store, "1", fingerprint="F")
    for again in (
        wish("1", fingerprint="F"),
        wish("1", fingerprint="G"),
        wish("2", run={"id": "run1"}),
        wish("1", run={"id": "run2"}),
    ):
        with pytest.raises(Conflict):
            await again.start(store)
    assert [run.fingerprint for run in await store.open_runs()] == ["F"]
    assert len(await store.predictions_of("run1")) == 1


async def test_what_nobody_has_seen_is_found_by_nobody(store: Store) -> None:
    """Until upstream has answered, no list, id or ticket shows a prediction; then all of them do."""
    await lead(store, "1", fingerprint="F")
    await join(store, "2")
    for each in ("p1", "p2"):
        assert await store.prediction(each) is None
        assert await store.prediction_by_ticket(f"ticket-{each}") is None
    for team in ("red", None):
        page = await store.predictions(team=team, kind=Kind.PREDICTION, limit=10)
        assert (page.items, page.has_newer, page.has_older) == ([], False, False)
    await store.record_created(live(), prediction("up1", "run1"))
    assert await store.prediction("p1") is None
    assert await store.prediction_by_ticket("ticket-p1") is None
    for each in ("up1", "p2"):
        assert await store.prediction(each) is not None
        assert await store.prediction_by_ticket(f"ticket-{each}") is not None
    page = await store.predictions(team="red", kind=Kind.PREDICTION, limit=10)
    assert [item.prediction.id for item in page.items if isinstance(item, PredictionView)] == ["up1", "p2"]


async def test_unseen_predictions_leave_no_empty_pages(store: Store) -> None:
    """The newest and the oldest are still intended: a list has no link to where they are."""
    for n in range(4):
        name = str(n)
        await start(store, name, prediction_={"created_at": NOW + n})
        if n in (1, 2):
            await store.record_created(live(f"run{n}"), prediction(f"up{n}", f"run{n}", created_at=NOW + n))
    page = await store.predictions(team="red", kind=Kind.PREDICTION, limit=2)
    assert [item.prediction.id for item in page.items if isinstance(item, PredictionView)] == ["up2", "up1"]
    assert (page.has_newer, page.has_older) == (False, False)


async def test_upstreams_answer_replaces_the_placeholder(store: Store) -> None:
    """The leader's caller sees upstream's id and time; those who joined keep their own."""
    await lead(store, "1", fingerprint="F", prediction_={"user": "ann", "deadline_at": NOW + 60})
    await join(store, "2")
    starter = prediction("up1", "run1", user="ann", created_at=NOW + 0.5, ticket="T", deadline_at=NOW + 60.5)
    await store.record_created(live(), starter)
    run = await store.run("run1")
    assert run == live(fingerprint="F", leader_id="up1")
    assert await store.predictions_of("run1") == [prediction("p2", "run1", source=Source.JOINED), starter]
    assert await store.prediction_by_ticket("T") == PredictionView(starter, run)
    await store.record_created(live(), starter)
    assert len(await store.predictions_of("run1")) == 2


async def test_an_adopted_run_is_uncertain_no_more(store: Store) -> None:
    await lead(store, "1")
    await store.mark_uncertain("run1", NOW + 30)
    await store.mark_uncertain("run1", NOW + 40)
    run = await store.run("run1")
    assert run is not None
    assert run.uncertain_at == NOW + 30
    await store.record_created(live(), prediction("up1", "run1"))
    await store.mark_uncertain("run1", NOW + 50)
    await store.mark_uncertain("unknown", NOW + 50)
    run = await store.run("run1")
    assert run is not None
    assert run.uncertain_at is None
    await lead(store, "2")
    await store.mark_uncertain("run2", NOW)
    await store.advance("run2", status=Status.PROCESSING, document=b"early", stream_url=None, at=NOW)
    await store.record_created(live("run2"), prediction("up2", "run2"))
    run = await store.run("run2")
    assert run is not None
    assert (run.uncertain_at, run.leader_id) == (None, "up2")


async def test_a_discarded_intent_takes_all_with_it(store: Store) -> None:
    """Upstream refused the create: nobody's list shows it, and the next caller tries anew."""
    await lead(store, "1", fingerprint="F")
    await join(store, "2")
    await store.discard_intent("run1")
    assert await store.run("run1") is None
    assert await store.predictions_of("run1") == []
    assert await store.open_runs() == []
    # Their ids are free again, so nothing is left of them.
    await lead(store, "1", fingerprint="F")
    await join(store, "2")


async def test_only_an_intent_is_discarded_with_its_predictions(store: Store) -> None:
    await go(store, "1", fingerprint="F")
    await join(store, "2")
    await store.discard_intent("run1")
    assert len(await store.predictions_of("run1")) == 2


async def test_an_answer_after_the_intent_was_given_up_takes_no_identity_away(store: Store) -> None:
    """An orphan was given up, another led since, and then it is recorded after all: there is still one to join."""
    await lead(store, "1", fingerprint="F")
    await store.discard_intent("run1")
    await lead(store, "2", fingerprint="F")
    await store.record_created(live(fingerprint="F"), prediction("up1", "run1"))
    assert await store.prediction("up1") is not None
    joined = await join(store, "3")
    assert joined.view.run.id == "run2"


async def test_a_shared_run_can_be_looked_for_without_joining(store: Store) -> None:
    """`/gateway/estimate` says what would happen, and nothing happens."""
    assert await store.shared_run(FinishedRuns("F"), OpenRuns("F"), NOW) is None
    led = await lead(store, "1", provisional="P")
    assert await store.shared_run(FinishedRuns("F"), OpenRuns("F", "P"), NOW) == led
    assert await store.shared_run(FinishedRuns("F"), OpenRuns("F"), NOW) is None
    await go(store, "2", fingerprint="F")
    run = await finish(store, "2")
    going = await go(store, "3", fingerprint="F", may_hit=False)
    assert await store.shared_run(FinishedRuns("F"), OpenRuns("F", "P"), NOW) == run
    assert await store.shared_run(None, OpenRuns("F", "P"), NOW) == going
    assert await store.shared_run(FinishedRuns("F"), OpenRuns("F"), NOW + 1000) == going
    await store.cancel("up3", NOW)
    assert await store.shared_run(FinishedRuns("F"), OpenRuns("F"), NOW + 1000) is None
    assert [len(await store.predictions_of(f"run{n}")) for n in (1, 2, 3)] == [1, 1, 1]
