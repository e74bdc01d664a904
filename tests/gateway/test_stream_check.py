"""The probe stream, and `gateway check --stream`, with nothing between them and with proxies that spoil it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import aiohttp
import pytest
from aiohttp import web

from gateway.commands.stream_check import check_stream, read
from gateway.http.handlers.stream_check import MAX_PROBES
from gateway.streams.rules.probe import EVENTS
from gateway.streams.rules.probe_findings import Finding, Level
from tests.support.http_calls import PAGE, ask, assert_problem, metrics_of, until_metric
from tests.support.samples import create
from tests.support.secret_scanner import LogScanner
from tests.support.stack import OpenGateway, Stack

PROBE = "/v1/streams/check"
Pass = Callable[[web.Request, aiohttp.ClientResponse], Awaitable[web.StreamResponse]]


async def test_probe_looks_like_a_stream(gateway: Stack):
    """Without a key, by any spelling of the base: the same headers and first bytes, so proxies treat it the same."""
    url = (await create(gateway, model="acme/storyteller", prompt="hi", seed=7)).json["urls"]["stream"]
    stream = await ask(gateway, "GET", url, key=None, headers={"Origin": PAGE})
    for prefix in ("/v1", "", "/v1/v1"):
        probe = await ask(gateway, "GET", f"{prefix}/streams/check", key=None, headers={"Origin": PAGE})
        assert probe.status == 200
        assert probe.settled[:2] == stream.settled[:2]
        assert probe.body.startswith(b": hi\n\nevent: hello\n")
        assert probe.body.count(b"event: tick\n") == EVENTS - 1
        assert probe.body.endswith(b"event: done\nid: end\ndata: {}\n\n")
    assert gateway.upstream.requests.count(origin="delivery") <= 1, "a probe is no affair of upstream's"


@pytest.mark.parametrize("seconds", ["-1", "601", "1e2", "x", "", "0.5", "99999", "%D9%A1"])
async def test_probe_silence_is_limited(gateway: Stack, seconds: str):
    """The probe needs no key, so no client may hold a connection for a day."""
    problem = assert_problem(await ask(gateway, "GET", f"{PROBE}?seconds={seconds}", key=None), 422, origin=None)
    assert problem["invalid_fields"][0]["field"] == "seconds"


async def test_number_of_probes_is_limited(gateway: Stack):
    """A client that opens many keeps others from checking, not from streaming; closing them makes room."""
    async with AsyncExitStack() as exits:
        session = await exits.enter_async_context(aiohttp.ClientSession())
        for _ in range(MAX_PROBES):
            held = await exits.enter_async_context(session.get(f"{gateway.origin}{PROBE}?seconds=600"))
            assert held.status == 200
        refused = await ask(gateway, "GET", PROBE, key=None)
        assert_problem(refused, 429, origin=None)
        assert int(refused.headers["Retry-After"]) >= 1
        assert f'replicate_gateway_sse_streams{{side="check"}} {MAX_PROBES}.0' in await metrics_of(gateway)
        url = (await create(gateway, model="acme/storyteller", prompt="hi")).json["urls"]["stream"]
        assert (await ask(gateway, "GET", url, key=None)).status == 200
    await until_metric(gateway, 'replicate_gateway_sse_streams{side="check"} 0.0')


async def test_shutdown_ends_probes(open_gateway: OpenGateway):
    """A running check does not delay a deploy."""
    async with aiohttp.ClientSession() as session, AsyncExitStack() as exits:
        async with open_gateway() as stack:
            held = await exits.enter_async_context(session.get(f"{stack.origin}{PROBE}?seconds=600"))
            assert b"event: hello" in await held.content.readany()
        assert b"event: done" not in await held.content.read()


async def checked(url: str, silence: int | None = None) -> dict[str, Finding]:
    return {each.name: each for each in await check_stream(url, silence)}


async def test_direct_connection_passes_every_check(open_gateway: OpenGateway):
    """This is the baseline for all other cases; and the probes have ended."""
    async with open_gateway(streams={"heartbeat_seconds": 1}) as stack:
        found = await checked(stack.origin, silence=2)
        assert {each.level for each in found.values()} == {Level.WELL}, found
        assert {"arrival", "headers", "links", "version", "silence"} == set(found)
        assert found["links"].text == stack.base_url
        await until_left(stack)


async def until_left(stack: Stack) -> None:
    await until_metric(stack, 'side="check"} 0.0')


@asynccontextmanager
async def proxy(stack: Stack, do: Pass, **request: str) -> AsyncIterator[str]:
    """A proxy that does something to every answer; `request` are headers that it sets or, if empty, leaves out."""

    async def handle(incoming: web.Request) -> web.StreamResponse:
        headers = {name: value for name, value in incoming.headers.items() if name.title() not in ("Host", *request)}
        headers |= {name: value for name, value in request.items() if value}
        async with (
            aiohttp.ClientSession(auto_decompress=False) as session,
            session.get(stack.origin + incoming.path_qs, headers=headers) as response,
        ):
            return await do(incoming, response)

    app = web.Application()
    app.router.add_get("/{rest:.*}", handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def kept(response: aiohttp.ClientResponse, **more: str) -> dict[str, str]:
    dropped = {"Transfer-Encoding", "Date", *more}
    return {n: v for n, v in response.headers.items() if n not in dropped} | {n: v for n, v in more.items() if v}


async def relay(incoming: web.Request, response: aiohttp.ClientResponse, **headers: str) -> web.StreamResponse:
    """Pass everything on as it comes."""
    outgoing = web.StreamResponse(status=response.status, headers=kept(response, **headers))
    await outgoing.prepare(incoming)
    async for chunk in response.content.iter_any():
        await outgoing.write(chunk)
    return outgoing


async def collect(incoming: web.Request, response: aiohttp.ClientResponse) -> web.StreamResponse:
    """Pass everything on at the end, without its length."""
    whole = await response.read()
    outgoing = web.StreamResponse(headers=kept(response))
    await outgoing.prepare(incoming)
    await outgoing.write(whole)
    return outgoing


async def compress(incoming: web.Request, response: aiohttp.ClientResponse) -> web.StreamResponse:
    outgoing = web.StreamResponse(headers=kept(response))
    outgoing.enable_compression(web.ContentCoding.gzip)
    await outgoing.prepare(incoming)
    async for chunk in response.content.iter_any():
        await outgoing.write(chunk)
    return outgoing


async def cut(incoming: web.Request, response: aiohttp.ClientResponse) -> web.StreamResponse:
    """Cut the connection after the first events."""
    outgoing = web.StreamResponse(headers=kept(response))
    await outgoing.prepare(incoming)
    await outgoing.write(await response.content.readuntil(b"event: tick"))
    assert incoming.transport is not None
    incoming.transport.close()
    return outgoing


async def end(incoming: web.Request, response: aiohttp.ClientResponse) -> web.StreamResponse:
    """End the answer after the first events, as if that were all."""
    outgoing = web.StreamResponse(headers=kept(response))
    await outgoing.prepare(incoming)
    await outgoing.write(await response.content.readuntil(b"event: tick"))
    return outgoing


async def public(incoming: web.Request, response: aiohttp.ClientResponse) -> web.StreamResponse:
    return await relay(incoming, response, **{"Cache-Control": "public", "Access-Control-Allow-Origin": "*"})


async def login(incoming: web.Request, response: aiohttp.ClientResponse) -> web.StreamResponse:
    return web.Response(text="<html>Who are you?</html>", content_type="text/html")


async def elsewhere(incoming: web.Request, response: aiohttp.ClientResponse) -> web.StreamResponse:
    return web.Response(status=308, headers={"Location": "https://g.example.com/v1/streams/check"})


@pytest.mark.parametrize(
    ("do", "bad"),
    [
        (relay, set()),
        (collect, {"buffered"}),
        (compress, {"compressed"}),
        (cut, {"cut"}),
        (end, {"cut"}),
        (public, {"cache-control", "cors"}),
        (login, {"content-type"}),
        (elsewhere, {"redirect"}),
    ],
    ids=lambda each: getattr(each, "__name__", ""),
)
async def test_proxy_faults_are_found(gateway: Stack, log_scanner: LogScanner, do: Pass, bad: set[str]):
    """Each fault is named, and nothing else is blamed."""
    async with proxy(gateway, do) as url:
        found = await checked(url)
    # What compresses in blocks holds events back as well, and may be blamed for both.
    names = {name for name, each in found.items() if each.level is Level.BAD}
    assert names - ({"buffered"} if do is compress else set()) == bad, found
    await until_left(gateway)
    # The client logs an answer that it does not like; the command says it in its own words.
    log_scanner.errors = [each for each in log_scanner.errors if not each.startswith("aiohttp_sse_client")]


async def test_caching_proxy_is_found(gateway: Stack):
    """A response to one reader is served to the next: found by what each of them sent."""
    copies: dict[str, bytes] = {}

    async def keep(incoming: web.Request, response: aiohttp.ClientResponse) -> web.StreamResponse:
        if incoming.path_qs in copies:
            return web.Response(body=copies[incoming.path_qs], headers=kept(response))
        whole = b""
        outgoing = web.StreamResponse(headers=kept(response))
        await outgoing.prepare(incoming)
        async for chunk in response.content.iter_any():
            whole += chunk
            await outgoing.write(chunk)
        copies[incoming.path_qs] = whole
        return outgoing

    async with proxy(gateway, keep) as url:
        found = await checked(url)
    assert [name for name, each in found.items() if each.level is Level.BAD] == ["cached"]


async def test_changed_request_headers_are_found(open_gateway: OpenGateway):
    """A header that is dropped; a Host and a scheme that are not passed on, so links would be wrong."""
    async with open_gateway(server={"trusted_proxies": ["127.0.0.0/8"]}) as stack:
        async with proxy(stack, relay, **{"Last-Event-Id": ""}) as url:
            found = await checked(url)
        assert found["last-event-id"].level is Level.BAD
        # The proxy above asks with the gateway's own Host.
        assert found["links"].level is Level.NOTE
        assert stack.base_url in found["links"].text
        host = {"X-Forwarded-Host": "g.example.com", "X-Forwarded-Proto": "https"}
        async with proxy(stack, relay, **host) as url:
            assert (await checked(url))["links"].text.startswith(
                "the gateway's links would start with https://g.example.com/v1."
            )


async def test_idle_timeout_in_between_is_found(open_gateway: OpenGateway):
    """A proxy closes a stream that sends nothing for a second, while heartbeats come every hour."""

    async def impatient(incoming: web.Request, response: aiohttp.ClientResponse) -> web.StreamResponse:
        outgoing = web.StreamResponse(headers=kept(response))
        await outgoing.prepare(incoming)
        while True:
            try:
                async with asyncio.timeout(1):
                    chunk = await response.content.readany()
            except TimeoutError:
                assert incoming.transport is not None
                incoming.transport.close()
                return outgoing
            if not chunk:
                return outgoing
            await outgoing.write(chunk)

    async with open_gateway(streams={"heartbeat_seconds": 60}) as stack, proxy(stack, impatient) as url:
        found = await checked(url, silence=4)
        assert found["cut"].level is Level.BAD
        assert "before the first heartbeat (60 s)" in found["cut"].text
        assert found["arrival"].level is Level.WELL


async def test_check_ends_against_any_server(monkeypatch: pytest.MonkeyPatch):
    """A server that accepts and never responds, one that never sends `done`, one that sends something else."""
    monkeypatch.setattr("gateway.commands.stream_check.PATIENCE_SECONDS", -1.0)
    answers = iter([b"", b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n: hi\n\n"])
    closing = asyncio.Event()

    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(
            next(answers, b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\nevent: hello\ndata: 5\n\n")
        )
        await writer.drain()
        await closing.wait()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    base = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    silent, endless, odd = [await read(base) for _ in range(3)]
    closing.set()
    server.close()
    assert (silent.status, silent.is_complete) == (None, False)
    assert silent.error.startswith("it did not end within")
    assert (endless.status, endless.is_complete, endless.arrivals) == (200, False, [])
    assert not odd.is_complete
    assert "Expected `object`" in odd.error
