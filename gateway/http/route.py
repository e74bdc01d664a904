"""The `Route` type, and the sets of routes that are treated specially."""

from collections.abc import Mapping
from functools import cache
from typing import Final

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler

from gateway.domain.scopes import Scope


@cache
def template(path: str) -> str:
    """Return the path template of a route's pattern: `{owner:[a-z]+}` becomes `{owner}`."""
    out, depth, skipping = [], 0, False
    for letter in path:
        depth += (letter == "{") - (letter == "}")
        if letter == ":" and depth == 1:
            skipping = True
        if depth == 0:
            skipping = False
        if not skipping:
            out.append(letter)
    return "".join(out)


class Route(msgspec.Struct, frozen=True):
    """A route. `path` excludes the prefix; `name` is its label in metrics and logs; callers need `scope`."""

    method: str
    path: str
    name: str
    scope: Scope
    handler: Handler

    @property
    def template(self) -> str:
        """The path without patterns, for logs and traces: it has no values from the request."""
        return template(self.path)


ROUTES = web.AppKey("routes", Mapping[web.AbstractRoute, Route])

OPEN_ROUTES: Final = frozenset(
    {
        "demo",
        "healthz",
        "outputs.read",
        "readyz",
        "streams.check",
        "streams.read",
        "streams.read_files",
        "upstream.webhooks",
    }
)
"""Routes that need no key: probes, and routes whose unguessable URL is the permission (streams, outputs, webhooks)."""

CLOSED_TO_PAGES: Final = frozenset({"gateway.tokens", "gateway.usage", "webhooks.secret"})
"""Routes that publishable keys and browser tokens cannot use, whatever their scopes: every visitor of a page has these
credentials, and the answers are about the whole team."""

CREATES: Final = frozenset(
    {"predictions.create", "models.predictions.create", "deployments.predictions.create", "trainings.create"}
)
"""Routes whose requests are queued when they exceed a rate, before they are refused."""
