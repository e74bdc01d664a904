"""Logs: constant text with fields, to stderr, in UTC, for eyes or for machines.

What leaves here has no secret in it: the handler strikes out of the message, the fields and the exception everything
that looks like one, and every value that was registered as one.
"""

import logging
import sys
import time
from collections.abc import Callable, Iterable
from typing import Final, Literal, TextIO

from gateway.logs.formats import FORMATS
from gateway.logs.redaction import Clean, Redactor
from gateway.logs.sink import DirectSink, QueuedSink, Sink

__all__ = ["Redactor", "configure", "dropped", "flush", "redact", "register_secret", "set_level"]


class Handler(logging.Handler):
    """Renders records without secrets and hands the lines to a sink."""

    def __init__(self, sink: Sink, redactor: Redactor, render: Callable[[Clean], str]) -> None:
        super().__init__()
        self.sink = sink
        self._redactor = redactor
        self._render = render

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record's line."""
        try:
            line = self._render(self._redactor.record(record)) + "\n"
        except Exception:  # noqa: BLE001 - logging's own way to say so would print the arguments as they are
            line = f"a log line of {record.name} could not be written\n"
        self.sink.write(line)

    def handle(self, record: logging.LogRecord) -> bool:
        """Write a record that passes the filters. No lock is needed: rendering shares nothing, a sink takes lines."""
        passes = bool(self.filter(record))
        if passes:
            self.emit(record)
        return passes

    def flush(self) -> None:
        """Have everything written."""
        self.sink.flush()

    def close(self) -> None:
        """Write what is left."""
        self.sink.close()
        super().close()


_redactor: Final = Redactor()


def configure(
    style: Literal["console", "json"],
    level: str,
    secrets: Iterable[str] = (),
    stream: TextIO | None = None,
    *,
    queued: bool = False,
) -> None:
    """Set logging up for the process. `level` is for the gateway; libraries tell warnings and worse only.

    `queued` is for what serves: lines are written by a thread, and dropped when nobody reads them.
    """
    for secret in secrets:
        register_secret(secret)
    target, render = stream if stream is not None else sys.stderr, FORMATS[style]

    def tell_dropped(lines: int) -> str:
        fields = {"lines": lines}
        return render(Clean(time.time(), "WARNING", __name__, "log lines were dropped", fields)) + "\n"

    sink: Sink = QueuedSink(target, tell_dropped) if queued else DirectSink(target)
    root = logging.getLogger()
    root.handlers[:] = [Handler(sink, _redactor, render)]
    set_level(level)
    logging.captureWarnings(capture=True)
    # What no line shows need not be found out for each.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False


def set_level(level: str) -> None:
    """Tell more or less from now on."""
    logging.getLogger().setLevel(max(logging.WARNING, _number(level)))
    logging.getLogger("gateway").setLevel(_number(level))


def dropped() -> int:
    """Say how many lines of this process were lost because nobody took them."""
    sinks = (handler.sink for handler in logging.getLogger().handlers if isinstance(handler, Handler))
    return sum(sink.dropped for sink in sinks if isinstance(sink, QueuedSink))


def flush(seconds: float) -> None:
    """Have what was told written, as far as that can be done in the time."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, Handler):
            handler.sink.flush(seconds)


def register_secret(value: str) -> None:
    """Strike this value out of all logs from now on."""
    _redactor.register(value)


def redact(text: str) -> str:
    """Strike secrets out of a text that goes elsewhere, such as to a terminal."""
    return _redactor.text(text)


def _number(level: str) -> int:
    return logging.getLevelNamesMapping()[level.upper()]
