"""A channel: one run's events on their way from upstream to whoever listens.

Only the task that fills a channel adds to its log, and it waits after each addition until the listener has passed the
news on. So nobody ever looks at a log that moves under them, and no event can be dropped from a bounded log before
those who are up to date have been given it.
"""

import asyncio
from collections.abc import Iterable
from typing import Protocol

from gateway.errors import GatewayError
from gateway.streams.rules.event_log import EventLog
from gateway.streams.rules.sse import Event


class Listener(Protocol):
    """Whoever passes a channel's events on to their readers."""

    async def pump(self) -> None:
        """Give the readers what is new in the log, or that it is complete. Waits for no reader."""
        ...

    def look(self) -> None:
        """Look whether the prediction of some reader has ended for its caller."""
        ...


class Channel:
    """One run's events."""

    def __init__(self, run_id: str, log: EventLog) -> None:
        self.run_id = run_id
        self.log = log
        self.listener: Listener | None = None
        self.kept = 0
        """How many events the store has, counted as cursors are."""
        self.is_kept_whole = False
        """Whether the store has the complete log, in one part."""
        self._opened = asyncio.Event()
        self._failure: GatewayError | None = None

    @property
    def is_complete(self) -> bool:
        """Whether nothing comes any more."""
        return self.log.is_closed

    def open(self, failure: GatewayError | None = None) -> None:
        """Say that the log is what it was, or that it could not be had. What was said first stands."""
        if not self._opened.is_set():
            self._failure = failure
            self._opened.set()

    async def opened(self) -> None:
        """Wait until the log can be read. Raise what kept it from being had."""
        await self._opened.wait()
        if self._failure is not None:
            raise self._failure

    async def publish(self, events: Iterable[Event]) -> None:
        """Add events to the log and let them be passed on. What comes after the end is left out."""
        fresh = 0
        for event in events:
            if fresh and fresh + len(event.raw) > self.log.max_bytes:
                await self._pump()
                fresh = 0
            self.log.append(event)
            fresh += len(event.raw)
            if self.log.is_closed:
                break
        if fresh:
            await self._pump()

    async def close(self) -> None:
        """Say that nothing comes any more, if no `done` has said so."""
        if not self.log.is_closed:
            self.log.close()
            await self._pump()

    def look(self) -> None:
        """Let the readers look whether their prediction has ended for them."""
        if self.listener is not None:
            self.listener.look()

    async def _pump(self) -> None:
        if self.listener is not None:
            await self.listener.pump()
