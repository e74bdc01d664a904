"""The access log: one line for each request, with what an operator looks for and nothing that is secret."""

import logging
from collections.abc import Iterator
from typing import Any

import pytest

from gateway.domain.tickets import FILE_PREFIX
from gateway.http.routes import OWN, PUBLIC
from gateway.simulator import Simulator
from tests.gateway.conftest import OpenGateway
from tests.support.samples import UNKNOWN_TICKET, create, request_for, upload
from tests.support.stack import Stack
from tests.support.upstream import until, version_of
from tests.support.wire import Reply, ask, send_raw, spell

FIELDS = [
    "request_id", "team", "key", "key_name", "user", "route", "path", "target", "method", "status", "cache", "seconds",
    "upstream_seconds", "bytes",
]  # fmt: skip


async def tell_a_story(stack: Stack, *, wait: bool = False, **given: Any) -> Reply:
    """Create a prediction whose model is known from the start."""
    version = f"acme/storyteller:{version_of(stack.upstream, 'acme/storyteller')}"
    body = {"version": version, "input": {"prompt": "a"} | given}
    return await ask(stack, "POST", "/v1/predictions", json=body, headers={"Prefer": "wait"} if wait else {})


class Lines(logging.Handler):
    """What the access log was told."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[dict[str, Any]] = []

    def emit(self, record: logging.LogRecord) -> None:
        plain = vars(logging.makeLogRecord({}))
        self.told.append({name: value for name, value in vars(record).items() if name not in plain})

    def of(self, route: str) -> dict[str, Any]:
        (line,) = [line for line in self.told if line["route"] == route]
        return line


@pytest.fixture
def lines() -> Iterator[Lines]:
    handler = Lines()
    logging.getLogger("gateway.access").addHandler(handler)
    yield handler
    logging.getLogger("gateway.access").removeHandler(handler)


async def test_a_create_is_told_with_who_asked_and_how_it_was_answered(gateway: Stack, lines: Lines):
    """One line has everything that is needed to find a prediction, its run, and what it cost in time."""
    reply = await tell_a_story(gateway, seed=1, wait=True)
    line = lines.of("predictions.create")
    assert [name for name in line if name != "taskName"] == [*FIELDS, "prediction", "run"]
    assert line["request_id"] == reply.headers["X-Request-Id"]
    assert (line["team"], line["method"], line["status"], line["path"]) == ("alpha", "POST", 201, "/predictions")
    assert (line["key"], line["key_name"], line["user"]) == ("alpha/default", "default", None)
    assert line["target"] == f"acme/storyteller:{version_of(gateway.upstream, 'acme/storyteller')}"
    assert line["prediction"] == reply.json["id"]
    assert line["cache"] == "miss"
    assert 0 < line["upstream_seconds"] <= line["seconds"]
    assert line["bytes"] == len(reply.body)


async def test_user_and_target_are_told_of_what_was_refused_too_and_never_without_bound(gateway: Stack, lines: Lines):
    """An operator finds who was refused for which model. A header of any length does not fill the log."""
    path = "/v1/models/acme/unknown/predictions"
    reply = await ask(gateway, "POST", path, json={"input": {}}, headers={"Gateway-User": "u-42"})
    assert reply.status == 404
    line = lines.of("models.predictions.create")
    assert (line["user"], line["target"], line["status"]) == ("u-42", "acme/unknown", 404)
    lines.told.clear()
    await ask(gateway, "POST", path, json={"input": {}}, headers={"Gateway-User": "x" * 5000})
    assert lines.of("models.predictions.create")["user"] == "x" * 200
    lines.told.clear()
    created = (await create(gateway, model="acme/storyteller", prompt="a")).json
    await ask(gateway, "GET", f"/v1/predictions/{created['id']}", headers={"Gateway-User": "someone"})
    assert lines.of("predictions.get")["target"] == version_of(gateway.upstream, "acme/storyteller")


async def test_hit_joined_and_bypass_are_told_apart(gateway: Stack, lines: Lines):
    """Whether money was spent can be counted from the log."""
    await tell_a_story(gateway, seed=1, token_delay=0.2)
    await tell_a_story(gateway, seed=1, token_delay=0.2)
    await tell_a_story(gateway)
    for _ in range(2):
        await tell_a_story(gateway, seed=1, wait=True)
    assert [line["cache"] for line in lines.told] == ["miss", "joined", "bypass", "miss", "hit"]
    runs = [line["run"] for line in lines.told]
    assert runs[0] == runs[1] != runs[2]
    assert runs[3] == runs[4] != runs[0]


async def test_a_stream_is_one_line_when_it_is_over(gateway: Stack, lines: Lines):
    """How long somebody listened, how many events and bytes that were; whose it was, and never the ticket."""
    created = (await create(gateway, model="acme/storyteller", prompt="a")).json
    url = created["urls"]["stream"]
    reply = await ask(gateway, "GET", url.removeprefix(gateway.origin), key=None)
    await until(lambda: any(line["route"].startswith("streams.") for line in lines.told))
    line = lines.of("streams.read")
    assert line["events"] == reply.text.count("\nid: ")
    assert line["bytes"] == len(reply.body)
    assert (line["team"], line["key"], line["prediction"]) == ("alpha", None, created["id"])
    assert url.rpartition("/")[2] not in str(lines.told)


async def test_what_is_no_route_is_told_without_its_path(gateway: Stack, lines: Lines):
    """A secret that somebody puts into a wrong address goes no further."""
    secret = "r8_0123456789abcdefghijklmnopqrstuvwxyz0"
    await send_raw(gateway, spell("GET", f"/v1/{secret}?token={secret}"))
    assert secret not in str(lines.told)
    line = lines.of("unmatched")
    assert (line["path"], line["status"], line["team"]) == (None, 404, None)


async def test_every_door_has_one_line_for_each_request(gateway: Stack, lines: Lines, upstream: Simulator):
    """Nothing passes unseen, and a path of the log is never one that was asked for."""
    prediction = (await create(gateway, model="acme/storyteller")).json["id"]
    file = (await ask(gateway, "POST", "/v1/files", **upload())).json["id"]
    tickets = {
        "streams.read_files": FILE_PREFIX + UNKNOWN_TICKET,
        "outputs.read": f"{prediction}-0-{UNKNOWN_TICKET}",
    }
    for route in (*PUBLIC, *OWN):
        lines.told.clear()
        ids = {"ticket": tickets[route.name]} if route.name in tickets else {}
        method, path, body = request_for(route, upstream, id=prediction, file_id=file, **ids)
        await ask(gateway, method, path, key="operator", **body)
        await until(lambda: lines.told)
        (line,) = lines.told
        assert line["route"] == route.name
        assert line["path"] == route.template
        assert ":" not in line["path"]


async def test_below_its_level_the_log_costs_nothing(open_gateway: OpenGateway, lines: Lines):
    """Where only warnings are told, requests are not."""
    logging.getLogger("gateway.access").setLevel(logging.WARNING)
    try:
        async with open_gateway() as stack:
            assert (await ask(stack, "GET", "/v1/account")).status == 200
    finally:
        logging.getLogger("gateway.access").setLevel(logging.NOTSET)
    assert lines.told == []
