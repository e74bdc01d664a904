"""A channel: one run's events, from upstream to the readers.

Only the task that fills a channel appends to its log. After each append it waits until the listener has written the new
events to all live readers. So the log never changes while the listener reads it, and the bounded log never drops an
event before live readers have received it.
"""

import asyncio
from collections.abc import Iterable
from typing import Protocol

from gateway.errors import GatewayError
from gateway.streams.rules.event_log import LONG, EventLog
from gateway.streams.rules.sse import Event


class Listener(Protocol):
    """Writes a channel's events to its readers."""

    async def pump(self) -> None:
        """Write new events to live readers, or tell them that the log is complete, without waiting for any of them."""
        ...

    def check_canceled(self) -> None:
        """Wake the readers whose prediction was canceled for their caller."""
        ...


_AT_ONCE = 2000
"""Events that are appended before others run."""


class Channel:
    """One run's event log, with the task that fills it and the listener that reads it."""

    def __init__(self, run_id: str, log: EventLog) -> None:
        self.run_id = run_id
        self.log = log
        self.listener: Listener | None = None
        self.stored = 0
        """The cursor up to which the store has its events."""
        self.small_parts = 0
        """Number of the newest stored parts that are small, because another node reads the log as it grows."""
        self.small_from = 0
        """The cursor of the first of these parts."""
        self.has_gap = False
        """Whether its end says that events are missing: those of the run may be readable later."""
        self.is_dropped = False
        """Whether nothing fills it any more, because the node has lost its lease: readers are to come again."""
        self._opened = asyncio.Event()
        self._failure: GatewayError | None = None

    @property
    def is_complete(self) -> bool:
        """Whether the log has its last event."""
        return self.log.is_closed

    def open(self, failure: GatewayError | None = None) -> None:
        """Report that the stored log was loaded, or that loading failed. Only the first call has an effect."""
        if not self._opened.is_set():
            self._failure = failure
            self._opened.set()

    async def opened(self) -> None:
        """Wait until the log can be read. Raise the failure that `open` reported."""
        await self._opened.wait()
        if self._failure is not None:
            raise self._failure

    async def publish(self, events: Iterable[Event]) -> None:
        """Append events to the log and have them written to live readers. Events after the end are ignored."""
        new_bytes = 0
        for number, event in enumerate(events, 1):
            if new_bytes and new_bytes + len(event.raw) > self.log.max_bytes:
                await self._pump()
                new_bytes = 0
            self.log.append(event)
            new_bytes += len(event.raw)
            if self.log.is_closed:
                break
            if number % _AT_ONCE == 0 or len(event.raw) > LONG:
                await asyncio.sleep(0)
                # Before the next is appended: readers who came to the end meanwhile wait there for the listener.
                await self._pump()
                new_bytes = 0
        if new_bytes:
            await self._pump()

    async def close(self) -> None:
        """Mark the log complete, if no `done` has done so."""
        if not self.log.is_closed:
            self.log.close()
            await self._pump()

    def check_canceled(self) -> None:
        """Wake the readers whose prediction was canceled for their caller."""
        if self.listener is not None:
            self.listener.check_canceled()

    async def _pump(self) -> None:
        if self.listener is not None:
            await self.listener.pump()
