"""Requests to a gateway: through an HTTP client, or as raw bytes through a socket.

Every response is scanned for the secrets of the running test (see `secret_scanner.py`).
"""

import asyncio
import contextlib
import json as jsonlib
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from io import BytesIO
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from tests.support.polling import SECONDS, attempts
from tests.support.secret_scanner import SCANNER
from tests.support.stack import Stack

PAGE = "https://app.example.com"
"""An origin that team alpha lists in the whole-gateway tests."""
STRANGER = "https://evil.example.net"
PATIENCE = SECONDS

Headers = Mapping[str, str] | Iterable[tuple[str, str]]


@dataclass(frozen=True)
class Reply:
    """A response with its body."""

    status: int
    headers: CIMultiDict[str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode("utf-8", "replace")

    @property
    def json(self) -> Any:
        return jsonlib.loads(self.body)

    @property
    def settled(self) -> tuple[int, list[tuple[str, str]], bytes]:
        """Everything but the request's id, the date and the timing, to compare two responses."""
        changing = ("x-request-id", "date", "server-timing")
        headers = [(name.lower(), value) for name, value in self.headers.items() if name.lower() not in changing]
        # A problem document repeats the request's id.
        body = self.body.replace(self.headers.get("X-Request-Id", "-").encode(), b"")
        return self.status, sorted(headers), body


async def ask(
    stack: Stack,
    method: str,
    path: str,
    *,
    key: str | None = "alpha",
    headers: Headers = (),
    json: Any = None,
    data: Any = None,
    base: str | None = None,
) -> Reply:
    """Send one request and read the response. `path` is sent as spelled; `key` is a team's name, or a key."""
    sent = CIMultiDict(headers.items() if isinstance(headers, Mapping) else headers)
    if key is not None and "Authorization" not in sent:
        sent["Authorization"] = f"Bearer {stack.keys.get(key, key)}"
    if json is not None:
        data, sent["Content-Type"] = jsonlib.dumps(json).encode(), "application/json"
    if isinstance(data, bytes):
        data = BytesIO(data)
    url = path if "://" in path else (base or stack.origin) + path
    timeout = aiohttp.ClientTimeout(total=SECONDS)
    async with (
        aiohttp.ClientSession(timeout=timeout, auto_decompress=False) as session,
        session.request(
            method,
            URL(url, encoded=True),
            headers=sent,
            data=data,
            allow_redirects=False,
            skip_auto_headers=("Accept-Encoding", "User-Agent", "Content-Type"),
        ) as response,
    ):
        reply = Reply(response.status, CIMultiDict(response.headers), await response.read())
    SCANNER.scan_reply(reply.status, reply.headers.items(), reply.body)
    return reply


def raw_request(
    method: str,
    target: str | bytes,
    headers: Iterable[tuple[str | bytes, str | bytes]] = (),
    body: bytes | None = None,
    *,
    host: str | None = "gateway.test",
    key: str | None = None,
    origin: str | None = PAGE,
    version: str = "1.1",
) -> bytes:
    """Return a request as bytes; `body` adds its Content-Length."""
    lines: list[bytes] = [b"%b %b HTTP/%b" % (method.encode(), _bytes(target), version.encode())]
    if host is not None:
        lines.append(b"Host: " + host.encode())
    if key is not None:
        lines.append(b"Authorization: Bearer " + key.encode())
    if origin is not None:
        lines.append(b"Origin: " + origin.encode())
    lines.append(b"Connection: close")
    lines += [_bytes(name) + b": " + _bytes(value) for name, value in headers]
    if body is not None:
        lines.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join(lines) + b"\r\n\r\n" + (body or b"")


def _bytes(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape")


@asynccontextmanager
async def connection(stack: Stack) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Open a connection, and close it."""
    parts = urlsplit(stack.origin)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    try:
        yield reader, writer
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


async def exchange(stack: Stack, data: bytes | Iterable[bytes], *, patience: float | None = None) -> bytes:
    """Send bytes, and read until the connection closes.

    With `patience` (seconds), a connection that stays open longer is no failure: what was received is returned.
    """
    parts = urlsplit(stack.origin)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    received = bytearray()
    try:
        async with asyncio.timeout(patience or PATIENCE):
            with contextlib.suppress(ConnectionError):
                for piece in [data] if isinstance(data, bytes) else data:
                    writer.write(piece)
                    await writer.drain()
            with contextlib.suppress(ConnectionError):
                while piece := await reader.read(65536):
                    received += piece
    except TimeoutError:
        if patience is None:
            raise
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
    SCANNER.scan("an answer", bytes(received))
    return bytes(received)


async def send_raw(stack: Stack, data: bytes | Iterable[bytes]) -> Reply:
    """Send bytes and read one response."""
    return parse(await exchange(stack, data))


async def hang_up_after(stack: Stack, data: bytes) -> None:
    """Send a part of a request, then close the connection."""
    parts = urlsplit(stack.origin)
    _, writer = await asyncio.open_connection(parts.hostname, parts.port)
    writer.write(data)
    await writer.drain()
    # The gateway is to read the part first, and then to notice the end; nothing outside shows that it has.
    await asyncio.sleep(0.05)
    writer.close()
    await writer.wait_closed()
    await asyncio.sleep(0.05)


def parse(received: bytes, *, whole: bool = True) -> Reply:
    """Parse a response; fail if it is none, or if its body is truncated and should be `whole`."""
    head, found, body = received.partition(b"\r\n\r\n")
    assert found, f"no answer: {received[:200]!r}"
    lines = head.decode("latin-1").split("\r\n")
    fields = (line.partition(": ") for line in lines[1:])
    headers = CIMultiDict((name, value) for name, found, value in fields if found)
    if not whole:
        return Reply(int(lines[0].split(" ")[1]), headers, body)
    if headers.get("Transfer-Encoding", "").lower() == "chunked":
        body = _dechunk(body)
    elif "Content-Length" in headers:
        body = body[: int(headers["Content-Length"])]
    return Reply(int(lines[0].split(" ")[1]), headers, body)


def _dechunk(body: bytes) -> bytes:
    whole = b""
    while body:
        size, _, body = body.partition(b"\r\n")
        length = int(size.split(b";")[0], 16)
        if not length:
            return whole
        whole, body = whole + body[:length], body[length + 2 :]
    raise AssertionError("a chunked answer was cut off")


def assert_problem(reply: Reply, status: int, *, origin: str | None = PAGE) -> dict[str, Any]:
    """Fail unless the response is a problem document of this status, readable by the page that asked."""
    assert reply.status == status, f"{reply.status} instead of {status}: {reply.text[:300]}"
    assert reply.headers["Content-Type"].split(";")[0] == "application/problem+json", reply.headers
    problem: dict[str, Any] = reply.json
    assert problem["status"] == status
    assert problem["title"]
    assert isinstance(problem["detail"], str)
    assert problem["detail"]
    assert reply.headers["X-Request-Id"]
    assert reply.headers["Server"] == "replicate-gateway"
    assert "Traceback" not in reply.text
    if origin is not None:
        assert reply.headers["Access-Control-Allow-Origin"] == origin
        assert "Origin" in reply.headers["Vary"]
    return problem


async def metrics_of(stack: Stack) -> str:
    """Read the metrics page."""
    async with aiohttp.ClientSession() as session, session.get(f"{stack.ops_url}/metrics") as response:
        return await response.text()


async def until_polled(stack: Stack, times: int = 1) -> None:
    """Wait until the gateway has answered so many more polls of predictions."""
    before = await _polls(stack)
    async for _ in attempts(pause=0.05):
        if await _polls(stack) >= before + times:
            return


async def _polls(stack: Stack) -> float:
    start = 'replicate_gateway_polls_total{served_by="gateway"} '
    lines = (await metrics_of(stack)).splitlines()
    return sum(float(line.removeprefix(start)) for line in lines if line.startswith(start))


async def until_metric(stack: Stack, text: str) -> None:
    """Wait until the metrics page contains a text."""
    async for _ in attempts():
        if text in await metrics_of(stack):
            return
