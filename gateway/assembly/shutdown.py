"""Signals. SIGHUP reloads the config. The first SIGINT or SIGTERM starts a graceful shutdown, which has a time limit.

The second one ends the process at once. That loses nothing that was acknowledged: it is no worse than `kill -9`, and
the next start resumes the work in progress (docs/architecture.md, Invariants 9).
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
# Added to the grace. Closing files and connections has shorter deadlines of its own and is done by then.
_OVERDUE_SECONDS: Final = 5.0
_LOG_FLUSH_SECONDS: Final = 0.2


class SignalHandler:
    """Waits for the signal to stop, and ends the process if the shutdown takes too long."""

    def __init__(self, grace_seconds: float, *, leave: Callable[[int], None] = os._exit) -> None:
        self._grace_seconds = grace_seconds
        self._leave = leave
        self._asked = asyncio.Event()
        self.reload_asked = asyncio.Event()
        """Set by SIGHUP. The code that reloads the config clears it."""

    def listen(self) -> None:
        """Install the signal handlers."""
        loop = asyncio.get_running_loop()
        for number in SIGNALS:
            loop.add_signal_handler(number, self.signalled, number)
        # Installed early: without a handler, a SIGHUP during the start would end the process.
        loop.add_signal_handler(signal.SIGHUP, self.reload_asked.set)

    def signalled(self, number: int) -> None:
        """Start the shutdown. At the second signal, exit at once with status 128 + its number."""
        if self._asked.is_set():
            self._leave_at_once("stopped at once by a second signal", 128 + number)
            return
        self._asked.set()
        loop = asyncio.get_running_loop()
        loop.call_later(
            self._grace_seconds + _OVERDUE_SECONDS, self._leave_at_once, "the graceful shutdown took too long", 1
        )

    @property
    def is_asked(self) -> bool:
        """Whether a signal has arrived."""
        return self._asked.is_set()

    async def wait(self) -> None:
        """Wait for the first signal."""
        await self._asked.wait()

    def _leave_at_once(self, why: str, status: int) -> None:
        logger.warning(why)
        logs.flush(_LOG_FLUSH_SECONDS)
        self._leave(status)


class ShutdownDeadline:
    """The deadline of a graceful shutdown, shared by all parts that have work to finish."""

    def __init__(self, clock: Clock, grace_seconds: float) -> None:
        self._clock = clock
        self._grace_seconds = grace_seconds
        self._ends_at: float | None = None

    def begin(self) -> None:
        """Start the countdown. Later calls have no effect."""
        if self._ends_at is None:
            self._ends_at = self._clock.monotonic() + self._grace_seconds

    def left(self) -> float:
        """Return the seconds that are left."""
        if self._ends_at is None:
            return self._grace_seconds
        return max(0.0, self._ends_at - self._clock.monotonic())
