"""The queue of the dispatcher: full, throttled, or while the store is away."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from gateway.domain.records import Status
from gateway.domain.run_end import RunEnded
from gateway.errors import StoreUnavailable
from gateway.predictions.ports.predictions import Progressed
from gateway.store.sqlite import SQLiteStore
from gateway.webhooks.rules.slots import Slots
from tests.support.clock import ManualClock
from tests.support.deliveries import Stack, announce
from tests.support.records import live, moved, prediction
from tests.support.webhook_receiver import Answer, Receiver, answering, never


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
            await announce(dispatcher, "red", receiver.url, "test", 1)
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
            await announce(dispatcher, "red", receiver.url, "test", n)
        await receiver.count(4)
    receiver.answer = answering(204)
    kept = await stack.store.deliveries()
    assert sorted(each.attempts for each in kept) == [0] * 6 + [1] * 4
    async with stack.working():
        await receiver.until(lambda: set(receiver.ids) == {each.id for each in kept})
        await stack.until_empty()


async def test_node_without_a_lease_sends_nothing_of_what_waits(open_house: Callable[..., Stack], receiver: Receiver):
    """Other nodes claim it. What is being sent goes on."""
    stack = open_house()
    opened = asyncio.Event()
    receiver.answer = after(opened)
    async with stack.working() as dispatcher:
        for n in range(10):
            await announce(dispatcher, "red", receiver.url, "test", n)
        await stack.until_claimed(10)
        await receiver.count(4)
        dispatcher.drop()
        opened.set()
        await stack.until(lambda: len(stack.counted.tries) == 4)
        await stack.clock.advance(5.0)
        assert len(receiver.messages) == 4
        assert len(await stack.store.deliveries()) == 6
        # As whoever takes over does.
        await dispatcher.resume()
        await receiver.count(10)
        await stack.until_empty()
    assert len(set(receiver.ids)) == 10


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
            await announce(dispatcher, "red", receiver.url, "test", n)
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
        await announce(dispatcher, "red", receiver.url, "test", 0)
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
        await announce(dispatcher, "red", receiver.url, "test", 1)
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
        await announce(dispatcher, "red", receiver.url, "test", 0)
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
        await announce(dispatcher, "red", receiver.url, "urgent", 1)
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
