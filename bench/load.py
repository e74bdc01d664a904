"""Load generator: keep-alive connections in one process, one request in flight on each.

What a connection sends is a *journey*: a generator that yields requests and gets responses. When it ends, a new one
begins. Sockets and a selector instead of an HTTP client, so that the generator needs a fraction of the CPU of the
servers that it measures. `Load.own_cpu` is its share of a core: near 1, the generator is the limit and not the server.
"""

import re
import selectors
import socket
import time
from array import array
from collections.abc import Callable, Generator, Mapping
from typing import NamedTuple
from urllib.parse import urlsplit

Journey = Callable[[], Generator[bytes, bytes, None]]

_SILENCE_SECONDS = 20.0
_BLOCK = 65536
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding: *chunked", re.IGNORECASE)


class LoadError(Exception):
    """A server answered with an error, closed a connection or did not answer."""


class Load(NamedTuple):
    """What was sent in one round."""

    journeys: int
    """Completed journeys, those included that ended after the time was over."""
    in_time: int
    """Journeys that ended within the time."""
    seconds: float
    elapsed: float
    """The time until the last answer."""
    first: array
    """Seconds that the first request of each journey took, sorted."""
    own_cpu: float
    """The generator's own share of a core."""

    @property
    def per_second(self) -> float:
        """Journeys per second."""
        return self.in_time / self.seconds

    def percentile(self, share: float) -> float:
        """Return a percentile of the first requests' latency, in milliseconds."""
        return self.first[min(len(self.first) - 1, int(len(self.first) * share))] * 1000


def http_request(url: str, headers: Mapping[str, str], body: bytes | None = None) -> bytes:
    """Encode a request: POST with a body, else GET."""
    parts = urlsplit(url)
    method = "GET" if body is None else "POST"
    path = parts.path + (f"?{parts.query}" if parts.query else "")
    lines = [f"{method} {path} HTTP/1.1", f"Host: {parts.netloc}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + (body or b"")


def same(request: bytes) -> Journey:
    """Return a journey of one request, always the same."""

    def journey() -> Generator[bytes, bytes, None]:
        yield request

    return journey


def response_end(data: bytes | bytearray) -> int:
    """Return where the first response of the data ends, or -1 if it is not complete."""
    head = data.find(b"\r\n\r\n")
    if head < 0:
        return -1
    body = head + 4
    if (length := _LENGTH.search(data, 0, body)) is not None:
        body += int(length[1])
        return body if len(data) >= body else -1
    if _CHUNKED.search(data, 0, body) is not None:
        return _last_chunk_end(data, body)
    return body


def _last_chunk_end(data: bytes | bytearray, at: int) -> int:
    while (line := data.find(b"\r\n", at)) >= 0:
        size = int(data[at:line].partition(b";")[0], 16)
        at = line + 2 + size + 2
        if len(data) < at:
            return -1
        if size == 0:
            return at
    return -1


class _Connection:
    """A connection and its journey."""

    __slots__ = ("_buffer", "_journey", "_steps", "is_first", "sent_at", "socket")

    def __init__(self, address: tuple[str, int], journey: Journey) -> None:
        self.socket = socket.create_connection(address)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self._journey = journey
        self._steps = journey()
        self._buffer = bytearray()
        self.is_first = True
        self.sent_at = 0.0

    def begin(self) -> None:
        """Begin a journey."""
        self._steps = self._journey()
        self.is_first = True
        self._send(next(self._steps))

    def go_on(self, response: bytes) -> bool:
        """Send the next request; return false if the journey is over."""
        try:
            request = self._steps.send(response)
        except StopIteration:
            return False
        self.is_first = False
        self._send(request)
        return True

    def receive(self) -> bytes | None:
        """Return a complete response, or `None` while some of it is missing."""
        data = self.socket.recv(_BLOCK)
        if not data:
            raise LoadError(f"the server closed the connection; received: {bytes(self._buffer[:200])!r}")
        if self._buffer:
            self._buffer += data
            data = bytes(self._buffer)
        end = response_end(data)
        if end < 0:
            if not self._buffer:
                self._buffer += data
            return None
        if end != len(data):
            raise LoadError(f"the server sent more than it was asked for: {data[end : end + 200]!r}")
        self._buffer.clear()
        if not data.startswith(b"HTTP/1.1 2"):
            raise LoadError(f"no success: {data[:600].decode(errors='replace')}")
        return data

    def _send(self, request: bytes) -> None:
        self.sent_at = time.perf_counter()
        if self.socket.send(request) != len(request):
            raise LoadError("a request does not fit into the socket's buffer")


def load(origin: str, journey: Journey, *, seconds: float, connections: int) -> Load:
    """Send journeys for a time; then let those in progress end.

    Raises:
        LoadError: a response is no success, or a server closes a connection or is silent.
    """
    parts = urlsplit(origin)
    opened = [_Connection((parts.hostname or "", parts.port or 80), journey) for _ in range(connections)]
    try:
        with selectors.DefaultSelector() as selector:
            for connection in opened:
                selector.register(connection.socket, selectors.EVENT_READ, connection)
            return _drive(selector, opened, seconds)
    finally:
        for connection in opened:
            connection.socket.close()


def _drive(selector: selectors.BaseSelector, opened: list[_Connection], seconds: float) -> Load:
    clock, cpu = time.perf_counter, time.process_time()
    first, journeys, in_time, active = array("d"), 0, 0, len(opened)
    began = clock()
    until = began + seconds
    for connection in opened:
        connection.begin()
    while active:
        ready = selector.select(_SILENCE_SECONDS)
        if not ready:
            raise LoadError(f"no answer for {_SILENCE_SECONDS:g} seconds")
        for key, _ in ready:
            connection = key.data
            response = connection.receive()
            if response is None:
                continue
            now = clock()
            if connection.is_first:
                first.append(now - connection.sent_at)
            if connection.go_on(response):
                continue
            journeys += 1
            if now < until:
                in_time += 1
                connection.begin()
            else:
                active -= 1
    elapsed = clock() - began
    return Load(journeys, in_time, seconds, elapsed, array("d", sorted(first)), (time.process_time() - cpu) / elapsed)
