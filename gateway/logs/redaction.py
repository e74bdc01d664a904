"""Redaction of secrets in log records."""

import json
import logging
import re
import traceback
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, Final
from urllib.parse import quote

import msgspec

from gateway.access.rules.api_keys import REDACTED, conceal

_OF_EVERY_RECORD: Final = frozenset({*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"})
_SECRET_FIELDS: Final = frozenset({"authorization", "cookie", "password", "secret", "token", "api_token"})
_SHORTEST_SECRET: Final = 6  # shorter values would match parts of ordinary words
_DEEPEST: Final = 8
_PLAIN_TYPES: Final = frozenset({type(None), bool, int, float})
# Short strings, such as names of teams, routes and models, recur with every request, so results are cached.
_CACHED: Final = 1024
_LONGEST_CACHED: Final = 64


class Clean(msgspec.Struct):
    """A redacted log record."""

    created: float
    level: str
    logger: str
    message: str
    fields: dict[str, Any]
    exception: str | None = None
    stack: str | None = None


class Redactor:
    """Redacts registered values and text that looks like a secret."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._values: set[str] = set()
        self._pattern: re.Pattern[str] | None = None
        self._cached = lru_cache(_CACHED)(self._redact)
        for value in secrets:
            self.register(value)

    def register(self, value: str) -> None:
        """Redact this value from now on, including its percent-encoded and JSON-escaped forms."""
        if len(value) < _SHORTEST_SECRET:
            return
        self._values |= {value, quote(value, safe=""), json.dumps(value)[1:-1]}
        longest_first = sorted(self._values, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, longest_first)))
        self._cached.cache_clear()

    def text(self, text: str) -> str:
        """Return the text with secrets redacted."""
        return self._cached(text) if len(text) <= _LONGEST_CACHED else self._redact(text)

    def _redact(self, text: str) -> str:
        return conceal(self._pattern.sub(REDACTED, text) if self._pattern else text)

    def value(self, value: Any, depth: int = 0) -> Any:
        """Return a field's value with secrets redacted. Values that are not JSON become strings."""
        match value:
            case str():
                return self.text(value)
            case None | bool() | int() | float():
                return value
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

    def record(self, record: logging.LogRecord) -> Clean:
        """Return a redacted copy of a record. The record itself is not changed, because other handlers use it."""
        clean = Clean(record.created, record.levelname, record.name, self.text(record.getMessage()), {})
        for name, value in vars(record).items():
            if name not in _OF_EVERY_RECORD:
                kind = type(value)
                if name.lower() in _SECRET_FIELDS:
                    clean.fields[name] = REDACTED
                elif kind is str:
                    clean.fields[name] = self.text(value)
                else:
                    clean.fields[name] = value if kind in _PLAIN_TYPES else self.value(value)
        if record.exc_info and record.exc_info[0] is not None:
            clean.exception = self.text("".join(traceback.format_exception(*record.exc_info)).rstrip("\n"))
        elif record.exc_text:
            clean.exception = self.text(record.exc_text)
        if record.stack_info:
            clean.stack = self.text(record.stack_info)
        return clean
