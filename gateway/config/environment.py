"""Settings from environment variables: `GATEWAY__SECTION__KEY` takes precedence over the key in the file.

A variable holds the plain text of a string, a number, `true` or `false`, or a list as JSON. Teams, aliases and
issuers have names and are only set in the file. An empty variable counts as not set.
"""

import difflib
import json
import re
from collections.abc import Mapping
from decimal import Decimal
from types import NoneType, UnionType
from typing import Any, Final, NamedTuple, Union, get_args, get_origin

from gateway.config.model import Config
from gateway.config.positions import Location
from gateway.config.problems import Problem

PREFIX: Final = "GATEWAY__"

_IN_FILE_ONLY: Final = ("teams", "aliases", "issuers")
_WHOLE: Final = re.compile(r"[+-]?[0-9]{1,40}")
_NUMBER: Final = re.compile(r"[+-]?(?:[0-9]{1,40}(?:\.[0-9]{0,40})?|\.[0-9]{1,40})(?:[eE][+-]?[0-9]{1,3})?")
_SHOWN: Final = re.compile(r"[A-Za-z0-9_]{1,80}")


class Overrides(NamedTuple):
    """Values by location, the variables that they came from, and what is wrong with other variables."""

    values: Mapping[Location, Any]
    variables: Mapping[Location, str]
    problems: list[Problem]


def read_overrides(environ: Mapping[str, str]) -> Overrides:
    """Read every variable that begins with `GATEWAY__`."""
    values: dict[Location, Any] = {}
    variables: dict[Location, str] = {}
    problems = []
    for name in sorted(environ):
        if not name.upper().startswith(PREFIX):
            continue
        location = _KNOWN.get(name)
        if location is None:
            problems.append(Problem("", _unknown(name)))
        elif environ[name].strip():
            values[location] = _value(location, environ[name].strip())
            variables[location] = name
    return Overrides(values, variables, problems)


def apply(data: dict[str, Any], overrides: Overrides) -> None:
    """Put the values into parsed TOML. A section that is not a table stays, for validation to report."""
    for (section, key), value in overrides.values.items():
        table = data.setdefault(str(section), {})
        if isinstance(table, dict):
            table[str(key)] = value


def _known() -> dict[str, Location]:
    return {
        f"{PREFIX}{section}__{key}".upper(): (section, key)
        for section, field in Config.model_fields.items()
        if section not in _IN_FILE_ONLY
        for key in getattr(field.annotation, "model_fields", ())
    }


_KNOWN: Final = _known()


def _unknown(name: str) -> str:
    shown = name if _SHOWN.fullmatch(name) else f"{PREFIX}…"
    for section in _IN_FILE_ONLY:
        if name.upper().startswith(f"{PREFIX}{section}".upper()):
            return f"{shown}: {section} are set in the file only"
    close = difflib.get_close_matches(name.upper(), _KNOWN, n=1, cutoff=0.75)
    hint = f"did you mean {close[0]}?" if close else f"expected {PREFIX}SECTION__KEY, such as {PREFIX}SERVER__HOST"
    return f"{shown}: unknown; {hint}"


def _value(location: Location, text: str) -> Any:
    """Return the value that a text stands for. A text that does not fit stays a string, for validation to report."""
    section = Config.model_fields[str(location[0])].annotation
    match _kind(getattr(section, "model_fields")[location[1]].annotation):  # noqa: B009 - not every type has it
        case "bool":
            return {"true": True, "false": False}.get(text.lower(), text)
        case "int":
            return int(text) if _WHOLE.fullmatch(text) else text
        case "number":
            return Decimal(text) if _NUMBER.fullmatch(text) else text
        case "list":
            try:
                return json.loads(text, parse_float=Decimal)
            except (ValueError, RecursionError):
                return text
        case _:
            return text


def _kind(annotation: Any) -> str:
    if get_origin(annotation) in (Union, UnionType):
        (annotation,) = (part for part in get_args(annotation) if part is not NoneType)
    while hasattr(annotation, "__metadata__"):
        annotation = annotation.__origin__
    if get_origin(annotation) is tuple:
        return "list"
    return {bool: "bool", int: "int", float: "number", Decimal: "number"}.get(annotation, "text")
