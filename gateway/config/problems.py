"""Problems of a config, one line each: the path, the problem and how to fix it.

A line never contains a secret: values of fields that name secrets are not quoted, tables and lists are named by their
type, and text that looks like a secret is masked.
"""

import difflib
import json
import re
from collections.abc import Iterable, Iterator
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any, Final, NamedTuple, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from gateway.access.rules.api_keys import conceal
from gateway.config.positions import Location

NEVER_QUOTED: Final = frozenset(
    {
        "key_env", "token_env", "token_file", "password_env", "password_file", "client_secret_env",
        "client_secret_file", "sha256",
    }
)  # fmt: skip
_SECRET_WORDS: Final = ("token", "secret", "password", "key")
_LONGEST_QUOTE: Final = 60
_TABLES: Final = frozenset({"teams", "keys", "rules", "models", "aliases", "issuers"})
"""Settings that are lists of tables."""
_BARE: Final = re.compile(r"[A-Za-z0-9_-]{1,60}")


class Problem(NamedTuple):
    """A path such as `teams[2].budget_usd_per_day`, and a message that says what is wrong and how to fix it.

    `place` is where to fix it, if that is known: `config.toml:48`, or the name of an environment variable. `label` is
    the path with the names of teams and keys.
    """

    path: str
    message: str
    place: str = ""
    label: str = ""

    def __str__(self) -> str:
        what = f"{self.label or self.path}: {self.message}" if self.path else self.message
        return f"{self.place}  {what}" if self.place else what


class ConfigError(Exception):
    """The config is invalid. `problems` lists every problem."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = list(problems)
        super().__init__("\n".join(map(str, self.problems)))


def spell(location: Location) -> str:
    """Format a location as `teams[2].keys[0].name`."""
    text = ""
    for part in location:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            # As in TOML, names with other characters are quoted.
            name = conceal(part) if _BARE.fullmatch(part) else _in_quotes(part)
            text += f".{name}" if text else name
    return text


def explain(error: ErrorDetails, root: type[BaseModel]) -> tuple[str, str | None]:
    """Turn a pydantic error into one line. For an unknown key, also return the known key that was probably meant."""
    location: Location = error["loc"]
    kind = error["type"]
    if kind == "extra_forbidden":
        return _unknown(location, root)
    field = field_at(root, location)
    hint = f" (for example: {_write(field.examples[0])})" if field is not None and field.examples else ""
    if kind == "missing":
        return f"is missing{hint}", None
    value = error["input"]
    # A string in place of a table may be anything, such as the key itself.
    shown = "a string" if kind == "model_type" and isinstance(value, str) else quote(value, location)
    return f"{_expected(error, location)}, got {shown}{hint}", None


def _expected(error: ErrorDetails, location: Location) -> str:
    match error["type"]:
        case "value_error":
            return str(error.get("ctx", {}).get("error", ""))
        case "literal_error":
            return f"expected one of {error['ctx']['expected'].replace(' or ', ', ').replace(chr(39), '')}"
        case "bool_type":
            return "expected true or false"
        case "tuple_type" if location[-1] in _TABLES and isinstance(error["input"], dict):
            return (
                f"expected a list of tables, each written as [[{'.'.join(p for p in location if isinstance(p, str))}]]"
            )
        case "tuple_type":
            return "expected a list"
        case "model_type" | "model_attributes_type" | "dict_type":
            return "expected a table"
        case "string_type":
            return "expected a quoted string"
        case _:
            return "invalid type"


def _unknown(location: Location, root: type[BaseModel]) -> tuple[str, str | None]:
    name = str(location[-1])
    model = _model_at(root, location[:-1])
    known = list(model.model_fields) if model else []
    if any(word in name.split("_") for word in _SECRET_WORDS):
        places = [key for key in known if key in NEVER_QUOTED]
        if places and name not in known:
            return f"unknown; secrets do not belong in this file: use {' or '.join(places)}", places[0]
    close = difflib.get_close_matches(name, known, n=1)
    if close:
        return f"unknown; did you mean {close[0]}?", close[0]
    return f"unknown; the keys of this section are {', '.join(known)}", None


def field_at(root: type[BaseModel], location: Location) -> FieldInfo | None:
    """Return the field at a location. An item of a list belongs to the field of the list."""
    names = [part for part in location if isinstance(part, str)]
    model = _model_at(root, tuple(names[:-1])) if names else None
    return model.model_fields.get(names[-1]) if model else None


def _model_at(root: type[BaseModel], location: Location) -> type[BaseModel] | None:
    model: type[BaseModel] | None = root
    is_name = False
    for part in location:
        if is_name or not isinstance(part, str):
            # The index of an item, or the name of an entry.
            is_name = False
            continue
        field = model.model_fields.get(part) if model else None
        model = next(models_in(field.annotation), None) if field else None
        is_name = field is not None and get_origin(field.annotation) is dict
    return model


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """Yield the models within a type such as `tuple[Team, ...]` or `Limits | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from models_in(part)


def quote(value: object, location: Location = ()) -> str:
    """Format a value for a message without revealing a secret."""
    names = [part for part in location if isinstance(part, str)]
    match value:
        case bool():
            return "true" if value else "false"
        case int() | float() | Decimal():
            return str(value)[:_LONGEST_QUOTE]
        case datetime() | date() | time():
            return value.isoformat()
        case dict():
            return "a table"
        case list() | tuple():
            return "a list"
        case str() if not value:
            return "an empty string"
        case str() if (names and names[-1] in NEVER_QUOTED) or ("://" in value and "@" in value):
            return f"a string of {len(value)} characters"
        case str():
            return _in_quotes(value)
        case _:
            return f"a {type(value).__name__}"


def _in_quotes(text: str) -> str:
    shown = conceal(text)
    shown = json.dumps(shown if len(shown) <= _LONGEST_QUOTE else shown[:_LONGEST_QUOTE] + "…", ensure_ascii=False)
    # Escape control characters, which could move the terminal's cursor.
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in shown)


def _write(example: object) -> str:
    return example if isinstance(example, str) else json.dumps(example, default=str)
