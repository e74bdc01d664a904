"""`GET /openapi.json` of the ops listener."""

from aiohttp import web

from gateway.http.openapi import ops


async def show(_: web.Request) -> web.Response:
    """Handle `GET /openapi.json`."""
    return web.Response(body=ops.body(), content_type="application/json")


def add_routes(app: web.Application) -> None:
    """Register the route."""
    app.router.add_get("/openapi.json", show)
