"""What a caller asks of the cache: `Gateway-Cache`, `Gateway-Deterministic`, and `Cache-Control` where it counts.

The gateway's own headers are read strictly: a misspelt wish is refused, not overheard. `Cache-Control` is written by
browsers and libraries for caches of all sorts, so what is not understood there is skipped (RFC 9111, section 5.2).
"""

import re
from collections.abc import Iterator

import msgspec

_MOST_SECONDS = 2**31
"""RFC 9111, section 1.2.2: more than this is as good as this."""

# One member of a list: a word, perhaps with a value; a quoted value may hold commas.
_MEMBER = re.compile(r'\s*([^\s,="]+)(?:\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]*)))?\s*(?:,|\Z)', re.DOTALL)


class Directives(msgspec.Struct, frozen=True):
    """What a caller asks for."""

    no_cache: bool = False
    """No finished run; joining one in flight is allowed, and the result replaces what was kept."""
    no_store: bool = False
    """A run of its own: neither used, joined nor stored."""
    max_age: int | None = None
    """A finished run of at most that many seconds."""
    only_if_cached: bool = False
    """No new run: one that has finished or is in flight, else a refusal."""
    deterministic: bool = False
    """The caller's word that the request is deterministic."""


def read(
    gateway_cache: str | None = None,
    deterministic: str | None = None,
    cache_control: str | None = None,
    *,
    honor_cache_control: bool = False,
) -> Directives:
    """Read the headers of one request. What any of them narrows is narrowed. Raise `ValueError` as the parsers do."""
    wishes = parse_gateway_cache(gateway_cache or "")
    if cache_control and honor_cache_control:
        wishes = _together(wishes, parse_cache_control(cache_control))
    asserted = deterministic is not None and parse_deterministic(deterministic)
    return msgspec.structs.replace(wishes, deterministic=asserted)


def parse_gateway_cache(text: str) -> Directives:
    """Read `Gateway-Cache`. Raise `ValueError` that names the word that is none of its own."""
    wishes = Directives()
    for member in text.split(","):
        word = member.strip()
        if not word:
            continue
        name, has_value, value = (part.strip() for part in word.partition("="))
        wish = _wish(name.lower(), value if has_value else None)
        if wish is None:
            raise ValueError(
                f"Gateway-Cache: {_shown(word)} is not one of no-cache, no-store, max-age=<seconds>, only-if-cached"
            )
        wishes = _together(wishes, wish)
    return wishes


def parse_cache_control(text: str) -> Directives:
    """Read the same words in `Cache-Control`; skip all else."""
    wishes = Directives()
    for name, value in _members(text):
        wish = _wish(name.lower(), value) or _wish(name.lower(), None)
        wishes = _together(wishes, wish) if wish is not None else wishes
    return wishes


def parse_deterministic(text: str) -> bool:
    """Read `Gateway-Deterministic`, of which `true` is the only value. Raise `ValueError` for others."""
    if text.strip().lower() != "true":
        raise ValueError(
            f"Gateway-Deterministic: {_shown(text.strip())} is not true"
            " (for a run of your own, send Gateway-Cache: no-store)"
        )
    return True


def _wish(name: str, value: str | None) -> Directives | None:
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


def _together(one: Directives, other: Directives) -> Directives:
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


def _shown(word: str) -> str:
    return repr(word if len(word) <= 40 else word[:40] + "…")
