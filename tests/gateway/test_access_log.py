"""The access log: one line for each request, with what an operator looks for and nothing that is secret."""

import logging

from gateway.domain.tickets import FILE_PREFIX
from gateway.http.routes import OWN, PUBLIC
from gateway.simulator import Simulator
from tests.support.access_log import AccessLog, create_story
from tests.support.http_calls import ask, metrics_of, raw_request, send_raw
from tests.support.polling import until
from tests.support.samples import UNKNOWN_TICKET, create, request_for, upload
from tests.support.stack import OpenGateway, Stack
from tests.support.upstream import version_of

FIELDS = [
    "team", "key", "key_name", "user", "route", "path", "target", "method", "status", "cache", "held_by", "run",
    "request_id", "prediction", "seconds", "upstream_seconds", "held_seconds", "bytes",
]  # fmt: skip


async def test_create_writes_one_line_with_caller_run_and_timing(gateway: Stack, access_log: AccessLog):
    """One line has everything an operator needs to find a prediction, its run and what it cost in time."""
    reply = await create_story(gateway, seed=1, wait=True)
    line = access_log.of("predictions.create")
    assert [name for name in line if name != "taskName"] == FIELDS
    assert line["request_id"] == reply.headers["X-Request-Id"]
    assert (line["team"], line["method"], line["status"], line["path"]) == ("alpha", "POST", 201, "/predictions")
    assert (line["key"], line["key_name"], line["user"]) == ("alpha/default", "default", None)
    assert line["target"] == f"acme/storyteller:{version_of(gateway.upstream, 'acme/storyteller')}"
    assert line["prediction"] == reply.json["id"]
    assert line["cache"] == "miss"
    assert 0 < line["upstream_seconds"] <= line["seconds"]
    assert line["bytes"] == len(reply.body)


async def test_user_and_target_are_told_of_what_was_refused_too_and_never_without_bound(
    gateway: Stack, access_log: AccessLog
):
    """An operator finds who was refused for which model. A header of any length does not fill the log."""
    path = "/v1/models/acme/unknown/predictions"
    reply = await ask(gateway, "POST", path, json={"input": {}}, headers={"Gateway-User": "u-42"})
    assert reply.status == 404
    line = access_log.of("models.predictions.create")
    assert (line["user"], line["target"], line["status"]) == ("u-42", "acme/unknown", 404)
    access_log.lines.clear()
    await ask(gateway, "POST", path, json={"input": {}}, headers={"Gateway-User": "x" * 5000})
    assert access_log.of("models.predictions.create")["user"] == "x" * 200
    access_log.lines.clear()
    created = (await create(gateway, model="acme/storyteller", prompt="a")).json
    await ask(gateway, "GET", f"/v1/predictions/{created['id']}", headers={"Gateway-User": "someone"})
    assert access_log.of("predictions.get")["target"] == version_of(gateway.upstream, "acme/storyteller")


async def test_refused_expectation_is_logged_counted_and_has_a_request_id(gateway: Stack, access_log: AccessLog):
    """As every other request, whatever it is refused for. `100-continue` is no refusal."""
    refused = await ask(gateway, "GET", "/v1/models", headers={"Expect": "200-ok", "X-Request-Id": "mine"})
    assert (refused.status, refused.headers["X-Request-Id"], refused.json["request_id"]) == (417, "mine", "mine")
    assert (await ask(gateway, "GET", "/healthz", headers={"Expect": "100-continue"})).status == 200
    lines = [(line["route"], line["status"], line["request_id"]) for line in access_log.lines]
    assert ("models.list", 417, "mine") in lines
    counted = 'replicate_gateway_http_requests_total{code="417",method="GET",route="models.list"} 1'
    assert counted in await metrics_of(gateway)


async def test_access_log_distinguishes_hit_joined_miss_and_bypass(gateway: Stack, access_log: AccessLog):
    """An operator can count from the log which requests cost money."""
    await create_story(gateway, seed=1, token_delay=0.2)
    await create_story(gateway, seed=1, token_delay=0.2)
    await create_story(gateway)
    for _ in range(2):
        await create_story(gateway, seed=1, wait=True)
    assert [line["cache"] for line in access_log.lines] == ["miss", "joined", "bypass", "miss", "hit"]
    runs = [line["run"] for line in access_log.lines]
    assert runs[0] == runs[1] != runs[2]
    assert runs[3] == runs[4] != runs[0]


async def test_stream_writes_one_line_when_it_closes(gateway: Stack, access_log: AccessLog):
    """The line says how long the reader stayed, how many events and bytes it got and whose stream it was; never
    the ticket.
    """
    created = (await create(gateway, model="acme/storyteller", prompt="a")).json
    url = created["urls"]["stream"]
    reply = await ask(gateway, "GET", url.removeprefix(gateway.origin), key=None)
    await until(lambda: any(line["route"].startswith("streams.") for line in access_log.lines))
    line = access_log.of("streams.read")
    assert line["events"] == reply.text.count("\nid: ")
    assert line["bytes"] == len(reply.body)
    assert (line["team"], line["key"], line["prediction"]) == ("alpha", None, created["id"])
    assert url.rpartition("/")[2] not in str(access_log.lines)


async def test_unmatched_path_is_logged_without_the_path(gateway: Stack, access_log: AccessLog):
    """A secret that a caller puts into a wrong URL does not reach the log."""
    secret = "r8_0123456789abcdefghijklmnopqrstuvwxyz0"
    await send_raw(gateway, raw_request("GET", f"/v1/{secret}?token={secret}"))
    assert secret not in str(access_log.lines)
    line = access_log.of("unmatched")
    assert (line["path"], line["status"], line["team"]) == (None, 404, None)


async def test_every_route_writes_one_line_per_request(gateway: Stack, access_log: AccessLog, upstream: Simulator):
    """Every request is logged under its route's template, never under the path that was requested."""
    prediction = (await create(gateway, model="acme/storyteller")).json["id"]
    file = (await ask(gateway, "POST", "/v1/files", **upload())).json["id"]
    tickets = {
        "streams.read_files": FILE_PREFIX + UNKNOWN_TICKET,
        "outputs.read": f"{prediction}-0-{UNKNOWN_TICKET}",
    }
    for route in (*PUBLIC, *OWN):
        access_log.lines.clear()
        ids = {"ticket": tickets[route.name]} if route.name in tickets else {}
        method, path, body = request_for(route, upstream, id=prediction, file_id=file, **ids)
        await ask(gateway, method, path, key="operator", **body)
        await until(lambda: access_log.lines)
        (line,) = access_log.lines
        assert line["route"] == route.name
        assert line["path"] == route.template
        assert ":" not in line["path"]


async def test_disabled_access_log_costs_nothing(open_gateway: OpenGateway, access_log: AccessLog):
    """If only warnings are logged, no line is built for a request."""
    logging.getLogger("gateway.access").setLevel(logging.WARNING)
    try:
        async with open_gateway() as stack:
            assert (await ask(stack, "GET", "/v1/account")).status == 200
    finally:
        logging.getLogger("gateway.access").setLevel(logging.NOTSET)
    assert access_log.lines == []
