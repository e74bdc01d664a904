"""Formats of log lines: text, or one JSON object per line. Times are UTC."""

import json
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final

import msgspec

from gateway.logs.redaction import Clean

_encode: Final = msgspec.json.Encoder().encode
_PLAIN: Final = re.compile(r"[^\s\"=\x00-\x1f\x7f]+")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f\x85\u2028\u2029]")


def console(record: Clean) -> str:
    """Format as text: time, level, logger, message, `name=value` unless null. Only exceptions span several lines."""
    fields = "".join(f" {name}={_show(value)}" for name, value in record.fields.items() if value is not None)
    lines = [f"{_time(record.created)} {record.level:<7} {record.logger}: {_one_line(record.message)}{fields}"]
    lines += [text for text in (record.exception, record.stack) if text]
    return "\n".join(lines)


def json_line(record: Clean) -> str:
    """Format as JSON: `time`, `level`, `logger`, `message`, the fields, and `exc_info` and `stack_info` if present."""
    line = {
        "time": _time(record.created),
        "level": record.level,
        "logger": record.logger,
        "message": record.message,
        **record.fields,
    }
    if record.exception:
        line["exc_info"] = record.exception
    if record.stack:
        line["stack_info"] = record.stack
    try:
        return _encode(line).decode()
    except (UnicodeEncodeError, OverflowError):
        # Surrogates from a header that is not UTF-8, or a number beyond 64 bits.
        return json.dumps(line)


def json_info(created: float, logger: str, message: str, fields: str) -> str:
    """Format as `json_line` does, a line of the level INFO whose fields are text already (`json_fields`)."""
    return f'{{"time":"{_time(created)}","level":"INFO","logger":"{logger}","message":"{message}",{fields}}}'


def json_fields(fields: Mapping[str, Any]) -> str:
    """Return fields as a part of a JSON line.

    Raise `UnicodeEncodeError` or `OverflowError` for what `json_line` writes in another way.
    """
    return _encode(fields).decode()[1:-1]


FORMATS: Final[dict[str, Callable[[Clean], str]]] = {"console": console, "json": json_line}


def _time(created: float) -> str:
    second, microseconds = divmod(round(created * 1_000_000), 1_000_000)
    return f"{_second(second)}.{microseconds // 1000:03}Z"


@lru_cache(8)
def _second(second: int) -> str:
    """Return a time up to its seconds. Many lines are written in one."""
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _show(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return text if _PLAIN.fullmatch(text) else json.dumps(text)


def _one_line(text: str) -> str:
    return _CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode(), text)
