"""What one team fills up hinders no other team."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from gateway.simulator import Fault
from tests.support.http_calls import ask, connection
from tests.support.ports import free_port
from tests.support.samples import FORM, content, create
from tests.support.stack import TEAM_SCOPES, OpenGateway, Stack
from tests.support.upstream import version_of

pytestmark = [
    pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning"),
    pytest.mark.timeout(60),
]


async def stalled_upload(stack: Stack, key: str, size: int) -> bytes:
    """Begin an upload, send a little of it, and return the first line of the answer, if one comes.

    Uploads of like sizes may be of equal bytes, and would be kept on disk first.
    """
    head = (
        f"POST /v1/files HTTP/1.1\r\nHost: gateway.test\r\nAuthorization: Bearer {key}\r\n"
        f"Content-Type: {FORM}\r\nContent-Length: {size}\r\n\r\n"
    )
    async with connection(stack) as (reader, writer):
        writer.write(head.encode() + content(data=b"x" * 1000))
        await writer.drain()
        return await reader.readline()


@asynccontextmanager
async def in_progress(*work: Awaitable[Any]) -> AsyncIterator[list[asyncio.Task[Any]]]:
    """Let work go on meanwhile."""
    tasks = [asyncio.ensure_future(each) for each in work]
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_stalled_uploads_of_one_team_do_not_hinder_another(open_gateway: OpenGateway) -> None:
    """Uploads have connections of their own, and so many for each team; more are a 429."""
    async with open_gateway(teams={"beta": {"scopes": TEAM_SCOPES}}) as stack, AsyncExitStack() as open_uploads:
        uploads = [stalled_upload(stack, stack.keys["alpha"], 10**6 + number * 20_000) for number in range(230)]
        tasks = await open_uploads.enter_async_context(in_progress(*uploads))
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        made = await create(stack, key="beta", model="acme/storyteller", prompt="hi")
        polled = await ask(stack, "GET", f"/v1/predictions/{made.json['id']}", key="beta")
        assert (made.status, polled.status) == (201, 200), made.text
        answers = [task.result() for task in tasks if task.done()]
        assert any(b" 429 " in line for line in answers)


DEAD = {"allow_http": True, "allow_private_addresses": True, "max_queued": 10}


STORY = {"prompt": "hi", "seed": 7}


async def hooked(stack: Stack, key: str, url: str) -> tuple[int, str]:
    """Create what may be a hit, with a webhook; return status and id."""
    body = {"version": version_of(stack.upstream, "acme/storyteller"), "input": STORY, "webhook": url}
    reply = await ask(stack, "POST", "/v1/predictions", key=key, json=body, headers={"Prefer": "wait"})
    return reply.status, reply.json.get("id", "")


async def test_a_team_fills_its_own_webhook_queue_only(open_gateway: OpenGateway) -> None:
    """Free hits with webhooks to a dead receiver are 429 past the team's bound; another team's event still waits."""
    teams = {name: {"scopes": TEAM_SCOPES, "max_wait_seconds": 0.2} for name in ("alpha", "beta")}
    dead = f"http://127.0.0.1:{free_port()}/hook"
    async with open_gateway(webhooks=DEAD, teams=teams) as stack:
        status, theirs = await hooked(stack, "beta", dead)
        assert status == 201
        sent = [await hooked(stack, "alpha", dead) for _ in range(25)]
        explained = (await ask(stack, "GET", f"/gateway/explain/{theirs}", key="beta")).json
        assert "webhook queued" in [each["what"] for each in explained["timeline"]]
        assert {status for status, _ in sent} == {201, 429}
        assert [status for status, _ in sent][:5] == [201] * 5


async def test_one_search_serves_all_uncertain_creates(open_gateway: OpenGateway) -> None:
    """In trouble, upstream's list is read some times in all, however many creates have to be found.

    The creates are fewer than the failures that open the circuit breaker, which would prevent the reads.
    """
    async with open_gateway(upstream={"adopt_wait_seconds": 1.5}) as stack:
        stack.upstream.faults.set(Fault("html_error", operation="*predictions.create", times=9))
        made = [create(stack, model="acme/storyteller", prompt=str(number)) for number in range(9)]
        assert {reply.status for reply in await asyncio.gather(*made)} == {504}
        reads = stack.upstream.requests.count("predictions.list")
        assert 0 < reads <= 6, f"{reads} reads for 9 creates"
