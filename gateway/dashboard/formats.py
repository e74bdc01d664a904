"""Amounts, shares and times as the pages show them."""

import re
from collections.abc import Mapping
from typing import Any

import msgspec
from markupsafe import Markup

from gateway.domain import money, times, windows

_CENT = money.MICROUSD_PER_USD // 100
_SHORT_VERSION = 12
_SHORT_ID = 12
_EVENTS = {"asked": "requested", "cancel asked": "cancel requested", "waited": "held"}
_VERSION = re.compile(r"[0-9a-f]{64}")
_WORD_START = re.compile(r"(?<=[a-z])(?=[A-Z])")


def usd(microusd: int) -> str:
    """Format an amount exactly, without trailing zeros after the cents: `$0.25`, `$0.000123`, `-$1.50`."""
    whole, _, places = money.usd(abs(microusd)).partition(".")
    return f"{'-' if microusd < 0 else ''}${int(whole):,}.{places[:2]}{places[2:].rstrip('0')}"


def cents(microusd: int) -> str:
    """Format an amount to the cent, rounded half-even: `$0.25`. One below a cent that is not 0 is `<$0.01`."""
    sign, size = "-" if microusd < 0 else "", abs(microusd)
    if 0 < size < _CENT:
        return f"{sign}<$0.01"
    count, rest = divmod(size, _CENT)
    if rest * 2 > _CENT or (rest * 2 == _CENT and count % 2):
        count += 1
    return f"{sign}${count // 100:,}.{count % 100:02}"


def amount(microusd: int) -> Markup:
    """Return an amount to the cent as HTML, with the exact amount as its title."""
    return Markup('<data value="{}" title="{}">{}</data>').format(money.usd(microusd), usd(microusd), cents(microusd))


def short_id(text: str) -> Markup:
    """Return an id as HTML, shortened. The full one is the title."""
    if len(text) <= _SHORT_ID:
        return Markup.escape(text)
    return Markup('<span title="{}">{}…</span>').format(text, text[:_SHORT_ID])


def cut(text: str) -> Markup:
    """Return a name as HTML that a wide page shortens to two lines. The whole is the title."""
    return Markup('<span class="cut" title="{0}">{0}</span>').format(text)


def target(text: str) -> Markup:
    """Return a target as HTML, with its version shortened. The full one is the title."""
    model, _, version = text.rpartition(":")
    if not _VERSION.fullmatch(version):
        return cut(text)
    short = f"{version[:_SHORT_VERSION]}…"
    return Markup('<span class="cut" title="{}">{}</span>').format(text, f"{model}:{short}" if model else short)


def percent(fraction: float | None) -> str:
    """Format a fraction; `None` is a dash."""
    return "–" if fraction is None else f"{fraction * 100:.1f} %"


def moment(at: float) -> str:
    """Format an epoch time as UTC date and time."""
    return times.render(at)[:19].replace("T", " ")


def shown_time(text: str) -> str:
    """Return an RFC 3339 time in UTC, as the API shows it, as date and time."""
    return text[:19].replace("T", " ")


def month(day: int) -> str:
    """Return the month that contains a day: `2026-01`."""
    return windows.text_of(day)[:7]


def duration(seconds: float) -> str:
    """Format a duration in its two largest units: `3 h 12 min`, `45 s`, `0.42 s`."""
    if seconds < 10:
        return f"{seconds:.2f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes_left = divmod(minutes, 60)
    days, hours_left = divmod(hours, 24)
    parts = [(days, "d"), (hours_left, "h"), (minutes_left, "min"), (rest, "s")]
    first = next((index for index, (count, _) in enumerate(parts) if count), 3)
    return " ".join(f"{count} {unit}" for count, unit in parts[first : first + 2] if count) or "0 s"


def plain(value: Any) -> str:
    """Return a value of the audit log as text."""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def limit_value(value: Any) -> str:
    """Return a limit as text. One of each user or address has several: `requests_per_minute 6, burst 2`."""
    return ", ".join(f"{name} {each}" for name, each in value.items()) if isinstance(value, Mapping) else str(value)


def error_title(name: str) -> str:
    """Return the name of an error class as text: `BudgetExceeded` becomes "Budget exceeded"."""
    return _WORD_START.sub(" ", name).capitalize()


def event_title(what: str) -> str:
    """Return an event of a prediction's timeline in words."""
    return _EVENTS.get(what, what)


def name_title(name: str) -> str:
    """Return the name of a field in words: `usd_per_second` becomes "USD per second"."""
    return " ".join("USD" if word == "usd" else word for word in name.split("_"))
