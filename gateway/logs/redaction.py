"""Striking out: no secret leaves in a log line, wherever in the record it stands."""

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
_SHORTEST_SECRET: Final = 6  # shorter ones would strike out half of every word
_DEEPEST: Final = 8
_AS_THEY_ARE: Final = frozenset({type(None), bool, int, float})
# Names of teams, routes and models come again with every request: what was looked through once need not be again.
_REMEMBERED: Final = 1024
_LONGEST_REMEMBERED: Final = 64


class Clean(msgspec.Struct):
    """A record that may be told: all of it without secrets."""

    created: float
    level: str
    logger: str
    message: str
    fields: dict[str, Any]
    exception: str | None = None
    stack: str | None = None


class Redactor:
    """Strikes secrets out of what is told."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._values: set[str] = set()
        self._pattern: re.Pattern[str] | None = None
        self._remembered = lru_cache(_REMEMBERED)(self._strike)
        for value in secrets:
            self.register(value)

    def register(self, value: str) -> None:
        """Strike this value out from now on, also as it is spelled in an address or in JSON."""
        if len(value) < _SHORTEST_SECRET:
            return
        self._values |= {value, quote(value, safe=""), json.dumps(value)[1:-1]}
        longest_first = sorted(self._values, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, longest_first)))
        self._remembered.cache_clear()

    def text(self, text: str) -> str:
        """Return the text without secrets."""
        return self._remembered(text) if len(text) <= _LONGEST_REMEMBERED else self._strike(text)

    def _strike(self, text: str) -> str:
        return conceal(self._pattern.sub(REDACTED, text) if self._pattern else text)

    def value(self, value: Any, depth: int = 0) -> Any:
        """Return a field's value without secrets, in the shape it has; what is no JSON becomes text."""
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
        """Return what may be told of a record. The record itself stays as it is, for other handlers."""
        clean = Clean(record.created, record.levelname, record.name, self.text(record.getMessage()), {})
        for name, value in vars(record).items():
            if name not in _OF_EVERY_RECORD:
                kind = type(value)
                if name.lower() in _SECRET_FIELDS:
                    clean.fields[name] = REDACTED
                elif kind is str:
                    clean.fields[name] = self.text(value)
                else:
                    clean.fields[name] = value if kind in _AS_THEY_ARE else self.value(value)
        if record.exc_info and record.exc_info[0] is not None:
            clean.exception = self.text("".join(traceback.format_exception(*record.exc_info)).rstrip("\n"))
        elif record.exc_text:
            clean.exception = self.text(record.exc_text)
        if record.stack_info:
            clean.stack = self.text(record.stack_info)
        return clean
