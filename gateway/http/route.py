"""The `Route` type, and the sets of routes that are treated specially."""

import re
from functools import cache
from typing import Final

import msgspec

from gateway.domain.scopes import Scope
from gateway.http.request import Handle


@cache
def template(path: str) -> str:
    """Return the path template of a route's pattern: `{owner:[a-z]+}` becomes `{owner}`."""
    return "".join(part if name is None else f"{{{name}}}" for name, part in _parts(path))


@cache
def pattern(path: str) -> re.Pattern[str]:
    """Return the expression that a path of a route matches, with a named group for each of its variable parts."""
    return re.compile(
        "".join(re.escape(part) if name is None else f"(?P<{name}>{part})" for name, part in _parts(path)), re.ASCII
    )


def _parts(path: str) -> list[tuple[str | None, str]]:
    """Split a route's path into its fixed parts, without a name, and its variable parts: name and expression."""
    parts: list[tuple[str | None, str]] = []
    depth, begin = 0, 0
    for at, letter in enumerate(path):
        if letter == "{":
            if depth == 0:
                parts.append((None, path[begin:at]))
                begin = at + 1
            depth += 1
        elif letter == "}":
            depth -= 1
            if depth == 0:
                name, _, expression = path[begin:at].partition(":")
                parts.append((name, expression or "[^{}/]+"))
                begin = at + 1
    parts.append((None, path[begin:]))
    return parts


class Route(msgspec.Struct, frozen=True):
    """A route. `path` excludes the prefix; `name` is its label in metrics and logs; callers need `scope`."""

    method: str
    path: str
    name: str
    scope: Scope
    handler: Handle

    @property
    def template(self) -> str:
        """The path without patterns, for logs and traces: it has no values from the request."""
        return template(self.path)


OPEN_ROUTES: Final = frozenset(
    {
        "demo",
        "healthz",
        "openapi",
        "outputs.read",
        "readyz",
        "streams.check",
        "streams.read",
        "streams.read_files",
        "upstream.webhooks",
    }
)
"""Routes that need no key: probes, and routes whose unguessable URL is the permission (streams, outputs, webhooks)."""

CLOSED_TO_PAGES: Final = frozenset(
    {
        "gateway.keys.change",
        "gateway.keys.create",
        "gateway.keys.list",
        "gateway.keys.revoke",
        "gateway.keys.rotate",
        "gateway.tokens",
        "gateway.usage",
        "webhooks.secret",
    }
)
"""Routes that publishable keys and browser tokens cannot use, whatever their scopes: every visitor of a page has these
credentials, and the answers are about the whole team."""

CREATES: Final = frozenset(
    {"predictions.create", "models.predictions.create", "deployments.predictions.create", "trainings.create"}
)
"""Routes whose requests are queued when they exceed a rate, before they are refused."""
