"""Creates and reads while upstream fails, refuses, hangs or answers with nonsense."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from typing import Any

import pytest

from gateway.simulator import Fault
from tests.support.http_calls import Reply, ask, assert_problem, metrics_of
from tests.support.polling import holds, until
from tests.support.raw_server import answer, raw_server
from tests.support.samples import create, finished, upload
from tests.support.secret_scanner import LogScanner
from tests.support.stack import OpenGateway, Stack
from tests.support.system_clocks import PausedClock, ShiftedClock
from tests.support.upstream import CREATES, creates, version_of


async def test_prediction_unknown_to_upstream_is_known_here(gateway: Stack):
    """js#68: GET right after create is 404 upstream for a moment; callers of the gateway never see that."""
    gateway.upstream.faults.set(Fault("not_found_after_create", count=3))
    made = (await create(gateway, duration=1)).json["id"]
    assert (await ask(gateway, "GET", f"/v1/predictions/{made}")).status == 200
    assert (await finished(gateway, made))["status"] == "succeeded"


@pytest.fixture
async def hasty(open_gateway: OpenGateway) -> AsyncIterator[Stack]:
    """A gateway that lets callers wait for an uncertain create for a moment only."""
    async with open_gateway(upstream={"adopt_wait_seconds": 0.4}) as stack:
        yield stack


@pytest.mark.parametrize(
    "fault",
    [
        Fault("html_error", status=502),
        Fault("html_error", status=524),
        Fault("error", status=500),
        Fault("drop_before"),
        Fault("redirect"),
    ],
    ids=lambda fault: f"{fault.name} {fault.status or ''}",
)
async def test_create_of_unknown_outcome_is_sent_once_and_is_504(hasty: Stack, fault: Fault):
    """A second create might be a second bill, so the response tells clients not to retry."""
    hasty.upstream.faults.set(Fault(**{**_given(fault), "operation": CREATES}))
    reply = await create(hasty, model="acme/storyteller")
    problem = assert_problem(reply, 504, origin=None)
    assert problem["detail"]
    assert reply.headers["X-Should-Retry"] == "false"
    await holds(lambda: creates(hasty.upstream) == 1, 0.3)
    await until(lambda: hasty.upstream.requests.count("predictions.list"))
    assert "<html" not in reply.text
    assert (await ask(hasty, "GET", "/v1/predictions")).json["results"] == []


@pytest.mark.parametrize("name", ["html_error_after", "drop_after", "malformed_json"])
async def test_create_that_upstream_accepted_silently_is_found(gateway: Stack, name: str):
    """It is in upstream's list, and the caller sees no trouble; nothing is sent again."""
    gateway.upstream.faults.set(Fault(name, operation=CREATES))
    reply = await create(gateway, model="acme/storyteller")
    assert reply.status == 201
    assert reply.json["id"] == gateway.upstream.predictions[0].id
    assert (await finished(gateway, reply.json["id"]))["status"] == "succeeded"
    (listed,) = (await ask(gateway, "GET", "/v1/predictions")).json["results"]
    assert listed["id"] == reply.json["id"]
    assert creates(gateway.upstream) == len(gateway.upstream.predictions) == 1


def _given(fault: Fault) -> dict[str, Any]:
    names = ("name", "seconds", "status", "count", "retry_after", "value", "times")
    return {name: getattr(fault, name) for name in names if getattr(fault, name) is not None}


@pytest.mark.parametrize("name", ["html_error", "drop_after", "malformed_json", "redirect"])
async def test_uncertain_create_says_how_to_proceed(hasty: Stack, name: str):
    """The list fails as well: the caller learns that it may be running, and how to ask again without paying twice."""
    hasty.upstream.faults.set(Fault(name, operation=f"{CREATES},predictions.list"))
    reply = await create(hasty, model="acme/storyteller")
    detail = assert_problem(reply, 504, origin=None)["detail"]
    assert "may be running" in detail
    assert "Idempotency-Key" in detail
    assert reply.headers["X-Should-Retry"] == "false"
    assert creates(hasty.upstream) == 1


async def test_create_that_was_not_sent_is_503(open_gateway: OpenGateway):
    """A refused connection is 503 and free to repeat, unlike a lost response."""
    async with open_gateway(base_url="http://127.0.0.1:9/v1") as stack:
        reply = await create(stack)
        assert_problem(reply, 503, origin=None)
        assert int(reply.headers["Retry-After"]) >= 1
        assert (await ask(stack, "GET", "/v1/predictions")).json["results"] == []


async def test_rejected_token_is_502_and_degraded(open_gateway: OpenGateway, log_scanner: LogScanner):
    """Callers get 502, not 401; the metric counts it, readiness is degraded, and both recover with the token."""
    clock = ShiftedClock()
    async with open_gateway(clock=clock) as stack:
        assert (await ask(stack, "GET", "/readyz", key=None)).status == 200
        stack.upstream.faults.set(Fault("token_revoked"))
        problem = assert_problem(await create(stack), 502, origin=None)
        assert "operator" in problem["detail"]
        assert_problem(await ask(stack, "GET", "/v1/models"), 502, origin=None)
        assert "replicate_gateway_upstream_token_refused_total 2.0" in await metrics_of(stack)
        ready = await ask(stack, "GET", "/readyz", key=None)
        # Not 503: all processes have the same token, and none would be left to answer from its cache.
        assert (ready.status, ready.json["status"], ready.json["checks"]["store"]) == (200, "degraded", "ok")
        assert "refused" in ready.json["checks"]["upstream"]
        assert 'replicate_gateway_degraded{cause="upstream"} 1.0' in await metrics_of(stack)
        assert "replicate_gateway_ready 1.0" in await metrics_of(stack)
        stack.upstream.faults.clear()
        assert (await create(stack)).status == 201
        clock.shift += 10
        assert (await ask(stack, "GET", "/readyz", key=None)).json["status"] == "ready"
        assert 'replicate_gateway_degraded{cause="upstream"} 0.0' in await metrics_of(stack)


@pytest.mark.parametrize(
    ("fault", "status"),
    [
        (Fault("insufficient_credit"), 402),
        (Fault("error", status=422, value="odd"), 422),
        (Fault("error", status=403, value="no"), 403),
        (Fault("error", status=404, value="Not found."), 404),
    ],
    ids=lambda each: each.name if isinstance(each, Fault) else "",
)
async def test_upstream_refusals_are_passed_on_unchanged(gateway: Stack, fault: Fault, status: int):
    """Upstream's status and bytes; nothing is recorded, nothing repeated."""
    gateway.upstream.faults.set(Fault(**{**_given(fault), "operation": CREATES}))
    reply = await create(gateway)
    direct = await ask(
        gateway,
        "POST",
        f"{gateway.upstream.base_url}/predictions",
        headers={"Authorization": f"Bearer {gateway.upstream.token}"},
        json={"version": version_of(gateway.upstream, "acme/slow"), "input": {}},
    )
    assert (reply.status, reply.body) == (status, direct.body)
    for name in ("Content-Type", "Retry-After"):
        assert reply.headers.get(name) == direct.headers.get(name)
    assert creates(gateway.upstream) == 2
    assert (await ask(gateway, "GET", "/v1/predictions")).json["results"] == []


async def test_create_of_a_model_that_does_not_exist_names_it(gateway: Stack):
    """The first error of many developers. Replicate's own 404 says nothing of it."""
    path = "/v1/models/meta/nope/predictions"
    reply = await ask(gateway, "POST", path, json={"input": {}}, headers={"X-Request-Id": "of-mine"})
    assert (reply.status, reply.headers["Content-Type"]) == (404, "application/problem+json")
    assert reply.json == {
        "title": "Target not found",
        "detail": "Replicate has no model meta/nope, or the account may not use it.",
        "status": 404,
        "request_id": "of-mine",
    }
    assert (await ask(gateway, "GET", "/v1/predictions")).json["results"] == []


async def test_upstream_validation_errors_are_passed_on(gateway: Stack):
    """The contents of the input are validated by upstream, and its message arrives."""
    reply = await create(gateway, model="acme/storyteller", max_tokens="many")
    assert reply.status == 422
    assert reply.json["invalid_fields"]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_token_is_not_sent_to_a_redirect(hasty: Stack, status: int):
    """Someone who can make upstream redirect must not get the account's token."""
    async with raw_server(answer(b"{}")) as elsewhere:
        hasty.upstream.faults.set(Fault("redirect", status=status, value=f"{elsewhere.url}/v1/predictions"))
        made, *read = await together(
            create(hasty),
            ask(hasty, "GET", "/v1/models"),
            ask(hasty, "GET", "/v1/account", key="operator"),
        )
        assert_problem(made, 504, origin=None)
        for reply in read:
            assert_problem(reply, 502, origin=None)
        assert not elsewhere.heads


@pytest.mark.parametrize("name", ["html_error", "drop_before"])
async def test_failed_reads_are_retried_a_limited_number_of_times(gateway: Stack, name: str):
    """A read survives two failures; a third is an error."""
    gateway.upstream.faults.set(Fault(name, operation="models.get", times=2))
    assert (await ask(gateway, "GET", "/v1/models/acme/painter")).status == 200
    assert gateway.upstream.requests.count("models.get") == 3
    gateway.upstream.requests.clear()
    gateway.upstream.faults.set(Fault(name, operation="models.list"))
    reply = await ask(gateway, "GET", "/v1/models")
    assert reply.status in (502, 504)
    assert_problem(reply, reply.status, origin=None)
    assert gateway.upstream.requests.count("models.list") == 3


async def test_throttled_read_waits_briefly_or_passes_429_on(gateway: Stack):
    """A second is waited out; half a minute is left to the caller."""
    gateway.upstream.faults.set(Fault("throttle", operation="models.get", retry_after=1, times=1))
    assert (await ask(gateway, "GET", "/v1/models/acme/painter")).status == 200
    gateway.upstream.faults.set(Fault("throttle", operation="models.list", retry_after=30))
    reply = await ask(gateway, "GET", "/v1/models")
    assert (reply.status, reply.headers["Retry-After"]) == (429, "30")
    assert gateway.upstream.requests.count("models.list") == 1


@pytest.mark.parametrize("operation", ["deployments.update", "models.create", "files.delete"])
async def test_relayed_writes_are_sent_once(gateway: Stack, operation: str):
    """A write whose response is lost is not repeated."""
    file = (await ask(gateway, "POST", "/v1/files", **upload())).json
    gateway.upstream.faults.set(Fault("drop_after", operation=operation))
    made = {"owner": "acme", "name": "fresh", "visibility": "private", "hardware": "cpu"}
    reply = {
        "deployments.update": lambda: ask(
            gateway, "PATCH", "/v1/deployments/acme/story-service", json={"hardware": "cpu"}
        ),
        "models.create": lambda: ask(gateway, "POST", "/v1/models", json=made),
        "files.delete": lambda: ask(gateway, "DELETE", f"/v1/files/{file['id']}"),
    }[operation]()
    assert_problem(await reply, 504, origin=None)
    assert gateway.upstream.requests.count(operation) == 1


async def test_breaker_opens_and_closes_again(open_gateway: OpenGateway):
    """An upstream that is down gets no requests, callers learn so at once, and one trial request finds that it is
    back.
    """
    clock = PausedClock()
    async with open_gateway(clock=clock) as stack:
        stack.upstream.faults.set(Fault("html_error"))

        # Writes that are sent once, and not looked for afterwards as creates are.
        async def write() -> int:
            return (await ask(stack, "PATCH", "/v1/deployments/acme/story-service", json={"hardware": "cpu"})).status

        for _ in range(10):
            assert await write() == 502
        assert len(stack.upstream.requests) == 10
        refused = await create(stack)
        assert_problem(refused, 503, origin=None)
        assert 1 <= int(refused.headers["Retry-After"]) <= 5
        assert await write() == 503
        assert len(stack.upstream.requests) == 10
        assert "replicate_gateway_upstream_breaker_state 2.0" in await metrics_of(stack)
        clock.advance(6)
        assert await write() == 502
        assert (await create(stack)).status == 503, "the trial failed: closed for another while"
        assert len(stack.upstream.requests) == 11
        assert (await ask(stack, "GET", "/v1/predictions")).json["results"] == []
        stack.upstream.faults.clear()
        clock.advance(6)
        assert (await create(stack)).status == 201
        assert (await create(stack)).status == 201
        assert "replicate_gateway_upstream_breaker_state 0.0" in await metrics_of(stack)


@pytest.mark.parametrize(
    "fault",
    [
        Fault("shape", value="database"),
        Fault("shape", value="edge"),
        Fault("time_digits", count=9),
        Fault("time_digits", count=0),
        Fault("gzip"),
        Fault("slow_body", seconds=0.1),
        Fault("version_override"),
        Fault("hidden_version"),
        Fault("model_override"),
        Fault("malformed_json", operation="predictions.get", times=2),
        Fault("html_error", operation="predictions.get", times=4),
        Fault("drop_after", operation="predictions.get", times=4),
        Fault("error", operation="predictions.get", times=2),
        Fault("interrupted"),
    ],
    ids=lambda fault: f"{fault.name} {fault.value or fault.count or ''}",
)
async def test_run_ends_for_every_form_of_upstream_body(gateway: Stack, fault: Fault):
    """Either body format, any fraction of a second, failures in between: the caller sees one prediction that ends."""
    gateway.upstream.faults.set(fault)
    reply = await create(gateway, model="acme/storyteller")
    assert reply.status == 201
    done = await finished(gateway, reply.json["id"])
    assert done["status"] == ("failed" if fault.name == "interrupted" else "succeeded")
    (listed,) = (await ask(gateway, "GET", "/v1/predictions")).json["results"]
    assert listed == done
    assert creates(gateway.upstream) == 1


BAD_BODIES = [
    b"",
    b"null",
    b"[]",
    b"{}",
    b'{"results":null}',
    b'{"results":[1]}',
    b'{"results":[{}],"next":5}',
    b'{"next":null,"previous":null,"results":[{"id":5}]}',
    b'{"id":"x","status":"new"}',
    b"\xff\xfe",
    b'{"next":null,"results":[{"owner":1,"name":2}]}',
    b'{"id":"x","status":"starting","urls":5}',
    b'{"id":"x","status":"starting","urls":{"get":{}}}',
    b'{"id":"../x","status":"starting"}',
    b"[" * 5000,
]
READS: list[tuple[str, str, str]] = [
    ("GET", "/v1/predictions", "operator"),
    ("GET", "/v1/predictions/" + "a" * 26, "operator"),
    ("POST", "/v1/predictions/" + "a" * 26 + "/cancel", "operator"),
    ("GET", "/v1/trainings", "operator"),
    ("GET", "/v1/files/" + "a" * 48, "operator"),
    ("GET", "/v1/account", "operator"),
    ("GET", "/v1/deployments", "alpha"),
    ("GET", "/v1/models", "alpha"),
    ("GET", "/v1/models/acme/painter", "alpha"),
    ("GET", "/v1/models/acme/painter/versions", "alpha"),
    ("GET", "/v1/hardware", "alpha"),
]


@pytest.mark.parametrize("body", BAD_BODIES, ids=lambda body: body[:30].decode("latin-1"))
async def test_invalid_upstream_body_never_crashes_a_read(open_gateway: OpenGateway, body: bytes):
    """Callers get what upstream sent, or a clear 502: no traceback, no 500."""
    async with (
        raw_server(answer(body, Connection="close")) as nonsense,
        open_gateway(
            base_url=nonsense.url + "/v1", cache={"metadata_ttl_seconds": 0}, upstream={"adopt_wait_seconds": 0.2}
        ) as stack,
    ):
        for method, path, key in READS:
            reply = await ask(stack, method, path, key=key)
            assert reply.status != 500, f"{method} {path}: {reply.text}"
        created = await ask(stack, "POST", "/v1/predictions", json={"version": "acme/x", "input": {}})
        assert created.status in (201, 502, 504), created.text
        listed = await ask(stack, "GET", "/v1/predictions")
        assert listed.status == 200
        sent = await ask(stack, "POST", "/v1/files", **upload())
        assert sent.status in (201, 502), sent.text


HEADS = [
    b"",
    b"garbage\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nshort",
    b"HTTP/1.1 999 ?\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\nabcd",
    b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000 + b"\r\n\r\n",
    b"HTTP/1.1 204 No Content\r\n\r\n",
    b"HTTP/1.1 304 Not Modified\r\n\r\n",
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Type: \xff\xfe\r\nContent-Length: 2\r\n\r\n{}",
    b"HTTP/1.1 500 \xff\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 6\r\n\r\n<html>",
]


@pytest.mark.parametrize("head", HEADS, ids=lambda head: head[:40].decode("latin-1"))
async def test_invalid_upstream_http_never_crashes(open_gateway: OpenGateway, head: bytes):
    """A broken proxy in between costs a 502 or 504, and creates are not repeated."""
    async with (
        raw_server(head) as broken,
        open_gateway(
            base_url=broken.url + "/v1", cache={"metadata_ttl_seconds": 0}, upstream={"adopt_wait_seconds": 0.2}
        ) as stack,
    ):
        body = {"version": "acme/x", "input": {}}
        made = await ask(stack, "POST", "/v1/predictions", json=body)
        assert made.status in (204, 304, 502, 504), made.text
        assert len([head for head in broken.heads if head.startswith(b"POST ")]) == 1
        chosen = (READS[0], READS[1], READS[7])
        for reply in await together(*(ask(stack, method, path, key=key) for method, path, key in chosen)):
            assert "Internal server error" not in reply.text
        assert (await ask(stack, "GET", "/v1/predictions")).json["results"] == []


async def together(*requests: Awaitable[Reply]) -> list[Reply]:
    return list(await asyncio.gather(*requests))


async def test_slow_creates_do_not_delay_other_requests(gateway: Stack):
    """While creates hang, polls, lists and cached metadata are served as usual."""
    made = (await create(gateway)).json["id"]
    await ask(gateway, "GET", "/v1/hardware")
    gateway.upstream.faults.set(Fault("delay", operation=CREATES, seconds=600))
    hanging = [asyncio.create_task(create(gateway)) for _ in range(20)]
    await until(lambda: creates(gateway.upstream) == 21)
    for reply in await together(
        ask(gateway, "GET", f"/v1/predictions/{made}"),
        ask(gateway, "GET", "/v1/predictions"),
        ask(gateway, "GET", "/v1/hardware"),
        ask(gateway, "GET", "/healthz", key=None),
    ):
        assert reply.status == 200
    assert not any(each.done() for each in hanging)
    gateway.upstream.faults.clear()
    assert {reply.status for reply in await together(*hanging)} == {201}
