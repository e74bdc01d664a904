"""The demo's request log of a gateway that serves."""

import io
import re

from gateway.demo.request_log import RequestLog, attached
from gateway.logs.sink import DirectSink
from tests.support.http_calls import ask
from tests.support.stack import OpenGateway
from tests.support.upstream import version_of

PRICES = {"models": [{"model": "acme/*", "usd_per_run": 0.25}]}


async def test_requests_are_listed_without_secrets(open_gateway: OpenGateway):
    """A run with its cost, a hit, a poll, a refusal, and a path that is no route, which could be anything."""
    written = io.StringIO()
    async with open_gateway(prices=PRICES) as stack:
        name = f"acme/storyteller:{version_of(stack.upstream, 'acme/storyteller')}"
        body = {"version": name, "input": {"prompt": "a llama", "seed": 7, "max_tokens": 2}}
        with attached(RequestLog(DirectSink(written), has_colours=False)):
            for _ in range(2):
                reply = await ask(stack, "POST", "/v1/predictions", json=body, headers={"Prefer": "wait"})
                assert reply.status == 201, reply.text
            await ask(stack, "GET", f"/v1/predictions/{reply.json['id']}")
            await ask(stack, "GET", "/v1/account?secret=1", key=None)
            await ask(stack, "GET", "/no/such?page=1")
    found = [re.sub(r"^\d\d:\d\d:\d\d  |  [\d.]+ m?s$", "", line) for line in written.getvalue().splitlines()]
    shown = name[: len("acme/storyteller:") + 8]
    assert found == [
        f"POST    /predictions  201  run  {shown}  $0.25",
        f"POST    /predictions  201  hit  {shown}  $0.00",
        f"GET     /predictions/{reply.json['id']}  200  {shown}",
        "GET     /account  401",
        "GET     (no such route)  404",
    ]
