"""Creates of a version whose model is not known yet."""

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
from msgspec.structs import replace

from gateway.domain.create_request import Created
from gateway.domain.records import Source
from gateway.domain.upstream_response import Answer
from gateway.errors import (
    StoreUnavailable,
)
from gateway.predictions.events import Listener
from gateway.sharing.rules.determinism import Policy as SharingPolicy
from tests.support.clock import settle
from tests.support.create_core import (
    SEEDED,
    SEEDLESS,
    VERSION,
    CreateCore,
)
from tests.support.records import live, prediction


@pytest.fixture
async def cold() -> AsyncIterator[CreateCore]:
    """The rules leave the decision to the model's schema, and no version is known."""
    made = CreateCore(policy=SharingPolicy())
    yield made
    await made.close()


async def test_equal_requests_of_an_unknown_model_share_if_its_schema_allows(cold: CreateCore) -> None:
    cold.replicate.schema = SEEDED
    cold.replicate.held = asyncio.Event()
    tasks = [cold.ask(target=VERSION) for _ in range(2)]
    await settle()
    cold.replicate.held.set()
    first, second = await asyncio.gather(*tasks)
    assert not isinstance(first, Answer)
    assert not isinstance(second, Answer)
    assert first.view.run.id == second.view.run.id
    assert (second.view.prediction.source, second.view.run.fingerprint is None) == (Source.JOINED, False)
    assert (cold.replicate.sent, cold.counted) == (1, 2)


@pytest.mark.parametrize("step", ["share", "start"])
@pytest.mark.parametrize("has_ended", [False, True])
async def test_request_that_is_late_for_an_unnamed_run_is_identified_again(
    cold: CreateCore, step: str, has_ended: bool
) -> None:
    """Between its identification and its step, an equal run was started, named and perhaps ended: it starts none."""
    cold.replicate.schema = SEEDED
    _, identity = await cold.context(target=VERSION)
    run = live("old", target=VERSION, provisional=identity.provisional, document=cold_document(cold))
    event = cold.store.held[step] = asyncio.Event()
    task = cold.ask(target=VERSION)
    await settle()
    del cold.store.held[step]
    cold.store.add(run, prediction("upold", "old"))
    cold.tracker.follow(run)
    joined = await cold.create(target=VERSION)
    assert joined.view.prediction.source is Source.JOINED
    if has_ended:
        document = cold.replicate.document(9, id=run.upstream_id, status="succeeded")
        await cold.tracker.on_snapshot("old", json.dumps(document).encode())
        await settle()
    event.set()
    created = await task
    assert not isinstance(created, Answer)
    assert created.view.run.id == "old"
    assert created.view.prediction.source is (Source.HIT if has_ended else Source.JOINED)
    assert cold.replicate.sent == 0


async def test_run_that_is_named_while_its_end_is_recorded_is_kept(cold: CreateCore) -> None:
    """When its end was computed it had no identity; when it was recorded it had one. The next request is a hit."""
    cold.replicate.schema = SEEDED
    _, identity = await cold.context(target=VERSION)
    run = live("old", target=VERSION, provisional=identity.provisional, document=cold_document(cold))
    cold.store.add(run, prediction("upold", "old"))
    cold.tracker.follow(run)
    cold.store.versions[VERSION] = str(cold.replicate.model)
    _, final = await cold.context(target=VERSION)
    assert final.fingerprint is not None
    # As `settle_identity` leaves it; the tracker does not know yet.
    cold.store.runs["old"] = replace(run, fingerprint=final.fingerprint, provisional=None)
    document = cold.replicate.document(9, id=run.upstream_id, status="succeeded")
    await cold.tracker.on_snapshot("old", json.dumps(document).encode())
    await settle()
    assert cold.store.runs["old"].cache_until is not None
    created = await cold.create(target=VERSION)
    assert (created.view.run.id, created.view.prediction.source) == ("old", Source.HIT)
    assert cold.replicate.sent == 0


async def test_equal_requests_of_an_unknown_model_separate_if_its_schema_forbids(cold: CreateCore) -> None:
    """The second is detached before anybody has seen its prediction, and gets its own run."""
    cold.replicate.schema = SEEDLESS
    cold.replicate.held = asyncio.Event()
    tasks = [cold.ask(target=VERSION) for _ in range(2)]
    await settle()
    cold.replicate.held.set()
    first, second = await asyncio.gather(*tasks)
    assert not isinstance(first, Answer)
    assert not isinstance(second, Answer)
    assert first.view.run.id != second.view.run.id
    assert (second.view.prediction.source, cold.replicate.sent, cold.counted) == (Source.BYPASS, 2, 2)
    assert len(cold.store.detached) == 1
    assert cold.store.detached[0] not in cold.store.kept
    # The first run continues: its own caller waits for it.
    assert cold.store.runs[first.view.run.id].cancel_asked_at is None


async def test_run_without_callers_after_a_detach_is_cancelled(cold: CreateCore) -> None:
    cold.replicate.schema = SEEDLESS
    _, identity = await cold.context(target=VERSION)
    run = live("old", target=VERSION, provisional=identity.provisional, document=cold_document(cold))
    cold.store.add(run, replace(prediction("upold", "old"), canceled_at=1.0))
    created = await cold.create(target=VERSION)
    assert created.view.run.id != "old"
    await settle()
    assert cold.replicate.upstream.count("predictions.cancel") == 1


async def test_end_during_a_detach_is_reported_once(cold: CreateCore) -> None:
    """The run ends while its last prediction is removed from it: nobody follows it again."""
    cold.replicate.schema = SEEDLESS
    _, identity = await cold.context(target=VERSION)
    run = live("old", target=VERSION, provisional=identity.provisional, document=cold_document(cold))
    cold.store.add(run, replace(prediction("upold", "old"), canceled_at=1.0))
    cold.tracker.follow(run)
    ends: list[str] = []
    cold.events.add_ended_listener(Listener.RUN_TIMINGS, lambda ended: ends.append(ended.run.id))
    cold.store.held["detach"] = asyncio.Event()
    task = cold.ask(target=VERSION)
    await settle()
    document = cold.replicate.document(9, id=run.upstream_id, status="canceled")
    await cold.tracker.on_snapshot("old", json.dumps(document).encode())
    await settle()
    cold.store.held.pop("detach").set()
    await task
    await settle()
    assert (ends, cold.tracker.tracked("old")) == (["old"], None)


async def test_detached_caller_does_not_join_provisionally_again(cold: CreateCore) -> None:
    """Upstream never names the model: each caller gets its own run instead of waiting forever."""
    cold.replicate.model = None
    cold.replicate.held = asyncio.Event()
    tasks = [cold.ask(target=VERSION) for _ in range(3)]
    await settle()
    cold.replicate.held.set()
    made = await asyncio.gather(*tasks)
    assert len({each.view.run.id for each in made if not isinstance(each, Answer)}) == 3
    assert (cold.replicate.sent, cold.counted) == (3, 3)


async def test_equal_request_settles_the_identity_of_an_unsettled_run(cold: CreateCore) -> None:
    """The process that started the run died before it could."""
    cold.replicate.schema = SEEDED
    _, identity = await cold.context(target=VERSION)
    run = live("old", target=VERSION, provisional=identity.provisional, document=cold_document(cold))
    cold.store.add(run, prediction("upold", "old"))
    created = await cold.create(target=VERSION)
    assert (created.view.run.id, created.view.prediction.source) == ("old", Source.JOINED)
    assert created.view.run.fingerprint is not None
    assert cold.store.runs["old"].fingerprint == created.view.run.fingerprint
    assert cold.replicate.sent == 0


async def test_repeated_key_during_a_join_announces_nothing(cold: CreateCore) -> None:
    """The first request does not know yet whether its prediction stays on the run; the second waits for it."""
    cold.replicate.schema = SEEDED
    await add_unsettled(cold)
    cold.store.held["settle_identity"] = asyncio.Event()
    first, again = (cold.ask(target=VERSION, idempotency_key="k") for _ in range(2))
    await settle()
    cold.store.held.pop("settle_identity").set()
    joined, replayed = await asyncio.gather(first, again)
    assert isinstance(joined, Created)
    assert isinstance(replayed, Created)
    assert (joined.is_replay, replayed.is_replay) == (False, True)
    assert replayed.view == joined.view
    assert (cold.counted, len(cold.announced)) == (1, 1)


async def test_repeated_key_during_a_detach_shows_no_prediction_that_goes(cold: CreateCore) -> None:
    """The first request's prediction is detached and made again: the second does not show the detached one."""
    cold.replicate.schema = SEEDLESS
    await add_unsettled(cold)
    cold.store.held["detach"] = asyncio.Event()
    first = cold.ask(target=VERSION, idempotency_key="k")
    await settle()
    again = cold.ask(target=VERSION, idempotency_key="k")
    await settle()
    cold.store.held.pop("detach").set()
    outcomes = await asyncio.gather(first, again, return_exceptions=True)
    shown = {each.view.prediction.id for each in outcomes if isinstance(each, Created)}
    assert len(shown) == 1
    assert shown <= cold.store.kept.keys()
    assert (cold.replicate.sent, cold.counted) == (1, 1)


async def test_repeated_key_completes_a_join_that_failed(cold: CreateCore) -> None:
    """The store was away while the first request settled the run's identity."""
    cold.replicate.schema = SEEDED
    await add_unsettled(cold)
    cold.store.held["settle_identity"] = asyncio.Event()
    cold.store.failures["settle_identity"] = [StoreUnavailable("The store is away.")]
    first, again = (cold.ask(target=VERSION, idempotency_key="k") for _ in range(2))
    await settle()
    cold.store.held.pop("settle_identity").set()
    with pytest.raises(StoreUnavailable):
        await first
    replayed = await again
    assert isinstance(replayed, Created)
    assert (replayed.is_replay, cold.counted, len(cold.announced)) == (True, 1, 1)


async def add_unsettled(core: CreateCore) -> None:
    """Add a run whose process died before it could give the run its final identity."""
    _, identity = await core.context(target=VERSION)
    run = live("old", target=VERSION, provisional=identity.provisional, document=cold_document(core))
    core.store.add(run, prediction("upold", "old"))


def cold_document(core: CreateCore) -> bytes:
    return json.dumps(core.replicate.document(9)).encode()
