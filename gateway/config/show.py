"""The effective config as TOML, each setting with where its value comes from: the file, a variable or the default.

A setting that can hold a secret by mistake is not shown (`problems.NEVER_QUOTED`). The name of a variable is, if it
looks like one.
"""

import json
import re
from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, NamedTuple

from pydantic import BaseModel

from gateway.access.rules.api_keys import conceal
from gateway.config.model import Config
from gateway.config.positions import Location
from gateway.config.problems import NEVER_QUOTED
from gateway.config.report import DEFAULT, Places

_HIDDEN: Final = NEVER_QUOTED | {"budget_webhook"}
_VARIABLE: Final = re.compile(r"[A-Z][A-Z0-9_]{0,63}")
_PASSWORD: Final = re.compile(r"(password=)[^&]*")
"""A parameter of libpq in an address, such as `sslpassword`."""
_WIDTH: Final = 40


class Setting(NamedTuple):
    """One line. `value` is TOML; `None` for a setting that has no value."""

    name: str
    value: str | None
    source: str


def lines(config: Config, places: Places, *, only_given: bool = False) -> Iterator[str]:
    """Yield the lines of the effective config. With `only_given`, those of settings that are not the default."""
    for name in Config.model_fields:
        value = getattr(config, name)
        if isinstance(value, tuple):
            yield from _tables((name,), value, places, only_given=only_given)
        else:
            yield from _table((name,), f"[{name}]", value, places, only_given=only_given)


def _tables(location: Location, items: tuple[Any, ...], places: Places, *, only_given: bool) -> Iterator[str]:
    head = f"[[{'.'.join(part for part in location if isinstance(part, str))}]]"
    for index, item in enumerate(items):
        yield from _table((*location, index), head, item, places, only_given=only_given)


def _table(location: Location, head: str, section: BaseModel, places: Places, *, only_given: bool) -> Iterator[str]:
    is_item = isinstance(location[-1], int)
    settings, inner = [], []
    # What an item is called comes first.
    for name in sorted(type(section).model_fields, key=lambda name: name not in ("name", "model")):
        value = getattr(section, name)
        if isinstance(value, tuple) and any(isinstance(each, BaseModel) for each in value):
            inner.append((name, value))
            continue
        setting = Setting(name, _written(name, value), places.source((*location, name)))
        # Limits that an item of a list does not have are many, and tell nothing.
        if not (setting.source == DEFAULT and (only_given or (is_item and setting.value is None))):
            settings.append(setting)
    if settings or is_item:
        yield head
        yield from map(_line, settings)
        yield ""
    for name, value in inner:
        yield from _tables((*location, name), value, places, only_given=only_given)


def _line(setting: Setting) -> str:
    match setting.value:
        case None:
            return f"#{setting.name} is not set"
        case "":
            text = f"#{setting.name} is set, and not shown"
        case value:
            text = f"{setting.name} = {value}"
    return f"{text:<{_WIDTH}}  # {setting.source}"


def _written(name: str, value: Any) -> str | None:
    """Return a value as TOML; "" for one that is not shown."""
    match value:
        case None:
            return None
        case _ if name in _HIDDEN or name.endswith("_env"):
            return _toml(value) if name.endswith("_env") and _VARIABLE.fullmatch(str(value)) else ""
        case _:
            return _toml(value)


def _toml(value: Any) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case float() | Decimal():
            return f"{Decimal(str(value)).normalize():f}"
        case datetime():
            return value.isoformat()
        case tuple():
            return f"[{', '.join(map(_toml, value))}]"
        case dict():
            return f"{{ {', '.join(f'{_toml(key)} = {_toml(each)}' for key, each in value.items())} }}"
        case BaseModel():
            given = ((name, getattr(value, name)) for name in type(value).model_fields)
            return f"{{ {', '.join(f'{name} = {_toml(each)}' for name, each in given if each is not None)} }}"
        case Path() | str() | _:
            # A JSON string is a basic string of TOML, except for DEL.
            text = _PASSWORD.sub(r"\1(not shown)", conceal(str(value)))
            return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
