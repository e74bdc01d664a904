"""Upstream's streams and the store's event logs, in memory."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from gateway.errors import StoreUnavailable, UpstreamBroken
from gateway.streams.channel import Channel
from gateway.streams.ports import EventLogs, LogPart
from gateway.streams.rules.event_log import order
from gateway.streams.rules.replay import frame
from gateway.streams.rules.sse import Event
from gateway.streams.upstream_reader import Reader

HI = b": hi\n\n"
IDLE = b":408: 408 Request Timeout\n\n"


def output(number: int, data: str = "a") -> Event:
    return frame("output", f"10:{number}", data)


class FakeStreams:
    """An upstream stream. It has the events of `said`, and stays open for more until a test breaks it."""

    def __init__(self) -> None:
        self.said: list[Event] = []
        self.asked: list[str | None] = []
        """The `Last-Event-ID` of each connection."""
        self.refusals: list[Exception] = []
        """Errors of the next connections."""
        self.listens = True
        """Whether it honours `Last-Event-ID`."""
        self.piece = 0
        """Bytes of a chunk; 0 gives each event as one."""
        self.is_glued = False
        """Whether all available events come as one chunk."""
        self._news = asyncio.Condition()
        self._ends: list[bytes | Exception] = []

    async def say(self, *events: Event) -> None:
        """Send more events to all connections."""
        async with self._news:
            self.said += events
            self._news.notify_all()

    async def stop(self, how: bytes | Exception = b"") -> None:
        """End the open connection: with last bytes, or with an error."""
        async with self._news:
            self._ends.append(how)
            self._news.notify_all()

    def forget_ends(self) -> None:
        """Drop ends that no connection has received."""
        self._ends.clear()

    @asynccontextmanager
    async def open(self, url: str, last_event_id: str | None = None) -> AsyncIterator[AsyncIterator[bytes]]:
        """Open the stream."""
        self.asked.append(last_event_id)
        for _ in range(5):  # like a distant upstream: readers are back before it has answered
            await asyncio.sleep(0)
        if self.refusals:
            raise self.refusals.pop(0)
        yield self._bytes(last_event_id)

    async def _bytes(self, last_event_id: str | None) -> AsyncIterator[bytes]:
        yield HI
        place = 0
        if self.listens and last_event_id is not None:
            place = next((n + 1 for n, event in enumerate(self.said) if event.id == last_event_id), 0)
        while True:
            while place < len(self.said):
                upto = len(self.said) if self.is_glued else place + 1
                raw = b"".join(event.raw for event in self.said[place:upto])
                place = upto
                size = self.piece or len(raw)
                for at in range(0, len(raw), size):
                    yield raw[at : at + size]
            async with self._news:
                while not self._ends and place == len(self.said):
                    await self._news.wait()
                if place < len(self.said):
                    continue
                how = self._ends.pop(0)
            if isinstance(how, Exception):
                raise how
            if how:
                yield how
            return


class FakeEventLogs:
    """Parts of logs; `is_away` refuses."""

    def __init__(self) -> None:
        self.parts: dict[str, dict[int, bytes]] = {}
        self.is_away = False
        self.appends = 0
        self.steps: list[list[str]] = []
        """The runs of each step."""
        self.told: list[str] = []
        """The runs that nodes were told of."""
        self.tell: Callable[[str], None] = lambda _: None

    async def append_events(self, parts: Sequence[LogPart]) -> set[str]:
        """Keep parts."""
        await asyncio.sleep(0)
        if self.is_away:
            raise StoreUnavailable("away")
        for each in parts:
            self.appends += 1
            stored = {n: part for n, part in self.parts.get(each.run_id, {}).items() if n < each.first}
            stored[each.first] = each.part
            oldest = max((n for n in stored if n <= each.kept_from), default=0)
            self.parts[each.run_id] = {n: part for n, part in stored.items() if n >= oldest}
        self.steps.append([each.run_id for each in parts])
        told = [each.run_id for each in parts if each.is_told]
        self.told += told
        for run_id in told:
            self.tell(run_id)
        return {each.run_id for each in parts}

    async def event_parts_since(self, cursors: Mapping[str, int]) -> dict[str, list[bytes]]:
        """Return the newest parts."""
        await asyncio.sleep(0)
        if self.is_away:
            raise StoreUnavailable("away")
        found = {}
        for run_id, cursor in cursors.items():
            parts = self.parts.get(run_id, {})
            oldest = max((n for n in parts if n <= cursor), default=0)
            if parts:
                found[run_id] = [part for n, part in sorted(parts.items()) if n >= oldest]
        return found

    async def event_parts(self, run_id: str) -> list[bytes]:
        """Return the parts."""
        await asyncio.sleep(0)
        if self.is_away:
            raise StoreUnavailable("away")
        return [part for _, part in sorted(self.parts.get(run_id, {}).items())]


class Listening:
    """A listener that reads everything at each pump, like readers that are up to date."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.heard = b""
        self.cursor = 0
        self.is_over = False
        channel.listener = self

    async def pump(self) -> None:
        """Read the new events. Raise `Behind` if one was missed."""
        while self.cursor < self.channel.log.end:
            data, self.cursor = self.channel.log.read(self.cursor, 1 << 20)
            self.heard += data
        self.is_over = self.channel.is_complete

    def check_canceled(self) -> None:
        """Nobody's prediction ends early here."""


def ids(heard: bytes) -> list[tuple[int, int]]:
    """Return the ids of the events, in order."""
    found = [line[4:] for line in heard.decode().split("\n") if line.startswith("id: ")]
    pairs = [order(each) for each in found]
    assert None not in pairs
    return [pair for pair in pairs if pair is not None]


BROKEN = UpstreamBroken("cut")

if TYPE_CHECKING:
    _1: type[EventLogs] = FakeEventLogs
    _3: type[Reader] = FakeStreams
