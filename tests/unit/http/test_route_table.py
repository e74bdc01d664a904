"""Which route a request has. aiohttp's own router is the oracle."""

import re
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from gateway.http.pipeline import _is_plain
from gateway.http.route import Route, pattern, template
from gateway.http.route_table import Match, NoMatch
from gateway.http.routes import OWN, PREFIXES, PUBLIC, table

TABLE = table()
METHODS = ("GET", "HEAD", "POST", "PATCH", "DELETE", "QUERY", "PUT", "OPTIONS")
PARTS = (
    "v1", "predictions", "trainings", "models", "deployments", "files", "collections", "streams", "gateway", "outputs",
    "versions", "cancel", "search", "acme", "a" * 26, "b" * 52, "abcd-" + "b" * 52, "readme", "healthz", "..", "",
    "check",
)  # fmt: skip


def aiohttps_router() -> tuple[web.UrlDispatcher, dict[web.AbstractRoute, Route]]:
    """Return the routes as aiohttp would have them."""

    async def handle(_: web.Request) -> web.Response:
        return web.Response()

    router, routes = web.UrlDispatcher(), {}
    for prefix, group in (*((prefix, PUBLIC) for prefix in PREFIXES), ("", OWN)):
        for route in group:
            for method in ("GET", "HEAD") if route.method == "GET" else (route.method,):
                routes[router.add_route(method, prefix + route.path, handle)] = route
    router.freeze()
    return router, routes


ROUTER, ROUTES = aiohttps_router()


def has_form(path: str, route: Route) -> bool:
    """Whether a path is that of a route, whatever its ids and names look like."""
    form = re.sub(r"\\{\w+\\}", "[^/]+", re.escape(template(route.path)))
    prefixes = "|".join(map(re.escape, PREFIXES)) if route in PUBLIC else ""
    return re.fullmatch(f"(?:{prefixes}){form}", path) is not None


async def expected(method: str, path: str) -> Match | NoMatch:
    """Return what aiohttp's router finds."""
    asked = cast(web.Request, SimpleNamespace(method=method, rel_url=URL(path, encoded=True)))
    found = await ROUTER.resolve(asked)
    if isinstance(found.http_exception, web.HTTPMethodNotAllowed):
        return NoMatch(frozenset(found.http_exception.allowed_methods), is_known=True)
    is_known = any(has_form(path, route) for route in ROUTES.values())
    return NoMatch(frozenset(), is_known) if found.http_exception else Match(ROUTES[found.route], dict(found))


def variants(route: Route) -> st.SearchStrategy[str]:
    """Return paths of a route below each prefix."""
    prefixes = PREFIXES if route in PUBLIC else ("",)
    return st.builds(
        lambda prefix, path: prefix + path,
        st.sampled_from(prefixes),
        st.from_regex(pattern(route.path), fullmatch=True),
    )


ANY_PATH = st.one_of(
    *map(variants, (*PUBLIC, *OWN)),
    st.lists(st.sampled_from(PARTS), max_size=8).map(lambda parts: "/" + "/".join(parts)),
)


@given(path=ANY_PATH, method=st.sampled_from(METHODS))
async def test_finds_what_aiohttps_router_finds(path: str, method: str):
    """The same route, the same values, the same methods for a 405."""
    wanted: Any = await expected(method, path)
    # Twice: the second answer is a remembered one.
    assert TABLE.find(method, path) == TABLE.find(method, path) == wanted


@given(path=st.one_of(*map(variants, (*PUBLIC, *OWN))))
def test_paths_of_routes_are_plain(path: str):
    """No route has a percent sign or another character that needs one, so a path that is found needs no more checks."""
    assert _is_plain(path) or "/." in path


def test_remembered_paths_are_bounded():
    """Paths come from callers."""
    fresh = table()
    for number in range(5000):
        assert isinstance(fresh.find("GET", f"/v1/predictions/{number:026}"), Match)
        assert isinstance(fresh.find("GET", f"/v1/unknown/{number}"), NoMatch)
    assert len(fresh._recent) <= 2048


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("/models", "/models"),
        ("/models/{owner:[a-z]{1,9}}/{name}/versions", "/models/{owner}/{name}/versions"),
        ("/outputs/{ticket:[a-z]{4}-x}/{name:[A-Z.]{1,150}}", "/outputs/{ticket}/{name}"),
    ],
)
def test_template_has_the_names_only(path: str, shown: str):
    """Logs and traces show it."""
    assert template(path) == shown
