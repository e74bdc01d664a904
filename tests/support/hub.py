"""A run whose upstream stream a `StreamHub` relays, on fakes."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

from msgspec.structs import replace

from gateway.domain.records import PredictionView, Run, RunState, Status
from gateway.predictions.events import PredictionEvents
from gateway.predictions.ports.sharing import CreateStore
from gateway.predictions.secret_values import SecretValues
from gateway.predictions.tracker import Tracker
from gateway.runtime.live import LiveSettings
from gateway.streams.hub import MAX_SILENCE_AFTER_END_SECONDS, StreamHub
from gateway.streams.rules.replay import frame
from gateway.streams.rules.sse import Event
from gateway.streams.settings import StreamSettings
from tests.support.clock import START, ManualClock
from tests.support.fake_streams import (
    FakeEventLogs,
    FakeStreams,
)
from tests.support.fakes import FakeObserver, FakeStore, FakeUpstream, answer, free
from tests.support.observer import RecordingObserver
from tests.support.records import live, prediction

MIB = 1024 * 1024
DONE = frame("done", "10:99", "{}")
LAST_WORDS = int(MAX_SILENCE_AFTER_END_SECONDS)


class HubStack:
    """A run, upstream's answer about it, and hubs opened one after the other."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.store = FakeStore()
        self.logs = FakeEventLogs()
        self.streams = FakeStreams()
        self.observer = RecordingObserver()
        self.upstream = FakeUpstream(lambda _: answer(200, self.body))
        self.secret_values = SecretValues()
        self.body = b'{"id":"uprun1","status":"processing"}'
        self.run = live(
            intended_at=START, live_at=START, status=Status.PROCESSING, stream_url="https://stream.replicate.com/1"
        )
        self.store.runs[self.run.id] = self.run

    @property
    def view(self) -> PredictionView:
        return PredictionView(prediction("p1", self.run.id), self.store.runs[self.run.id])

    def end(self, status: Status, **fields: object) -> None:
        """Let the run end upstream."""
        self.body = json.dumps(
            {"id": "uprun1", "status": status.value, "completed_at": "2025-11-24T16:00:02Z", **fields}
        ).encode()

    def ended(self, status: Status, **fields: object) -> None:
        """Let the run have ended in the store already."""
        self.end(status, **fields)
        self.store.runs[self.run.id] = replace(
            self.run, state=RunState.ENDED, status=status, document=self.body, ended_at=START + 2
        )

    @asynccontextmanager
    async def hub(
        self, *, max_log_bytes: int = 4 * MIB, kept_log_bytes: int = 8 * MIB, is_killed: bool = False
    ) -> AsyncIterator[StreamHub]:
        """Open a hub, as a start of the gateway does; close it, or leave it as a kill does."""

        def never_kept(run: Run, document: bytes, at: float) -> None:
            """Nothing is kept for later requests here."""

        observer = FakeObserver()
        tracker = Tracker(
            cast(CreateStore, self.store), self.upstream, self.clock, PredictionEvents(self.clock, observer), observer,
            requests_per_minute=lambda: 3000.0, keep_until=never_kept, settlement_of=free,
        )  # fmt: skip
        if not self.store.runs[self.run.id].status.is_terminal:
            tracker.follow(self.store.runs[self.run.id])
        made = StreamHub(
            self.streams, tracker, self.logs, self.clock, self.observer,
            LiveSettings(
                StreamSettings(
                    max_log_bytes=max_log_bytes, kept_log_bytes=kept_log_bytes,
                    heartbeat_seconds=15, max_total=10, max_per_team=10,
                )
            ),
            self.secret_values,
        )  # fmt: skip
        keeping = asyncio.create_task(made.log_writer.run())
        try:
            yield made
        finally:
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)
            self.logs.is_away |= is_killed
            await made.close()
            self.logs.is_away &= not is_killed
            await tracker.close()


def raws(*events: Event) -> bytes:
    """Return what readers of these events get."""
    return b"".join(event.raw for event in events)
