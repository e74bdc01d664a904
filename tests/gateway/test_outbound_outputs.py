"""The fetcher of output files alone, over real sockets: what it sends, whom it asks, and when it gives up."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from gateway.outputs.ports import NotCopied
from gateway.upstream.outputs import FetchSettings, OutputFetcher
from gateway.upstream.pools import new_session
from gateway.upstream.ssrf_guard import guarded_connector
from tests.support.raw_server import answer, raw_server

SHORT = 0.15
OTHER_PORT = "http://127.0.0.1:1/v1"


class Heard:
    """Remembers how fetches ended."""

    def __init__(self) -> None:
        self.outcomes: list[str] = []

    def upstream_answered(self, operation: str, outcome: str, seconds: float) -> None:
        assert operation == "outputs.get"
        self.outcomes.append(outcome)


@asynccontextmanager
async def fetcher(
    heard: Heard | None = None, *, monotonic: Callable[[], float] = lambda: 0.0, **more: Any
) -> AsyncIterator[OutputFetcher]:
    settings = FetchSettings(**({"base_url": OTHER_PORT, "trusted_hosts": ()} | more))
    connector = guarded_connector(allow_private=False, max_connections=2)
    async with new_session(2) as plain, aiohttp.ClientSession(connector=connector, trust_env=False) as guarded:
        yield OutputFetcher(guarded, plain, settings, heard or Heard(), monotonic=monotonic)


async def fetch(outputs: OutputFetcher, url: str) -> tuple[str, int | None, bytes]:
    async with outputs.open(url) as fetched:
        return fetched.content_type, fetched.size, b"".join([chunk async for chunk in fetched.chunks])


async def failure(url: str, **settings: Any) -> NotCopied:
    async with fetcher(**settings) as outputs:
        with pytest.raises(NotCopied) as caught:
            await fetch(outputs, url)
    return caught.value


async def test_output_is_requested_without_credentials_and_encoding():
    """No token, no cookie, no content encoding; the path as upstream spelled it."""
    heard = Heard()
    async with (
        raw_server(answer(b"picture", content_type="image/png", Connection="close")) as host,
        fetcher(heard) as outputs,
    ):
        url = f"{host.url}/a%2Fb/out%20é.png?sig=%2B%2f#x"
        assert await fetch(outputs, url) == ("image/png", 7, b"picture")
        assert await fetch(outputs, f"{host.url}/a%2Fb?sig=%2B%2f") == ("image/png", 7, b"picture")
    heads = [head.decode().lower() for head in host.heads]
    assert heads[1].startswith("get /a%2fb?sig=%2b%2f http/1.1\r\n")
    for head in heads:
        assert "authorization" not in head
        assert "cookie" not in head
        assert "accept-encoding: identity\r\n" in head
    assert heard.outcomes == ["200", "200"]


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "307 Temporary Redirect", "308 Permanent Redirect"])
async def test_output_redirect_is_not_followed(status: str):
    """It could lead into a private network."""
    async with raw_server(b"") as elsewhere:
        async with raw_server(answer(b"", status=status, Location=f"{elsewhere.url}/secret")) as host:
            assert (await failure(f"{host.url}/a.png")).reason == "refused"
        assert elsewhere.heads == []


@pytest.mark.parametrize("status", ["206 Partial Content", "403 Forbidden", "404 Not Found", "500 Oh"])
async def test_only_a_complete_200_is_an_output(status: str):
    """An error page must not be stored as a caller's picture."""
    async with raw_server(answer(b"<html>", status=status)) as host:
        error = await failure(f"{host.url}/a.png")
    assert (error.reason, error.is_final) == ("refused", False)


async def test_truncated_output_is_a_failure():
    """A file that ends early is not stored."""
    async with raw_server(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\npic") as host:
        assert (await failure(f"{host.url}/a.png")).reason == "broken"
    async with raw_server(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\npictu") as host:
        assert (await failure(f"{host.url}/a.png")).reason == "broken"
    async with raw_server(b"nonsense\r\n\r\n") as host:
        assert (await failure(f"{host.url}/a.png")).reason == "broken"


async def test_silent_output_host_is_given_up():
    """A host that sends nothing does not hold a worker."""

    async def silent(_: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\npic")
        await asyncio.Event().wait()

    async with raw_server(silent) as host:
        assert (await failure(f"{host.url}/a.png", idle_seconds=SHORT)).reason == "unreachable"
    assert (await failure(f"{host.url}/a.png")).reason == "unreachable"


async def test_slow_output_hits_the_total_deadline():
    """A host that never stops and never finishes is given up in the end."""

    async def dribble(_: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
        while True:
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(SHORT / 4)

    async with raw_server(dribble) as host:
        assert (await failure(f"{host.url}/a.png", transfer_seconds=SHORT)).reason == "unreachable"


async def test_slow_output_gives_way_to_others():
    """After half a minute with next to nothing received, others go first and this one is tried again."""
    minutes = itertools.count(step=31.0)

    async def trickle(_: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + bytes(1000))
        await writer.drain()
        await asyncio.Event().wait()

    async with raw_server(trickle) as host, fetcher(monotonic=lambda: next(minutes)) as outputs:
        with pytest.raises(NotCopied, match="too slow") as caught:
            await fetch(outputs, f"{host.url}/a.png")
    assert (caught.value.reason, caught.value.is_final) == ("unreachable", False)


async def test_trusted_host_names_resolve_to_public_addresses_only():
    """Every resolved address is checked; only the API's own host may be private."""
    async with raw_server(answer(b"secret")) as host:
        port = host.url.rpartition(":")[2]
        for name in ("localhost", "127.0.0.2", "169.254.169.254", "[::1]"):
            error = await failure(f"https://{name}:{port}/a.png", trusted_hosts=(name.strip("[]"),))
            assert error.reason == "untrusted", name
        assert host.heads == []


@pytest.mark.parametrize("url", ["https://evil.example/a.png", "http://127.0.0.1:1/v1/account", "file:///etc/passwd"])
async def test_url_that_is_no_output_is_not_fetched(url: str):
    """Other schemes, ports and hosts are refused before any request."""
    error = await failure(url)
    assert (error.reason, error.is_final) == ("untrusted", True)
