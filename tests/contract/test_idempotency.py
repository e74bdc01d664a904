"""Idempotency keys: every request with the same key gets the first request's prediction."""

import pytest

from gateway.domain.records import PredictionView, Source, Status
from gateway.predictions.ports.sharing import Mismatched, Nothing, Pending, Replayed, Started, StartOutcome
from gateway.store.interface import Store
from tests.support.records import NOW, finish, go, idempotency, lead, live, prediction, share, start, view_of, wish
from tests.support.stores import StoreMaker


async def ask(store: Store, name: str, *, key: str = "key", body: str = "body", **fields: object) -> StartOutcome:
    """Start a run, unless the key, or what the request may share, says otherwise."""
    return await start(store, name, idempotency=idempotency(key, body), **fields)


async def test_repeated_request_is_pending_then_replayed(store: Store) -> None:
    """The caller's connection broke; its retry starts no second run."""
    assert isinstance(await ask(store, "1"), Started)
    assert await ask(store, "2") == Pending()
    await store.record_created(live(), prediction("up1", "run1"))
    view = PredictionView(prediction("up1", "run1"), live(leader_id="up1"))
    assert await ask(store, "2") == Replayed(view)
    run = await finish(store, "1")
    assert await ask(store, "3") == Replayed(PredictionView(view.prediction, run))
    assert await store.run("run2") is None
    assert len(await store.predictions_of("run1")) == 1


async def test_same_key_with_another_body_is_a_conflict(store: Store) -> None:
    """Also when the first request is done."""
    await ask(store, "1")
    assert await ask(store, "2", body="other") == Mismatched()
    await store.record_created(live(), prediction("up1", "run1"))
    assert await ask(store, "2", body="other") == Mismatched()
    assert await store.run("run2") is None


async def test_key_is_pending_until_the_id_is_known(store: Store) -> None:
    """The end arrived before the create's response, so there is no id to replay yet."""
    await ask(store, "1")
    await store.advance("run1", status=Status.SUCCEEDED, document=b"x", stream_url=None, at=NOW)
    assert isinstance(await ask(store, "2"), Pending)
    await store.record_created(live(), prediction("up1", "run1"))
    outcome = await ask(store, "2")
    assert view_of(outcome).prediction.id == "up1"


async def test_keys_of_teams_are_separate(store: Store) -> None:
    await ask(store, "1")
    outcome = await ask(store, "2", body="other", run={"team": "blue"}, prediction_={"team": "blue"})
    assert isinstance(outcome, Started)


async def test_keys_are_case_sensitive(store: Store) -> None:
    for n, key in enumerate(("key", "Key", "key ", "", "%", "k\u00e9y")):
        assert isinstance(await ask(store, str(n), key=key), Started)


async def test_expired_key_starts_a_new_request(store: Store) -> None:
    """After a day the same key is accepted again, with any body."""
    await ask(store, "1")
    await store.record_created(live(), prediction("up1", "run1"))
    assert isinstance(await ask(store, "2", now=NOW + 86399), Replayed)
    late = idempotency(body="other", expires_at=NOW + 2 * 86400)
    outcome = await start(store, "3", now=NOW + 86400, idempotency=late)
    assert isinstance(outcome, Started)
    assert await ask(store, "4", now=NOW + 86401) == Mismatched()
    assert await ask(store, "4", now=NOW + 86401, body="other") == Pending()


@pytest.mark.parametrize("source", [Source.HIT, Source.JOINED])
async def test_key_replays_a_hit_or_a_joined_prediction(store: Store, source: Source) -> None:
    """The same prediction is returned, and a retry does not count as another waiting caller."""
    await go(store, "1", fingerprint="F")
    if source is Source.HIT:
        await finish(store, "1")
    first = await ask(store, "2", fingerprint="F")
    assert view_of(first).prediction.source is source
    again = await ask(store, "3", fingerprint="F")
    assert again == Replayed(view_of(first))
    assert len(await store.predictions_of("run1")) == 2


async def test_joined_prediction_is_pending_with_its_leader(store: Store) -> None:
    await lead(store, "1", fingerprint="F")
    await ask(store, "2", fingerprint="F")
    assert isinstance(await ask(store, "3", fingerprint="F"), Pending)
    await store.record_created(live(), prediction("up1", "run1"))
    outcome = await ask(store, "3", fingerprint="F")
    assert isinstance(outcome, Replayed)
    assert outcome.view.prediction == prediction("p2", "run1", source=Source.JOINED)


async def test_only_if_cached_miss_leaves_the_key_unused(store: Store) -> None:
    """Nothing was found, so the key can be used again."""
    assert isinstance(await share(store, "1", fingerprint="F", idempotency=idempotency()), Nothing)
    assert isinstance(await ask(store, "2", fingerprint="F", body="other"), Started)


async def test_used_key_takes_precedence_over_sharing(store: Store) -> None:
    await ask(store, "1", fingerprint="F")
    await store.record_created(live(), prediction("up1", "run1"))
    await finish(store, "1")
    outcome = await ask(store, "2", fingerprint="F")
    assert isinstance(outcome, Replayed)
    for name in ("3", "4"):
        alone = wish(name, fingerprint="F", may_hit=False, may_join=False, idempotency=idempotency())
        assert isinstance(await alone.share(store), Replayed)
        assert isinstance(await alone.start(store), Replayed)


async def test_cancelled_prediction_is_replayed_as_cancelled(store: Store) -> None:
    await ask(store, "1")
    await store.record_created(live(), prediction("up1", "run1"))
    await store.cancel("up1", NOW + 5)
    outcome = await ask(store, "2")
    assert view_of(outcome).prediction.canceled_at == NOW + 5


async def test_discarded_intent_frees_its_keys(store: Store) -> None:
    """Upstream refused: the caller corrects the request and reuses its key, as may every caller who joined."""
    await ask(store, "1", key="a", fingerprint="F")
    await ask(store, "2", key="b", fingerprint="F")
    await ask(store, "3", key="c")
    await store.discard_intent("run1")
    assert isinstance(await ask(store, "4", key="a", body="mended"), Started)
    assert isinstance(await ask(store, "5", key="b", body="mended"), Started)
    assert isinstance(await ask(store, "6", key="c"), Pending)


async def test_deleted_prediction_frees_its_key(store: Store) -> None:
    await ask(store, "1")
    await store.record_created(live(), prediction("up1", "run1"))
    await finish(store, "1")
    assert await store.delete_records(NOW + 1, 10) == 1
    assert isinstance(await ask(store, "2", body="other"), Started)


async def test_expired_keys_are_deleted_in_batches(store: Store) -> None:
    for n in range(5):
        await start(store, str(n), idempotency=idempotency(f"k{n}", expires_at=NOW + n))
    assert [await store.delete_expired_idempotency(NOW + 3, 2) for _ in range(3)] == [2, 1, 0]
    # The store reads no clock of its own: a deleted key is unused even for a caller whose clock is behind.
    assert isinstance(await ask(store, "6", key="k2", now=NOW - 10), Started)
    assert isinstance(await ask(store, "7", key="k3", now=NOW - 10), Pending)


async def test_key_survives_a_restart(store: Store, another: StoreMaker) -> None:
    await ask(store, "1")
    await store.record_created(live(), prediction("up1", "run1"))
    await store.close()
    again = another()
    await again.open()
    try:
        assert isinstance(await ask(again, "2"), Replayed)
    finally:
        await again.close()
