"""Scopes, target patterns and origins of keys, and checks that a key has no more rights than its team.

A target pattern is `owner/name`, in which `*` matches any characters and `?` one character, or `*` alone for all
targets.
"""

import re
from collections.abc import Iterable, Iterator
from enum import StrEnum
from functools import lru_cache
from typing import Final
from urllib.parse import urlsplit


class Scope(StrEnum):
    """A right of a key (docs/architecture.md, Access)."""

    READ = "read"
    """Models, versions, collections, hardware, search."""
    PREDICT = "predict"
    """Predictions, their streams, own usage."""
    FILES = "files"
    TRAIN = "train"
    DEPLOY = "deploy"
    """Write deployments."""
    MANAGE = "manage"
    """Write models."""
    TOKENS = "tokens"
    """Mint browser tokens."""
    KEYS = "keys"
    """Manage the keys of the own team, within the own rights."""
    ACCOUNT = "account"
    """See the entire account, including all teams' predictions and files."""
    ADMIN = "admin"
    """The gateway's admin routes."""


DEFAULT_SCOPES: Final = (Scope.READ, Scope.PREDICT, Scope.FILES)

MOST_PATTERNS: Final = 100
"""Patterns of a request. Each is compared with each of the caller's."""
MOST_WILDCARDS: Final = 16
"""Of `*` in a pattern of a request. The time of a comparison grows with them."""
ASKED_PATTERN_FORM: Final = f"owner/name, in which at most {MOST_WILDCARDS} * match any characters, or *"

# Names do not begin with a dot, so `..` does not match.
_PATTERN: Final = re.compile(r"\*|[A-Za-z0-9_*?-][A-Za-z0-9._*?-]{0,127}/[A-Za-z0-9_*?-][A-Za-z0-9._*?-]{0,127}")
_HOST: Final = re.compile(r"[a-z0-9_]([a-z0-9._-]*[a-z0-9_])?|\[[0-9a-f:.]+\]")
_ORIGIN: Final = re.compile(r"[a-z][a-z0-9+.-]*://[^/?#@\s]+")
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_ADDRESS: Final = re.compile(r"\[.*|[0-9.]+")
_ORIGIN_FORM: Final = (
    "expected an origin (scheme://host or scheme://host:port, without a path), a pattern such as "
    "https://*.example.com, or *"
)
_NAMED_HOST: Final = re.compile(r"(?:\*\.)?[a-z0-9_][a-z0-9._-]{0,252}(?::[0-9]{1,5})?")


def narrow(team_scopes: Iterable[str], key_scopes: Iterable[str] | None) -> frozenset[Scope]:
    """Return the scopes of both the team and its key; of the team if `key_scopes` is `None`. Ignore unknown scopes."""
    allowed = set(team_scopes) if key_scopes is None else set(team_scopes) & set(key_scopes)
    return frozenset(scope for scope in Scope if scope in allowed)


def scopes_outside(team_scopes: Iterable[str], wanted: Iterable[str]) -> list[str]:
    """Return the wanted scopes that the team does not have."""
    has = set(team_scopes)
    return [scope for scope in wanted if scope not in has]


def is_pattern(text: str) -> bool:
    """Return whether a text is a target pattern: `*`, or `owner/name` with wildcards in either part."""
    return _PATTERN.fullmatch(text) is not None


def is_asked_pattern(text: str) -> bool:
    """Return whether a text of a request is a target pattern that is compared quickly."""
    return is_pattern(text) and text.count("*") <= MOST_WILDCARDS


def covers(wider: str, narrower: str) -> bool:
    """Return whether `wider` matches every target that `narrower` matches.

    The narrower pattern is matched as a text, in which only `*` of the wider one matches `*`. The result is never
    wrongly true. It can be wrongly false: `?*` and `*?` are equivalent, but do not cover each other.
    """
    return _expression_of(wider).fullmatch(narrower) is not None


@lru_cache(maxsize=1024)
def _expression_of(wider: str) -> re.Pattern[str]:
    """Return an expression for what a pattern covers. It never goes back to an earlier `*`, so it is fast."""
    head, *rest = (
        "".join("[^*]" if letter == "?" else re.escape(letter) for letter in piece) for piece in re.split(r"\*+", wider)
    )
    if not rest:
        return re.compile(head)
    *middle, tail = rest
    return re.compile(head + "".join(f"(?>.*?{piece})" for piece in middle) + ".*" + tail, re.DOTALL)


def patterns_outside(team_models: Iterable[str] | None, wanted: Iterable[str]) -> list[str]:
    """Return the wanted patterns that no single pattern of the team covers; none if `team_models` is `None`."""
    if team_models is None:
        return []
    wider = tuple(team_models)
    # Mostly the same patterns are asked for, and each covers itself.
    equal = set(wider)
    return [pattern for pattern in wanted if pattern not in equal and not any(covers(each, pattern) for each in wider)]


def normal_origin(text: str) -> str:
    """Normalise an origin to the form that browsers send (RFC 6454): lower case, no default port. `*` stays.

    A pattern is an origin whose host begins with `*.`, such as `https://*.example.com`. Raise `ValueError` with a
    message if it is neither; for example, if it has a path, a query or another wildcard.
    """
    if text == "*":
        return text
    lowered = text.lower()
    if not _ORIGIN.fullmatch(lowered):
        raise ValueError(_ORIGIN_FORM)
    scheme, _, host = lowered.partition("://")
    name = re.sub(r":[0-9]+\Z", "", host)
    domain = name.removeprefix("*.")
    if not _HOST.fullmatch(domain) or (domain != name and _ADDRESS.fullmatch(domain)):
        raise ValueError(_ORIGIN_FORM)
    try:
        port = urlsplit(lowered.replace("://*.", "://", 1)).port
    except ValueError:
        raise ValueError("expected an origin with a valid host and port") from None
    shown = "" if port is None or port == _DEFAULT_PORTS.get(scheme) else f":{port}"
    return f"{scheme}://{name}{shown}"


def patterns_of(origin: str) -> Iterator[str]:
    """Yield the patterns that match a normal origin, narrowest first. A narrower pattern is matched like an origin.

    The last one is `scheme://*.` and the last label. A host without a dot has none.
    """
    scheme, _, host = origin.partition("://")
    if not _NAMED_HOST.fullmatch(host):
        return
    while "." in host:
        host = host.partition(".")[2]
        yield f"{scheme}://*.{host}"


def origins_outside(team_origins: Iterable[str], wanted: Iterable[str]) -> list[str]:
    """Return the wanted origins and patterns that the team's do not cover; none if the team lists no origins."""
    listed = set(team_origins)
    if not listed or "*" in listed:
        return []
    return [origin for origin in wanted if origin not in listed and listed.isdisjoint(patterns_of(origin))]
