"""`GET /admin/teams`: the teams of the config, with their limits as used."""

from aiohttp import web

from gateway.http import json_body
from gateway.http.keys import TEAMS


async def list_teams(request: web.Request) -> web.Response:
    """Handle `GET /admin/teams`."""
    return json_body.answer(await request.app[TEAMS].list())


def add_routes(app: web.Application) -> None:
    """Register the route."""
    app.router.add_get("/admin/teams", list_teams)
