"""The results of a create for the cache (hit, join, miss, bypass), and how long a finished run answers requests.

A request is answered from a finished run (hit), attached to a run in progress (join), or starts a run that others may
share (miss). A request that may not be shared starts a run of its own (bypass). The store decides, in the step that
records the prediction (`Sharing`).
"""

import re
from typing import assert_never

import msgspec
from msgspec import Raw

from gateway.domain import links
from gateway.domain.bypass import BypassReason

LINKS_LIVE_SECONDS = 55 * 60
"""Upstream's links expire an hour after the end; a caller needs time to fetch the files.

See docs/replicate-api.md, Outputs and retention.
"""

CACHE_NAME = "replicate-gateway"


class Hit(msgspec.Struct, frozen=True):
    """A new prediction on a finished run, which may be shared for `ttl_seconds` more."""

    ttl_seconds: int


class Join(msgspec.Struct, frozen=True):
    """A new prediction on a run in progress."""


class Miss(msgspec.Struct, frozen=True):
    """A new run, which others may join. `stored`: its result is kept and replaces an earlier one."""

    stored: bool


class Bypass(msgspec.Struct, frozen=True):
    """A new run that no other prediction may share."""

    reason: BypassReason


Decision = Hit | Join | Miss | Bypass


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


_decode = msgspec.json.Decoder(float_hook=Raw).decode
_LARGE = 1 << 18
_HOST = b"replicate.delivery"
_LONGEST_MARK = 32
"""No mark of a link that is searched for in slices is longer."""
# A letter, dot or slash that is escaped: what it is a part of is not looked at.
_ESCAPED_NAME = re.compile(rb"\\u00(?:2[eEfF]|[4-7])")
_ADDRESS = re.compile(r"https?://\S+", re.IGNORECASE)
_MENTION = re.compile(r"\breplicate\.delivery/", re.IGNORECASE)


def has_links(output: bytes) -> bool:
    """Whether an output (JSON) holds links to files: texts that are web addresses, or that mention upstream's files.

    In doubt, yes: a result is then only shared for a shorter time.
    """
    if len(output) >= _LARGE:
        return _may_have_links(output)
    lowered = output.lower()
    if not (b"http" in lowered or b"replicate.delivery" in lowered or rb"\u00" in lowered):
        # JSON may escape any character, so bytes without `http` are proof only where nothing is escaped by number.
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


def _may_have_links(output: bytes) -> bool:
    """Judge a large output by its bytes, without decoding it."""
    for at in range(0, len(output), _LARGE):
        part = output[at : at + _LARGE + _LONGEST_MARK]
        if _HOST in part.lower() or _ESCAPED_NAME.search(part) is not None:
            return True
    return next(links.addresses(output), None) is not None


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
        case never:
            assert_never(never)
