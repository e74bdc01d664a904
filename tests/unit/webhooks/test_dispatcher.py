"""Delivery to working and failing receivers: real connections, a real store, and a manual clock."""

import asyncio
import contextlib
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.webhooks.rules.deliveries import DeliveryState
from gateway.webhooks.rules.slots import Slots
from tests.support.audit import BY_TEST
from tests.support.deliveries import HOUR, Stack, announce
from tests.support.fake_resolver import FakeResolver
from tests.support.tools import make_certificate
from tests.support.webhook_receiver import Receiver, answering, endless, hang_up, never, start_receiver


async def test_announcement_arrives_signed(open_house: Callable[..., Stack], receiver: Receiver):
    """A budget warning goes where webhooks go, in the same form."""
    stack = open_house()
    async with stack.working() as dispatcher:
        await announce(dispatcher, "red", receiver.url, "budget.warning", {"spent": 1})
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
            await announce(dispatcher, "red", f"http://127.0.0.1:{port}", "test", n)
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
        await announce(dispatcher, "red", receiver.url, "test", 1)
        await stack.until(lambda: stack.counted.dropped, passing=10.0)
        await stack.until_kept(DeliveryState.DEAD, 1)
        (dead,) = await stack.store.deliveries(state=DeliveryState.DEAD)
        assert (dead.attempts, dead.error) == (3, "answered 503")
        assert len(receiver.messages) == 3
        await stack.until(
            lambda: (0, 1) in [seen[:2] for seen in stack.counted.of("deliveries_waiting")[-1:]], passing=10.0
        )
        receiver.answer = answering(204)
        await stack.store.redeliver(stack.clock.now(), dead.id, actor=BY_TEST)
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
        await announce(dispatcher, "red", receiver.url, "test", 1)
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
        await announce(dispatcher, "red", receiver.url, "test", 1)
        await stack.until(lambda: stack.counted.tries)
        assert stack.counted.tries == [("announcement", "answered")]
        await stack.until_kept(DeliveryState.QUEUED, 1)
        assert not elsewhere.messages


async def test_receiver_that_does_not_respond_times_out(open_house: Callable[..., Stack], receiver: Receiver):
    """The connection is closed, and the message is kept for a retry."""
    stack = open_house(total_seconds=0.2)
    receiver.answer = never
    async with stack.working() as dispatcher:
        await announce(dispatcher, "red", receiver.url, "test", 1)
        await stack.until(lambda: stack.counted.tries)
        assert stack.counted.tries == [("announcement", "timeout")]


async def test_endless_response_is_cut(open_house: Callable[..., Stack], receiver: Receiver):
    """Its status is enough: the message was delivered."""
    stack = open_house()
    receiver.answer = endless
    async with stack.working() as dispatcher:
        await announce(dispatcher, "red", receiver.url, "test", 1)
        await stack.until_empty()
        assert stack.counted.tries == [("announcement", "delivered")]


async def test_slow_receiver_delays_no_other(open_house: Callable[..., Stack], receiver: Receiver):
    """A hundred messages wait for a receiver that does not respond; those to another arrive meanwhile."""
    stack = open_house()
    receiver.answer = never
    async with start_receiver() as quick, stack.working() as dispatcher:
        for n in range(100):
            await announce(dispatcher, "red", receiver.url, "test", n)
        for n in range(10):
            await announce(dispatcher, "red", quick.url, "test", n)
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
            await announce(dispatcher, "red", f"http://slow{n}.example:{port}/", "test", n)
        await slow.count(4)
        await announce(dispatcher, "blue", quick.url, "test", 1)
        await quick.count(1)
        assert len(slow.messages) == 4


@pytest.mark.parametrize("address", ["127.0.0.1", "10.1.2.3", "169.254.169.254", "::1", "::ffff:127.0.0.1"])
async def test_name_that_resolves_to_a_private_address_is_refused(
    open_house: Callable[..., Stack], receiver: Receiver, address: str
):
    """Whoever owns the name: nothing is sent, and nothing is retried."""
    stack = open_house(allow_private=False, resolver=FakeResolver([address]))
    async with stack.working() as dispatcher:
        await announce(dispatcher, "red", receiver.url.replace("127.0.0.1", "hooks.example.com"), "test", 1)
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
        await announce(dispatcher, "red", receiver.url, "test", 1)
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
        await announce(dispatcher, "red", receiver.url, "test", 1)
        go_on.set()
        await receiver.count(1)


async def test_plain_http_is_refused_unless_allowed(open_house: Callable[..., Stack], receiver: Receiver):
    """Even if it was allowed when the URL was given."""
    stack = open_house(allow_http=False)
    async with stack.working() as dispatcher:
        await announce(dispatcher, "red", receiver.url, "test", 1)
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
        await announce(dispatcher, "red", receiver.url + "/x", "test", 1)
        await stack.until(lambda: stack.counted.tries)
        assert stack.counted.tries == [("announcement", "delivered" if trusted else "unreachable")]
        assert bool(receiver.messages) is trusted


async def test_receiver_may_switch_secrets_during_the_overlap(open_house: Callable[..., Stack], receiver: Receiver):
    """While both are in use either verifies; afterwards the old one does not."""
    stack = open_house()
    old = await stack.secrets.of("red")
    async with stack.working() as dispatcher:
        assert await stack.secrets.rotate("red", 24 * HOUR, actor=BY_TEST) == 2
        new = await stack.secrets.of("red")
        await announce(dispatcher, "red", receiver.url, "test", 1)
        await receiver.count(1)
        assert receiver.messages[0].headers["webhook-signature"].count("v1,") == 2
        assert (stack.check(receiver, old), stack.check(receiver, new)) == ([True], [True])
        await stack.clock.advance(24 * HOUR)
        await announce(dispatcher, "red", receiver.url, "test", 2)
        await receiver.count(2)
        assert (stack.check(receiver, old)[1], stack.check(receiver, new)[1]) == (False, True)
        assert receiver.messages[1].headers["webhook-signature"].count("v1,") == 1
