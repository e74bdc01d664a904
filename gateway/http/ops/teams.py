"""`GET /admin/teams`: the teams of the config, with their limits as used."""

from aiohttp import web

from gateway.http.keys import TEAMS
from gateway.http.ops import answers


async def list_teams(request: web.Request) -> web.Response:
    """Handle `GET /admin/teams`."""
    return answers.json_answer(await request.app[TEAMS].list())


def add_routes(app: web.Application) -> None:
    """Register the route."""
    app.router.add_get("/admin/teams", list_teams)
