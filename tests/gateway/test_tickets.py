"""Tickets: a stream's URL grants access until it expires, to its pages, and only its caller gets it."""

import asyncio
import io
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest
from yarl import URL

from gateway import logs
from gateway.logs import formats
from gateway.logs.sink import DirectSink
from tests.support.http_calls import PAGE, STRANGER, Reply, ask, assert_problem, metrics_of, raw_request, send_raw
from tests.support.polling import until
from tests.support.samples import create
from tests.support.secret_scanner import LogScanner, SecretScanner
from tests.support.stack import OpenGateway, Stack
from tests.support.system_clocks import ShiftedClock

OTHER_PAGE = "https://shop.example.com"
PAGES = {"alpha": {"origins": [PAGE, OTHER_PAGE], "keys": [{"name": "page", "origins": [PAGE]}]}}
STORY = {"model": "acme/storyteller", "prompt": "hi", "seed": 7}


@pytest.fixture
async def stack(open_gateway: OpenGateway) -> AsyncIterator[Stack]:
    """A gateway whose team alpha has two pages, and a key for one of them."""
    async with open_gateway(teams=PAGES) as stack:
        yield stack


async def token_for(stack: Stack, *origins: str) -> str:
    wanted = {"ttl_seconds": 60, "scopes": ["predict"], "origins": list(origins) or None}
    reply = await ask(stack, "POST", "/gateway/tokens", json=wanted)
    assert reply.status == 201, reply.text
    token: str = reply.json["token"]
    return token


async def stream_of(stack: Stack, key: str, origin: str | None = None, **given: object) -> str:
    reply = await create(stack, key=key, headers={"Origin": origin} if origin else {}, **(STORY | given))
    assert reply.status == 201, reply.text
    url: str = reply.json["urls"]["stream"]
    return url


async def read(stack: Stack, url: str, origin: str | None = None, **headers: str) -> Reply:
    return await ask(stack, "GET", url, key=None, headers=headers | ({"Origin": origin} if origin else {}))


@pytest.mark.parametrize("credential", ["publishable key", "browser token"])
async def test_stream_created_by_a_page_opens_in_that_page_only(stack: Stack, credential: str):
    """A leaked URL is of no use to another page or to a program without an Origin; its own page can read again."""
    key = stack.keys["alpha.page"] if credential == "publishable key" else await token_for(stack, PAGE)
    url = await stream_of(stack, key, PAGE)
    for _ in range(2):
        reply = await read(stack, url, PAGE)
        assert reply.status == 200
        assert b"event: done" in reply.body
        assert reply.headers["Access-Control-Allow-Origin"] == PAGE
        assert reply.headers["Referrer-Policy"] == "no-referrer"
    for other in (OTHER_PAGE, STRANGER, "null", PAGE + ".evil.net", "http://app.example.com"):
        problem = assert_problem(await read(stack, url, other), 404, origin=None)
        assert problem["detail"] == "The requested resource could not be found."
    assert_problem(await read(stack, url), 404, origin=None)
    assert (await read(stack, url, PAGE.replace("app", "APP"))).status == 200, "hosts have no case"


async def test_token_for_two_origins_makes_tickets_for_both(stack: Stack):
    """The key's origins count, not only the one of the page that asked."""
    url = await stream_of(stack, await token_for(stack, PAGE, OTHER_PAGE), PAGE)
    assert [(await read(stack, url, each)).status for each in (PAGE, OTHER_PAGE, STRANGER)] == [200, 200, 404]


async def test_stream_created_by_a_server_opens_for_any_holder(stack: Stack):
    """A server may pass the URL to a page, a program or a phone; only listed pages can read it."""
    url = await stream_of(stack, "alpha")
    for origin in (None, PAGE, OTHER_PAGE, STRANGER):
        reply = await read(stack, url, origin)
        assert reply.status == 200
        assert ("Access-Control-Allow-Origin" in reply.headers) == (origin in (PAGE, OTHER_PAGE))


async def test_each_caller_of_a_shared_run_has_its_own_ticket_binding(stack: Stack):
    """A page that joins or hits a server's run is bound to its origin, the server is not."""
    of_server = await stream_of(stack, "alpha")
    of_page = await stream_of(stack, await token_for(stack, PAGE), PAGE)
    assert len(stack.upstream.predictions) == 1, "they share a run"
    assert [(await read(stack, of_server, each)).status for each in (None, STRANGER)] == [200, 200]
    assert [(await read(stack, of_page, each)).status for each in (PAGE, None, STRANGER)] == [200, 404, 404]


async def test_page_on_the_gateways_own_origin_needs_no_origin_header(open_gateway: OpenGateway):
    """Served behind one proxy with the gateway, a page's reads carry no Origin; the browser says `same-origin`."""
    async with open_gateway(
        server={"public_url": PAGE}, teams={"alpha": {"keys": [{"name": "page", "origins": [PAGE]}]}}
    ) as stack:
        key = stack.keys["alpha.page"]
        url = await stream_of(stack, key, PAGE)
        path = url.removeprefix(PAGE)
        beside = {"Sec-Fetch-Site": "same-origin"}
        assert (await read(stack, path, **beside)).status == 200
        assert (await ask(stack, "GET", "/v1/account", key=key, headers=beside)).status == 200
        for odd in ({}, {"Sec-Fetch-Site": "same-site"}, {"Sec-Fetch-Site": "none"}, {"Origin": STRANGER, **beside}):
            assert (await read(stack, path, **odd)).status == 404
            assert (await ask(stack, "GET", "/v1/account", key=key, headers=odd)).status == 403


async def test_same_origin_claim_of_another_page_is_refused(stack: Stack):
    """`same-origin` means the gateway's own address, which this key is not for."""
    url = await stream_of(stack, stack.keys["alpha.page"], PAGE)
    assert_problem(await read(stack, url, **{"Sec-Fetch-Site": "same-origin"}), 404, origin=None)


@pytest.mark.parametrize("path", ["streams/{}", "files/rgws-{}"])
async def test_invalid_ticket_is_a_404_that_the_page_can_read(open_gateway: OpenGateway, path: str):
    """Unknown, expired or another page's: one response with CORS headers, so EventSource stops."""
    clock = ShiftedClock()
    async with open_gateway(clock=clock, teams=PAGES, streams={"ticket_ttl_seconds": 100}) as stack:
        expired = (await stream_of(stack, "alpha")).rpartition("/")[2]
        foreign = (await stream_of(stack, await token_for(stack, PAGE), PAGE, seed=8)).rpartition("/")[2]
        replies = [await read(stack, f"/v1/{path.format(foreign)}", OTHER_PAGE)]
        clock.shift = 101
        replies += [await read(stack, f"/v1/{path.format(each)}", OTHER_PAGE) for each in (expired, "a" * 52)]
        for reply in replies:
            assert_problem(reply, 404, origin=OTHER_PAGE)
            assert "X-Request-Id" in reply.headers["Access-Control-Expose-Headers"]
        assert len({reply.body for reply in replies}) == 1


async def test_ticket_opens_its_own_prediction_only(stack: Stack):
    """It is no key: neither the API nor another stream accepts it."""
    one, other = await stream_of(stack, "alpha"), await stream_of(stack, "beta", seed=8)
    tickets = [url.rpartition("/")[2] for url in (one, other)]
    assert tickets[0] != tickets[1]
    for ticket in tickets:
        for authorization in (ticket, f"Bearer {ticket}"):
            reply = await ask(stack, "GET", "/v1/predictions", key=None, headers={"Authorization": authorization})
            assert_problem(reply, 401, origin=None)
        assert_problem(await ask(stack, "GET", f"/v1/predictions/{ticket}"), 404, origin=None)
        assert_problem(await ask(stack, "POST", f"/v1/streams/{ticket}"), 405, origin=None)


@asynccontextmanager
async def all_that_is_said(log_scanner: LogScanner) -> AsyncIterator[io.StringIO]:
    """Collect what is logged at the lowest level, as it is before it is struck through, and by asyncio's debugging."""
    said = io.StringIO()
    handler = logging.StreamHandler(said)
    handler.setFormatter(logging.Formatter("%(name)s %(message)s %(args)s"))

    class Everything(logging.Filter):
        def filter(self, record: logging.LogRecord) -> bool:
            said.write(f"{vars(record)}\n")
            return True

    handler.addFilter(Everything())
    root, loop = logging.getLogger(), asyncio.get_running_loop()
    root.addHandler(handler)
    loop.set_debug(True)
    try:
        yield said
    finally:
        loop.set_debug(False)
        root.removeHandler(handler)


async def test_ticket_appears_only_in_its_callers_responses(
    open_gateway: OpenGateway, log_scanner: LogScanner, secret_scanner: SecretScanner
):
    """Whatever happens to the stream: no log of any level, no metric, header, file or upstream request has it."""
    async with open_gateway(teams=PAGES, streams={"max_per_team": 1}) as stack, all_that_is_said(log_scanner) as said:
        slow = await stream_of(stack, "alpha", duration=600)
        bound = await stream_of(stack, await token_for(stack, PAGE), PAGE, seed=8)
        for number, url in enumerate((slow, bound)):
            # From here on every answer, log line, metric, file and upstream request is searched for it.
            secret_scanner.add(f"ticket {number}", url.rpartition("/")[2])
        path = slow.removeprefix(stack.origin)
        async with aiohttp.ClientSession() as session:
            async with session.get(URL(slow), headers={"Origin": PAGE, "Referer": PAGE + "/secret"}) as response:
                secret_scanner.scan("headers", str(response.headers).encode())
                await response.content.readany()
                assert (await read(stack, slow, PAGE)).status == 429
                assert (await read(stack, bound, STRANGER)).status == 404
            await until(lambda: said.getvalue().count("'streams.read'") == 3)
        for odd in (f"{path}/", f"{path}x", f"{path}?last_event_id={path[-52:]}", path.replace("/v1/", "//v1/"),
                    path.replace("streams", "streams/.."), path.upper(), f"/{path}", path + "%00"):  # fmt: skip
            for method in ("GET", "POST", "QUERY", "OPTIONS"):
                if method == "GET" and "?" in odd:
                    continue
                await send_raw(stack, raw_request(method, odd))
        await send_raw(stack, raw_request("GET", path + "\x01"))
        await send_raw(stack, raw_request("GET", path, [("Content-Length", "x")]))
        await metrics_of(stack)
    for ticket in (slow[-52:], bound[-52:]):
        assert ticket not in said.getvalue()


def test_tickets_in_foreign_log_messages_are_redacted():
    """A library that logs a whole URL, a traceback that quotes one: neither contains the ticket."""
    stream, ticket = io.StringIO(), "abcdefghijklmnopqrstuvwxyz234567abcdefghijklmnopqrst"
    handler = logs.Handler(DirectSink(stream), logs.Redactor(), formats.console)
    logger = logging.Logger("library")  # noqa: LOG001 - one of its own, which nobody else hears
    logger.addHandler(handler)
    for shown in (f"http://g.example/v1/streams/{ticket}", f"GET /v1/files/rgws-{ticket} HTTP/1.1", f"ticket={ticket}"):
        logger.warning("asked for %s", shown, extra={"url": shown})
        try:
            raise ValueError(shown)
        except ValueError:
            logger.exception("failed")
    assert ticket not in stream.getvalue()
    assert stream.getvalue().count("[redacted]") >= 6
