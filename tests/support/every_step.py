"""Every step of a store that writes, in an order in which each has something to do."""

from collections.abc import Awaitable, Callable
from typing import Any

from msgspec.structs import replace

from gateway.domain.ledger import BudgetWarning
from gateway.domain.records import Copy, Key, Status
from gateway.domain.webhook_places import WebhookBounds, WebhookPlace
from gateway.domain.windows import day_of
from gateway.store.interface import Store
from gateway.webhooks.ports import Busy
from gateway.webhooks.rules.deliveries import Delivery, DeliveryKind
from tests.support.audit import BY_TEST, PURGE
from tests.support.event_logs import append
from tests.support.money import demand, settlement
from tests.support.records import NOW, file, idempotency, key, live, prediction, share, start, wish

DAY = day_of(NOW)
OBJECT, OTHER = "a" * 64, "b" * 64
HOOK = {"webhook": "https://hooks.example.com/x"}
PLACE = WebhookPlace(WebhookBounds())
ANNOUNCED = Delivery(id="d1", kind=DeliveryKind.ANNOUNCEMENT, team="red", url="u", receiver="r", created_at=NOW)

Step = tuple[str, Callable[[Store], Awaitable[Any]]]


def copy(sha256: str) -> Copy:
    return Copy(place=0, url="u", content_type="x/y", sha256=sha256, size=3, stored_at=NOW)


def advance(name: str, status: Status, **fields: Any) -> Callable[[Store], Awaitable[Any]]:
    given = {"document": status.value.encode(), "stream_url": None, "at": NOW + 9} | fields
    return lambda store: store.advance(name, status=status, **given)


def created(name: str, **fields: Any) -> Callable[[Store], Awaitable[Any]]:
    return lambda store: store.record_created(live(f"run{name}"), prediction(f"up{name}", f"run{name}", **fields))


def renamed(old: Key) -> Key:
    return replace(old, name="renamed")


async def hits(store: Store) -> Any:
    requests = [wish(f"set{n}", fingerprint="F", now=NOW + 20).request for n in range(3)]
    return await store.record_hits(requests)


MONEY: list[Step] = [
    ("start", lambda store: start(store, "1", fingerprint="F", reservation=demand())),
    ("start", lambda store: start(store, "1b", fingerprint="F")),
    ("start", lambda store: start(store, "dear", reservation=demand(microusd=10**6, microusd_per_day=100))),
    ("record_created", created("1")),
    ("share", lambda store: share(store, "2", fingerprint="F")),
    ("share", lambda store: share(store, "2k", fingerprint="F", idempotency=idempotency())),
    ("share", lambda store: share(store, "2l", fingerprint="F", idempotency=idempotency())),
    ("advance", advance("run1", Status.PROCESSING)),
    ("mark_unreadable", lambda store: store.mark_unreadable("run1", NOW)),
    ("append_events", lambda store: append(store, "run1", 0, b"event", kept_from=0)),
    ("advance", advance("run1", Status.SUCCEEDED, cache_until=NOW + 1000, settlement=settlement())),
    ("detach", lambda store: store.detach("p2")),
    ("share", lambda store: share(store, "3", fingerprint="F", now=NOW + 10)),
    ("record_hits", hits),
    ("adjust", lambda store: store.adjust("red", -20, "refund", NOW, actor=BY_TEST)),
    ("warn_once", lambda store: store.warn_once(BudgetWarning("red", "day", DAY, 80))),
    ("warn_once", lambda store: store.warn_once(BudgetWarning("red", "day", DAY, 80))),
    ("audit_day", lambda store: store.audit_day(DAY, 0, 2)),
    ("rebuild_day", lambda store: store.rebuild_day(DAY)),
    ("start", lambda store: start(store, "4", reservation=demand(), provisional="P")),
    ("mark_uncertain", lambda store: store.mark_uncertain("run4", NOW)),
    ("settle_identity", lambda store: store.settle_identity("run4", "G", NOW + 50)),
    ("discard_intent", lambda store: store.discard_intent("run4")),
    ("start", lambda store: start(store, "5", fingerprint="H", prediction_=HOOK, webhook_place=PLACE)),
    ("record_created", created("5", **HOOK)),
    ("share", lambda store: share(store, "6", fingerprint="H", prediction_=HOOK, webhook_place=PLACE)),
    ("cancel", lambda store: store.cancel("up5", NOW + 3)),
    ("cancel", lambda store: store.cancel("p6", NOW + 4)),
    ("cancel", lambda store: store.cancel("none", NOW)),
    ("advance", advance("run5", Status.CANCELED)),
    ("free_reservation", lambda store: store.free_reservation("run5", None)),
    ("recount_meters", lambda store: store.recount_meters()),
]
RECORDS: list[Step] = [
    ("announce_once", lambda store: store.announce_once(BudgetWarning("red", "day", DAY, 100), ANNOUNCED, b"body")),
    ("add_delivery", lambda store: store.add_delivery(ANNOUNCED, b"body")),
    ("claim_deliveries", lambda store: store.claim_deliveries(NOW + 20, NOW + 99, 9, Busy(per_receiver=9))),
    ("release_deliveries", lambda store: store.release_deliveries(["msg_up5"])),
    ("postpone_delivery", lambda store: store.postpone_delivery("msg_p6", NOW + 30, "refused", b"body")),
    ("delivered", lambda store: store.delivered("msg_up5")),
    ("reclaim_deliveries", lambda store: store.reclaim_deliveries()),
    ("mark_dead", lambda store: store.mark_dead("d1", NOW, "gone", b"body")),
    ("redeliver", lambda store: store.redeliver(NOW, "d1", actor=BY_TEST)),
    ("mark_dead", lambda store: store.mark_dead("d1", NOW, "gone", b"body")),
    ("redeliver_all", lambda store: store.redeliver_all(NOW, actor=BY_TEST)),
    ("mark_dead", lambda store: store.mark_dead("d1", NOW, "gone", b"body")),
    ("mark_dead", lambda store: store.mark_dead("msg_p6", NOW + 1, "gone", b"body")),
    ("trim_dead_deliveries", lambda store: store.trim_dead_deliveries(1)),
    ("delete_dead_deliveries", lambda store: store.delete_dead_deliveries(NOW + 9, 9)),
    ("add_key", lambda store: store.add_key(key("k1"), actor=BY_TEST)),
    ("rotate_key", lambda store: store.rotate_key("k1", key("k2", name="name-k1"), NOW + 9, actor=BY_TEST)),
    ("change_key", lambda store: store.change_key("k1", "red", renamed, NOW, actor=BY_TEST)),
    ("use_keys", lambda store: store.use_keys({"k1": NOW, "red/default": NOW})),
    ("delete_old_keys", lambda store: store.delete_old_keys(NOW - 1, 9)),
    ("revoke_key", lambda store: store.revoke_key("k1", NOW, actor=BY_TEST)),
    ("secret", lambda store: store.secret("webhooks", b"first")),
    (
        "rotate_secret",
        lambda store: store.rotate_secret("webhooks", b"second", NOW, NOW + 9, team="red", actor=BY_TEST),
    ),
    ("record_config", lambda store: store.record_config("hash", {}, {}, NOW)),
    ("record_config", lambda store: store.record_config("hash", {}, {}, NOW + 1)),
    ("delete_old_audit_entries", lambda store: store.delete_old_audit_entries(NOW - 1, 9)),
    ("learn_version", lambda store: store.learn_version("v1", "acme/toy")),
    ("add_file", lambda store: store.add_file(file("f1"))),
    ("share_file", lambda store: store.share_file(file("f2", upstream_id="f1"))),
    ("delete_file", lambda store: store.delete_file("f1")),
    ("delete_file", lambda store: store.delete_file("f2")),
    ("add_file", lambda store: store.add_file(file("f3"))),
    ("delete_expired_files", lambda store: store.delete_expired_files(NOW + 10**6, 9)),
    ("claim_object", lambda store: store.claim_object(OBJECT, 3, NOW, NOW + 9)),
    ("keep_copies", lambda store: store.keep_copies("run1", [copy(OBJECT)], NOW + 2000)),
    ("use_object", lambda store: store.use_object(OBJECT, NOW + 5)),
    ("drop_old_copies", lambda store: store.drop_old_copies(NOW + 1, 9)),
    ("claim_object", lambda store: store.claim_object(OTHER, 3, NOW, NOW + 9)),
    ("keep_copies", lambda store: store.keep_copies("run1", [copy(OTHER)], None)),
    ("evict_objects", lambda store: store.evict_objects(0, NOW)),
    ("drop_object", lambda store: store.drop_object(OTHER)),
    ("claim_deletions", lambda store: store.claim_deletions(NOW + 99, NOW + 199)),
    ("delete_object_record", lambda store: store.delete_object_record(OBJECT)),
    ("evict_cache", lambda store: store.evict_cache(0, NOW)),
    ("purge_cache", lambda store: store.purge_cache(PURGE)),
    ("clear_data", lambda store: store.clear_data("run1", b"{}")),
    ("delete_expired_idempotency", lambda store: store.delete_expired_idempotency(NOW + 10**6, 9)),
    ("delete_records", lambda store: store.delete_records(NOW + 10**6, 99)),
    (
        "prune_ledger",
        lambda store: store.prune_ledger(lines_before=DAY + 1, spent_before=DAY + 1, now=NOW + 10**6, limit=99),
    ),
    ("ping", lambda store: store.ping()),
]
STEPS = MONEY + RECORDS


async def run(store: Store) -> list[tuple[str, str]]:
    """Run every step, and return its name with its answer."""
    return [(name, repr(await step(store))) for name, step in STEPS]
