"""A route: one route of the gateway, with the scope that opens it."""

from collections.abc import Mapping
from functools import cache
from typing import Final

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler

from gateway.domain.scopes import Scope


@cache
def template(path: str) -> str:
    """Turn a route's pattern into the path that goes upstream: `{owner:[a-z]+}` becomes `{owner}`."""
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
    """A route. `path` stands below the base; `name` is its label in metrics and logs."""

    method: str
    path: str
    name: str
    scope: Scope
    handler: Handler

    @property
    def template(self) -> str:
        """The path without its patterns: the same for every request through this route."""
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
"""Routes without a key: probes; streams, stored outputs and upstream's webhooks, whose address is the permission."""

CREATES: Final = frozenset(
    {"predictions.create", "models.predictions.create", "deployments.predictions.create", "trainings.create"}
)
"""Routes that are held over a rate before they are refused."""
