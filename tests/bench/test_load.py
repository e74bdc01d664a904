"""The load generator: where responses end, what it counts, and what it refuses."""

import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.load import LoadError, http_request, load, response_end, same

LENGTH = b"HTTP/1.1 200 OK\r\ncontent-length:  3\r\nX: y\r\n\r\nabc"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nA;x=y\r\n0\r\n\r\n34567\r\n0\r\n\r\n"
BARE = b"HTTP/1.1 204 No Content\r\n\r\n"


@pytest.mark.parametrize("response", [LENGTH, CHUNKED, BARE])
@pytest.mark.parametrize("trailing", [b"", b"HTTP/1.1 200 OK\r\n\r\n"])
def test_a_response_ends_with_its_body_whatever_follows(response: bytes, trailing: bytes):
    for at in range(len(response)):
        assert response_end(response[:at]) == -1
    assert response_end(response + trailing) == len(response)


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=5))
def test_a_chunked_response_ends_with_its_last_chunk(chunks: list[bytes]):
    body = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
    response = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + body + b"0\r\n\r\n"
    assert response_end(response + b"next") == len(response)
    assert response_end(response[:-1]) == -1


def test_a_request_has_a_length_if_it_has_a_body():
    assert http_request("http://h:1/a?b=c", {"K": "v"}) == b"GET /a?b=c HTTP/1.1\r\nHost: h:1\r\nK: v\r\n\r\n"
    assert http_request("http://h:1/a", {}, b"xy") == b"POST /a HTTP/1.1\r\nHost: h:1\r\nContent-Length: 2\r\n\r\nxy"


@contextmanager
def answering(*responses: bytes) -> Iterator[str]:
    """Serve, on each connection, these responses one after another, again and again."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            number = 0
            while self.request.recv(65536):
                if not (response := responses[number % len(responses)]):
                    return
                self.request.sendall(response)
                number += 1

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def test_journeys_are_counted_and_first_requests_are_timed():
    """A create with two reads is one journey, of which the create is timed."""
    seen = []

    def journey():
        seen.append((yield b"first"))
        seen.append((yield b"second"))

    with answering(LENGTH, CHUNKED) as origin:
        done = load(origin, journey, seconds=0.05, connections=2)
    assert done.journeys == len(done.first) == len(seen) / 2
    assert done.in_time <= done.journeys <= done.in_time + 2
    assert set(seen) == {LENGTH, CHUNKED}
    assert done.percentile(0.5) <= done.percentile(0.99) <= done.percentile(1)


@pytest.mark.parametrize(
    ("response", "complaint"),
    [
        (b"HTTP/1.1 429 Too Many\r\ncontent-length: 4\r\n\r\nslow", "429 Too Many"),
        (b"", "closed the connection"),
        (LENGTH + BARE, "more than it was asked for"),
    ],
)
def test_an_error_is_not_counted_as_an_answer(response: bytes, complaint: str):
    """A server that refuses quickly must not look fast."""
    with answering(response) as origin, pytest.raises(LoadError, match=complaint):
        load(origin, same(b"request"), seconds=0.05, connections=1)
