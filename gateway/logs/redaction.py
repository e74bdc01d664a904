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

from gateway.access.rules.api_keys import REDACTED, SHORTEST_TICKET, conceal

_OF_EVERY_RECORD: Final = frozenset({*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"})
_SECRET_FIELDS: Final = frozenset({"authorization", "cookie", "password", "secret", "token", "api_token"})
_SHORTEST_SECRET: Final = 6  # shorter values would match parts of ordinary words
_DEEPEST: Final = 8
# Short strings, such as names of teams, routes and models, recur with every request, so results are cached.
_CACHED: Final = 1024
_LONGEST_CACHED: Final = 64


class Clean(msgspec.Struct):
    """A redacted log record."""

    created: float
    level: str
    logger: str
    message: str
    fields: Mapping[str, Any]
    exception: str | None = None
    stack: str | None = None


class Redactor:
    """Redacts registered values and text that looks like a secret."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._values: set[str] = set()
        self._pattern: re.Pattern[str] | None = None
        self._cached = lru_cache(_CACHED)(self._redact)
        self._plain_values: list[str] = []
        """Those of letters and digits only."""
        self.generation = 0
        """Grows when there are more secrets to redact than before."""
        for value in secrets:
            self.register(value)

    def register(self, value: str) -> None:
        """Redact this value from now on, including its percent-encoded and JSON-escaped forms."""
        if len(value) < _SHORTEST_SECRET:
            return
        self._values |= {value, quote(value, safe=""), json.dumps(value)[1:-1]}
        longest_first = sorted(self._values, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, longest_first)))
        self._plain_values = [value for value in longest_first if value.isalnum()]
        self.generation += 1
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

    def fields(self, fields: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the fields of a record with secrets redacted."""
        return {
            name: REDACTED if name.lower() in _SECRET_FIELDS else self.value(value) for name, value in fields.items()
        }

    def are_plain(self, ids: tuple[str, ...]) -> bool:
        """Return whether nothing in these texts is redacted, nor escaped in JSON. Fast, for ids; false for most texts.

        It is true for short texts of ASCII letters and digits: what is a secret by its form has other characters, or is
        long.
        """
        together = "".join(ids)
        return (
            together.isalnum()
            and together.isascii()
            and max(map(len, ids)) < SHORTEST_TICKET
            and not any(value in each for value in self._plain_values for each in ids)
        )

    def record(self, record: logging.LogRecord) -> Clean:
        """Return a redacted copy of a record. The record itself is not changed, because other handlers use it."""
        fields = {name: value for name, value in vars(record).items() if name not in _OF_EVERY_RECORD}
        message = self.text(record.getMessage())
        clean = Clean(record.created, record.levelname, record.name, message, self.fields(fields))
        if record.exc_info and record.exc_info[0] is not None:
            clean.exception = self.text("".join(traceback.format_exception(*record.exc_info)).rstrip("\n"))
        elif record.exc_text:
            clean.exception = self.text(record.exc_text)
        if record.stack_info:
            clean.stack = self.text(record.stack_info)
        return clean
