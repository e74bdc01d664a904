"""A team lead sees and changes nothing of another team, by any route of the ops listener and of the gateway's own.

The routes come from the route tables, so a new one is tried too.
"""

import time
from collections.abc import Iterator, Mapping
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from gateway.domain import windows
from gateway.domain.windows import Window
from gateway.http.routes import OWN
from gateway.simulator import Simulator
from tests.support.console_visits import Forms, OpsRoute, listed_routes, send_form, signed_in, token_of, visit
from tests.support.console_world import Having, fill_worlds, world_config
from tests.support.http_calls import Reply, ask
from tests.support.samples import UNKNOWN_FILE, UNKNOWN_ID, UNKNOWN_KEY, fill, request_for
from tests.support.stack import OpenGateway, Stack

OURS_, THEIRS = "narwhal", "pelican"
UNKNOWN = {
    **dict.fromkeys(("prediction", "picture", "running"), UNKNOWN_ID),
    "key_id": UNKNOWN_KEY,
    "delivery": "msg_unknown",
    "file": UNKNOWN_FILE,
}
OPEN = ("/", "/healthz", "/readyz")
"""What needs no key: a redirect to the console, and the probes."""
LOOKED_AT = ("keys", "webhooks", "audit", "predictions", "usage")


def paths(route: OpsRoute, ids: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield the paths of a route with each id of a team, and the id; else the path as it is."""
    if "{" not in route.path or "{issuer}" in route.path:
        yield fill(route.path), ""
        return
    for each in dict.fromkeys(ids.values()):
        yield fill(route.path, id=each, name=each, place="0"), each


def queries(theirs: Having, cursor: str) -> list[dict[str, str]]:
    """Return queries that name what another team has, and groupings that would show it."""
    month = windows.text_of(windows.month_before(windows.first_day(Window.MONTH, windows.day_of(time.time()))))
    named = {
        "team": theirs.team,
        "user": theirs.user,
        "key": theirs.key_id,
        "tag": f"project:{theirs.tag}",
        "actor": f"key:{theirs.team}/default",
        "subject": theirs.key_id,
        "created_by": f"key:{theirs.team}/default",
        "cursor": cursor,
    }
    grouped = [{"by": by, "month": month[:7]} for by in ("day", "key", "model", "user", "tag:project")]
    return [*({name: value} for name, value in named.items()), *grouped, {"by": "user"}, {"state": "dead"}]


def assert_nothing_of(theirs: Having, reply: Reply, *given: str) -> None:
    """Check that an answer has nothing of a team but what was given with the request."""
    text = reply.text
    for each in sorted(filter(None, given), key=len, reverse=True):
        for spelled in (each, quote(each), quote(each, safe="")):
            text = text.replace(spelled, "")
    for mark in theirs.marks:
        at = text.find(mark)
        assert at < 0, text[max(0, at - 200) : at + 100]


def settled(reply: Reply, each: str) -> tuple[int, str]:
    """Return an answer without what was asked for and the id of the request."""
    text = reply.text.replace(reply.headers.get("X-Request-Id", "-"), "")
    return reply.status, text.replace(each, "").replace(quote(each), "")


@pytest.fixture
async def their_state() -> Any:
    """Return what an operator sees of a team."""

    async def look(stack: Stack) -> list[Any]:
        found = []
        for name in LOOKED_AT:
            reply = await ask(stack, "GET", f"{stack.ops_url}/admin/{name}?team={THEIRS}", key="alpha")
            assert reply.status == 200, reply.text
            found.append(reply.json)
        for key in found[0]["results"]:
            del key["last_used_at"]
        return found

    return look


async def test_lead_of_one_team_sees_and_changes_nothing_of_another(
    open_gateway: OpenGateway, upstream: Simulator, folder: Path, guarded: dict[str, Any], their_state: Any
):
    """Pages, streams, files, CSV, forms, `/admin` and `/gateway`, with a session and with the key itself."""
    config = world_config(folder, OURS_, THEIRS) | guarded
    async with open_gateway(**config) as stack:
        _, theirs = await fill_worlds(stack, OURS_, THEIRS)
        before = await their_state(stack)
        cursor = (await ask(stack, "GET", f"{stack.ops_url}/admin/predictions?limit=1", key="alpha")).json["next"]
        operator = await signed_in(stack, "alpha")
        lead = await signed_in(stack, OURS_)
        asked = queries(theirs, cursor.partition("cursor=")[2])
        bearer = {"Authorization": f"Bearer {stack.keys[OURS_]}"}
        for route in listed_routes():
            if route.method == "GET":
                await _try_reads(stack, route, theirs, lead, bearer, asked)
            elif not route.is_console:
                await _try_operators_route(stack, route, theirs, lead)
        await _try_forms(stack, theirs, operator, lead)
        await _try_own_routes(stack, upstream, theirs, asked)
        # Last, because an address with many failed sign-ins has to wait.
        for route in listed_routes():
            if not route.is_console and route.path not in OPEN:
                await _try_operators_route(stack, route, theirs, bearer)
        assert await their_state(stack) == before
        assert (await ask(stack, "GET", f"/v1/predictions/{theirs.running}", key=THEIRS)).json["status"] == "processing"


async def _try_operators_route(stack: Stack, route: OpsRoute, theirs: Having, credential: dict[str, str]) -> None:
    for path, _ in paths(route, theirs.ids):
        reply = await visit(stack, route.method, path, credential | {"Content-Type": "application/json"})
        assert reply.status in (401, 403, 429), (route, reply.text)


async def _try_reads(
    stack: Stack,
    route: OpsRoute,
    theirs: Having,
    lead: dict[str, str],
    bearer: dict[str, str],
    asked: list[dict[str, str]],
) -> None:
    for path, each in paths(route, theirs.ids):
        for credential in (lead, bearer) if route.is_console else (lead,):
            reply = await visit(stack, "GET", path, credential)
            assert_nothing_of(theirs, reply, each)
            if not route.is_console and route.path not in OPEN:
                assert reply.status in (401, 403), (path, reply.text)
            elif each:
                kind = next(kind for kind, value in theirs.ids.items() if value == each)
                unknown = path.replace(each, UNKNOWN[kind])
                assert reply.status == 404, path
                assert settled(reply, each) == settled(await visit(stack, "GET", unknown, credential), UNKNOWN[kind])
    if "{" not in route.path and route.is_console and not route.path.endswith(("/events", "/sign-in")):
        for query in asked:
            text = "&".join(f"{name}={quote(value)}" for name, value in query.items())
            assert_nothing_of(theirs, await visit(stack, "GET", f"{route.path}?{text}", lead), *query.values())


async def _try_forms(stack: Stack, theirs: Having, operator: dict[str, str], lead: dict[str, str]) -> None:
    """Send each form that the operators' pages have as a team lead, with the token of the lead's own page."""
    pages = [
        route.path for route in listed_routes() if route.method == "GET" and route.is_console and "{" not in route.path
    ]
    seen = [await visit(stack, "GET", path, operator) for path in pages if not path.endswith("/events")]
    token = await token_of(stack, lead)
    forms = [form for reply in seen for form in Forms(reply.text).forms]
    posts = {route.path for route in listed_routes() if route.method == "POST" and route.is_console}
    assert {action for action, _ in forms} | {"/dashboard/sign-in"} == posts, "a form of each route is tried"
    names = count()
    for action, fields in forms:
        wanted = {"id": [theirs.key_id, theirs.delivery]} if "id" in fields else {"team": [theirs.team]}
        for name, values in wanted.items():
            for value in values:
                sent = fields | {name: value, "form_token": token}
                if "name" in fields:
                    sent["name"] = f"of-the-lead-{next(names)}"
                reply = await send_form(stack, action, sent, lead)
                assert_nothing_of(theirs, reply, value)
                if name == "id":
                    assert reply.status == 404, (action, reply.text)
                    unknown = await send_form(stack, action, sent | {"id": "unknown"}, lead)
                    assert settled(reply, value) == settled(unknown, "unknown")


async def _try_own_routes(stack: Stack, upstream: Simulator, theirs: Having, asked: list[dict[str, str]]) -> None:
    for route in OWN:
        for each in (theirs.prediction, theirs.running):
            values = {"id": each, "key_id": theirs.key_id}
            method, path, body = request_for(route, upstream, **values)
            reply = await ask(stack, method, path, key=OURS_, **body)
            given = [value for value in values.values() if value in path]
            assert_nothing_of(theirs, reply, *given)
            if given:
                other = path.replace(each, UNKNOWN_ID).replace(theirs.key_id, UNKNOWN_KEY)
                unknown = await ask(stack, method, other, key=OURS_, **body)
                assert reply.settled == unknown.settled
                assert reply.status == 404, path
        if method == "GET" and not given:
            for query in asked:
                text = "&".join(f"{name}={quote(value)}" for name, value in query.items())
                assert_nothing_of(theirs, await ask(stack, "GET", f"{path}?{text}", key=OURS_), *query.values())
