"""What is too much is refused past stated numbers, with the field's name, and costs little more than reading it.

`[limits] max_links max_keys max_values max_depth` bound what one body holds (docs/architecture.md, Invariants 13).
"""

import time
from collections.abc import Callable
from typing import Any

import pytest

from gateway.http.route import CREATES, Route
from gateway.http.routes import OWN, PUBLIC
from gateway.simulator import Simulator
from tests.support.hostile import VALUES, array, bomb, keys, long_unless, marks, nested, string
from tests.support.http_calls import Reply, ask, assert_problem
from tests.support.samples import request_for
from tests.support.stack import OpenGateway, Stack
from tests.support.upstream import version_of

LIMITS = {"max_links": 20, "max_keys": 40, "max_values": 100, "max_depth": 10}
SDXL = b"39ed52f2a78e934b3ba6e2a89f5b1c712de7dfea535525255b1aa35c5565e08b"
"""A version that upstream knows."""
GZIP = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
BODY_ROUTES = [route for route in (*PUBLIC, *OWN) if route.name in CREATES or route.name == "gateway.estimate"]

MANY: dict[str, Callable[[int], bytes]] = {
    "max_links": lambda count: array(b'"http://a"', count * 11),
    "max_keys": lambda count: keys(count * 10),
    "max_values": lambda count: array(b"1", count * 2),
    "max_depth": lambda count: nested(count * 2, b"[", b"]"),
}
"""What holds so many links, keys, values or levels."""


async def post(stack: Stack, route: Route, value: bytes, *, version: str) -> Reply:
    """Send a create, or an estimate, whose input holds the value."""
    method, path, _ = request_for(route, stack.upstream)
    more = b',"train_data":"https://example.com/a.zip"' if route.name == "trainings.create" else b""
    body = b'{"input":{"prompt":"hi","x":%b%b}' % (value, more)
    if route.name in ("predictions.create", "gateway.estimate"):
        body += b',"version":"%b"' % version.encode()
    if route.name == "trainings.create":
        body += b',"destination":"acme/painter"'
    prefix = "" if route.path.startswith("/gateway") else "/v1"
    return await ask(stack, method, prefix + path, data=body + b"}", headers={"Content-Type": "application/json"})


@pytest.mark.parametrize(
    ("name", "route"),
    [
        pytest.param(name, route, id=f"{name}-{route.name}", marks=long_unless((place + column) % len(MANY) == 0))
        for place, name in enumerate(MANY)
        for column, route in enumerate(BODY_ROUTES)
    ],
)
async def test_more_than_a_limit_is_refused_with_its_field(open_gateway: OpenGateway, name: str, route: Route) -> None:
    """Half of a limit is taken; twice the limit is a 422 that names the input and the number, and costs no create."""
    async with open_gateway(limits=LIMITS) as stack:
        version = version_of(stack.upstream, "acme/storyteller")
        allowed = await post(stack, route, MANY[name](LIMITS[name] // 2), version=version)
        assert allowed.status in (200, 201), allowed.text
        stack.upstream.requests.clear()
        refused = await post(stack, route, MANY[name](LIMITS[name] * 2), version=version)
        problem = assert_problem(refused, 422, origin=None)
        assert [field["field"].partition(".")[0] for field in problem["invalid_fields"]] == ["input"]
        assert str(LIMITS[name]) in refused.text
        assert not stack.upstream.requests.count("*.create")


async def test_unknown_fields_count_as_keys(open_gateway: OpenGateway) -> None:
    """A body of many unknown fields is refused by its count, not field by field."""
    async with open_gateway(limits=LIMITS) as stack:
        body = b'{"version":"%b","input":{},%b' % (SDXL, keys(LIMITS["max_keys"] * 20)[1:])
        reply = await ask(stack, "POST", "/gateway/estimate", data=body, headers={"Content-Type": "application/json"})
        problem = assert_problem(reply, 422, origin=None)
        assert str(LIMITS["max_keys"]) in reply.text
        assert len(problem["invalid_fields"]) <= 20


def create_of(value: bytes) -> bytes:
    """Write a body with one large input."""
    return b'{"version":"%b","input":{"x":%b}}' % (SDXL, value)


SIZE = 1024 * 1024
TIMES_PLAIN = 6.5
"""A hostile body may cost that many times what a body of one long text costs, the client's part included."""

BOMBS: dict[str, bytes] = {
    "a host of combining marks": create_of(string("http://a" + marks(20_000) + "/v1/files/abcdefghijklmnop")),
    "a webhook of combining marks": b'{"version":"%b","input":{},"webhook":%b}'
    % (SDXL, string("https://a" + marks(20_000) + "/x")),
    "many short links": create_of(VALUES["many short links"](SIZE)),
    "many file links": create_of(VALUES["many file links"](SIZE)),
    "lone surrogates": create_of(VALUES["lone surrogates in a string"](SIZE)),
    "various lone surrogates": create_of(VALUES["various lone surrogates"](SIZE)),
    "many unknown fields": b'{"version":"%b","input":{},%b' % (SDXL, keys(SIZE)[1:]),
    "many keys": create_of(keys(SIZE)),
    "percent slashes": create_of(VALUES["percent slashes in a link"](SIZE)),
    "deep nesting": create_of(VALUES["nested arrays"](SIZE)),
    "many small strings": create_of(VALUES["many small strings"](SIZE)),
    "many numbers": create_of(VALUES["many numbers"](SIZE)),
    "many empty objects": create_of(VALUES["many empty objects"](SIZE)),
    "large exponents": create_of(VALUES["many large exponents"](SIZE)),
    "an integer of many digits": create_of(VALUES["an integer of many digits"](SIZE)),
    "data URIs": create_of(VALUES["many data URIs"](SIZE)),
    "commas in a text": create_of(VALUES["commas in a string"](SIZE)),
    "white space": create_of(VALUES["white space"](SIZE)),
}
"""Bodies that were dear once, or might be."""


def bomb_rows() -> list[Any]:
    """Mark those that `make test` leaves out: it runs one in three."""
    return [
        pytest.param(body, id=name, marks=long_unless(number % 3 == 0))
        for number, (name, body) in enumerate(BOMBS.items())
    ]


async def cpu_of(stack: Stack, compressed: bytes, tries: int = 3) -> float:
    """Return the CPU seconds that this process, gateway and client, spends on an estimate; the least of some tries."""
    least = float("inf")
    for _ in range(tries):
        began = time.process_time()
        reply = await ask(stack, "POST", "/gateway/estimate", data=compressed, headers=GZIP)
        least = min(least, time.process_time() - began)
        assert reply.status < 500, reply.text
        if least > 0.3:
            break
    return least


@pytest.mark.parametrize("body", bomb_rows())
async def test_a_bomb_costs_little_more_than_a_plain_body(gateway: Stack, body: bytes) -> None:
    """A few hundred bytes on the wire do not keep the gateway from everybody else."""
    # Another process on the machine makes measurements longer, never shorter.
    plain = await cpu_of(gateway, bomb(create_of(string("x" * len(body)))), tries=8)
    hostile = await cpu_of(gateway, bomb(body))
    plain = min(plain, await cpu_of(gateway, bomb(create_of(string("x" * len(body)))), tries=8))
    for _ in range(3):
        # What takes that long is no noise, and the standard library caches URLs that it has split.
        if plain * TIMES_PLAIN < hostile < 0.3:
            hostile = min(hostile, await cpu_of(gateway, bomb(body)))
    assert hostile <= plain * TIMES_PLAIN, f"{hostile * 1000:.0f} ms, plain {plain * 1000:.0f} ms"


async def test_the_key_is_searched_for_in_few_passes(gateway: Stack) -> None:
    """A body in which something is escaped is searched for the caller's own key, at the cost of a few passes."""
    plain = await cpu_of(gateway, bomb(create_of(string("x" * SIZE * 4))))
    escaped = await cpu_of(gateway, bomb(create_of(b'"\\u0041' + b"x" * SIZE * 4 + b'"')))
    assert escaped <= plain * 4, f"{escaped * 1000:.0f} ms, plain {plain * 1000:.0f} ms"


async def test_a_large_body_goes_upstream_in_pieces(open_gateway: OpenGateway) -> None:
    """A create of some MiB is written in pieces, between which others are answered; aiohttp warns where it is not."""
    large = create_of(string("x" * 2 * SIZE))
    async with open_gateway(upstream={"adopt_wait_seconds": 1.5}) as stack:
        reply = await ask(stack, "POST", "/v1/predictions", data=large, headers={"Content-Type": "application/json"})
        assert reply.status == 201, reply.text


async def test_the_gateway_answers_after_all_of_them(gateway: Stack, upstream: Simulator) -> None:
    """No bomb leaves anything behind that a later request meets."""
    for name, body in BOMBS.items():
        reply = await ask(gateway, "POST", "/v1/predictions", data=bomb(body), headers=GZIP)
        assert reply.status in (201, 400, 404, 413, 422), f"{name}: {reply.text}"
    assert (await ask(gateway, "GET", "/healthz", key=None)).status == 200
    sent = await ask(gateway, "POST", "/v1/predictions", json={"version": version_of(upstream, "acme/storyteller"),
                                                              "input": {"prompt": "hi"}})  # fmt: skip
    assert sent.status == 201
