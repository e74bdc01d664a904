"""Readers of one channel come, stall, slow down and leave in random orders: none misses or repeats an event.

Only the sockets are fakes, so that the test decides when the kernel takes bytes.
"""

import asyncio
import random
from contextlib import suppress
from typing import Any, cast

import pytest
from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

from gateway.http.response_body import ClientDisconnected
from gateway.http.server import Connection
from gateway.http.sse import connection, fan_out, handler
from gateway.http.sse.connection import Block, Reader
from gateway.http.sse.fan_out import FanOut
from gateway.streams import channel
from gateway.streams.channel import Channel
from gateway.streams.rules import event_log
from gateway.streams.rules.event_log import EventLog
from gateway.streams.rules.replay import frame
from gateway.streams.rules.sse import Event
from tests.support.clock import ManualClock
from tests.support.fake_streams import HI
from tests.support.observer import RecordingObserver
from tests.support.prediction_views import view

ORDERS = 150
HEARTBEAT = Block.of(b":\n\n")


class Line:
    """A caller's connection: transport and writer in one."""

    def __init__(self, choice: random.Random) -> None:
        self.taken = b""
        self.is_stuck = False
        self._held = b""
        self._is_cut = False
        self._choice = choice
        self._waiters: list[asyncio.Future[None]] = []

    @property
    def transport(self) -> "Line":
        return self

    def is_closing(self) -> bool:
        return self._is_cut

    def write(self, data: bytes) -> None:
        """Take bytes at once, or hold them."""
        if self._held or self.is_stuck or self._choice.random() < 0.2:
            self._held += data
        else:
            self.taken += data

    def get_write_buffer_size(self) -> int:
        return len(self._held)

    async def drain(self) -> None:
        if self._held and not self._is_cut:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            await waiter

    def take(self) -> None:
        """Take what is held."""
        self.taken, self._held = self.taken + self._held, b""
        self._wake()

    def cut(self) -> None:
        """Go."""
        self._is_cut = True
        self._wake()

    def _wake(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._waiters.clear()


class Scene:
    """A channel, and those who read it."""

    def __init__(self, seed: int) -> None:
        self.choice = random.Random(seed)
        self.channel = Channel("r", EventLog(self.choice.choice([600, 100_000])))
        self.said: list[Event] = []
        self.lines: list[tuple[Line, Reader]] = []
        self.ends: list[tuple[str | None, str, Line]] = []
        self._fan_out: FanOut | None = None

    async def read(self, last_event_id: str | None) -> None:
        """Read as a request does."""
        line, observer = Line(self.choice), RecordingObserver()
        played = cast("Any", line)
        reader = Reader(
            web.StreamResponse(), cast("AbstractStreamWriter", played), cast("Connection", played), is_chunked=False
        )
        self.lines.append((line, reader))
        readers = self._fan_out = self._fan_out or FanOut(self.channel, observer, lambda _: None)
        readers.add(reader, view({"status": "processing"}))
        how = "left"
        with suppress(ClientDisconnected):
            how = await handler._StreamWriter(reader, self.channel, last_event_id, ManualClock(), observer).run()
        readers.remove(reader)
        if not readers.readers:
            self._fan_out = None
        self.ends.append((last_event_id, how, line))

    async def fill(self) -> None:
        """Publish events, in bursts and with pauses, then `done`."""
        for number in range(self.choice.randint(1, 40)):
            size = self.choice.randint(1, 4)
            await self.publish(*(frame("output", f"10:{number * 5 + n}", "x" * self.choice.randint(1, 120))
                                 for n in range(size)))  # fmt: skip
            for _ in range(self.choice.randint(0, 6)):
                await asyncio.sleep(0)
        await self.publish(frame("done", "10:9999", "{}"))

    async def publish(self, *events: Event) -> None:
        """Publish events."""
        self.said += events
        await self.channel.publish(events)

    async def play(self) -> None:
        """Let readers come, read, stall and leave until the channel is complete; then let all read the rest."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.read(None))
            group.create_task(self.fill())
            while not self.channel.is_complete:
                await asyncio.sleep(0)
                chance = self.choice.random()
                if chance < 0.3:
                    known = self.choice.choice(self.said).id if self.said and self.choice.random() < 0.4 else None
                    group.create_task(self.read(known))
                for line, reader in self.choice.sample(self.lines, min(8, len(self.lines))):
                    self.disturb(self.choice.random(), line, reader)
            await asyncio.sleep(0)  # the last reader may not have begun
            while len(self.ends) < len(self.lines):
                for line, _ in self.lines:
                    line.is_stuck = False
                    line.take()
                await asyncio.sleep(0)

    def disturb(self, chance: float, line: Line, reader: Reader) -> None:
        """Change the state of a reader's connection."""
        if chance < 0.4:
            line.take()
        elif chance < 0.8:
            reader.heartbeat(HEARTBEAT, ORDERS)
        elif chance < 0.82:
            line.cut()
            reader.wake()  # as the connection does when it is lost
        elif chance < 0.9:
            line.is_stuck = not line.is_stuck


async def test_random_interleavings_lose_and_repeat_no_event(monkeypatch: pytest.MonkeyPatch):
    """A reader that reaches the end has all events since its start; one that is dropped has the first of them."""
    monkeypatch.setattr(fan_out, "WRITES_PER_YIELD", 2)
    monkeypatch.setattr(fan_out, "BLOCK_BYTES", 200)
    monkeypatch.setattr(handler, "BLOCK_BYTES", 200)
    monkeypatch.setattr(connection, "_PIECE", 50)
    seen = set()
    for seed in range(ORDERS):
        for module in (fan_out, handler, channel):
            monkeypatch.setattr(module, "LONG", 100 if seed % 2 else event_log.LONG)
        scene = Scene(seed)
        await scene.play()
        assert scene.channel.listener is None
        for last_event_id, how, line in scene.ends:
            first = next((n + 1 for n, each in enumerate(scene.said) if each.id == last_event_id), 0)
            due = b"".join(each.raw for each in scene.said[first:])
            assert b"x" + HEARTBEAT.data not in line.taken, "a heartbeat within an event"
            taken = line.taken.replace(HEARTBEAT.data, b"").removeprefix(HI)
            reported, _, gone = taken.partition(b"event: error\n")
            seen.add(how)
            assert due == reported if how == "done" else due.startswith(reported), (seed, how)
            assert not gone or how == "lost", (seed, how)
    assert seen == {"done", "lost", "left"}
