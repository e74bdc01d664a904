"""Runs that are created upstream once, recorded, and completed whichever later step fails."""

import asyncio
import json

import pytest
from msgspec.structs import replace

from gateway.domain.records import PredictionView, Run, RunState, Status
from gateway.domain.upstream_response import Answer
from gateway.errors import (
    GatewayError,
    RateLimited,
    StoreUnavailable,
    UpstreamTokenRefused,
    UpstreamUnavailable,
    UpstreamUncertain,
)
from gateway.predictions.deadlines import Deadlines
from gateway.predictions.events import Listener
from gateway.predictions.in_flight import Created, Refused
from gateway.sharing.rules.determinism import Policy as SharingPolicy
from tests.support.clock import settle
from tests.support.create_core import VERSION, CreateCore, terminal
from tests.support.fakes import answer
from tests.support.records import live, prediction
from tests.support.sharing_store import fail

AWAY = StoreUnavailable("The store did not answer in time.")


def run_of(core: CreateCore) -> Run:
    (run,) = core.store.runs.values()
    return run


# Responses of upstream


async def test_refusal_discards_the_intent_and_is_returned_to_all_callers(core: CreateCore) -> None:
    core.replicate.held = asyncio.Event()
    task = core.ask()
    await settle()
    pending = core.pending.get(run_of(core).id)
    assert pending is not None
    refused = answer(402, b"no")
    core.replicate.script = [refused]
    core.replicate.held.set()
    assert await task == refused
    assert await pending.wait(0.0) == Refused(refused)
    assert core.steps == ["share", "start", "discard_intent"]


@pytest.mark.parametrize("error", [RateLimited("later"), UpstreamUnavailable("down"), UpstreamTokenRefused("no")])
async def test_unsent_create_is_discarded_and_raises(core: CreateCore, error: GatewayError) -> None:
    core.replicate.script = [error]
    with pytest.raises(type(error)):
        await core.create()
    assert (core.store.runs, core.store.reserved, len(core.pending)) == ({}, {}, 0)
    # Its reservation and its idempotency key are released.
    assert (await core.create()).view.run.state is RunState.LIVE


async def test_failed_discard_is_retried(core: CreateCore) -> None:
    core.replicate.script = [UpstreamUnavailable("down")]
    fail(core.store, "discard_intent", AWAY, AWAY)
    with pytest.raises(UpstreamUnavailable):
        await core.create()
    assert run_of(core).state is RunState.INTENDED
    await core.clock.advance(2.5)
    assert core.store.runs == {}


async def test_terminal_response_is_settled_with_its_record(core: CreateCore) -> None:
    terminal(core)
    created = await core.create()
    assert created.view.run.state is RunState.ENDED
    settlement = core.store.settled[created.view.run.id]
    assert settlement is not None
    assert settlement.reason == Status.SUCCEEDED
    assert created.view.run.cache_until is not None
    assert core.tracker.active == 0


async def test_deadline_goes_upstream_only_for_an_unshared_run() -> None:
    for policy, headers in ((SharingPolicy(enabled=False), {"Cancel-After": "30"}), (None, {})):
        core = CreateCore(policy=policy) if policy is not None else CreateCore()
        created = await core.create(cancel_after=30.0, cancel_after_header="30")
        assert core.replicate.headers == [headers]
        # It counts from the creation upstream.
        made = created.view.prediction
        assert made.deadline_at == made.created_at + 30.0
        assert core.deadlines.pending == 1
        await core.close()


# Uncertain creates


UNCERTAIN = [
    UpstreamUncertain("lost"),
    answer(500),
    answer(201, b"<html>"),
    RuntimeError("a defect"),
    answer(201, b"\xff"),
]


@pytest.mark.parametrize("said", UNCERTAIN, ids=["lost", "500", "html", "defect", "bytes"])
async def test_uncertain_create_is_found_in_upstreams_list(said: Answer | Exception) -> None:
    """The caller gets a normal response, and the create was sent once."""
    core = CreateCore(adopt_wait_seconds=5.0)
    core.replicate.script = [said]
    core.replicate.lists = [[core.replicate.document(5, input={"prompt": "one", "seed": 7})]]
    created = await core.create()
    assert created.view.prediction.id == "5".rjust(26, "0")
    assert created.view.run == run_of(core)
    assert (run_of(core).state, core.replicate.sent, core.counted) == (RunState.LIVE, 1, 1)
    assert core.observer.of("orphan_resolved") == ["adopted"]
    assert core.store.uncertain == [created.view.run.id]
    await core.close()


async def test_search_for_an_uncertain_create_continues_after_the_response(core: CreateCore) -> None:
    core.replicate.script = [UpstreamUncertain("lost")]
    with pytest.raises(UpstreamUncertain):
        await core.create()
    assert run_of(core).state is RunState.INTENDED
    core.replicate.lists = [[core.replicate.document(5, input={"prompt": "one", "seed": 7})]]
    await core.clock.advance(2.0)
    assert (run_of(core).state, core.counted, core.replicate.sent) == (RunState.LIVE, 1, 1)


async def test_uncertain_create_that_upstream_never_lists_is_released(core: CreateCore) -> None:
    core.replicate.script = [UpstreamUncertain("lost")]
    with pytest.raises(UpstreamUncertain):
        await core.create()
    await core.clock.advance(640.0)
    assert (core.store.runs, core.store.reserved, len(core.pending)) == ({}, {}, 0)
    assert core.observer.of("orphan_resolved") == ["released"]


async def test_failed_uncertain_mark_does_not_stop_the_search(core: CreateCore) -> None:
    core.replicate.script = [UpstreamUncertain("lost")]
    fail(core.store, "mark_uncertain", AWAY)
    with pytest.raises(UpstreamUncertain):
        await core.create()
    assert core.replicate.upstream.count("predictions.list") == 1


async def test_record_is_retried_until_the_store_answers(core: CreateCore) -> None:
    """The run exists upstream, so it is recorded as soon as the store works."""
    fail(core.store, "record_created", AWAY, AWAY)
    task = core.ask()
    await core.clock.advance(1.0)
    made = await task
    assert not isinstance(made, Answer)
    assert core.steps.count("record_created") == 3
    assert (core.counted, core.replicate.sent, core.store.uncertain) == (1, 1, [])


async def test_record_with_a_lost_result_is_found_in_the_store(core: CreateCore) -> None:
    """It was written, but the result was lost: the search reads the store, not upstream."""
    core.store.unheard["record_created"] = [AWAY] * 5
    task = core.ask()
    await core.clock.advance(4.0)
    made = await task
    assert not isinstance(made, Answer)
    assert made.view.run == run_of(core)
    assert (run_of(core).state, core.counted, core.tracker.active, len(core.pending)) == (RunState.LIVE, 1, 1, 0)
    assert core.replicate.upstream.count("predictions.list") == 0


async def test_upstream_id_of_another_run_is_not_adopted(core: CreateCore) -> None:
    core.store.add(live("other", upstream_id="1".rjust(26, "0")), prediction("x", "other"))
    with pytest.raises(UpstreamUncertain):
        await core.create()
    assert core.store.runs["other"].upstream_id == "1".rjust(26, "0")
    assert core.counted == 0


# After the record, nothing makes the create uncertain


def sound(core: CreateCore, made: object, listener: Listener) -> None:
    """Check that a create is complete although something failed after its record."""
    assert not isinstance(made, Answer)
    assert isinstance(made.view, PredictionView)  # type: ignore[attr-defined]
    assert made.answer.headers["ratelimit-remaining"] == "9"  # type: ignore[attr-defined]
    assert core.observer.of("listener_failed") == [listener]
    assert (core.counted, core.replicate.sent, core.replicate.upstream.count("predictions.list")) == (1, 1, 0)
    assert (core.store.uncertain, core.tracker.active, len(core.pending)) == ([], 1, 0)


async def test_failed_write_of_the_version_map_does_not_fail_the_create(core: CreateCore) -> None:
    """201, one prediction counted, no search upstream, upstream's headers kept."""
    fail(core.store, "learn_version", AWAY)
    made = await core.create(target=f"acme/toy:{VERSION}")
    await settle()
    sound(core, made, Listener.VERSION_MAP)
    assert await core.versions.model_of(VERSION) is None
    # The next create learns it.
    await core.create("two", target=f"acme/toy:{VERSION}")
    await settle()
    assert core.store.versions == {VERSION: "acme/toy"}


async def test_failing_listener_does_not_fail_the_create_or_other_listeners(core: CreateCore) -> None:
    def broken(_: PredictionView) -> None:
        raise RuntimeError("a defect")

    heard: list[PredictionView] = []
    core.events.add_created_listener(Listener.STREAMS, broken)
    core.events.add_created_listener(Listener.ACCOUNTING, heard.append)
    made = await core.create()
    sound(core, made, Listener.STREAMS)
    assert heard == core.announced == [made.view]


class BrokenDeadlines(Deadlines):
    """Keeps none."""

    def add(self, at: float, prediction_id: str) -> None:
        """Fail."""
        raise RuntimeError("a defect")


async def test_failed_deadline_does_not_fail_the_create() -> None:
    core = CreateCore(deadlines=BrokenDeadlines)
    made = await core.create(cancel_after=30.0)
    sound(core, made, Listener.DEADLINES)
    assert core.announced == [made.view]
    await core.close()


async def test_failed_settlement_of_the_identity_does_not_fail_the_create() -> None:
    """Callers who joined still get the run, and settle its identity themselves."""
    core = CreateCore(policy=SharingPolicy())
    core.replicate.held = asyncio.Event()
    first, second = core.ask(target=VERSION), core.ask(target=VERSION)
    await settle()
    fail(core.store, "settle_identity", AWAY)
    core.replicate.held.set()
    made = await first
    joined = await second
    sound_, others = core.observer.of("listener_failed"), core.store.runs
    assert not isinstance(made, Answer)
    assert not isinstance(joined, Answer)
    assert (sound_, len(others), core.replicate.sent) == ([Listener.RUN_IDENTITIES], 1, 1)
    assert joined.view.run.id == made.view.run.id
    assert joined.view.run.fingerprint is not None
    await core.close()


async def test_adopted_run_is_returned_although_its_identity_is_not_settled() -> None:
    core = CreateCore(policy=SharingPolicy(), adopt_wait_seconds=5.0)
    core.replicate.script = [UpstreamUncertain("lost")]
    core.replicate.lists = [[core.replicate.document(5, input={"prompt": "one", "seed": 7})]]
    fail(core.store, "settle_identity", AWAY)
    created = await core.create(target=VERSION)
    assert created.view.prediction.id == "5".rjust(26, "0")
    assert core.counted == 1
    await core.close()


async def test_joined_caller_gets_the_run_when_its_starter_does(core: CreateCore) -> None:
    core.replicate.held = asyncio.Event()
    task = core.ask()
    await settle()
    pending = core.pending.get(run_of(core).id)
    assert pending is not None
    core.replicate.held.set()
    made = await task
    assert not isinstance(made, Answer)
    resolved = await pending.wait(0.0)
    assert isinstance(resolved, Created)
    assert resolved.view == made.view
    assert json.loads(resolved.view.run.document)["id"] == made.view.prediction.id


async def test_creates_and_records_share_one_grace_at_the_end(
    core: CreateCore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step that hangs does not use up the time of the other ones."""
    core.run_creator.discard_later("run1", StoreUnavailable("away"))  # waits for the clock
    graces: list[float] = []

    async def close(grace_seconds: float) -> None:
        graces.append(grace_seconds)

    monkeypatch.setattr(core.run_creator.recorder, "close", close)
    closing = asyncio.create_task(core.run_creator.close(60.0))
    await settle()
    assert (graces, closing.done()) == ([60.0], False)
    await core.clock.advance(2.0)
    await closing


@pytest.mark.parametrize("status", ["starting", "succeeded"])
async def test_late_search_for_a_recorded_create_repeats_nothing(core: CreateCore, status: str) -> None:
    """A request that joined the intent saw an old state of it, and searches for a run that is known and may be over."""
    if status == "succeeded":
        terminal(core)
    created = await core.create()
    await settle()
    ends: list[str] = []
    core.events.add_ended_listener(Listener.RUN_TIMINGS, lambda ended: ends.append(ended.run.id))
    intent = replace(created.view.run, state=RunState.INTENDED, upstream_id=None)
    found = await core.run_creator.adopter.search(intent).wait(60.0)
    assert isinstance(found, Created)
    assert found.view == created.view
    assert (core.counted, len(core.announced), ends, len(core.pending)) == (1, 1, [], 0)
