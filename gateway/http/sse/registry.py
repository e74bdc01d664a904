"""The registry of open streams: limits in total and per team, heartbeats, and closing at shutdown.

One timer writes a heartbeat to every live stream. A reader that accepts no data for four heartbeats is disconnected and
can resume with `Last-Event-ID`; until then it uses no memory and does not count against the limits. On platforms that
can, the kernel does the same for peers that have vanished.
"""

import asyncio
from collections import Counter
from collections.abc import Callable

from aiohttp import web
from cachetools import LRUCache

from gateway.domain.ports.clock import Clock
from gateway.domain.ports.observers import UpstreamObserver
from gateway.domain.records import PredictionView
from gateway.domain.teams import Teams
from gateway.errors import NotFound, RateLimited
from gateway.http.sse.connection import Block, Reader
from gateway.http.sse.fan_out import WRITES_PER_YIELD, FanOut
from gateway.runtime.live import LiveSettings
from gateway.runtime.sleep import sleep_until_event
from gateway.streams.channel import Channel
from gateway.streams.settings import StreamSettings

MAX_STALLED_HEARTBEATS = 4
"""Heartbeats after which a reader that accepts no data is disconnected: one minute with the default settings."""
_HEARTBEAT = Block.of(b":\n\n")
_SHARED_VIEWS = 1000
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
        canceled_at: Callable[[PredictionView], float | None],
    ) -> None:
        """Take `canceled_at`, which returns when a prediction was canceled for its caller, if the run goes on."""
        self._clock = clock
        self._observer = observer
        self._settings = settings
        self._teams = teams
        self._pause_seconds = settings.value.heartbeat_seconds
        self._has_new_pause = asyncio.Event()
        self._by_team: Counter[str] = Counter()
        self._fan_outs: dict[Channel, FanOut] = {}
        self._canceled_at = canceled_at
        self._views: LRUCache[str, PredictionView] = LRUCache(_SHARED_VIEWS)
        self._is_empty = asyncio.Event()
        self._is_empty.set()
        self._closing = False
        settings.subscribe(self._apply)
        teams.subscribe(self._end_streams_of_removed_teams)

    def _apply(self, settings: StreamSettings) -> None:
        if settings.heartbeat_seconds != self._pause_seconds:
            self._has_new_pause.set()

    def _end_streams_of_removed_teams(self, teams: Teams) -> None:
        for fan_out in self._fan_outs.values():
            fan_out.close(teams)

    @property
    def stall_seconds(self) -> float:
        """Seconds after which a reader that accepts no data is disconnected."""
        return MAX_STALLED_HEARTBEATS * self._settings.value.heartbeat_seconds

    def count(self, team: str | None) -> int:
        """Return the number of a team's open streams, or of all open streams for `None`."""
        return self._by_team.total() if team is None else self._by_team[team]

    def take_place(self, team: str) -> None:
        """Count a stream of the team, until `leave_place` is called. Not a context: each would keep one for its time.

        Raise `RateLimited` at a limit, `NotFound` for a team that was removed. During shutdown a stream ends as soon as
        it is open: `EventSource` reconnects after that, and not after a 503.
        """
        if team not in self._teams.value:
            raise NotFound
        settings = self._settings.value
        if self._by_team.total() >= settings.max_total or self._by_team[team] >= settings.max_per_team:
            raise RateLimited("Too many streams are open.", retry_after=_RETRY_SECONDS)
        self._by_team[team] += 1

    def leave_place(self, team: str) -> None:
        """Count a stream of the team no longer."""
        self._by_team[team] -= 1
        if not self._by_team[team]:
            del self._by_team[team]

    def shared(self, view: PredictionView) -> PredictionView:
        """Return an equal view that other readers of the prediction keep too, if there is one."""
        known = self._views.get(view.prediction.id)
        if known is None or known != view:
            self._views[view.prediction.id] = known = view
        return known

    def attach(self, channel: Channel, reader: Reader, view: PredictionView) -> None:
        """Attach a reader of a prediction to the channel's fan-out, until `detach` is called."""
        fan_out = self._fan_outs.get(channel)
        if fan_out is None:
            fan_out = self._fan_outs[channel] = FanOut(channel, self._observer, self._canceled_at)
        fan_out.add(reader, view)
        is_gone = channel.is_dropped or view.prediction.team not in self._teams.value
        reader.is_closing = self._closing or is_gone
        self._is_empty.clear()

    def detach(self, channel: Channel, reader: Reader) -> None:
        """Detach a reader."""
        fan_out = self._fan_outs[channel]
        fan_out.remove(reader)
        if not fan_out.has_readers:
            del self._fan_outs[channel]
        if not self._fan_outs:
            self._is_empty.set()

    def end_all(self) -> None:
        """Close every stream. Clients resume with `Last-Event-ID`."""
        for fan_out in self._fan_outs.values():
            fan_out.close()

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

    async def end(self) -> bool:
        """Close every stream, and new ones as soon as they are open. Return whether there was any.

        Clients resume at another process with `Last-Event-ID`.
        """
        self._closing, had_any = True, bool(self._fan_outs)
        self.end_all()
        try:
            async with asyncio.timeout(_CLOSE_SECONDS):
                await self._is_empty.wait()
        except TimeoutError:
            for reader in self._readers():
                reader.abort()
        return had_any

    def _readers(self) -> list[Reader]:
        return [reader for fan_out in self._fan_outs.values() for reader in fan_out.readers]


OPEN_STREAMS = web.AppKey("open_streams", OpenStreams)
