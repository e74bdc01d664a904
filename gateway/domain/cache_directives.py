"""Parse a caller's cache directives: `Gateway-Cache`, `Gateway-Deterministic`, and optionally `Cache-Control`.

The gateway's own headers are parsed strictly: a misspelt directive is an error. `Cache-Control` is written by browsers
and libraries for any cache, so unknown directives are ignored (RFC 9111, section 5.2).
"""

import re
from collections.abc import Iterator

import msgspec

_MOST_SECONDS = 2**31
"""Upper bound for `max-age` (RFC 9111, section 1.2.2)."""

# One member of a list: a name, optionally with a value. A quoted value can contain commas.
_MEMBER = re.compile(r'\s*([^\s,="]+)(?:\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]*)))?\s*(?:,|\Z)', re.DOTALL)


class Directives(msgspec.Struct, frozen=True):
    """The cache directives of one request."""

    no_cache: bool = False
    """Do not use a finished run. Joining a run in progress is allowed; the result replaces the cached one."""
    no_store: bool = False
    """Use a new run that is neither shared nor cached."""
    max_age: int | None = None
    """Use a finished run only if it ended at most this many seconds ago."""
    only_if_cached: bool = False
    """Do not start a run: use a finished one, join one in progress, or fail."""
    deterministic: bool = False
    """The caller declares the request deterministic."""


_NO_DIRECTIVES = Directives()


def read(
    gateway_cache: str | None = None,
    deterministic: str | None = None,
    cache_control: str | None = None,
    *,
    honor_cache_control: bool = False,
) -> Directives:
    """Read the headers of one request and combine them; the strictest applies. Raise `ValueError` as the parsers do."""
    directives = parse_gateway_cache(gateway_cache) if gateway_cache else _NO_DIRECTIVES
    if cache_control and honor_cache_control:
        directives = _combined(directives, parse_cache_control(cache_control))
    if deterministic is not None:
        directives = msgspec.structs.replace(directives, deterministic=parse_deterministic(deterministic))
    return directives


def parse_gateway_cache(text: str) -> Directives:
    """Parse `Gateway-Cache`. Raise `ValueError` naming an unknown directive."""
    directives = Directives()
    for member in text.split(","):
        part = member.strip()
        if not part:
            continue
        name, has_value, value = (each.strip() for each in part.partition("="))
        directive = _directive(name.lower(), value if has_value else None)
        if directive is None:
            raise ValueError(
                f"Gateway-Cache: {_shown(part)} is not one of no-cache, no-store, max-age=<seconds>, only-if-cached"
            )
        directives = _combined(directives, directive)
    return directives


def parse_cache_control(text: str) -> Directives:
    """Parse the same directives in `Cache-Control`; ignore all others."""
    directives = Directives()
    for name, value in _members(text):
        directive = _directive(name.lower(), value) or _directive(name.lower(), None)
        directives = _combined(directives, directive) if directive is not None else directives
    return directives


def parse_deterministic(text: str) -> bool:
    """Parse `Gateway-Deterministic`, whose only value is `true`. Raise `ValueError` for others."""
    if text.strip().lower() != "true":
        raise ValueError(
            f"Gateway-Deterministic: {_shown(text.strip())} is not true"
            " (to get a run of your own, send Gateway-Cache: no-store)"
        )
    return True


def _directive(name: str, value: str | None) -> Directives | None:
    match name, value:
        case "no-cache", None:
            return Directives(no_cache=True)
        case "no-store", None:
            return Directives(no_store=True)
        case "only-if-cached", None:
            return Directives(only_if_cached=True)
        case "max-age", str() if value.isascii() and value.isdigit():
            return Directives(max_age=_seconds(value))
    return None


def _seconds(digits: str) -> int:
    significant = digits.lstrip("0")
    return _MOST_SECONDS if len(significant) > len(str(_MOST_SECONDS)) else min(int(digits[-10:]), _MOST_SECONDS)


def _combined(one: Directives, other: Directives) -> Directives:
    ages = [age for age in (one.max_age, other.max_age) if age is not None]
    return Directives(
        no_cache=one.no_cache or other.no_cache,
        no_store=one.no_store or other.no_store,
        max_age=min(ages, default=None),
        only_if_cached=one.only_if_cached or other.only_if_cached,
    )


def _members(text: str) -> Iterator[tuple[str, str | None]]:
    at = 0
    while at < len(text):
        if member := _MEMBER.match(text, at):
            name, quoted, plain = member.groups()
            yield name, quoted if quoted is not None else plain
            at = member.end()
        else:
            comma = text.find(",", at)
            at = len(text) if comma < 0 else comma + 1


def _shown(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:40] + "…")
