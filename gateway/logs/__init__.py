"""Logging to stderr as text or JSON: a constant message with fields, times in UTC.

The handler redacts secrets in message, fields and exception: registered values, and text that looks like a secret.
"""

import logging
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, Final, Literal, NamedTuple, TextIO

from gateway.logs.formats import FORMATS, json_fields, json_info, json_line
from gateway.logs.redaction import Clean, Redactor
from gateway.logs.sink import DirectSink, QueuedSink, Sink

__all__ = [
    "Form",
    "Line",
    "Redactor",
    "configure",
    "dropped",
    "flush",
    "info",
    "line",
    "redact",
    "register_secret",
    "set_level",
    "watched",
]


class Handler(logging.Handler):
    """Redacts and formats records, and passes the lines to a sink."""

    def __init__(self, sink: Sink, redactor: Redactor, render: Callable[[Clean], str]) -> None:
        super().__init__()
        self.sink = sink
        self._redactor = redactor
        self._render = render

    def emit(self, record: logging.LogRecord) -> None:
        """Format a record and pass it to the sink."""
        self._write(record.name, partial(self._redactor.record, record))

    def write(self, logger: str, message: str, line: "Line") -> None:
        """Write a line that has no record, as `info` describes it."""
        now, redactor = time.time(), self._redactor
        if self._render is json_line and line.is_plain and redactor.are_plain(line.ids):
            # Fails for a header that is not UTF-8, which the other way writes.
            with suppress(UnicodeEncodeError, OverflowError):
                self.sink.write(json_info(now, logger, message, line.text(redactor)) + "\n")
                return
        self._write(logger, lambda: Clean(now, "INFO", logger, message, redactor.fields(line.fields())))

    def _write(self, logger: str, redact: Callable[[], Clean]) -> None:
        try:
            line = self._render(redact()) + "\n"
        except Exception:  # noqa: BLE001 - logging's own error report would print unredacted arguments
            failed = Clean(time.time(), "ERROR", __name__, "a log line could not be written", {"of": logger})
            line = self._render(failed) + "\n"
        self.sink.write(line)

    def handle(self, record: logging.LogRecord) -> bool:
        """Emit a record that passes the filters. No lock: formatting shares no state, sinks accept whole lines."""
        passes = bool(self.filter(record))
        if passes:
            self.emit(record)
        return passes

    def flush(self) -> None:
        """Wait until all lines are written."""
        self.sink.flush()

    def close(self) -> None:
        """Write the remaining lines."""
        self.sink.close()
        super().close()


_MOST_RECURRING: Final = 1024
"""Combinations of values whose text is kept: about 0.5 MB."""
_redactor: Final = Redactor()
_root: Final = logging.getLogger()
_own: Final = logging.getLogger("gateway")


def configure(
    style: Literal["console", "json"],
    level: str,
    secrets: Iterable[str] = (),
    stream: TextIO | None = None,
    *,
    queued: bool = False,
) -> None:
    """Configure logging for the process. `level` applies to the gateway; libraries log at WARNING and above.

    With `queued`, for servers, a thread writes the lines, and lines are dropped if the reader is too slow.
    """
    for secret in secrets:
        register_secret(secret)
    target, render = stream if stream is not None else sys.stderr, FORMATS[style]

    def format_dropped(lines: int) -> str:
        fields = {"lines": lines}
        return render(Clean(time.time(), "WARNING", __name__, "log lines were dropped", fields)) + "\n"

    sink: Sink = QueuedSink(target, format_dropped) if queued else DirectSink(target)
    root = logging.getLogger()
    root.handlers[:] = [Handler(sink, _redactor, render)]
    set_level(level)
    logging.captureWarnings(capture=True)
    if queued:
        # What Python would print by itself is logged, so that every line has the same format.
        threading.excepthook = _log_thread
        sys.unraisablehook = _log_unraisable
    # These values are not in the output, so do not collect them.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False


class Form:
    """The names of the fields of lines that are written often, such as one for every request.

    Values of `recurring` are the same in many lines: the text of their newest combinations is kept. `ids` and `numbers`
    have new values in every line. No name is that of a secret.
    """

    def __init__(self, *, recurring: Sequence[str], ids: Sequence[str], numbers: Sequence[str]) -> None:
        self.names = (*recurring, *ids, *numbers)
        self._recurring = recurring
        self._template = ",".join([f'"{name}":"%s"' for name in ids] + [f'"{name}":%s' for name in numbers])
        self._texts: dict[tuple[Any, ...], str] = {}
        self._generation = 0

    def text(self, line: "Line", redactor: Redactor) -> str:
        """Return the fields of a line as a part of a JSON line, without secrets. Raise as `json_fields` does."""
        if self._generation != redactor.generation or len(self._texts) > _MOST_RECURRING:
            self._texts.clear()
            self._generation = redactor.generation
        text = self._texts.get(line.recurring)
        if text is None:
            fields = dict(zip(self._recurring, line.recurring, strict=True))
            text = self._texts[line.recurring] = json_fields(redactor.fields(fields))
        return f"{text},{self._template % (line.ids + line.numbers)}"


class Line(NamedTuple):
    """The values of a line of a form."""

    form: Form
    recurring: tuple[str | int | None, ...]
    ids: tuple[str, ...]
    numbers: tuple[float | None, ...]
    more: Mapping[str, object]
    """Further fields, which few lines have."""

    @property
    def is_plain(self) -> bool:
        """Whether it has the fields of its form only, and all of them."""
        return not self.more and None not in self.numbers

    def text(self, redactor: Redactor) -> str:
        """Return the fields as a part of a JSON line, without secrets."""
        return self.form.text(self, redactor)

    def fields(self) -> dict[str, Any]:
        """Return every field by its name."""
        values = (*self.recurring, *self.ids, *self.numbers)
        return dict(zip(self.form.names, values, strict=True)) | dict(self.more)


def info(logger: logging.Logger, message: str, line: Line) -> None:
    """Log a constant message with the fields of a line, like `logger.info`.

    A record, which only other handlers need, and the redaction and encoding of each value made a line as expensive as
    the rest of a poll: 47 µs of CPU. This way it takes about 20.
    """
    handlers = _root.handlers
    if len(handlers) == 1 and type(handler := handlers[0]) is Handler and not (handler.filters or _own.handlers):
        handler.write(logger.name, message, line)
    else:
        logger.info(message, extra=line.fields())


@contextmanager
def watched(handler: logging.Handler) -> Iterator[None]:
    """Pass the gateway's records to one more handler, also those below the level of the log.

    It sets the levels of the loggers that it wants to see.
    """
    levels = [(each, each.level) for each in _root.handlers]
    for each in _root.handlers:
        each.setLevel(_own.getEffectiveLevel())
    _own.addHandler(handler)
    try:
        yield
    finally:
        _own.removeHandler(handler)
        for each, level in levels:
            each.setLevel(level)


def _log_thread(crash: threading.ExceptHookArgs) -> None:
    """Log an exception that ended a thread."""
    if crash.exc_type is not SystemExit and crash.exc_value is not None:
        info = (crash.exc_type, crash.exc_value, crash.exc_traceback)
        thread = crash.thread.name if crash.thread is not None else None
        logging.getLogger(__name__).error("a thread crashed", exc_info=info, extra={"thread_name": thread})


def _log_unraisable(crash: "sys.UnraisableHookArgs") -> None:
    """Log an exception that nothing can catch, such as one of `__del__`."""
    if crash.exc_value is not None:
        info = (crash.exc_type, crash.exc_value, crash.exc_traceback)
        logging.getLogger(__name__).error(crash.err_msg or "an exception was ignored", exc_info=info)


def set_level(level: str) -> None:
    """Set the level of the gateway's loggers; that of other loggers is at least WARNING."""
    logging.getLogger().setLevel(max(logging.WARNING, _number(level)))
    logging.getLogger("gateway").setLevel(_number(level))


def dropped() -> int:
    """Return the number of lines that were dropped because the reader was too slow."""
    sinks = (handler.sink for handler in logging.getLogger().handlers if isinstance(handler, Handler))
    return sum(sink.dropped for sink in sinks if isinstance(sink, QueuedSink))


def flush(seconds: float) -> None:
    """Wait until all lines are written, for at most `seconds`."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, Handler):
            handler.sink.flush(seconds)


def register_secret(value: str) -> None:
    """Redact this value in all logs from now on."""
    _redactor.register(value)


def line(style: Literal["console", "json"], message: str) -> str:
    """Return a message for stdout: as it is, or as a JSON object like those of the log."""
    if style == "console":
        return message
    return FORMATS[style](Clean(time.time(), "INFO", "gateway", redact(message), {}))


def redact(text: str) -> str:
    """Redact secrets in a text for another output, such as the terminal."""
    return _redactor.text(text)


def _number(level: str) -> int:
    return logging.getLevelNamesMapping()[level.upper()]
