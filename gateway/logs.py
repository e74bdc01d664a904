"""Logs: constant text with fields, to stderr, in UTC, for eyes or for machines.

What leaves here has no secret in it: the handler strikes out of the message, the fields and the exception everything
that looks like one, and every value that was registered as one.
"""

import copy
import json
import logging
import re
import sys
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final, Literal, TextIO
from urllib.parse import quote

from pythonjsonlogger.json import JsonFormatter

from gateway.core.keys import REDACTED, conceal

_OF_EVERY_RECORD: Final = frozenset({*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"})
_SECRET_FIELDS: Final = frozenset({"authorization", "cookie", "password", "secret", "token", "api_token"})
_SHORTEST_SECRET: Final = 6  # shorter ones would strike out half of every word
_DEEPEST: Final = 8
_PLAIN: Final = re.compile(r"[^\s\"=\x00-\x1f\x7f]+")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f\x85\u2028\u2029]")


class Redactor:
    """Strikes secrets out of what is told."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._values: set[str] = set()
        self._pattern: re.Pattern[str] | None = None
        for value in secrets:
            self.register(value)

    def register(self, value: str) -> None:
        """Strike this value out from now on, also as it is spelled in an address or in JSON."""
        if len(value) < _SHORTEST_SECRET:
            return
        self._values |= {value, quote(value, safe=""), json.dumps(value)[1:-1]}
        longest_first = sorted(self._values, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, longest_first)))

    def text(self, text: str) -> str:
        """Return the text without secrets."""
        return conceal(self._pattern.sub(REDACTED, text) if self._pattern else text)

    def value(self, value: Any, depth: int = 0) -> Any:
        """Return a field's value without secrets, in the shape it has; what is no JSON becomes text."""
        match value:
            case None | bool() | int() | float():
                return value
            case str():
                return self.text(value)
            case _ if depth >= _DEEPEST:
                return "…"
            case Mapping():
                return {
                    self.text(str(name)): REDACTED
                    if str(name).lower() in _SECRET_FIELDS
                    else self.value(item, depth + 1)
                    for name, item in value.items()
                }
            case list() | tuple() | set() | frozenset():
                return [self.value(item, depth + 1) for item in value]
            case bytes():
                return self.text(value.decode("utf-8", "replace"))
            case _:
                return self.text(str(value))

    def record(self, record: logging.LogRecord) -> logging.LogRecord:
        """Return a copy of the record without secrets; other handlers see the record as it was."""
        clean = copy.copy(record)
        clean.msg, clean.args = self.text(record.getMessage()), None
        if record.exc_info and record.exc_info[0] is not None:
            clean.exc_text = logging.Formatter().formatException(record.exc_info)
        clean.exc_info = None
        clean.exc_text = self.text(clean.exc_text) if clean.exc_text else None
        clean.stack_info = self.text(clean.stack_info) if clean.stack_info else None
        for name, value in _fields(record).items():
            setattr(clean, name, REDACTED if name.lower() in _SECRET_FIELDS else self.value(value))
        return clean


class RedactingHandler(logging.StreamHandler[TextIO]):
    """Writes lines to a stream, without secrets."""

    def __init__(self, stream: TextIO, redactor: Redactor) -> None:
        super().__init__(stream)
        self._redactor = redactor

    def format(self, record: logging.LogRecord) -> str:
        """Format a copy of the record that has no secrets."""
        return super().format(self._redactor.record(record))

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Say that a line was lost; logging's own way would print the arguments as they are."""
        try:
            self.stream.write(f"a log line of {record.name} could not be written\n")
        except (OSError, ValueError):
            return


class ConsoleFormatter(logging.Formatter):
    """One line for eyes: time, level, logger, text, `name=value`."""

    def format(self, record: logging.LogRecord) -> str:
        """Format the record. Only an exception takes more than one line."""
        fields = "".join(f" {name}={_show(value)}" for name, value in _fields(record).items())
        message = _one_line(record.getMessage())
        lines = [f"{_time(record)} {record.levelname:<7} {record.name}: {message}{fields}"]
        lines += [text for text in (record.exc_text, record.stack_info) if text]
        return "\n".join(lines)


class MachineFormatter(JsonFormatter):
    """One JSON object a line: `time`, `level`, `logger`, `message`, and the fields."""

    def __init__(self) -> None:
        super().__init__("%(levelname)s %(name)s %(message)s", rename_fields={"levelname": "level", "name": "logger"})

    def add_fields(self, log_data: dict[str, Any], record: logging.LogRecord, message_dict: dict[str, Any]) -> None:
        """Put the time first."""
        log_data["time"] = _time(record)
        super().add_fields(log_data, record, message_dict)


_redactor: Final = Redactor()


def configure(
    style: Literal["console", "json"],
    level: str,
    secrets: Iterable[str] = (),
    stream: TextIO | None = None,
) -> None:
    """Set logging up for the process. `level` is for the gateway; libraries tell warnings and worse only."""
    for secret in secrets:
        register_secret(secret)
    handler = RedactingHandler(stream if stream is not None else sys.stderr, _redactor)
    handler.setFormatter(MachineFormatter() if style == "json" else ConsoleFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(logging.WARNING, _number(level)))
    logging.getLogger("gateway").setLevel(_number(level))
    logging.captureWarnings(capture=True)


def register_secret(value: str) -> None:
    """Strike this value out of all logs from now on."""
    _redactor.register(value)


def redact(text: str) -> str:
    """Strike secrets out of a text that goes elsewhere, such as to a terminal."""
    return _redactor.text(text)


def _number(level: str) -> int:
    return logging.getLevelNamesMapping()[level.upper()]


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    return {name: value for name, value in vars(record).items() if name not in _OF_EVERY_RECORD}


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _show(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return text if _PLAIN.fullmatch(text) else json.dumps(text)


def _one_line(text: str) -> str:
    return _CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode(), text)
