"""What is to be done with a create: answered from a finished run, attached to one in flight, or run.

What is had first: a finished run (hit), a run in flight (join), a new run (miss). What may not be shared gets a run of
its own that serves nobody else (bypass). A caller that wants no new run is refused one.
"""

import re
from typing import assert_never

import msgspec
from msgspec import Raw

from gateway.core.determinism import Judgement, NotDeterministic, Reason
from gateway.core.directives import Directives

LINKS_LIVE_SECONDS = 55 * 60
"""Upstream's links die an hour after the end (ref 6); a caller must have time to fetch what it was shown."""

CACHE_NAME = "replicate-gateway"


class Entry(msgspec.Struct, frozen=True):
    """A finished run that may be shared."""

    completed_at: float
    expires_at: float
    has_links: bool
    """Whether its output holds links to files."""


class Flight(msgspec.Struct, frozen=True):
    """A run in flight. It cannot be joined once its last caller has left."""

    joinable: bool


class Hit(msgspec.Struct, frozen=True):
    """A new prediction on the finished run, which may be shared for so many seconds more."""

    ttl_seconds: int


class Join(msgspec.Struct, frozen=True):
    """A new prediction on the run in flight."""


class Miss(msgspec.Struct, frozen=True):
    """A new run, which others may join. `stored`: its result is kept, in the place of any before it."""

    stored: bool


class Bypass(msgspec.Struct, frozen=True):
    """A new run that nobody else may use."""

    reason: Reason


class Refused(msgspec.Struct, frozen=True):
    """No run, because the caller wants no new one (504)."""

    reason: Reason


Decision = Hit | Join | Miss | Bypass | Refused


def decide(
    directives: Directives,
    judgement: Judgement,
    entry: Entry | None,
    flight: Flight | None,
    *,
    now: float,
    ttl_seconds: float,
    outputs_persisted: bool,
) -> Decision:
    """Say what is to be done with a create.

    `ttl_seconds` is how long results of the target are kept now (`ttl_of`), `outputs_persisted` whether the entry's
    files are in the output store.
    """
    if directives.no_store:
        return _own_run(directives, Reason.NO_STORE)
    if isinstance(judgement, NotDeterministic):
        return _own_run(directives, judgement.reason)
    if entry is not None and not directives.no_cache:
        left = _usable_until(entry, ttl_seconds, outputs_persisted=outputs_persisted) - now
        is_young = directives.max_age is None or now - entry.completed_at <= directives.max_age
        if left > 0 and is_young:
            return Hit(int(left))
    if flight is not None and flight.joinable:
        return Join()
    if directives.only_if_cached:
        return Refused(Reason.NOT_CACHED)
    return Miss(stored=ttl_seconds > 0)


def _own_run(directives: Directives, reason: Reason) -> Bypass | Refused:
    return Refused(reason) if directives.only_if_cached else Bypass(reason)


def ttl_of(rule_ttl_seconds: float | None, cache_ttl_seconds: float) -> float:
    """Return how long results of a target are kept: by its rule, else by the config. 0: not at all."""
    return cache_ttl_seconds if rule_ttl_seconds is None else rule_ttl_seconds


def usable_until(completed_at: float, ttl_seconds: float, *, has_links: bool, outputs_persisted: bool) -> float:
    """Return until when a finished run may be shared. The time of its end if it may not be at all.

    Links that only upstream keeps alive bound it, whatever the config says.
    """
    if has_links and not outputs_persisted:
        return completed_at + min(ttl_seconds, LINKS_LIVE_SECONDS)
    return completed_at + ttl_seconds


def _usable_until(entry: Entry, ttl_seconds: float, *, outputs_persisted: bool) -> float:
    # Looked at again, and not only when the entry was made: the config may have been narrowed since.
    until = usable_until(
        entry.completed_at, ttl_seconds, has_links=entry.has_links, outputs_persisted=outputs_persisted
    )
    return min(until, entry.expires_at)


_decode = msgspec.json.Decoder(float_hook=Raw).decode
# JSON may escape any character, so bytes without `http` are proof only where nothing is escaped by number.
_MAY_LINK = re.compile(rb"http|replicate\.delivery|\\u00", re.IGNORECASE)
_ADDRESS = re.compile(r"https?://\S+", re.IGNORECASE)
_MENTION = re.compile(r"\breplicate\.delivery/", re.IGNORECASE)


def has_links(output: bytes) -> bool:
    """Whether an output (JSON) holds links to files: texts that are web addresses, or that mention upstream's files.

    In doubt, yes: a result is then only shared for a shorter time.
    """
    if _MAY_LINK.search(output) is None:
        return False
    try:
        left = [_decode(output)]
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return True
    while left:
        value = left.pop()
        if isinstance(value, str):
            if _ADDRESS.fullmatch(value.strip()) or _MENTION.search(value):
                return True
        elif isinstance(value, list):
            left += value
        elif isinstance(value, dict):
            left += value.values()
    return False


def cache_status(decision: Decision) -> str:
    """Write the `Cache-Status` header (RFC 9211)."""
    match decision:
        case Hit(ttl_seconds):
            return f"{CACHE_NAME}; hit; ttl={ttl_seconds}"
        case Join():
            return f"{CACHE_NAME}; fwd=miss; collapsed"
        case Miss(stored):
            return f"{CACHE_NAME}; fwd=miss; stored" if stored else f"{CACHE_NAME}; fwd=miss"
        case Bypass(reason):
            return f"{CACHE_NAME}; fwd=bypass; detail={reason}"
        case Refused(reason):
            return f"{CACHE_NAME}; detail={reason}"
        case never:
            assert_never(never)
