"""Sinks write log lines to a stream, either directly or in a thread, so that a slow reader of stderr blocks nothing.

The event loop only appends a line to a queue. A thread writes the whole queue as one piece, because each write needs
the interpreter lock, and a busy event loop releases it only about two hundred times a second. Lines that exceed the
queue are dropped and counted.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol, TextIO

MAX_LINES: Final = 20_000
"""Limit of queued lines: about two seconds at full load, a few MiB."""
_MAX_CHARACTERS: Final = 16 * 1024 * 1024
_GATHER_SECONDS: Final = 0.05
_FLUSH_SECONDS: Final = 2.0
_POLL_SECONDS: Final = 0.01


class Sink(Protocol):
    """Accepts lines that include their newline."""

    def write(self, line: str) -> None:
        """Accept a line. Never raises."""
        ...

    def flush(self, seconds: float = ...) -> None:
        """Wait until accepted lines are written, for at most `seconds`."""
        ...

    def close(self) -> None:
        """Write the remaining lines."""
        ...


class DirectSink:
    """Writes each line at once: for commands."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, line: str) -> None:
        """Write a line."""
        try:
            self._stream.write(line)
            self._stream.flush()
        except (OSError, ValueError):
            # The stderr of a daemon may be closed.
            return

    def flush(self, seconds: float = 0.0) -> None:
        """Do nothing: every line is already written."""

    def close(self) -> None:
        """Do nothing: the caller owns the stream."""


class QueuedSink:
    """Writes lines in a thread. `format_dropped` formats the line that reports dropped lines."""

    def __init__(self, stream: TextIO, format_dropped: Callable[[int], str], *, max_lines: int = MAX_LINES) -> None:
        self._stream = stream
        self._format_dropped = format_dropped
        self._max_lines = max_lines
        self._lines: deque[str] = deque()
        # Characters added and taken in total. Each is changed by one thread only.
        self._added = self._taken = 0
        self._is_writing = False
        self._has_lines = threading.Event()
        self._flush_now = threading.Event()
        self._reported = 0
        self.dropped = 0
        """Number of lines dropped because the queue was full or the stream was closed."""
        self._thread = threading.Thread(target=self._run, name="logs", daemon=True)
        self._thread.start()

    def write(self, line: str) -> None:
        """Queue a line, or count it as dropped."""
        if len(self._lines) >= self._max_lines or self._added - self._taken > _MAX_CHARACTERS:
            self.dropped += 1
            return
        self._added += len(line)
        self._lines.append(line)
        if not self._has_lines.is_set():
            self._has_lines.set()

    def flush(self, seconds: float = _FLUSH_SECONDS) -> None:
        """Wait until the queue is written, for at most `seconds`."""
        end = time.monotonic() + seconds
        self._flush_now.set()
        self._has_lines.set()
        while (self._lines or self._is_writing) and self._thread.is_alive() and time.monotonic() < end:
            time.sleep(_POLL_SECONDS)
        self._flush_now.clear()

    def close(self) -> None:
        """Write the remaining lines. The thread is not joined, because it may be blocked by a reader that stalled."""
        self.flush()

    def _run(self) -> None:
        while True:
            self._has_lines.wait()
            self._flush_now.wait(_GATHER_SECONDS)
            # Clear before reading the queue, so that a line added meanwhile wakes the thread again.
            self._has_lines.clear()
            self._is_writing = True
            self._write_all()
            self._is_writing = False

    def _write_all(self) -> None:
        lines = []
        while self._lines:
            line = self._lines.popleft()
            self._taken += len(line)
            lines.append(line)
        if self.dropped > self._reported:
            missing, self._reported = self.dropped - self._reported, self.dropped
            lines.append(self._format_dropped(missing))
        if not lines:
            return
        try:
            self._stream.write("".join(lines))
            self._stream.flush()
        except (OSError, ValueError):
            self.dropped += len(lines)
            self._reported = self.dropped
