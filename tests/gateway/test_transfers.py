"""Uploads and downloads in progress: bounds for teams and pages, minimum rates, and connections of their own."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from urllib.parse import urlsplit

import pytest

from gateway.errors import RateLimited
from gateway.simulator import Fault
from gateway.upstream.breaker import BreakerState
from tests.support.http_calls import PAGE, Reply, ask, assert_problem, connection, metrics_of, raw_request
from tests.support.polling import attempts, until
from tests.support.raw_server import raw_server
from tests.support.samples import FORM, content, create, upload
from tests.support.stack import TEAM_SCOPES, OpenGateway, Stack
from tests.support.uploads import download, signed_query
from tests.support.upstream_client import client_of

FEW = {"max_per_team": 2, "max_per_public_key": 1}
AT_ONCE = {"alpha": {"scopes": TEAM_SCOPES, "origins": [PAGE], "max_wait_seconds": 0}}


@asynccontextmanager
async def started_upload(
    stack: Stack, key: str = "alpha", *, sent: int = 100_000, size: int = 10**6
) -> AsyncIterator[asyncio.StreamReader]:
    """Send the first bytes of an upload; yield the reader of its answer."""
    parts = urlsplit(stack.origin)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    head = (
        f"POST /v1/files HTTP/1.1\r\nHost: gateway.test\r\nAuthorization: Bearer {stack.keys.get(key, key)}\r\n"
        f"Origin: {PAGE}\r\nContent-Type: {FORM}\r\nContent-Length: {size}\r\n\r\n"
    )
    writer.write(head.encode() + content(data=b"x" * sent))
    try:
        yield reader
    finally:
        writer.close()


async def send_file(stack: Stack, key: str = "alpha") -> Reply:
    sample = upload()
    return await ask(
        stack, "POST", "/v1/files", key=key, data=sample["data"], headers={**sample["headers"], "Origin": PAGE}
    )


async def measured(stack: Stack, name: str) -> float:
    lines = (await metrics_of(stack)).splitlines()
    return next(float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"replicate_gateway_{name} "))


async def in_progress(stack: Stack, count: int) -> None:
    async for _ in attempts():
        if await measured(stack, 'transfers{direction="uploads"}') == count:
            break


async def test_uploads_over_the_bound_of_a_team_are_refused(open_gateway: OpenGateway):
    """The refusal says so; other teams upload, and so does this one when another upload has ended."""
    async with open_gateway(transfers=FEW, teams=AT_ONCE) as stack:
        async with AsyncExitStack() as uploads:
            for number in range(2):
                await uploads.enter_async_context(started_upload(stack, size=10**6 + number * 20_000))
            await in_progress(stack, 2)
            refused = await send_file(stack)
            problem = assert_problem(refused, 429)
            assert problem["retry_after"] == int(refused.headers["Retry-After"]) == 5
            assert "Your team can have 2 uploads at a time." in problem["detail"]
            assert (await send_file(stack, "beta")).status == 201
            assert (await create(stack, model="acme/storyteller", prompt="hi")).status == 201
        await in_progress(stack, 0)
        assert (await send_file(stack)).status == 201
        assert await measured(stack, 'transfer_refusals_total{bound="team",direction="uploads"}') == 1


async def test_an_upload_waits_for_a_place_as_long_as_its_team_may_wait(open_gateway: OpenGateway):
    """A server that uploads many small files at once gets all of them through."""
    async with open_gateway(transfers={"max_per_team": 1}) as stack:
        replies = await asyncio.gather(*(send_file(stack) for _ in range(5)))
        assert [reply.status for reply in replies] == [201] * 5
        refused = await asyncio.gather(*(send_file(stack) for _ in range(20)))
        assert {reply.status for reply in refused} == {201, 429}


async def test_a_page_has_a_smaller_bound_than_its_team(open_gateway: OpenGateway):
    """One visitor cannot use up the uploads of all."""
    async with open_gateway(transfers=FEW, teams=AT_ONCE) as stack:
        tokens = []
        for user in ("ann", "ben"):
            minted = await ask(
                stack, "POST", "/gateway/tokens", json={"user": user, "scopes": ["files"], "ttl_seconds": 60}
            )
            tokens.append(minted.json["token"])
        async with started_upload(stack, tokens[0]):
            await in_progress(stack, 1)
            assert (
                "Your key or token can have 1 uploads"
                in assert_problem(await send_file(stack, tokens[0]), 429)["detail"]
            )
            assert (await send_file(stack, tokens[1])).status == 201
            assert (await send_file(stack)).status == 201


@pytest.mark.parametrize("sent", [1000, 100_000])
async def test_an_upload_that_stops_is_ended(open_gateway: OpenGateway, sent: int):
    """It holds neither a place nor a connection for longer than `body_idle_seconds`."""
    async with open_gateway(server={"body_idle_seconds": 0.2}) as stack:
        async with started_upload(stack, sent=sent) as reader:
            assert b" 400 " in await reader.readline()
        await in_progress(stack, 0)
        assert await measured(stack, 'upstream_connections{pool="uploads"}') == 0
        assert await measured(stack, 'slow_transfers_total{direction="uploads"}') == 1
        assert await measured(stack, "upstream_breaker_state") == 0


async def test_a_download_at_a_crawl_is_cut_off(open_gateway: OpenGateway):
    """Its caller accepts bytes, but fewer than the minimum rate."""
    async with open_gateway() as stack:
        sample = upload(b"x" * 8 * 10**6)
        file, keys = (await ask(stack, "POST", "/v1/files", **sample)).json, stack.keys
    server = {"body_idle_seconds": 0.2, "body_min_bytes_per_second": 10**9}
    async with open_gateway(server=server, keys=keys) as stack:
        async with connection(stack) as (reader, writer):
            path = f"/v1/files/{file['id']}/download?{signed_query(stack, file['id'])}"
            writer.write(raw_request("GET", path, [], b"", key=stack.keys["alpha"]))
            await reader.readuntil(b"\r\n\r\n")
            received = 0
            # The gateway, which has begun to send, waits longer than `body_idle_seconds` for it.
            await asyncio.sleep(1)
            with suppress(ConnectionError):
                while chunk := await reader.read(2**16):
                    received += len(chunk)
        assert received < 8 * 10**6
        assert await measured(stack, 'slow_transfers_total{direction="downloads"}') == 1
        assert await measured(stack, 'transfers{direction="downloads"}') == 0


async def test_an_upload_takes_no_connection_before_its_beginning_is_here(open_gateway: OpenGateway):
    """A few bytes do not hold a connection to Replicate."""
    async with open_gateway() as stack:
        async with started_upload(stack, sent=1000):
            await in_progress(stack, 1)
            assert await measured(stack, 'upstream_connections{pool="uploads"}') == 0
        async with started_upload(stack, sent=100_000, size=2 * 10**6):
            async for _ in attempts():
                if await measured(stack, 'upstream_connections{pool="uploads"}') == 1:
                    break
            assert await measured(stack, 'upstream_connections{pool="api"}') == 0


async def test_downloads_over_the_bound_of_a_team_are_refused(open_gateway: OpenGateway):
    """Downloads have places of their own: uploads go on."""
    async with open_gateway(transfers={"max_per_team": 1}, teams=AT_ONCE) as stack:
        file = (await send_file(stack)).json
        stack.upstream.faults.set(Fault("delay", operation="files.download", seconds=600))
        downloads = [asyncio.create_task(download(stack, file["id"])) for _ in range(2)]
        (refused,), (held,) = await asyncio.wait(downloads, return_when=asyncio.FIRST_COMPLETED)
        assert refused.result().status == 429
        stack.upstream.faults.clear()
        assert (await held).status == 200
        assert (await send_file(stack)).status == 201
        assert await measured(stack, 'transfer_refusals_total{bound="team",direction="downloads"}') == 1
        assert await measured(stack, 'transfers{direction="downloads"}') == 0


async def test_waiting_for_a_free_connection_is_no_failure_of_upstream():
    """It is a 429 that leaves the circuit breaker closed."""

    async def silence(head: bytes, writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    async with (
        raw_server(silence) as silent,
        client_of(silent.url, connect_seconds=1.0, max_connections=1, breaker_threshold=1) as made,
    ):
        client, notes = made
        holding = asyncio.ensure_future(client.send("models.create", "POST", "/models", b"{}"))
        await until(lambda: silent.heads)
        waiting = asyncio.ensure_future(client.send("models.create", "POST", "/models", b"{}"))
        await until(lambda: client.pool.waiting)
        assert (client.pool.in_use, client.pool.waiting) == (1, 1)
        with pytest.raises(RateLimited, match="All 1 connections"):
            await waiting
        assert (client.pool.waiting, client.breaker.state(0.0)) == (0, BreakerState.CLOSED)
        assert notes.of("connection_refused") == ["api"]
        holding.cancel()
        await asyncio.gather(holding, return_exceptions=True)
        assert client.pool.in_use == 0
