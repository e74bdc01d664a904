"""A store with a row of every kind."""

from gateway.domain.ledger import BudgetWarning
from gateway.domain.records import Copy
from gateway.domain.webhook_places import WebhookBounds, WebhookPlace
from gateway.domain.windows import day_of
from gateway.store.interface import Store
from gateway.webhooks.ports import Busy
from gateway.webhooks.rules.deliveries import Delivery, DeliveryKind
from tests.support.audit import BY_TEST
from tests.support.event_logs import append
from tests.support.money import demand, settlement
from tests.support.records import NOW, file, finish, go, idempotency, join, key, lead, live, prediction, start

DAY = day_of(NOW)
COPY = Copy(place=0, url="u", content_type="x/y", sha256="a" * 64, size=3, stored_at=NOW)
HOOK = {"webhook": "https://hooks.example.com/x"}
PLACE = WebhookPlace(WebhookBounds())


async def fill(store: Store) -> None:
    """Add rows to every table."""
    await store.record_config("hash", {"logs.level": "info"}, {"logs.level": "debug"}, NOW - 10)
    await store.add_key(key("k1", created_by="key:k1"), actor=BY_TEST)
    await store.add_key(key("k2", created_at=NOW - 10, expires_at=NOW - 5), actor=BY_TEST)
    await store.use_keys({"k1": NOW})
    await store.add_file(file("f1", owner="user:ann"))
    await store.learn_version("v1", "acme/toy")
    await store.secret("webhooks", b"one")
    await store.rotate_secret("webhooks", b"two", NOW, NOW + 1000, team="red", actor=BY_TEST)
    of_ann = {"user": "ann", "owner": "user:ann", "tags": '{"feature":"x","project":"apollo"}'}
    await go(store, "1", fingerprint="F", prediction_=of_ann | HOOK, webhook_place=PLACE, reservation=demand())
    of_bob = {"user": "bob", "owner": "user:ann", "tags": '{"project":"b"}'}
    await join(store, "j", prediction_=of_bob | {"reason": "model-unknown"})
    await join(store, "hook", prediction_=HOOK, webhook_place=PLACE)
    await append(store, "run1", 0, b"event", kept_from=0)
    await append(store, "run1", 5, b"event", kept_from=0)
    await finish(store, "1", settlement=settlement())
    await start(store, "h", fingerprint="F", now=NOW + 20, prediction_={"team": "blue", "user": "ann"})
    await lead(store, "2", provisional="P", idempotency=idempotency(), reservation=demand())
    await go(store, "3", fingerprint="G", prediction_=HOOK, webhook_place=PLACE)
    await join(store, "3hook", "G", prediction_={"deadline_at": NOW + 60} | HOOK, webhook_place=PLACE)
    await go(store, "7", provisional="Q")
    await finish(store, "7")
    for sha256 in ("a" * 64, "b" * 64):
        await store.claim_object(sha256, 3, NOW, NOW + 60)
    await store.keep_copies("run1", [COPY], NOW + 900)
    await come_and_go(store)
    for name in ("d1", "d2"):
        await store.add_delivery(delivery(name), b"body")
        await store.mark_dead(name, NOW, "gone", b"body")
    await store.claim_deliveries(NOW + 30, NOW + 90, 1, Busy(per_receiver=9))
    await store.warn_once(BudgetWarning("red", "team", DAY, 50))
    await store.adjust("red", -5, "why", NOW, actor=BY_TEST)


async def come_and_go(store: Store) -> None:
    """Let every counter of a team, and of the web pages of another team, go up and back to zero."""
    green, blue = {"team": "green"} | HOOK, {"team": "blue"} | HOOK
    await lead(store, "4", fingerprint="H", prediction_=green, webhook_place=PLACE, reservation=demand())
    await store.discard_intent("run4")
    await lead(store, "5", fingerprint="I", prediction_=green, webhook_place=PLACE, reservation=demand())
    await store.record_created(live("run5"), prediction("up5", "run5", **green))
    await finish(store, "5", settlement=settlement())
    await store.delivered("msg_up5")
    public = WebhookPlace(WebhookBounds(), is_public=True)
    await lead(store, "6", fingerprint="J", prediction_=blue, webhook_place=public)
    await store.record_created(live("run6"), prediction("up6", "run6", **blue))
    await finish(store, "6")
    await store.mark_dead("msg_up6", NOW, "gone", b"body")
    await store.trim_dead_deliveries(0)


def delivery(name: str) -> Delivery:
    """Return an announcement to deliver."""
    return Delivery(id=name, kind=DeliveryKind.ANNOUNCEMENT, team="red", url="u", receiver="r", created_at=NOW)
