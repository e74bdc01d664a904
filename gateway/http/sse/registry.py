"""The registry of open streams: limits in total and per team, heartbeats, and closing at shutdown.

One timer writes a heartbeat to every live stream. A reader that accepts no data for four heartbeats is disconnected and
can resume with `Last-Event-ID`; until then it uses no memory and does not count against the limits. On platforms that
can, the kernel does the same for peers that have vanished.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from aiohttp import web

from gateway.domain.ports.clock import Clock
from gateway.domain.ports.observers import UpstreamObserver
from gateway.domain.teams import Teams
from gateway.errors import NotFound, RateLimited, UpstreamUnavailable
from gateway.http.sse.connection import Block, Reader
from gateway.http.sse.fan_out import WRITES_PER_YIELD, FanOut
from gateway.runtime.live import LiveSettings
from gateway.runtime.sleep import sleep_until_event
from gateway.streams.channel import Channel
from gateway.streams.settings import StreamSettings

MAX_STALLED_HEARTBEATS = 4
"""Heartbeats after which a reader that accepts no data is disconnected: one minute with the default settings."""
_HEARTBEAT = Block.of(b":\n\n")
_RETRY_SECONDS = 1
_CLOSE_SECONDS = 1.0
"""How long shutdown waits for readers to accept what was written; the next process may be waiting for the port."""


class OpenStreams:
    """Counts open streams, groups them by run, and sends heartbeats."""

    def __init__(
        self,
        clock: Clock,
        observer: UpstreamObserver,
        settings: LiveSettings[StreamSettings],
        teams: LiveSettings[Teams],
    ) -> None:
        self._clock = clock
        self._observer = observer
        self._settings = settings
        self._teams = teams
        self._pause_seconds = settings.value.heartbeat_seconds
        self._has_new_pause = asyncio.Event()
        self._by_team: Counter[str] = Counter()
        self._fan_outs: dict[Channel, FanOut] = {}
        self._team_of: dict[Reader, str] = {}
        self._is_empty = asyncio.Event()
        self._is_empty.set()
        self._closing = False
        settings.subscribe(self._apply)
        teams.subscribe(self._end_streams_of_removed_teams)

    def _apply(self, settings: StreamSettings) -> None:
        if settings.heartbeat_seconds != self._pause_seconds:
            self._has_new_pause.set()

    def _end_streams_of_removed_teams(self, teams: Teams) -> None:
        for reader, team in self._team_of.items():
            if team not in teams:
                reader.is_closing = True
                reader.wake()

    @property
    def stall_seconds(self) -> float:
        """Seconds after which a reader that accepts no data is disconnected."""
        return MAX_STALLED_HEARTBEATS * self._settings.value.heartbeat_seconds

    def count(self, team: str | None) -> int:
        """Return the number of a team's open streams, or of all open streams for `None`."""
        return self._by_team.total() if team is None else self._by_team[team]

    @contextmanager
    def place(self, team: str) -> Iterator[None]:
        """Count a stream of the team while the context is open.

        Raise `RateLimited` at a limit, `NotFound` for a team that was removed, `UpstreamUnavailable` during shutdown.
        """
        if team not in self._teams.value:
            raise NotFound
        if self._closing:
            raise UpstreamUnavailable("The gateway is shutting down.", retry_after=_RETRY_SECONDS)
        settings = self._settings.value
        if self._by_team.total() >= settings.max_total or self._by_team[team] >= settings.max_per_team:
            raise RateLimited("Too many streams are open.", retry_after=_RETRY_SECONDS)
        self._by_team[team] += 1
        try:
            yield
        finally:
            self._by_team[team] -= 1
            if not self._by_team[team]:
                del self._by_team[team]

    @contextmanager
    def reading(
        self, channel: Channel, reader: Reader, team: str, canceled_at: Callable[[], float | None]
    ) -> Iterator[None]:
        """Attach a reader to the channel's fan-out while the context is open."""
        fan_out = self._fan_outs.get(channel)
        if fan_out is None:
            fan_out = self._fan_outs[channel] = FanOut(channel, self._observer)
        fan_out.add(reader, canceled_at)
        self._team_of[reader] = team
        reader.is_closing = self._closing or team not in self._teams.value
        self._is_empty.clear()
        try:
            yield
        finally:
            del self._team_of[reader]
            fan_out.remove(reader)
            if not fan_out.readers:
                del self._fan_outs[channel]
            if not self._fan_outs:
                self._is_empty.set()

    async def watch(self) -> None:
        """Send heartbeats and disconnect stalled readers, until cancelled."""
        while True:
            self._has_new_pause.clear()
            self._pause_seconds = self._settings.value.heartbeat_seconds
            await sleep_until_event(self._clock, self._pause_seconds, self._has_new_pause)
            for number, reader in enumerate(self._readers(), 1):
                reader.heartbeat(_HEARTBEAT, MAX_STALLED_HEARTBEATS)
                if number % WRITES_PER_YIELD == 0:
                    await asyncio.sleep(0)

    async def end(self) -> None:
        """Close every stream, and refuse new ones. Clients resume at the next process with `Last-Event-ID`."""
        self._closing = True
        for reader in self._readers():
            reader.is_closing = True
            reader.wake()
        try:
            async with asyncio.timeout(_CLOSE_SECONDS):
                await self._is_empty.wait()
        except TimeoutError:
            for reader in self._readers():
                reader.abort()

    def _readers(self) -> list[Reader]:
        return [reader for fan_out in self._fan_outs.values() for reader in fan_out.readers]


OPEN_STREAMS = web.AppKey("open_streams", OpenStreams)
