"""Webhook deliveries: how they are queued, claimed, retried and kept until the receiver accepts them."""

import asyncio
from typing import Any

import pytest
from msgspec.structs import replace

from gateway.domain.ledger import BudgetWarning
from gateway.domain.records import RunState, Source, Status
from gateway.predictions.ports.predictions import Unchanged
from gateway.predictions.ports.sharing import Hit, Joined
from gateway.store.interface import Store
from gateway.webhooks.ports import Busy
from gateway.webhooks.rules.deliveries import Delivery, DeliveryCounts, DeliveryKind, DeliveryState
from tests.support.audit import BY_TEST
from tests.support.records import NOW, ended, finish, go, join, lead, live, prediction, share
from tests.support.stores import StoreMaker

HOOK = {"webhook": "https://a.example/hook"}
FREE = Busy(per_receiver=100)


def message(name: str, host: str = "a.example", **fields: Any) -> Delivery:
    given = {
        "id": f"msg_{name}",
        "kind": DeliveryKind.ANNOUNCEMENT,
        "team": "red",
        "url": f"https://{host}/",
        "receiver": f"{host}:443",
        "created_at": NOW,
    }
    return Delivery(**given | fields)


async def run_with_webhook(store: Store, name: str = "1", fingerprint: str | None = "F", **fields: Any) -> None:
    """Start a live run whose starter `up<name>` has a webhook."""
    await lead(store, name, fingerprint=fingerprint, prediction_=HOOK)
    await store.record_created(live(f"run{name}"), prediction(f"up{name}", f"run{name}", **HOOK, **fields))


async def queued_ids(store: Store) -> list[str]:
    return [each.id for each in await store.deliveries(state=DeliveryState.QUEUED)]


async def test_warning_and_its_message_are_recorded_together_and_once(store: Store, another: StoreMaker) -> None:
    """Two nodes see the same threshold at once: one message. Another threshold has its own."""
    other = another()
    await other.open()
    warning = BudgetWarning("red", "budget_usd_per_day", 20_000, 80)
    first = await asyncio.gather(
        *(each.announce_once(warning, message(f"{n}"), b"body") for n, each in enumerate([store, other] * 3))
    )
    await other.close()
    assert sorted(first) == [False] * 5 + [True]
    (queued,) = await store.deliveries()
    assert await store.delivery_body(queued.id) == b"body"
    assert await store.warned("red", "budget_usd_per_day", 20_000) == 80
    await store.delivered(queued.id)
    assert not await store.announce_once(warning, message("late"), b"body")
    assert not await store.warn_once(warning)
    assert await store.announce_once(replace(warning, percent=100), message("full"), b"body")
    assert await queued_ids(store) == ["msg_full"]


async def test_end_queues_one_delivery_per_webhook(store: Store) -> None:
    """Every caller of a shared run who set a webhook gets one; the others get none."""
    await run_with_webhook(store)
    await join(store, "2", prediction_=HOOK)
    await join(store, "3")
    assert await queued_ids(store) == []
    await finish(store)
    first, second = await store.deliveries()
    assert [first.id, second.id] == ["msg_p2", "msg_up1"]
    assert first == Delivery(
        id="msg_p2",
        kind=DeliveryKind.PREDICTION,
        team="red",
        url="https://a.example/hook",
        receiver="a.example:443",
        prediction_id="p2",
        run_id="run1",
        created_at=NOW + 9,
    )
    assert await store.advance("run1", status=Status.FAILED, document=b"", stream_url=None, at=NOW) == Unchanged()
    assert len(await queued_ids(store)) == 2


async def test_deliveries_are_listed_by_prediction(store: Store) -> None:
    """`explain` shows a prediction's own deliveries, not those of others on the same run."""
    await run_with_webhook(store)
    await join(store, "2", prediction_=HOOK)
    await finish(store)
    assert [each.id for each in await store.deliveries_of("p2")] == ["msg_p2"]
    assert await store.deliveries_of("p9") == []
    await store.delivered("msg_p2")
    assert await store.deliveries_of("p2") == []


async def test_progress_queues_no_delivery(store: Store) -> None:
    await run_with_webhook(store)
    await store.advance("run1", status=Status.PROCESSING, document=b"{}", stream_url=None, at=NOW + 1)
    assert await queued_ids(store) == []


async def test_cancel_queues_a_delivery_for_that_prediction_only(store: Store) -> None:
    """One of two callers cancels and gets its webhook; the other gets one when the run ends."""
    await run_with_webhook(store)
    await join(store, "2", prediction_=HOOK)
    await store.cancel("p2", NOW + 2)
    assert await queued_ids(store) == ["msg_p2"]
    await store.cancel("p2", NOW + 3)
    await store.delivered("msg_p2")
    await finish(store)
    assert await queued_ids(store) == ["msg_up1"]


async def test_hit_queues_its_delivery_at_once(store: Store) -> None:
    await go(store, fingerprint="F")
    await finish(store)
    outcome = await share(store, "2", fingerprint="F", prediction_=HOOK)
    assert isinstance(outcome, Hit)
    assert await queued_ids(store) == ["msg_p2"]
    # A prediction without a webhook queues nothing.
    await share(store, "3", fingerprint="F")
    assert await queued_ids(store) == ["msg_p2"]


async def test_run_that_ended_in_the_create_queues_its_delivery(store: Store) -> None:
    """Upstream's response to the create is already the result: the webhook is still sent, once."""
    await lead(store, fingerprint="F", prediction_=HOOK)
    for _ in range(2):
        await store.record_created(ended(), prediction("up1", "run1", **HOOK))
        assert await queued_ids(store) == ["msg_up1"]


async def test_end_before_the_create_response_uses_the_final_id(store: Store) -> None:
    await lead(store, fingerprint="F", prediction_=HOOK)
    await join(store, "2", prediction_=HOOK)
    await finish(store)
    await store.record_created(live(), prediction("up1", "run1", **HOOK))
    assert await queued_ids(store) == ["msg_p2", "msg_up1"]


async def test_provisional_joiner_gets_its_webhook_only_if_it_stays(store: Store) -> None:
    """A run ends before its model is known: callers who joined it get its end only if they may share it."""
    await lead(store, provisional="P", prediction_=HOOK)
    await store.record_created(live(), prediction("up1", "run1", **HOOK))
    for name in ("2", "3"):
        outcome = await share(store, name, provisional="P", prediction_=HOOK)
        assert isinstance(outcome, Joined)
    await finish(store)
    assert await queued_ids(store) == ["msg_up1"]
    await store.delivered("msg_up1")
    await store.settle_identity("run1", "F", None)
    await store.settle_identity("run1", "F", None)
    assert await queued_ids(store) == ["msg_p2", "msg_p3"]
    await store.detach("p3")
    assert await queued_ids(store) == ["msg_p2"]
    await store.delivered("msg_p2")
    await store.settle_identity("run1", "F", None)
    assert await queued_ids(store) == []


async def test_caller_who_leaves_a_provisional_run_gets_no_delivery(store: Store) -> None:
    """A prediction that was never shown to its caller queues no webhook."""
    await lead(store, provisional="P", prediction_=HOOK)
    await store.record_created(live(), prediction("up1", "run1"))
    await share(store, "2", provisional="P", prediction_=HOOK)
    await store.cancel("p2", NOW)
    assert await queued_ids(store) == []


async def test_discarded_intent_queues_no_delivery(store: Store) -> None:
    await lead(store, prediction_=HOOK)
    await store.discard_intent("run1")
    assert await queued_ids(store) == []


async def test_delivery_is_claimed_by_one_process(store: Store, another) -> None:
    """Two processes claim at once: each delivery is sent by one of them."""
    for n in range(20):
        await store.add_delivery(message(str(n)), b"{}")
    second = another()
    await second.open()
    try:
        handed = []
        while any(
            some := await asyncio.gather(*(each.claim_deliveries(NOW, NOW + 60, 7, FREE) for each in (store, second)))
        ):
            handed += some
    finally:
        await second.close()
    ids = [each.id for some in handed for each in some]
    assert len(ids) == len(set(ids)) == 20
    assert all(each.attempts == 1 and each.held_until == NOW + 60 for some in handed for each in some)
    assert await store.claim_deliveries(NOW + 59, NOW + 90, 100, FREE) == []
    assert len(await store.claim_deliveries(NOW + 60, NOW + 90, 100, FREE)) == 20


async def test_busy_receivers_and_teams_are_skipped(store: Store) -> None:
    for name, host, team in (("1", "slow", "red"), ("2", "slow", "red"), ("3", "a", "red"), ("4", "b", "blue")):
        await store.add_delivery(message(name, host, team=team), b"{}")
    claimed = await store.claim_deliveries(
        NOW, NOW + 1, 9, Busy(receivers=["slow:443"], teams=["blue"], per_receiver=9)
    )
    assert [each.id for each in claimed] == ["msg_3"]
    claimed = await store.claim_deliveries(NOW, NOW + 1, 9, Busy(per_receiver=1))
    assert [each.id for each in claimed] == ["msg_1", "msg_4"]


async def test_failed_delivery_waits_for_its_retry_and_keeps_its_body(store: Store) -> None:
    await run_with_webhook(store)
    await finish(store)
    (claimed,) = await store.claim_deliveries(NOW, NOW + 60, 9, FREE)
    assert await store.delivery_body(claimed.id) is None
    await store.postpone_delivery(claimed.id, NOW + 5, "answered 500", b"first")
    assert await store.claim_deliveries(NOW + 4, NOW + 60, 9, FREE) == []
    (claimed,) = await store.claim_deliveries(NOW + 5, NOW + 60, 9, FREE)
    assert (claimed.attempts, claimed.error) == (2, "answered 500")
    await store.postpone_delivery(claimed.id, NOW + 9, "answered 502", b"second")
    assert await store.delivery_body(claimed.id) == b"first"


async def test_new_deliveries_go_before_retries(store: Store) -> None:
    for n in range(3):
        await store.add_delivery(message(str(n), created_at=NOW + n), b"{}")
    (first,) = await store.claim_deliveries(NOW, NOW + 60, 1, FREE)
    assert first.id == "msg_0"
    await store.postpone_delivery(first.id, NOW + 1, "timeout", b"{}")
    claimed = await store.claim_deliveries(NOW + 9, NOW + 60, 9, FREE)
    assert {each.id: each.attempts for each in claimed} == {"msg_1": 1, "msg_2": 1, "msg_0": 2}


async def test_released_delivery_does_not_count_as_an_attempt(store: Store) -> None:
    await store.add_delivery(message("1"), b"{}")
    await store.claim_deliveries(NOW, NOW + 60, 9, FREE)
    await store.release_deliveries(["msg_1", "msg_unknown"])
    await store.release_deliveries(["msg_1"])
    (again,) = await store.claim_deliveries(NOW, NOW + 60, 9, FREE)
    assert again.attempts == 1


async def test_delivery_of_a_dead_process_is_claimed_again(store: Store, another) -> None:
    """The attempt counts, since the message may have arrived."""
    await store.add_delivery(message("1"), b"{}")
    await store.claim_deliveries(NOW, NOW + 600, 9, FREE)
    await store.close()
    again = another()
    await again.open()
    try:
        assert await again.reclaim_deliveries() == 1
        (claimed,) = await again.claim_deliveries(NOW + 1, NOW + 600, 9, FREE)
        assert claimed.attempts == 2
    finally:
        await again.close()


async def test_dead_letters_are_listed_and_sent_again(store: Store) -> None:
    for name, team in (("1", "red"), ("2", "red"), ("3", "blue")):
        await store.add_delivery(message(name, team=team), b"{}")
        await store.mark_dead(f"msg_{name}", NOW + 1, "timeout", b"late")
    assert [each.id for each in await store.deliveries(team="red", state=DeliveryState.DEAD)] == ["msg_1", "msg_2"]
    assert [each.id for each in await store.deliveries(after="msg_1", limit=1)] == ["msg_2"]
    assert await store.claim_deliveries(NOW + 99, NOW + 100, 9, FREE) == []
    assert await store.redeliver_all(NOW, team="blue", actor=BY_TEST) == 1
    assert await store.redeliver(NOW, "msg_1", actor=BY_TEST)
    assert not await store.redeliver(NOW, "msg_9", actor=BY_TEST)
    claimed = await store.claim_deliveries(NOW, NOW + 100, 9, FREE)
    assert {each.id: (each.attempts, each.dead_at) for each in claimed} == {"msg_1": (1, None), "msg_3": (1, None)}
    assert await store.delivery_body("msg_1") == b"{}"
    # A claimed delivery is being sent already.
    assert not await store.redeliver(NOW, "msg_1", actor=BY_TEST)
    assert await store.redeliver_all(NOW, actor=BY_TEST) == 1


async def test_waiting_deliveries_can_be_retried_at_once(store: Store) -> None:
    await store.add_delivery(message("1"), b"{}")
    await store.postpone_delivery("msg_1", NOW + 3600, "timeout", b"{}")
    assert await store.redeliver_all(NOW, actor=BY_TEST) == 0
    assert await store.redeliver_all(NOW, dead_only=False, actor=BY_TEST) == 1
    assert len(await store.claim_deliveries(NOW, NOW + 100, 9, FREE)) == 1


async def test_deliveries_are_counted(store: Store) -> None:
    assert await store.delivery_counts() == DeliveryCounts(0, 0, None)
    for n in range(3):
        await store.add_delivery(message(str(n), created_at=NOW + n), b"{}")
    await store.mark_dead("msg_0", NOW, "timeout", b"{}")
    assert await store.delivery_counts() == DeliveryCounts(2, 1, NOW + 1, {"red": 2}, {"red": 1})


async def test_excess_dead_letters_of_a_team_are_deleted_oldest_first(store: Store) -> None:
    """Another team's dead letters stay, however old, and no queued delivery is touched."""
    for n in range(6):
        await store.add_delivery(message(str(n), created_at=NOW + n), b"{}")
    await store.add_delivery(message("blue", team="blue"), b"{}")
    await store.mark_dead("msg_blue", NOW - 9, "timeout", b"{}")
    for n in (2, 0, 1):
        await store.mark_dead(f"msg_{n}", NOW - n, "timeout", b"{}")
    assert await store.trim_dead_deliveries(3) == 0
    assert await store.trim_dead_deliveries(1, limit=1) == 1
    assert [each.id for each in await store.deliveries(team="red", state=DeliveryState.DEAD)] == ["msg_0", "msg_1"]
    assert await store.trim_dead_deliveries(1) == 1
    assert [each.id for each in await store.deliveries(state=DeliveryState.DEAD)] == ["msg_0", "msg_blue"]
    assert await store.trim_dead_deliveries(1) == 0
    assert await queued_ids(store) == ["msg_3", "msg_4", "msg_5"]
    assert await store.delete_dead_deliveries(NOW + 1, 10) == 2
    assert await store.deliveries(state=DeliveryState.DEAD) == []


async def test_data_is_kept_until_its_delivery_has_a_body(store: Store) -> None:
    """A webhook that is delivered late still contains the output."""
    await run_with_webhook(store)
    await finish(store, cache_until=None)
    assert await store.runs_to_clear(NOW + 99, NOW + 99, 9) == []
    await store.postpone_delivery("msg_up1", NOW + 99, "timeout", b"{}")
    assert [run.id for run in await store.runs_to_clear(NOW + 99, NOW + 99, 9)] == ["run1"]


async def test_open_predictions_with_a_webhook_are_listed(store: Store) -> None:
    """After a restart, progress webhooks continue."""
    await run_with_webhook(store, "1")
    await join(store, "4", prediction_=HOOK)
    await join(store, "5")
    await run_with_webhook(store, "2", fingerprint="G")
    await store.cancel("up2", NOW)
    await lead(store, "3", prediction_=HOOK)
    found = await store.awaiting_webhooks()
    assert [(view.prediction.id, view.run.state) for view in found] == [
        ("p4", RunState.LIVE),
        ("up1", RunState.LIVE),
    ]
    assert found[0].prediction.source is Source.JOINED
    assert [view.prediction.id for view in await store.awaiting_webhooks(after="p4", limit=1)] == ["up1"]


async def test_deliveries_survive_a_restart(store: Store, another) -> None:
    await run_with_webhook(store)
    await finish(store)
    await store.add_delivery(message("1"), b'{"a":1}')
    await store.add_delivery(message("1", url="https://other.example"), b"{}")
    await store.close()
    again = another()
    await again.open()
    try:
        assert await queued_ids(again) == ["msg_1", "msg_up1"]
        assert await again.delivery_body("msg_1") == b'{"a":1}'
    finally:
        await again.close()


@pytest.mark.parametrize("overlap", [0.0, 3600.0])
async def test_replaced_secret_works_during_the_grace_period(store: Store, another, overlap: float) -> None:
    """Receivers have time to learn the new secret; after that the old one is invalid."""
    assert await store.secrets_in_use("webhook:red", NOW) == []
    await store.secret("webhook:red", b"first")
    second = another()
    await second.open()
    try:
        assert await second.rotate_secret("webhook:red", b"second", NOW, NOW + overlap, team="red", actor=BY_TEST) == (
            2 if overlap else 1
        )
    finally:
        await second.close()
    assert await store.secret("webhook:red", b"late") == b"second"
    expected = [b"second", b"first"] if overlap else [b"second"]
    assert await store.secrets_in_use("webhook:red", NOW) == expected
    assert await store.secrets_in_use("webhook:red", NOW + overlap) == [b"second"]
    assert (
        await store.rotate_secret("webhook:red", b"third", NOW + 1, NOW + 2, team="red", actor=BY_TEST)
        == len(expected) + 1
    )
    assert await store.secrets_in_use("webhook:red", NOW + 1) == [b"third", *expected]
