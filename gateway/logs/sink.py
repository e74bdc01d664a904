"""Where lines go: to a stream, at once or through a thread of its own, so that a slow reader of stderr stops nobody.

A line for each request is written on the event loop's time. So there it is only put in a queue. One thread takes the
whole queue at a time and writes it as one piece: line by line it would have to ask for the interpreter each time, and a
busy loop gives that away some two hundred times a second only. What the queue has no room for is dropped and counted.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol, TextIO

MAX_LINES: Final = 20_000
"""Lines that may wait: about two seconds of a gateway at its fastest, and some MiB."""
_GATHER_SECONDS: Final = 0.05
_LAST_SECONDS: Final = 2.0
_LOOK_SECONDS: Final = 0.01


class Sink(Protocol):
    """Takes lines, each with its line end."""

    def write(self, line: str) -> None:
        """Take a line. Never raises."""
        ...

    def flush(self, seconds: float = ...) -> None:
        """Have everything written that was taken, as far as that can be done in the time."""
        ...

    def close(self) -> None:
        """Write what is left; take no more."""
        ...


class DirectSink:
    """Writes each line before it returns: for commands that serve nobody meanwhile."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, line: str) -> None:
        """Write a line."""
        try:
            self._stream.write(line)
            self._stream.flush()
        except (OSError, ValueError):
            # stderr may be closed under a daemon.
            return

    def flush(self, seconds: float = 0.0) -> None:
        """Do nothing: all is written."""

    def close(self) -> None:
        """Do nothing: the stream is not ours."""


class QueuedSink:
    """Writes lines from a thread. `tell_dropped` writes the line that says how many are missing."""

    def __init__(self, stream: TextIO, tell_dropped: Callable[[int], str], *, max_lines: int = MAX_LINES) -> None:
        self._stream = stream
        self._tell_dropped = tell_dropped
        self._max_lines = max_lines
        self._lines: deque[str] = deque()
        self._is_writing = False
        self._news = threading.Event()
        self._hurry = threading.Event()
        self._told = 0
        self.dropped = 0
        """Lines lost so far: there was no room, or the stream was gone."""
        self._thread = threading.Thread(target=self._work, name="logs", daemon=True)
        self._thread.start()

    def write(self, line: str) -> None:
        """Take a line, or count it as dropped."""
        if len(self._lines) >= self._max_lines:
            self.dropped += 1
            return
        self._lines.append(line)
        if not self._news.is_set():
            self._news.set()

    def flush(self, seconds: float = _LAST_SECONDS) -> None:
        """Wait until all is written, or the time is over."""
        end = time.monotonic() + seconds
        self._hurry.set()
        self._news.set()
        while (self._lines or self._is_writing) and self._thread.is_alive() and time.monotonic() < end:
            time.sleep(_LOOK_SECONDS)
        self._hurry.clear()

    def close(self) -> None:
        """Write what is left. The thread ends with the process: it may be stuck in a stream that nobody reads."""
        self.flush()

    def _work(self) -> None:
        while True:
            self._news.wait()
            self._hurry.wait(_GATHER_SECONDS)
            # Cleared before the queue is read: a line that comes now rings again.
            self._news.clear()
            self._is_writing = True
            self._write_all()
            self._is_writing = False

    def _write_all(self) -> None:
        lines = []
        while self._lines:
            lines.append(self._lines.popleft())
        if self.dropped > self._told:
            missing, self._told = self.dropped - self._told, self.dropped
            lines.append(self._tell_dropped(missing))
        if not lines:
            return
        try:
            self._stream.write("".join(lines))
            self._stream.flush()
        except (OSError, ValueError):
            self.dropped += len(lines)
            self._told = self.dropped
