"""Signals. SIGHUP asks for the config to be read anew. The first one to stop asks for an orderly end, which is bounded;
the second ends the process at once.

Ending at once loses nothing that was acknowledged: it is what `kill -9` does, and the next start takes up what was
under way (docs/architecture.md, Invariants 9).
"""

import asyncio
import logging
import os
import signal
from collections.abc import Callable
from typing import Final

from gateway import logs
from gateway.domain.ports.clock import Clock

logger = logging.getLogger(__name__)

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
# Beyond the grace: what closes files and connections has its own, shorter deadlines, and is long done by then.
_OVERDUE_SECONDS: Final = 5.0
_LAST_WORDS_SECONDS: Final = 0.2


class SignalHandler:
    """Waits for the signal to stop, and sees to it that the process ends."""

    def __init__(self, grace_seconds: float, *, leave: Callable[[int], None] = os._exit) -> None:
        self._grace_seconds = grace_seconds
        self._leave = leave
        self._asked = asyncio.Event()
        self.reload_asked = asyncio.Event()
        """Set whenever the config is to be read anew. Whoever does it clears it."""

    def listen(self) -> None:
        """Take the signals of the process."""
        loop = asyncio.get_running_loop()
        for number in SIGNALS:
            loop.add_signal_handler(number, self.signalled, number)
        # From the start: one that comes before there is anything to reload would end the process otherwise.
        loop.add_signal_handler(signal.SIGHUP, self.reload_asked.set)

    def signalled(self, number: int) -> None:
        """Begin the orderly end; at the second signal, leave with the status of a process that it ended."""
        if self._asked.is_set():
            self._leave_at_once("stopped at once by a second signal", 128 + number)
            return
        self._asked.set()
        loop = asyncio.get_running_loop()
        loop.call_later(self._grace_seconds + _OVERDUE_SECONDS, self._leave_at_once, "the orderly end took too long", 1)

    async def wait(self) -> None:
        """Wait for the first signal."""
        await self._asked.wait()

    def _leave_at_once(self, why: str, status: int) -> None:
        logger.warning(why)
        logs.flush(_LAST_WORDS_SECONDS)
        self._leave(status)


class ShutdownDeadline:
    """The time that an orderly end may take, shared by all who have something to finish."""

    def __init__(self, clock: Clock, grace_seconds: float) -> None:
        self._clock = clock
        self._grace_seconds = grace_seconds
        self._ends_at: float | None = None

    def begin(self) -> None:
        """Let the time run. Beginning again changes nothing."""
        if self._ends_at is None:
            self._ends_at = self._clock.monotonic() + self._grace_seconds

    def left(self) -> float:
        """Return the seconds that are left."""
        if self._ends_at is None:
            return self._grace_seconds
        return max(0.0, self._ends_at - self._clock.monotonic())
