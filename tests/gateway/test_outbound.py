"""The upstream client alone, over real sockets: deadlines, which at their true length no test can wait for."""

import asyncio
import gzip
import time

import pytest

from gateway.errors import UpstreamBroken, UpstreamTimeout, UpstreamUnavailable, UpstreamUncertain, UpstreamUnreadable
from gateway.simulator import Fault, Simulator
from gateway.upstream.breaker import BreakerState
from gateway.upstream.hosts import is_trusted
from gateway.upstream.pools import new_session
from gateway.upstream.streams import StreamReader, StreamReaderSettings
from tests.support.observer import RecordingObserver
from tests.support.polling import until
from tests.support.raw_server import answer, raw_server
from tests.support.upstream_client import SHORT, client_of


@pytest.mark.parametrize("fault", ["delay", "delay_headers", "slow_body"])
async def test_create_that_times_out_is_uncertain_and_sent_once(upstream: Simulator, fault: str):
    """A response that does not arrive in time does not mean that nothing was created."""
    upstream.faults.set(Fault(fault, seconds=600))
    async with client_of(upstream.base_url, upstream.token, read_seconds=SHORT) as (client, notes):
        with pytest.raises((UpstreamUncertain, UpstreamBroken)):
            await client.send("models.create", "POST", "/models", b"{}")
        assert notes.outcomes == ["timeout"]
        assert upstream.requests.count("models.create") <= 1


async def test_read_that_times_out_is_tried_three_times(upstream: Simulator):
    """A read may be repeated; then it is a 504 within a bounded time."""
    upstream.faults.set(Fault("delay", seconds=600))
    async with client_of(upstream.base_url, upstream.token, read_seconds=SHORT) as (client, notes):
        with pytest.raises(UpstreamTimeout):
            await client.read("hardware.list", "/hardware")
        assert notes.outcomes == ["timeout"] * 3


async def test_oversized_response_is_cut_at_its_limit():
    """Gigabytes from upstream do not fill the gateway's memory."""
    endless = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n" + b"x" * 300_000
    async with raw_server(endless) as source, client_of(source.url, max_answer_bytes=100_000) as (client, _):
        with pytest.raises(UpstreamBroken, match="larger"):
            await client.read("models.list", "/models")


async def test_gzip_bomb_is_cut_at_its_limit():
    """Compressed gigabytes do not either."""
    packed = gzip.compress(b" " * 50_000_000)
    async with (
        raw_server(answer(packed, Content_Encoding="gzip", Connection="close")) as source,
        client_of(source.url, max_answer_bytes=100_000) as (client, _),
    ):
        with pytest.raises(UpstreamBroken, match="larger"):
            await client.read("models.list", "/models")


async def test_refused_connection_is_unavailable_not_uncertain():
    """Nothing was sent, so the create may be repeated."""
    async with client_of("http://127.0.0.1:9/v1") as (client, notes):
        for _ in range(10):
            with pytest.raises(UpstreamUnavailable):
                await client.send("models.create", "POST", "/models", b"{}")
        assert client.breaker.state(time.monotonic()) is BreakerState.OPEN
        assert set(notes.outcomes) == {"unreachable"}


async def test_cancelled_calls_free_their_connections(upstream: Simulator):
    """Callers who give up do not fill the pool and do not count as upstream's failures."""
    upstream.faults.set(Fault("delay", operation="models.list", seconds=600))
    async with client_of(upstream.base_url, upstream.token) as (client, notes):
        calls = [asyncio.create_task(client.read("models.list", "/models")) for _ in range(10)]
        await until(lambda: upstream.requests.count("models.list") == 10)
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        upstream.faults.clear()
        assert (await client.read("hardware.list", "/hardware")).status == 200
        assert notes.outcomes.count("abandoned") == 10
        assert client.breaker.state(time.monotonic()) is BreakerState.CLOSED


async def test_silent_stream_is_closed(upstream: Simulator):
    """Silence for longer than upstream itself allows means that the stream is dead."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n: hi\n\n"

    async def silent(_: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(head)
        await asyncio.Event().wait()

    async with raw_server(silent) as source, new_session(5) as session:
        settings = StreamReaderSettings(base_url=source.url, trusted_hosts=(), idle_seconds=SHORT)
        reader = StreamReader(session, settings, RecordingObserver())

        async def read() -> None:
            async with reader.open(source.url + "/v1/streams/x") as chunks:
                async for chunk in chunks:
                    assert chunk == b": hi\n\n"

        with pytest.raises(UpstreamTimeout):
            await read()


async def test_redirect_is_no_answer_and_is_not_asked_for_again():
    """A run whose reads are redirected cannot be read: it is as if its document were no JSON."""
    async with (
        raw_server(answer(b"", status="307 Temporary Redirect", Location="https://elsewhere.invalid/")) as source,
        client_of(source.url) as (client, notes),
    ):
        with pytest.raises(UpstreamUnreadable, match="redirect"):
            await client.read("predictions.get", "/predictions/x")
        assert notes.outcomes == ["307"]


@pytest.mark.parametrize("before", [0, 1, 65_000, 200_000])
@pytest.mark.parametrize("spelled", ["r8_secret", r"r8\u005fsecret"], ids=["plain", "escaped"])
async def test_download_with_the_accounts_token_is_cut_before_it(before: int, spelled: str):
    """A debugging proxy that echoes the request does not show the token to whoever downloads a file."""
    body = b"x" * before + spelled.encode() + b"x" * 100_000
    async with (
        raw_server(answer(body, content_type="text/plain", Connection="close")) as source,
        client_of(source.url, "r8_secret") as (client, _),
    ):
        got = bytearray()

        async def download() -> None:
            async with client.download("files.download", "/files/x/download") as opened:
                async for chunk in opened.chunks:
                    got.extend(chunk)

        with pytest.raises(UpstreamUnreadable, match="credentials"):
            await download()
        assert b"x" * len(got) == got


@pytest.mark.parametrize("size", [0, 1, 53, 54, 55, 300_000])
async def test_download_arrives_whole(size: int):
    """Its end, which is held back until it is known to be one, too."""
    body = bytes(number % 251 for number in range(size))
    async with (
        raw_server(answer(body, content_type="text/plain", Connection="close")) as source,
        client_of(source.url, "r8_secret") as (client, _),
        client.download("files.download", "/files/x/download") as download,
    ):
        assert b"".join([chunk async for chunk in download.chunks]) == body


async def test_stream_redirect_is_not_followed():
    """Even to a host that would answer: a trusted host cannot make another one trusted."""
    stream = answer(b"event: done\nid: 1:0\ndata: {}\n\n", content_type="text/event-stream")
    async with raw_server(stream) as elsewhere:
        to = answer(b"", status="307 Temporary Redirect", Location=elsewhere.url + "/v1/streams/x")
        async with raw_server(to) as source, new_session(5) as session:
            notes = RecordingObserver()
            reader = StreamReader(session, StreamReaderSettings(base_url=source.url, trusted_hosts=()), notes)
            with pytest.raises(UpstreamBroken):
                async with reader.open(source.url + "/v1/streams/x"):
                    raise AssertionError
            assert notes.outcomes == ["307"]
        assert elsewhere.heads == []


BASE = "https://api.replicate.com/v1"
TRUSTED = ("*.replicate.com", "*.replicate.net", "replicate.delivery", "*.replicate.delivery")


@pytest.mark.parametrize(
    ("url", "trusted"),
    [
        ("https://stream.replicate.com/v1/streams/x", True),
        ("https://stream-b.svc.ric1.c.replicate.net/v1/streams/x", True),
        ("https://api.replicate.com:8443/x", True),
        ("https://STREAM.replicate.COM/x", True),
        ("http://stream.replicate.com/x", False),
        ("https://replicate.com.evil.net/x", False),
        ("https://evilreplicate.com/x", False),
        ("https://evil.net/?x=.replicate.com", False),
        ("https://evil.net/.replicate.com", False),
        ("https://stream.replicate.com@evil.net/x", False),
        ("https://evil.net#.replicate.com", False),
        ("https://evil.net\\.replicate.com/x", False),
        ("https://evil.net%2f.replicate.com/x", False),
        ("https://127.0.0.1/x", False),
        ("https://[::1]/x", False),
        ("file:///etc/passwd", False),
        ("ftp://stream.replicate.com/x", False),
        ("//stream.replicate.com/x", False),
        ("https:///x", False),
        ("https://[::1", False),
        ("", False),
    ],
)
def test_only_listed_hosts_are_trusted(url: str, trusted: bool):
    """No spelling of a URL makes the gateway fetch from another host."""
    assert is_trusted(url, BASE, TRUSTED) is trusted
