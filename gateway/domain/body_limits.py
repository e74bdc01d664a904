"""How much one JSON body may hold: `[limits]`, counted before anything is decoded (docs/limits.md).

The scans are those of `json_scan`: a few passes over the bytes, and work for each string or bracket only up to a limit.
"""

import re
from collections.abc import Callable, Generator, Iterator
from itertools import islice, takewhile
from typing import NamedTuple

import msgspec

from gateway.domain.json_scan import (
    BRACKETS,
    LEVELS_TAKEN_OUT,
    LINK,
    LONE_HALF,
    LONGEST_LINK_START,
    SLICE,
    SPACES,
    end_of_slice,
    has_more_than,
    mask,
)

_FEW_BRACKETS = 1000
_SHORT = 4096
_FEW_QUOTES = 500
_LONGEST_RUN = 64
_ESCAPE = 6
"""Bytes of an escape by number."""
_BACKSLASH = ord("\\")
_WHAT = {
    "max_keys": "keys",
    "max_values": "values",
    "max_depth": "levels of nesting",
    "max_links": "links",
    "max_half_surrogates": "lone surrogates",
}
_OTHER_THAN_BRACKETS = bytes(code for code in range(256) if code not in b"[]{}")
_LONGEST_FIELD_SHOWN = 60
_FILE_START = re.compile(rb'"(?:[dD][aA][tT][aA]:|%b)' % LINK)


class BodyLimits(msgspec.Struct, frozen=True, kw_only=True):
    """How much one JSON body may hold."""

    max_links: int = 1000
    """Strings that begin like a URL, `data:` URIs among them."""
    max_keys: int = 20_000
    max_values: int = 100_000
    """Texts, numbers, flags, nulls, arrays and objects together."""
    max_depth: int = 128
    max_half_surrogates: int = 10_000
    """Escapes such as `\\ud83d` without their other half."""


class Excess(NamedTuple):
    """What a body holds too much of. `field` is the top-level field in which the bound is passed, "" if unknown."""

    limit: str
    most: int
    what: str
    field: str


def excess_of(body: bytes, limits: BodyLimits) -> Excess | None:
    """Return what a body holds too much of; `None` if it is within the limits."""
    steps = excess_steps(body, limits)
    while True:
        try:
            next(steps)
        except StopIteration as found:
            excess: Excess | None = found.value
            return excess


def excess_steps(body: bytes, limits: BodyLimits) -> Generator[None, None, Excess | None]:
    """Do what `excess_of` does, in steps of a few milliseconds.

    The exact count is made only if `is_surely_within` cannot tell.
    """
    if is_surely_within(body, limits):
        return None
    yield
    counts = _Counts(limits)
    start, is_inside, before = 0, False, b""
    while start < len(body):
        end = end_of_slice(body, start)
        # With what is around the slice: it can begin and end within an escape, a pair of them, or the start of a link.
        around = before + mask(body[start : end + LONGEST_LINK_START])
        own = slice(len(before), len(before) + end - start)
        masked = around[own]
        before = around[: own.stop][-_ESCAPE:]
        # One string more than there may be keys and values, and one of the two limits is passed.
        pieces = masked.split(b'"', 2 * (limits.max_keys + limits.max_values) + 2)
        outside = b'"'.join(pieces[is_inside::2]).translate(None, SPACES)
        is_inside ^= len(pieces) % 2 == 0
        counts.add(outside, ends_in_text=is_inside)
        letters = around.lower()
        if b"\\" in letters or b"http" in letters or b"data:" in letters:
            counts.links += _begun(_FILE_START, around, own, limits.max_links)
        if rb"\ud" in letters:
            counts.halves += _begun(LONE_HALF, around, own, limits.max_half_surrogates)
        if (name := counts.passed()) is not None:
            return Excess(name, getattr(limits, name), _WHAT[name], _field_at(mask(body[:end]), limits, name))
        start = end
        yield
    return None


def _begun(pattern: re.Pattern[bytes], text: bytes, part: slice, most: int) -> int:
    """Count the matches that begin in a part of a text. Hardly more than `most` are counted."""
    # What is before the part can still be looked back at.
    found = pattern.finditer(text, part.start)
    return sum(1 for _ in takewhile(lambda match: match.start() < part.stop, islice(found, most + 1)))


def is_surely_within(body: bytes, limits: BodyLimits) -> bool:
    """Return whether a body is within the limits for certain, as far as a few fast searches can tell."""
    if len(body) < _SHORT and len(body) < min(limits.max_keys, limits.max_values, limits.max_half_surrogates):
        return body.count(b"[") + body.count(b"{") <= limits.max_depth and body.count(b'"') <= 2 * limits.max_links
    telling = _without_texts(body)
    if telling is None:
        telling = body
    if len(telling) >= SLICE:
        # To count the characters of a large body takes as long as `excess_steps` may without a pause.
        return False
    opened = telling.count(b"[") + telling.count(b"{")
    return (
        opened <= limits.max_depth
        and telling.count(b'"') <= 2 * limits.max_links
        and telling.count(b":") <= limits.max_keys
        and opened + telling.count(b",") < limits.max_values
        and (b"\\" not in body or not has_more_than(limits.max_half_surrogates, body, b"\\"))
    )


def _without_texts(body: bytes) -> bytes | None:
    """Return what stands outside of texts, and their quotes; `None` if there are many, or many quotes in them.

    Most large bodies are a few long texts. To find their ends is 50 times as fast as to count the characters in them.
    """
    pieces, at, is_inside = [], 0, False
    for _ in range(_FEW_QUOTES):
        found = body.find(b'"', at)
        if found < 0:
            break
        if not is_inside:
            pieces.append(body[at : found + 1])
            is_inside = True
        elif body[found - 1] != _BACKSLASH:
            pieces.append(b'"')
            is_inside = False
        elif (escaped := _is_escaped(body[max(0, found - _LONGEST_RUN) : found])) is None:
            return None
        elif not escaped:
            pieces.append(b'"')
            is_inside = False
        at = found + 1
    else:
        return None
    return None if is_inside else b"".join([*pieces, body[at:]])


def _is_escaped(before: bytes) -> bool | None:
    """Return whether an odd number of backslashes stands before a quote; `None` if there is nothing else."""
    plain = before.rstrip(b"\\")
    return bool((len(before) - len(plain)) % 2) if plain else None


class _Counts:
    """What a body adds up to."""

    __slots__ = ("_begun", "_limits", "deepest", "depth", "halves", "keys", "links", "values")

    def __init__(self, limits: BodyLimits) -> None:
        self._limits = limits
        self._begun = b""
        """A bracket that is not counted yet, because what follows decides whether it begins a value."""
        self.keys, self.values, self.depth, self.deepest, self.links, self.halves = 0, 1, 0, 0, 0, 0

    def add(self, outside: bytes, *, ends_in_text: bool = True) -> None:
        """Count text that stands outside of strings, without spaces, and say whether a string follows.

        More brackets than values are allowed are not followed, but count as levels.
        """
        outside, self._begun = self._begun + outside, b""
        if not ends_in_text and outside.endswith((b"[", b"{")):
            outside, self._begun = outside[:-1], outside[-1:]
        opened = outside.count(b"[") + outside.count(b"{")
        self.keys += _keys_in(outside)
        self.values += _values_in(outside)
        closed = outside.count(b"]") + outside.count(b"}")
        if opened > self._limits.max_values:
            self.deepest += opened
        elif self.depth + opened > self._limits.max_depth:
            self._follow(outside.translate(None, _OTHER_THAN_BRACKETS))
        else:
            self.depth += opened - closed

    def _follow(self, brackets: bytes) -> None:
        # Arrays and objects without others in them, which are most, are taken out first, one level at a time.
        rest, levels = brackets, 0
        while levels < LEVELS_TAKEN_OUT and len(rest) > _FEW_BRACKETS:
            rest = rest.replace(b"[]", b"").replace(b"{}", b"")
            levels += 2
        depth, deepest = self.depth, 0
        for bracket in rest:
            depth += 1 if bracket in b"[{" else -1
            deepest = max(deepest, depth)
        if rest is not brackets and deepest + levels > self._limits.max_depth:
            depth, deepest = self.depth, 0
            for bracket in brackets:
                depth += 1 if bracket in b"[{" else -1
                deepest = max(deepest, depth)
        self.depth, self.deepest = depth, max(self.deepest, deepest)

    def passed(self) -> str | None:
        """Return the name of the limit that is passed."""
        limits = self._limits
        if self.keys > limits.max_keys:
            return "max_keys"
        if self.values > limits.max_values:
            return "max_values"
        if self.deepest > limits.max_depth:
            return "max_depth"
        if self.links > limits.max_links:
            return "max_links"
        return "max_half_surrogates" if self.halves > limits.max_half_surrogates else None


def _field_at(masked: bytes, limits: BodyLimits, name: str) -> str:
    """Return the top-level field in which a limit is passed. `masked` ends soon after that place."""
    if name in ("max_links", "max_half_surrogates"):
        found = (_FILE_START if name == "max_links" else LONE_HALF).finditer(masked)
        last = next(islice(found, getattr(limits, name), None), None)
        masked = masked[: last.start()] if last is not None else masked
    pieces = masked.split(b'"', 2 * (limits.max_keys + limits.max_values) + 2)
    # Pieces are outside and inside of strings in turn.
    outside = pieces[::2]
    # In a text that is no JSON, strings can follow each other without a comma. Of those, the last piece has the rest.
    outside[-1] = outside[-1].partition(b'"')[0]
    if name == "max_keys":
        del outside[_place_of(outside, _keys_in, limits.max_keys) + 1 :]
    elif name == "max_values":
        del outside[_place_of(outside, _values_in, limits.max_values - 1) + 1 :]
    counts, field, begin = _Counts(limits), "", 0
    for place in _bracketed(outside):
        if counts.depth == 1:
            field = _last_key(pieces, begin, place) or field
        counts.add(outside[place])
        if counts.deepest > limits.max_depth:
            return field
        begin = place
    if counts.depth == 1 and begin < len(outside) - 1:
        field = _last_key(pieces, begin + 1, len(outside) - 1) or field
    return field


def _bracketed(outside: list[bytes]) -> Iterator[int]:
    """Find the pieces with brackets. Most pieces are a comma or a colon."""
    joined = b'"'.join(outside)
    place, at, last = 0, 0, -1
    for found in BRACKETS.finditer(joined):
        place += joined.count(b'"', at, found.start())
        at = found.start()
        if place != last:
            last = place
            yield place


def _last_key(pieces: list[bytes], begin: int, end: int) -> str | None:
    """Return the last key before one of the places outside of strings from `begin` to `end`."""
    for place in range(end, begin - 1, -1):
        if place and pieces[2 * place].lstrip(SPACES)[:1] == b":":
            return _shown(pieces[2 * place - 1])
    return None


def _place_of(pieces: list[bytes], count: Callable[[bytes], int], most: int) -> int:
    """Return which piece brings the count above `most`, by halves."""
    low, size = 0, len(pieces)
    while size > 1:
        half = size // 2
        found = count(b'"'.join(pieces[low : low + half]).translate(None, SPACES))
        if found > most:
            size = half
        else:
            most -= found
            low, size = low + half, size - half
    return low


def _keys_in(outside: bytes) -> int:
    return outside.count(b":")


def _values_in(outside: bytes) -> int:
    """Count the values whose beginning or comma stands here: all of a body but the first."""
    opened = outside.count(b"[") + outside.count(b"{")
    return outside.count(b",") + opened - outside.count(b"[]") - outside.count(b"{}")


def _shown(name: bytes) -> str:
    text = name[:_LONGEST_FIELD_SHOWN].decode("utf-8", "replace")
    return text if text.isprintable() else text.encode("unicode_escape").decode()
