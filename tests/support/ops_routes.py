"""The routes of the operators' listener."""

from aiohttp import web

from gateway.http.ops.app import add_routes
from gateway.http.ops.dashboard_access import PATH


def ops_routes() -> list[tuple[str, str]]:
    """Return method and path of every route of the listener."""
    app = web.Application()
    add_routes(app)
    found = {(each.method, each.resource.canonical) for each in app.router.routes() if each.resource is not None}
    return sorted(found)


def is_page(path: str) -> bool:
    """Return whether a path is of the console."""
    return path == PATH or path.startswith(f"{PATH}/")
