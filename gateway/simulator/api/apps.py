"""Build the two aiohttp applications, one per origin, from the tables of routes."""

import re

from aiohttp import web

from gateway.simulator import problems
from gateway.simulator.api import delivery
from gateway.simulator.api.call import Answer, Call
from gateway.simulator.api.control import Control
from gateway.simulator.api.route_handler import LARGEST_BODY, RouteHandler
from gateway.simulator.api.routes import ROUTES, Route, allowed_methods
from gateway.simulator.api.targets import targets
from gateway.simulator.world import World


def api_app(world: World) -> web.Application:
    """Build the application of the API."""
    app = web.Application(client_max_size=LARGEST_BODY)
    if world.settings.control:
        app.add_routes(Control(world).routes())
    for route in ROUTES:
        handler = RouteHandler(world, route, "api", targets).serve
        app.router.add_route(route.method, f"/v1{route.path}", handler)
        if route.method == "GET":
            app.router.add_route("HEAD", f"/v1{route.path}", handler)
    unknown = Route("*", "", "unknown", _unknown, "edge", None)
    app.router.add_route("*", "/{anything:.*}", RouteHandler(world, unknown, "api", targets).serve)
    return app


def delivery_app(world: World) -> web.Application:
    """Build the application of streams and outputs."""
    app = web.Application()
    for route in delivery.routes():
        app.router.add_get(route.path, RouteHandler(world, route, "delivery", delivery.targets).serve)
    unknown = Route("*", "", "unknown", _nothing, "delivery", None, open=True)
    app.router.add_route("*", "/{anything:.*}", RouteHandler(world, unknown, "delivery", delivery.targets).serve)
    return app


async def _unknown(call: Call) -> Answer:
    """Respond with 404 to an unknown path, and with 405 to a method that the path does not support."""
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
