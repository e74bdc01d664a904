"""Delivery to working and failing receivers: real connections, a real store, and a manual clock."""

import asyncio
import contextlib
import secrets
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver
from standardwebhooks.webhooks import Webhook

from gateway.domain import rendering
from gateway.domain.records import Status
from gateway.domain.run_end import RunEnded
from gateway.errors import StoreUnavailable
from gateway.predictions.ports.predictions import Progressed
from gateway.runtime.live import LiveSettings
from gateway.store.sqlite import SQLiteStore
from gateway.upstream.webhooks import TransportSettings, WebhookSender
from gateway.webhooks.dispatcher import WebhookDispatcher
from gateway.webhooks.rules.deliveries import DeliveryState
from gateway.webhooks.rules.slots import Slots
from gateway.webhooks.secrets import WebhookSecrets
from gateway.webhooks.settings import WebhookSettings
from tests.support.clock import ManualClock
from tests.support.fake_resolver import FakeResolver
from tests.support.observer import RecordingObserver
from tests.support.polling import attempts
from tests.support.records import live, moved, prediction
from tests.support.tools import make_certificate
from tests.support.webhook_receiver import Answer, Message, Receiver, answering, endless, hang_up, never, start_receiver

HOUR = 3600.0


class Stack:
    """A notifier at work, and what is needed to look at it."""

    def __init__(self, store: SQLiteStore, clock: ManualClock, folder: Path, **settings: Any) -> None:
        self.store = store
        self.clock = clock
        self.counted = RecordingObserver()
        self.secrets = WebhookSecrets(store, clock)
        self.resolver: AbstractResolver | None = settings.pop("resolver", None)
        self.tls: ssl.SSLContext | None = settings.pop("tls", None)
        self.on_place_freed: Callable[[str], None] = lambda _: None
        self.transport_settings = {"allow_private": True, "allow_http": True, "total_seconds": 5.0}
        for name in ("allow_private", "allow_http", "total_seconds"):
            if name in settings:
                self.transport_settings[name] = settings.pop(name)
        self.settings = WebhookSettings(
            **{"max_attempts": 12, "max_queued": 1000, "retain_dead_seconds": 7 * 24 * HOUR} | settings
        )

    @asynccontextmanager
    async def working(self) -> AsyncIterator[WebhookDispatcher]:
        sender = WebhookSender(
            LiveSettings(TransportSettings(**self.transport_settings, answer_seconds=0.2)), self.clock,
            resolver=self.resolver, tls=self.tls,
        )  # fmt: skip
        dispatcher = WebhookDispatcher(
            self.store, self.secrets, sender, self.clock, self.counted, LiveSettings(self.settings),
            show=lambda view, base, family: rendering.render(view, base, "streams/t", family=family),
            is_followed=lambda _: True,
            random_bytes=secrets.token_bytes,
            on_place_freed=self.on_place_freed,
        )  # fmt: skip
        await dispatcher.resume()
        dispatcher.start("http://gateway.test")
        try:
            yield dispatcher
        finally:
            await dispatcher.close(0.5)
            await sender.close()

    async def until(self, condition: Callable[[], object], *, passing: float = 0.0) -> None:
        """Wait for something to come about, letting time pass meanwhile if need be."""
        async for _ in attempts():
            if condition():
                break
            if passing:
                await self.clock.advance(passing)

    async def until_kept(self, state: DeliveryState, count: int) -> None:
        async for _ in attempts():
            if len(await self.store.deliveries(state=state)) == count:
                break

    async def until_claimed(self, count: int) -> None:
        async for _ in attempts():
            if sum(each.attempts > 0 for each in await self.store.deliveries()) >= count:
                break

    async def until_empty(self) -> None:
        async for _ in attempts():
            if not await self.store.deliveries():
                break

    def check(self, receiver: Receiver, secret: str) -> list[bool]:
        """Say which messages the library of the standard accepts with a secret."""
        return [is_valid(secret, message) for message in receiver.messages]


def is_valid(secret: str, message: Message) -> bool:
    """Sign anew with the library of the standard: its own check goes by the machine's clock."""
    at = datetime.fromtimestamp(int(message.headers["webhook-timestamp"]), UTC)
    signature = Webhook(secret).sign(message.id, at, message.body.decode())
    return signature in message.headers["webhook-signature"].split(" ")


@pytest.fixture
async def open_house(tmp_path: Path) -> AsyncIterator[Callable[..., Stack]]:
    store = SQLiteStore(tmp_path / "gateway.db")
    await store.open()
    yield lambda **settings: Stack(store, settings.pop("clock", None) or ManualClock(), tmp_path, **settings)
    await store.close()


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with start_receiver() as made:
        yield made


async def test_announcement_arrives_signed(open_house: Callable[..., Stack], receiver: Receiver):
    """A budget warning goes where webhooks go, in the same form."""
    stack = open_house()
    async with stack.working() as dispatcher:
        await dispatcher.announce("red", receiver.url, "budget.warning", {"spent": 1})
        await receiver.count(1)
        await stack.until_empty()
    message = receiver.messages[0].json
    assert (message["type"], message["data"]) == ("budget.warning", {"spent": 1})
    assert stack.check(receiver, await stack.secrets.of("red")) == [True]
    assert stack.check(receiver, await stack.secrets.of("blue")) == [False]
    assert stack.counted.tries == [("announcement", "delivered")]


@pytest.mark.parametrize("kind", ["answers 500", "hangs up", "is away"])
async def test_receiver_down_for_an_hour_misses_nothing(open_house: Callable[..., Stack], kind: str):
    """The message is retried at growing intervals and arrives with its first id."""
    stack = open_house()
    async with contextlib.AsyncExitStack() as exits:
        receiver = await exits.enter_async_context(start_receiver())
        port = int(receiver.url.rpartition(":")[2])
        receiver.answer = hang_up if kind == "hangs up" else answering(500)
        dispatcher = await exits.enter_async_context(stack.working())
        if kind == "is away":
            async with contextlib.AsyncExitStack() as first:
                away = await first.enter_async_context(start_receiver())
                port = int(away.url.rpartition(":")[2])
        for n in range(3):
            await dispatcher.announce("red", f"http://127.0.0.1:{port}", "test", n)
        before = {each.id for each in await stack.store.deliveries()}
        assert len(before) == 3
        began = stack.clock.now()
        await stack.until(lambda: stack.clock.now() - began > HOUR, passing=20.0)
        tries = len(stack.counted.tries)
        assert 3 * 5 < tries <= 3 * 12
        assert "delivered" not in [result for _, result in stack.counted.tries]
        if kind == "is away":
            receiver = await exits.enter_async_context(start_receiver(port=port))
        receiver.messages.clear()
        receiver.answer = answering(200)
        await stack.until(lambda: set(receiver.ids) == before, passing=60.0)
        await stack.until_empty()
        assert len(receiver.ids) == 3


async def test_undeliverable_message_is_dead_and_can_be_redelivered(
    open_house: Callable[..., Stack], receiver: Receiver
):
    """After the last attempt it is kept and counted; an operator's command sends it again, with the same id and
    body.
    """
    stack = open_house(max_attempts=3)
    receiver.answer = answering(503)
    async with stack.working() as dispatcher:
        await dispatcher.announce("red", receiver.url, "test", 1)
        await stack.until(lambda: stack.counted.dropped, passing=10.0)
        (dead,) = await stack.store.deliveries(state=DeliveryState.DEAD)
        assert (dead.attempts, dead.error) == (3, "answered 503")
        assert len(receiver.messages) == 3
        await stack.until(
            lambda: (0, 1) in [seen[:2] for seen in stack.counted.of("deliveries_waiting")[-1:]], passing=10.0
        )
        receiver.answer = answering(204)
        await stack.store.redeliver(stack.clock.now(), dead.id)
        await stack.until(lambda: len(receiver.messages) == 4, passing=1.0)
        await stack.until_empty()
    assert len(set(receiver.ids)) == 1
    assert len({message.body for message in receiver.messages}) == 1
    assert stack.counted.dropped == ["gave_up"]


async def test_dead_messages_are_deleted_after_their_time(open_house: Callable[..., Stack], receiver: Receiver):
    """They are kept for a few days in case an operator resends them."""
    stack = open_house(max_attempts=1)
    receiver.answer = answering(400)
    async with stack.working() as dispatcher:
        await dispatcher.announce("red", receiver.url, "test", 1)
        await stack.until_kept(DeliveryState.DEAD, 1)
        for days, kept in ((6.9, 1), (0.2, 0)):
            await stack.clock.advance(days * 24 * HOUR)
            looks = stack.counted.count("deliveries_waiting")
            await stack.until(lambda n=looks: stack.counted.count("deliveries_waiting") > n + 20, passing=10.0)
            assert len(await stack.store.deliveries()) == kept


async def test_redirect_is_not_followed(open_house: Callable[..., Stack], receiver: Receiver):
    """A receiver cannot make the gateway send requests to other hosts."""
    stack = open_house()
    async with start_receiver() as elsewhere, stack.working() as dispatcher:
        receiver.answer = answering(302, Location=elsewhere.url)
        await dispatcher.announce("red", receiver.url, "test", 1)
        await stack.until(lambda: stack.counted.tries)
        assert stack.counted.tries == [("announcement", "answered")]
        await stack.until_kept(DeliveryState.QUEUED, 1)
        assert not elsewhere.messages


async def test_receiver_that_does_not_respond_times_out(open_house: Callable[..., Stack], receiver: Receiver):
    """The connection is closed, and the message is kept for a retry."""
    stack = open_house(total_seconds=0.2)
    receiver.answer = never
    async with stack.working() as dispatcher:
        await dispatcher.announce("red", receiver.url, "test", 1)
        await stack.until(lambda: stack.counted.tries)
        assert stack.counted.tries == [("announcement", "timeout")]


async def test_endless_response_is_cut(open_house: Callable[..., Stack], receiver: Receiver):
    """Its status is enough: the message was delivered."""
    stack = open_house()
    receiver.answer = endless
    async with stack.working() as dispatcher:
        await dispatcher.announce("red", receiver.url, "test", 1)
        await stack.until_empty()
        assert stack.counted.tries == [("announcement", "delivered")]


async def test_slow_receiver_delays_no_other(open_house: Callable[..., Stack], receiver: Receiver):
    """A hundred messages wait for a receiver that does not respond; those to another arrive meanwhile."""
    stack = open_house()
    receiver.answer = never
    async with start_receiver() as quick, stack.working() as dispatcher:
        for n in range(100):
            await dispatcher.announce("red", receiver.url, "test", n)
        for n in range(10):
            await dispatcher.announce("red", quick.url, "test", n)
        await quick.count(10)
        # A few at a time, and it still has all of these in hand.
        assert len(receiver.messages) == stack.settings.slots.per_receiver
        assert not [result for _, result in stack.counted.tries if result != "delivered"]


async def test_many_slow_receivers_delay_their_own_team_only(open_house: Callable[..., Stack]):
    """One team's receiver with thirty names leaves room for another team."""
    stack = open_house(slots=Slots(total=8, per_receiver=4, per_team=4), resolver=FakeResolver(["127.0.0.1"]))
    async with start_receiver() as slow, start_receiver() as quick, stack.working() as dispatcher:
        slow.answer = never
        port = slow.url.rpartition(":")[2]
        for n in range(30):
            await dispatcher.announce("red", f"http://slow{n}.example:{port}/", "test", n)
        await slow.count(4)
        await dispatcher.announce("blue", quick.url, "test", 1)
        await quick.count(1)
        assert len(slow.messages) == 4


@pytest.mark.parametrize("address", ["127.0.0.1", "10.1.2.3", "169.254.169.254", "::1", "::ffff:127.0.0.1"])
async def test_name_that_resolves_to_a_private_address_is_refused(
    open_house: Callable[..., Stack], receiver: Receiver, address: str
):
    """Whoever owns the name: nothing is sent, and nothing is retried."""
    stack = open_house(allow_private=False, resolver=FakeResolver([address]))
    async with stack.working() as dispatcher:
        await dispatcher.announce("red", receiver.url.replace("127.0.0.1", "hooks.example.com"), "test", 1)
        await stack.until_kept(DeliveryState.DEAD, 1)
        (dead,) = await stack.store.deliveries()
        assert dead.error == "the address is not allowed"
        assert stack.counted.tries == [("announcement", "refused")]
        assert not receiver.messages


async def test_crash_of_the_loop_delays_and_loses_nothing(
    open_house: Callable[..., Stack], receiver: Receiver, monkeypatch: pytest.MonkeyPatch
):
    """A defect met while the queue is read is counted, and the queue is read again after a pause."""
    stack, defects = open_house(), [RuntimeError("a defect")]
    claim = stack.store.claim_deliveries

    async def once_broken(*given: Any) -> Any:
        if defects:
            raise defects.pop()
        return await claim(*given)

    monkeypatch.setattr(stack.store, "claim_deliveries", once_broken)
    async with stack.working() as dispatcher:
        await dispatcher.announce("red", receiver.url, "test", 1)
        await stack.until(lambda: receiver.messages, passing=1.0)
    assert stack.counted.of("loop_crashed") == ["webhooks"]


async def test_message_queued_during_a_queue_read_is_sent_at_once(
    open_house: Callable[..., Stack], receiver: Receiver, monkeypatch: pytest.MonkeyPatch
):
    """The read has just found nothing; the new message does not wait for the next one."""
    stack, found, go_on = open_house(), asyncio.Event(), asyncio.Event()
    claim = stack.store.claim_deliveries

    async def slowly(*given: Any) -> Any:
        claimed = await claim(*given)
        found.set()
        await go_on.wait()
        return claimed

    monkeypatch.setattr(stack.store, "claim_deliveries", slowly)
    async with stack.working() as dispatcher:
        await found.wait()
        await dispatcher.announce("red", receiver.url, "test", 1)
        go_on.set()
        await receiver.count(1)


async def test_plain_http_is_refused_unless_allowed(open_house: Callable[..., Stack], receiver: Receiver):
    """Even if it was allowed when the URL was given."""
    stack = open_house(allow_http=False)
    async with stack.working() as dispatcher:
        await dispatcher.announce("red", receiver.url, "test", 1)
        await stack.until_kept(DeliveryState.DEAD, 1)
        assert not receiver.messages


@pytest.mark.parametrize("trusted", [True, False])
async def test_untrusted_certificate_is_refused(open_house: Callable[..., Stack], tmp_path: Path, trusted: bool):
    """Over https a receiver without a valid certificate gets nothing."""
    certificate, key = await asyncio.to_thread(make_certificate, tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    trust = ssl.create_default_context(cafile=str(certificate)) if trusted else None
    stack = open_house(allow_http=False, tls=trust)
    async with start_receiver(tls=context) as receiver, stack.working() as dispatcher:
        await dispatcher.announce("red", receiver.url + "/x", "test", 1)
        await stack.until(lambda: stack.counted.tries)
        assert stack.counted.tries == [("announcement", "delivered" if trusted else "unreachable")]
        assert bool(receiver.messages) is trusted


async def test_receiver_may_switch_secrets_during_the_overlap(open_house: Callable[..., Stack], receiver: Receiver):
    """While both are in use either verifies; afterwards the old one does not."""
    stack = open_house()
    old = await stack.secrets.of("red")
    async with stack.working() as dispatcher:
        assert await stack.secrets.rotate("red", 24 * HOUR) == 2
        new = await stack.secrets.of("red")
        await dispatcher.announce("red", receiver.url, "test", 1)
        await receiver.count(1)
        assert receiver.messages[0].headers["webhook-signature"].count("v1,") == 2
        assert (stack.check(receiver, old), stack.check(receiver, new)) == ([True], [True])
        await stack.clock.advance(24 * HOUR)
        await dispatcher.announce("red", receiver.url, "test", 2)
        await receiver.count(2)
        assert (stack.check(receiver, old)[1], stack.check(receiver, new)[1]) == (False, True)
        assert receiver.messages[1].headers["webhook-signature"].count("v1,") == 1


async def test_unavailable_store_delays_and_loses_nothing(
    open_house: Callable[..., Stack], receiver: Receiver, monkeypatch: pytest.MonkeyPatch
):
    """Queued messages are sent when the store works again."""
    stack = open_house()
    async with stack.working() as dispatcher:

        async def away(*_: Any, **__: Any) -> Any:
            raise StoreUnavailable("The store did not answer in time.")

        with monkeypatch.context() as patch:
            patch.setattr(stack.store, "claim_deliveries", away)
            await dispatcher.announce("red", receiver.url, "test", 1)
            await stack.clock.advance(5.0)
            assert not receiver.messages
        with monkeypatch.context() as patch:
            # Taken by the receiver, and the store does not hear of it.
            patch.setattr(stack.store, "delivered", away)
            await stack.until(lambda: len(receiver.messages) == 1, passing=1.0)
            await stack.until(lambda: stack.counted.tries)
        await stack.until(lambda: len(receiver.messages) == 2, passing=60.0)
        await stack.until_empty()
    assert len(set(receiver.ids)) == 1


async def test_unstarted_deliveries_are_returned_at_shutdown(open_house: Callable[..., Stack], receiver: Receiver):
    """A restart uses up none of a message's attempts, and sends no message twice."""
    stack = open_house()
    receiver.answer = never
    async with stack.working() as dispatcher:
        for n in range(10):
            await dispatcher.announce("red", receiver.url, "test", n)
        await receiver.count(4)
    receiver.answer = answering(204)
    kept = await stack.store.deliveries()
    assert sorted(each.attempts for each in kept) == [0] * 6 + [1] * 4
    async with stack.working():
        await receiver.until(lambda: set(receiver.ids) == {each.id for each in kept})
        await stack.until_empty()


def after(event: asyncio.Event) -> Answer:
    """Accept messages, and not before the event."""

    async def answer(_: web.Request) -> web.StreamResponse:
        await event.wait()
        return web.Response(status=204)

    return answer


async def test_full_queue_drops_no_queued_delivery(open_house: Callable[..., Stack], receiver: Receiver):
    """What was accepted is delivered, in whatever number. The places that each team has taken are reported."""
    stack = open_house(max_queued=2)
    opened = asyncio.Event()
    receiver.answer = after(opened)
    freed: list[str] = []
    stack.on_place_freed = freed.append
    async with stack.working() as dispatcher:
        for n in range(6):
            await dispatcher.announce("red", receiver.url, "test", n)
        await receiver.count(4)
        await stack.until(lambda: {"red": 6} in stack.counted.of("webhook_places_taken"), passing=10.0)
        opened.set()
        await receiver.count(6)
        await stack.until_empty()
        await stack.until(lambda: len(freed) >= 6)
    assert stack.counted.dropped == []
    assert set(freed) == {"red"}


async def test_full_progress_drops_output_of_its_own_team(open_house: Callable[..., Stack], receiver: Receiver):
    """Only `output` and `logs` are dropped; `start` and the end are sent."""
    stack = open_house(max_queued=1, slots=Slots(total=1, per_receiver=1, per_team=1))
    opened = asyncio.Event()
    receiver.answer = after(opened)
    async with stack.working() as dispatcher:
        await dispatcher.announce("red", receiver.url, "test", 0)
        await receiver.count(1)
        for n in (1, 2):
            hooked = {"webhook": receiver.url, "webhook_events_filter": ("start", "output")}
            await stack.store.record_created(live(f"run{n}"), prediction(f"up{n}", f"run{n}", **hooked))
            dispatcher.on_prediction_created(await stack.store.prediction(f"up{n}"))
            changed = await stack.store.advance(
                f"run{n}", status=Status.PROCESSING, stream_url=None, at=stack.clock.now(),
                document=b'{"id":"up1","status":"processing","started_at":"2026-01-01T00:00:00Z","output":["a"],"urls":{}}',
            )  # fmt: skip
            dispatcher.on_run_progressed(moved(changed))
        assert stack.counted.dropped == ["full"]
        opened.set()
        await stack.until(lambda: len([m for m in receiver.messages if "output" in m.json]) == 3, passing=20.0)
    sent = [message.json["output"] for message in receiver.messages if "output" in message.json]
    assert sent == [None, None, ["a"]]


async def begun(store: SQLiteStore, url: str, **fields: Any) -> Any:
    """Have a live run whose starter has a webhook."""
    await store.record_created(live("run1"), prediction("up1", "run1", webhook=url, **fields))
    return await store.prediction("up1")


async def test_throttled_progress_is_sent_later(open_house: Callable[..., Stack], receiver: Receiver):
    """Two changes at once, then silence: the second is sent half a second after the first."""
    stack = open_house()
    async with stack.working() as dispatcher:
        dispatcher.on_prediction_created(await begun(stack.store, receiver.url))
        for output in (b'["a"]', b'["a","b"]', b'["a","b","c"]'):
            changed = await stack.store.advance(
                "run1", status=Status.PROCESSING, document=b'{"id":"up1","status":"processing","output":%b}' % output,
                stream_url=None, at=stack.clock.now(),
            )  # fmt: skip
            dispatcher.on_run_progressed(moved(changed))
            await receiver.count(1)
        await stack.clock.advance(0.4)
        assert [message.json["output"] for message in receiver.messages] == [["a"]]
        await stack.clock.advance(0.2)
        await receiver.count(2)
        assert receiver.messages[1].json["output"] == ["a", "b", "c"]


async def test_pending_progress_is_sent_before_the_end(open_house: Callable[..., Stack], receiver: Receiver):
    """A slow receiver that asked for output alone gets it, although the end came while it waited for its turn."""
    stack = open_house(slots=Slots(total=1, per_receiver=1, per_team=1))
    receiver.answer = never
    async with stack.working() as dispatcher:
        view = await begun(stack.store, receiver.url, webhook_events_filter=("start", "output"))
        await dispatcher.announce("red", receiver.url, "test", 1)
        await receiver.count(1)
        dispatcher.on_prediction_created(view)
        for status in (Status.PROCESSING, Status.SUCCEEDED):
            document = b'{"id":"up1","status":"%b","output":["a"],"urls":{}}' % status.value.encode()
            changed = await stack.store.advance(
                "run1", status=status, document=document, stream_url=None, at=stack.clock.now()
            )
            if isinstance(changed, Progressed):
                dispatcher.on_run_progressed(changed.run)
        assert isinstance(changed, RunEnded)
        dispatcher.on_run_ended(changed)
        receiver.answer = answering(204)
        await receiver.count(3)
        await stack.until(lambda: stack.counted.tries.count(("output", "delivered")) == 1)
    start, output = (message.json for message in receiver.messages[1:])
    assert [(each["status"], each["output"]) for each in (start, output)] == [
        ("processing", None),
        ("processing", ["a"]),
    ]


async def test_waiting_progress_delays_no_end(open_house: Callable[..., Stack], receiver: Receiver):
    """A receiver with much progress waiting gets an end as soon as it has a slot for it."""
    stack = open_house(slots=Slots(total=1, per_receiver=1, per_team=1))
    receiver.answer = never
    async with stack.working() as dispatcher:
        await dispatcher.announce("red", receiver.url, "test", 0)
        await receiver.count(1)
        for n in range(1, 6):
            await stack.store.record_created(live(f"run{n}"), prediction(f"up{n}", f"run{n}", webhook=receiver.url))
            view = await stack.store.prediction(f"up{n}")
            assert view is not None
            dispatcher.on_prediction_created(view)
            document = b'{"id":"up%d","status":"processing","output":["a"]}' % n
            changed = await stack.store.advance(
                f"run{n}", status=Status.PROCESSING, document=document, stream_url=None, at=stack.clock.now()
            )
            dispatcher.on_run_progressed(moved(changed))
        await dispatcher.announce("red", receiver.url, "urgent", 1)
        await stack.until_claimed(2)
        receiver.answer = answering(204)
        await receiver.count(7)
    assert receiver.messages[1].json["type"] == "urgent"


class CountingStore(SQLiteStore):
    """Counts how often due messages are asked for."""

    claims = 0

    async def claim_deliveries(self, *args: Any, **more: Any) -> Any:
        self.claims += 1
        return await super().claim_deliveries(*args, **more)


async def test_end_reads_the_queue_only_if_a_prediction_has_a_webhook(tmp_path: Path, receiver: Receiver):
    """A run without webhooks causes no query; one with a webhook is delivered at once."""
    store = CountingStore(tmp_path / "gateway.db")
    await store.open()
    stack = Stack(store, ManualClock(), tmp_path)
    for n, hook in ((1, None), (2, receiver.url)):
        await store.record_created(live(f"run{n}"), prediction(f"up{n}", f"run{n}", webhook=hook))
    async with stack.working() as dispatcher:
        await stack.until(lambda: store.claims)
        for run_id, sent in (("run1", 0), ("run2", 1)):
            claims = store.claims
            document = b'{"id":"up%b","status":"succeeded","urls":{}}' % run_id[-1:].encode()
            outcome = await store.advance(
                run_id, status=Status.SUCCEEDED, document=document, stream_url=None, at=stack.clock.now()
            )
            assert isinstance(outcome, RunEnded)
            dispatcher.on_run_ended(outcome)
            await receiver.count(sent)
            await asyncio.sleep(0.05)
            assert (store.claims > claims) == bool(sent)
    await store.close()
