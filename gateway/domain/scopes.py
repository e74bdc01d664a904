"""What a key may do: scopes, targets, origins, and how a key narrows what its team may.

Targets are named by patterns: `owner/name` where `*` stands for any characters and `?` for one, or `*` alone for all.
"""

import re
from collections.abc import Iterable
from enum import StrEnum
from typing import Final
from urllib.parse import urlsplit


class Scope(StrEnum):
    """One thing that a key may do (docs/architecture.md, Access)."""

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
    ACCOUNT = "account"
    """See the whole account, every team's work included."""
    ADMIN = "admin"
    """The gateway's own admin routes."""


DEFAULT_SCOPES: Final = (Scope.READ, Scope.PREDICT, Scope.FILES)

# No name begins with a dot, so `..` is no pattern.
_PATTERN: Final = re.compile(r"\*|[A-Za-z0-9_*?-][A-Za-z0-9._*?-]{0,127}/[A-Za-z0-9_*?-][A-Za-z0-9._*?-]{0,127}")
_HOST: Final = re.compile(r"[a-z0-9_]([a-z0-9._-]*[a-z0-9_])?|\[[0-9a-f:.]+\]")
_ORIGIN: Final = re.compile(r"[a-z][a-z0-9+.-]*://[^/?#@\s]+")
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_ORIGIN_FORM: Final = "expected an origin (scheme://host or scheme://host:port, without a path) or *"


def narrow(team_scopes: Iterable[str], key_scopes: Iterable[str] | None) -> frozenset[Scope]:
    """Return what both the team and its key allow. A key of `None` narrows nothing; other words are skipped."""
    allowed = set(team_scopes) if key_scopes is None else set(team_scopes) & set(key_scopes)
    return frozenset(scope for scope in Scope if scope in allowed)


def scopes_outside(team_scopes: Iterable[str], wanted: Iterable[str]) -> list[str]:
    """Return those scopes that the team does not have."""
    has = set(team_scopes)
    return [scope for scope in wanted if scope not in has]


def is_pattern(text: str) -> bool:
    """Say whether a text can name targets: `*`, or `owner/name` with wildcards in either."""
    return _PATTERN.fullmatch(text) is not None


def covers(wider: str, narrower: str) -> bool:
    """Say whether every target that `narrower` can name is one that `wider` names.

    The narrower pattern is matched as a text in which only a `*` of the wider one may stand for a `*`. That never says
    yes wrongly; it may say no where a human would see that `?*` and `*?` are the same.
    """
    parts = {"*": ".*", "?": "[^*]"}
    expression = "".join(parts.get(letter, re.escape(letter)) for letter in re.sub(r"\*+", "*", wider))
    return re.fullmatch(expression, narrower, re.DOTALL) is not None


def patterns_outside(team_models: Iterable[str] | None, wanted: Iterable[str]) -> list[str]:
    """Return those patterns that no single pattern of the team covers; a team of `None` is not limited."""
    if team_models is None:
        return []
    wider = tuple(team_models)
    return [pattern for pattern in wanted if not any(covers(each, pattern) for each in wider)]


def normal_origin(text: str) -> str:
    """Spell an origin as a browser sends it (RFC 6454): small letters, no default port. `*` stays.

    Raises `ValueError` with what is wrong; a path, a query or a wildcard inside of it make it no origin.
    """
    if text == "*":
        return text
    lowered = text.lower()
    if not _ORIGIN.fullmatch(lowered):
        raise ValueError(_ORIGIN_FORM)
    scheme, _, host = lowered.partition("://")
    name = re.sub(r":[0-9]+\Z", "", host)
    if not _HOST.fullmatch(name):
        raise ValueError(_ORIGIN_FORM)
    try:
        port = urlsplit(lowered).port
    except ValueError:
        raise ValueError("expected an origin whose host and port are valid") from None
    shown = "" if port is None or port == _DEFAULT_PORTS.get(scheme) else f":{port}"
    return f"{scheme}://{name}{shown}"


def origins_outside(team_origins: Iterable[str], wanted: Iterable[str]) -> list[str]:
    """Return those origins that the team does not list; a team that lists none does not limit its keys' origins."""
    listed = set(team_origins)
    if not listed or "*" in listed:
        return []
    return [origin for origin in wanted if origin not in listed]
