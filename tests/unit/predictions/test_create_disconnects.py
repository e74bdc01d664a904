"""Creates whose caller leaves, and callers who joined a create that comes to nothing."""

import asyncio

import pytest

from gateway.domain.records import RunState, Source
from gateway.domain.upstream_response import Answer
from gateway.errors import (
    StoreUnavailable,
    UpstreamUnavailable,
)
from gateway.predictions.in_flight import NotSent
from tests.support.clock import settle
from tests.support.create_core import (
    CreateCore,
    fingerprint,
)
from tests.support.fakes import answer
from tests.support.records import intent, prediction
from tests.support.sharing_store import fail


@pytest.mark.parametrize("step", ["share", "start", "record_created"])
async def test_disconnect_during_a_store_step_stops_nothing(core: CreateCore, step: str) -> None:
    """The work continues: the run is created once, recorded, counted and followed."""
    core.store.held[step] = asyncio.Event()
    task = core.ask()
    await settle()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    core.store.held[step].set()
    await settle()
    (run,) = core.store.runs.values()
    assert (run.state, core.replicate.sent, core.counted, core.tracker.active) == (RunState.LIVE, 1, 1, 1)
    assert len(core.pending) == 0


async def test_disconnect_during_the_upstream_request_stops_nothing(core: CreateCore) -> None:
    core.replicate.held = asyncio.Event()
    task = core.ask()
    await settle()
    task.cancel()
    await settle()
    core.replicate.held.set()
    await settle()
    (run,) = core.store.runs.values()
    assert (run.state, core.counted, core.tracker.active) == (RunState.LIVE, 1, 1)


async def test_disconnect_during_a_join_keeps_the_prediction(core: CreateCore) -> None:
    """It was recorded: it is announced when the run exists, and can be listed."""
    core.replicate.held = asyncio.Event()
    first = core.ask()
    await settle()
    second = core.ask()
    await settle()
    second.cancel()
    await settle()
    core.replicate.held.set()
    await first
    await settle()
    assert sorted(view.prediction.source for view in core.announced) == [Source.JOINED, Source.MISS]
    assert core.counted == 2


async def test_disconnect_before_the_target_is_checked_starts_nothing(core: CreateCore) -> None:
    task = core.ask()
    task.cancel()
    await settle()
    assert core.steps == []


@pytest.mark.parametrize("is_done", [False, True])
async def test_start_with_an_unknown_result_is_discarded_later(core: CreateCore, is_done: bool) -> None:
    """It may have been recorded, but nothing was sent upstream, so nothing may remain."""
    failures = core.store.unheard if is_done else core.store.failures
    failures["start"] = [StoreUnavailable("away")]
    with pytest.raises(StoreUnavailable):
        await core.create()
    assert (len(core.store.runs), len(core.pending), core.replicate.sent) == (int(is_done), 0, 0)
    fail(core.store, "discard_intent", StoreUnavailable("still away"))
    await core.clock.advance(2.0)
    assert core.store.runs == {}
    assert (await core.create()).view.run.state is RunState.LIVE


async def test_caller_who_joined_a_discarded_start_starts_its_own_run() -> None:
    """Nothing was sent for the intent that it joined."""
    core = CreateCore(adopt_wait_seconds=5.0)
    core.store.unheard["start"] = [StoreUnavailable("away")]
    with pytest.raises(StoreUnavailable):
        await core.create()
    task = core.ask()
    await settle()
    assert core.pending.waiting == 1
    await core.clock.advance(2.0)
    made = await task
    assert not isinstance(made, Answer)
    assert (made.view.prediction.source, core.replicate.sent, len(core.store.runs)) == (Source.MISS, 1, 1)
    await core.close()


async def test_failed_lookup_starts_nothing(core: CreateCore) -> None:
    fail(core.store, "share", StoreUnavailable("away"))
    with pytest.raises(StoreUnavailable):
        await core.create()
    assert core.steps == ["share"]


async def test_joined_callers_get_the_starters_response(core: CreateCore) -> None:
    core.replicate.held = asyncio.Event()
    tasks = [core.ask() for _ in range(3)]
    await settle()
    assert core.pending.waiting == 2
    core.replicate.script = [answer(422, b"no")]
    core.replicate.held.set()
    said = await asyncio.gather(*tasks)
    assert [each.status for each in said if isinstance(each, Answer)] == [422] * 3
    assert (core.store.runs, core.store.kept) == ({}, {})


async def test_joined_caller_retries_once_if_nothing_was_sent(core: CreateCore) -> None:
    core.replicate.held = asyncio.Event()
    first, second = core.ask(), core.ask()
    await settle()
    core.replicate.script = [UpstreamUnavailable("unreachable")]
    core.replicate.held.set()
    with pytest.raises(UpstreamUnavailable):
        await first
    made = await second
    assert not isinstance(made, Answer)
    assert (made.view.prediction.source, core.replicate.sent, core.counted) == (Source.MISS, 2, 1)


async def test_joined_caller_retries_at_most_once(core: CreateCore) -> None:
    core.replicate.script = [UpstreamUnavailable("one"), UpstreamUnavailable("two")]
    core.replicate.held = asyncio.Event()
    first = core.ask()
    await settle()
    second = core.ask()
    await settle()
    core.replicate.held.set()
    reported = await asyncio.gather(first, second, return_exceptions=True)
    assert [str(each) for each in reported] == ["one", "two"]
    assert (core.replicate.sent, len(core.pending)) == (2, 0)


async def test_join_that_fails_twice_raises_its_error(core: CreateCore) -> None:
    """Neither of the two runs that it joined was sent upstream."""
    core.store.add(intent("a", fingerprint=await fingerprint(core), leader_id="pa"), prediction("pa", "a"))
    pending = core.pending.start(core.store.runs["a"])
    task = core.ask()
    await settle()
    assert pending.waiters == 1
    core.pending.resolve("a", NotSent(UpstreamUnavailable("first")))
    again = core.pending.start(core.store.runs["a"])
    await settle()
    assert again.waiters == 1
    core.pending.resolve("a", NotSent(UpstreamUnavailable("second")))
    with pytest.raises(UpstreamUnavailable, match="second"):
        await task


async def test_abandoned_intent_is_searched_for_upstream(core: CreateCore) -> None:
    """Its process lost the store's result: upstream's list shows whether the run exists."""
    core.store.add(intent("a", fingerprint=await fingerprint(core), leader_id="pa"), prediction("pa", "a"))
    task = core.ask()
    await settle()
    assert core.replicate.upstream.count("predictions.list") == 1
    with pytest.raises(Exception, match="did not say"):
        await task
