"""Places in the webhook queue: taken with the prediction, freed with the delivery of its end, counted per team."""

from typing import Any

import pytest

from gateway.domain.limits import SubjectKind
from gateway.domain.quota import LimitKind
from gateway.domain.records import Source, Status
from gateway.domain.webhook_places import WebhookBounds, WebhookPlace
from gateway.predictions.ports.sharing import Hit, Joined, Refused, Replayed, ShareOutcome, Started, StartOutcome
from gateway.store.interface import Store
from gateway.webhooks.ports import Busy
from gateway.webhooks.rules.deliveries import DeliveryState
from tests.support.audit import BY_TEST
from tests.support.records import NOW, finish, go, idempotency, lead, live, moved, prediction, share, start
from tests.support.stores import StoreMaker

HOOK = {"webhook": "https://a.example/hook"}
BLUE = HOOK | {"team": "blue"}


def place(per_team: int = 1, *, public: int = 9, total: int = 99, is_public: bool = False) -> WebhookPlace:
    return WebhookPlace(WebhookBounds(per_team=per_team, public=public, total=total), is_public)


def bound_of(outcome: ShareOutcome | StartOutcome) -> tuple[str, str, float, int]:
    """Return which bound has refused a prediction: name, whose, its value, and what is taken."""
    assert isinstance(outcome, Refused)
    status = outcome.refusal.status
    assert (status.kind, status.remaining) == (LimitKind.WEBHOOKS, 0)
    return status.name, status.of, status.limit, status.used


async def taken(store: Store, team: str = "red") -> int:
    return (await store.delivery_counts()).taken.get(team, 0)


async def create(store: Store, name: str, **fields: Any) -> None:
    """Start a live run whose starter `up<name>` has a webhook."""
    await lead(store, name, prediction_=HOOK, webhook_place=place(99), **fields)
    await store.record_created(live(f"run{name}"), prediction(f"up{name}", f"run{name}", **HOOK))


async def test_place_is_taken_from_the_create_until_the_delivery(store: Store) -> None:
    """It is one place all the time: reserved, then queued, then free."""
    await lead(store, prediction_=HOOK, webhook_place=place())
    assert await taken(store) == 1
    await store.record_created(live(), prediction("up1", "run1", **HOOK))
    assert await taken(store) == 1
    assert await store.deliveries() == await store.deliveries_of("up1") == []
    assert await store.claim_deliveries(NOW + 99, NOW + 999, 9, Busy(per_receiver=9)) == []
    await finish(store)
    assert await taken(store) == 1
    assert [each.id for each in await store.deliveries(state=DeliveryState.QUEUED)] == ["msg_up1"]
    await store.delivered("msg_up1")
    assert await taken(store) == 0


@pytest.mark.parametrize("wanted", ["hit", "join", "start"])
async def test_create_without_a_place_records_nothing(store: Store, wanted: str) -> None:
    """Hits, joins and new runs alike; the bound is named. With a place free, the same request succeeds."""
    await create(store, "1", fingerprint="F")
    if wanted == "hit":
        await finish(store)
    fields: dict[str, Any] = {"prediction_": HOOK, "fingerprint": "G" if wanted == "start" else "F"}
    ask = start if wanted == "start" else share
    refused = await ask(store, "2", webhook_place=place(1), **fields)
    assert bound_of(refused) == ("max_queued", SubjectKind.TEAM, 1, 1)
    assert await store.run("run2") is None
    assert (await taken(store), [each.id for each in await store.predictions_of("run1")]) == (1, ["up1"])
    made = await ask(store, "2", webhook_place=place(2), **fields)
    assert isinstance(made, {"hit": Hit, "join": Joined, "start": Started}[wanted])
    assert await taken(store) == 2


async def test_create_without_a_webhook_needs_no_place(store: Store) -> None:
    await create(store, "1", fingerprint="F")
    assert isinstance(await share(store, "2", fingerprint="F"), Joined)
    assert await taken(store) == 1


async def test_places_are_counted_per_team_for_pages_and_in_all(store: Store) -> None:
    """A team at its bound leaves others their places; its pages have fewer; the sum has a bound too."""
    await create(store, "1")
    page = place(9, public=1, is_public=True)
    assert isinstance(await start(store, "2", prediction_=HOOK, webhook_place=page), Started)
    assert bound_of(await start(store, "3", prediction_=HOOK, webhook_place=page))[:3] == (
        "max_queued_public",
        SubjectKind.TEAM,
        1,
    )
    assert bound_of(await start(store, "3", prediction_=HOOK, webhook_place=place(2))) == ("max_queued", "team", 2, 2)
    theirs = place(1, total=2)
    assert bound_of(await start(store, "4", prediction_=BLUE, webhook_place=theirs)) == (
        "max_queued_total",
        "gateway",
        2,
        2,
    )
    assert isinstance(await start(store, "4", prediction_=BLUE, webhook_place=place(1)), Started)
    assert (await taken(store), await taken(store, "blue")) == (2, 1)


async def test_repeated_request_is_answered_when_the_queue_is_full(store: Store) -> None:
    """It records nothing, so it needs no place."""
    await lead(store, prediction_=HOOK, webhook_place=place(1), idempotency=idempotency())
    await store.record_created(live(), prediction("up1", "run1", **HOOK))
    repeated = await start(store, "2", prediction_=HOOK, webhook_place=place(1), idempotency=idempotency())
    assert isinstance(repeated, Replayed)


async def test_place_is_free_when_there_will_be_no_end(store: Store) -> None:
    """Upstream refused the run, or a joined prediction was detached."""
    await lead(store, "1", prediction_=HOOK, webhook_place=place(9))
    await store.discard_intent("run1")
    assert await taken(store) == 0
    await lead(store, "2", provisional="P")
    await store.record_created(live("run2", provisional="P"), prediction("up2", "run2"))
    joined = await share(store, "3", provisional="P", prediction_=HOOK, webhook_place=place(9))
    assert isinstance(joined, Joined)
    assert await taken(store) == 1
    await store.cancel("p3", NOW)
    await store.detach("p3")
    assert await taken(store) == 0


async def test_cancelled_prediction_keeps_its_place_until_its_delivery(store: Store) -> None:
    await create(store, "1")
    await store.cancel("up1", NOW + 1)
    assert await taken(store) == 1
    await finish(store, status=Status.CANCELED, cache_until=None)
    await store.delivered("msg_up1")
    assert await taken(store) == 0


async def test_dead_letter_has_no_place_until_it_is_sent_again(store: Store) -> None:
    await create(store, "1")
    await finish(store)
    await store.mark_dead("msg_up1", NOW, "answered 500", b"{}")
    assert await taken(store) == 0
    assert await store.redeliver_all(NOW, actor=BY_TEST) == 1
    assert await taken(store) == 1
    await store.mark_dead("msg_up1", NOW, "answered 500", b"{}")
    assert await store.delete_dead_deliveries(NOW + 1, 9) == 1
    assert await taken(store) == 0


async def test_reserved_place_cannot_be_redelivered(store: Store) -> None:
    """There is nothing to send yet."""
    await create(store, "1")
    assert not await store.redeliver(NOW, "msg_up1", actor=BY_TEST)
    assert await store.redeliver_all(NOW, dead_only=False, actor=BY_TEST) == 0
    assert [each.id for each in await store.deliveries(state=DeliveryState.RESERVED)] == ["msg_up1"]


async def test_end_in_the_create_or_before_its_answer_uses_the_place(store: Store) -> None:
    """Whichever step records the end, there is one delivery and one place."""
    await lead(store, "1", prediction_=HOOK, webhook_place=place(9))
    await finish(store)
    await store.record_created(live(), prediction("up1", "run1", **HOOK))
    assert [each.id for each in await store.deliveries(state=DeliveryState.QUEUED)] == ["msg_up1"]
    assert await taken(store) == 1


async def test_next_start_frees_places_that_nothing_will_use(store: Store) -> None:
    """A crash came before a joined prediction learned that it can stay, and its run has ended since."""
    await lead(store, "1", provisional="P")
    await store.record_created(live("run1", provisional="P"), prediction("up1", "run1"))
    await share(store, "2", provisional="P", prediction_=HOOK, webhook_place=place(9))
    await create(store, "3")
    await finish(store, cache_until=None)
    assert await taken(store) == 2
    assert await store.reclaim_deliveries() == 0
    assert await taken(store) == 1
    assert await store.settle_identity("run1", "F", None)
    assert [each.id for each in await store.deliveries(state=DeliveryState.QUEUED)] == ["msg_p2"]
    assert await taken(store) == 2


async def test_places_survive_a_restart(store: Store, another: StoreMaker) -> None:
    """Whatever the process was doing when it was killed: reserved, queued and claimed ones are still counted."""
    for name in "123":
        await create(store, name)
    await finish(store, "1")
    await finish(store, "2")
    assert len(await store.claim_deliveries(NOW, NOW + 99, 1, Busy(per_receiver=9))) == 1
    await store.close()
    restarted = another()
    await restarted.open()
    assert await restarted.reclaim_deliveries() == 1
    assert await taken(restarted) == 3
    refused = await start(restarted, "4", prediction_=HOOK, webhook_place=place(3))
    assert bound_of(refused) == ("max_queued", "team", 3, 3)
    await finish(restarted, "3")
    for name in "123":
        await restarted.delivered(f"msg_up{name}")
    assert await taken(restarted) == 0
    await restarted.close()


async def test_place_goes_with_its_record(store: Store) -> None:
    """Records that retention deletes leave no place behind."""
    run = await go(store, "1", provisional="P")
    assert run.provisional is None or run.id == "run1"
    moved(await store.advance("run1", status=Status.PROCESSING, document=b"{}", stream_url=None, at=NOW))
    await store.record_created(live("run9", fingerprint=None), prediction("up9", "run9", source=Source.BYPASS, **HOOK))
    assert await taken(store) == 1
    await finish(store, "9", cache_until=None)
    assert await store.delete_records(NOW + 1e9, 99) == 1
    await store.delivered("msg_up9")
    assert await taken(store) == 0
