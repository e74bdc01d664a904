"""The streams that are open: bounded in all and for each team, kept alive by one timer, and ended together.

One timer for all of them writes a heartbeat to every stream that is live, and looks after those that are not: a caller
who has taken nothing of what was written for four heartbeats is cut off. It can come back with its last event's id, and
until then it holds no memory and no place. Where the kernel can, it does the same for peers that have vanished.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from aiohttp import web

from gateway.domain.ports.clock import Clock
from gateway.domain.teams import Teams
from gateway.errors import NotFound, RateLimited, UpstreamUnavailable
from gateway.http.sse.connection import Block, Reader
from gateway.http.sse.fan_out import WRITES_A_TURN, FanOut
from gateway.runtime.live import LiveSettings
from gateway.runtime.sleep import sleep_until_event
from gateway.streams.channel import Channel
from gateway.streams.ports import StreamObserver
from gateway.streams.settings import StreamSettings

PATIENCE = 4
"""Heartbeats that a caller may let pass without taking anything: a minute, as they are set by default."""
_HEARTBEAT = Block.of(b":\n\n")
_RETRY_SECONDS = 1
_LAST_WORDS_SECONDS = 1.0
"""How long a caller may take, at the gateway's end, for what was written: other processes wait to take the port."""


class OpenStreams:
    """Counts streams, brings those of one run together, and watches over all."""

    def __init__(
        self,
        clock: Clock,
        observer: StreamObserver,
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
                reader.is_ending = True
                reader.wake()

    @property
    def patience_seconds(self) -> float:
        """How long a caller may take nothing."""
        return PATIENCE * self._settings.value.heartbeat_seconds

    def count(self, team: str | None) -> int:
        """Say how many streams of a team are open; of all teams, if none is named."""
        return self._by_team.total() if team is None else self._by_team[team]

    @contextmanager
    def place(self, team: str) -> Iterator[None]:
        """Hold a place for a stream.

        Raise `RateLimited` when there are too many, `NotFound` for a team that has gone, `UpstreamUnavailable` at the
        gateway's end.
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
        self, channel: Channel, reader: Reader, team: str, left_at: Callable[[], float | None]
    ) -> Iterator[None]:
        """Let a reader take part in a channel's news."""
        fan_out = self._fan_outs.get(channel)
        if fan_out is None:
            fan_out = self._fan_outs[channel] = FanOut(channel, self._observer)
        fan_out.enter(reader, left_at)
        self._team_of[reader] = team
        reader.is_ending = self._closing or team not in self._teams.value
        self._is_empty.clear()
        try:
            yield
        finally:
            del self._team_of[reader]
            fan_out.leave(reader)
            if not fan_out.readers:
                del self._fan_outs[channel]
            if not self._fan_outs:
                self._is_empty.set()

    async def watch(self) -> None:
        """Send heartbeats, and cut off who takes nothing, for ever."""
        while True:
            self._has_new_pause.clear()
            self._pause_seconds = self._settings.value.heartbeat_seconds
            await sleep_until_event(self._clock, self._pause_seconds, self._has_new_pause)
            for number, reader in enumerate(self._readers(), 1):
                reader.beat(_HEARTBEAT, PATIENCE)
                if number % WRITES_A_TURN == 0:
                    await asyncio.sleep(0)

    async def end(self) -> None:
        """End every stream: callers come back, to the next process, with their last event's id."""
        self._closing = True
        for reader in self._readers():
            reader.is_ending = True
            reader.wake()
        try:
            async with asyncio.timeout(_LAST_WORDS_SECONDS):
                await self._is_empty.wait()
        except TimeoutError:
            for reader in self._readers():
                reader.cut_off()

    def _readers(self) -> list[Reader]:
        return [reader for fan_out in self._fan_outs.values() for reader in fan_out.readers]


OPEN_STREAMS = web.AppKey("open_streams", OpenStreams)
