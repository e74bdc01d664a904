"""Builds the two applications, one for each origin, from the tables of routes."""

import re

from aiohttp import web

from gateway.simulator import problems
from gateway.simulator.api import delivery
from gateway.simulator.api.call import Answer, Call
from gateway.simulator.api.control import Control
from gateway.simulator.api.door import LARGEST_BODY, Door
from gateway.simulator.api.routes import ROUTES, Route, allowed_methods
from gateway.simulator.api.targets import targets
from gateway.simulator.world import World


def api_app(world: World) -> web.Application:
    """Build the API origin."""
    app = web.Application(client_max_size=LARGEST_BODY)
    if world.settings.control:
        app.add_routes(Control(world).routes())
    for route in ROUTES:
        door = Door(world, route, "api", targets).serve
        app.router.add_route(route.method, f"/v1{route.path}", door)
        if route.method == "GET":
            app.router.add_route("HEAD", f"/v1{route.path}", door)
    unknown = Route("*", "", "unknown", _unknown, "edge", None)
    app.router.add_route("*", "/{anything:.*}", Door(world, unknown, "api", targets).serve)
    return app


def delivery_app(world: World) -> web.Application:
    """Build the origin of streams and outputs."""
    app = web.Application()
    for route in delivery.routes():
        app.router.add_get(route.path, Door(world, route, "delivery", delivery.targets).serve)
    unknown = Route("*", "", "unknown", _nothing, "delivery", None, open=True)
    app.router.add_route("*", "/{anything:.*}", Door(world, unknown, "delivery", delivery.targets).serve)
    return app


async def _unknown(call: Call) -> Answer:
    """Answer a path that is not there with 404, and a method that its path does not take with 405."""
    for path, pattern in _PATTERNS:
        if pattern.fullmatch(call.request.path):
            raise problems.method_not_allowed(call.request.method, allowed_methods(path))
    raise problems.django_not_found()


async def _nothing(_: Call) -> Answer:
    raise problems.Problem(404, {"detail": "Not found."}, django=True)


_PATTERNS = tuple(
    (path, re.compile("/v1" + re.sub(r"\{\w+\}", "[^/]+", path)))
    for path in dict.fromkeys(route.path for route in ROUTES)
)
