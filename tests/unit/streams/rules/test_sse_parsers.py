"""Streams as the parsers of clients read them: equal to ours, but where they are known to differ."""

import base64
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator

import httpx
import httpx_sse
import pytest
import replicate  # noqa: F401  its module `stream` is hidden behind a function of that name
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.node import CLIENTS, install_clients
from tests.support.sse_streams import (
    BOM,
    CUTS,
    LINE_ENDS,
    RECORDED,
    RECORDED_EVENTS,
    STREAMS,
    Said,
    cut,
    said,
    split,
)
from tests.support.tools import absent, clean_environment, require_tool

TEXTS = st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), max_size=8)
WIRE_NAMES = st.sampled_from(["output", "logs", "error", "done"])


@st.composite
def tame_streams(draw: st.DrawFn) -> bytes:
    """Streams as Replicate's: each event has a name, an id and data; comments between them; any one line end."""
    end = draw(st.sampled_from(["\n", "\r\n", "\r"]))
    blocks = []
    for number in range(draw(st.integers(0, 6))):
        if draw(st.integers(0, 3)) == 0:
            blocks.append(f":{draw(TEXTS)}")
            continue
        data = [
            f"data:{draw(st.sampled_from(['', ' ']))}{text}" for text in draw(st.lists(TEXTS, min_size=1, max_size=3))
        ]
        blocks.append(end.join([f"event: {draw(WIRE_NAMES)}", f"id: 1698774369:{number}", *data]))
    return "".join(block + end + end for block in blocks).encode()


class _Chunks(httpx.SyncByteStream):
    def __init__(self, chunks: list[bytes]) -> None:
        self._chunks = chunks

    def __iter__(self) -> Iterator[bytes]:
        yield from self._chunks


def by_httpx_sse(chunks: list[bytes]) -> list[Said]:
    response = httpx.Response(
        200,
        headers={"Content-Type": "text/event-stream; charset=utf-8"},
        stream=_Chunks([each for each in chunks if each]),
    )
    return [(event.event, event.id, event.data) for event in httpx_sse.EventSource(response).iter_sse()]


@given(tame_streams(), CUTS)
@settings(max_examples=300, deadline=None)
def test_httpx_sse_parses_the_same(stream: bytes, places: list[int]):
    """Names, ids and data of every stream that is like Replicate's."""
    theirs = [event for event in by_httpx_sse(cut(stream, places)) if event[0] != "message"]
    assert said(split(cut(stream, places))[0]) == theirs


def test_httpx_sse_parses_the_recorded_stream_the_same():
    """And so does a client built on it."""
    assert [event for event in by_httpx_sse([RECORDED]) if event[0] != "message"] == RECORDED_EVENTS


def test_httpx_sse_differs_where_it_is_known_to():
    """Should it change, the compared streams can be widened."""
    assert by_httpx_sse([BOM + b"data: a\n\n"]) == []
    assert by_httpx_sse([b"id: 1\n\n: hi\n\n"]) == [("message", "1", "")] * 2


Judge = Callable[[list[bytes]], list[Said]]


@pytest.fixture(scope="session")
def by_eventsource_parser() -> Iterator[Judge]:
    """One Node process for as many streams as a test likes."""
    node = require_tool("node")
    require_tool("npm")
    if reason := install_clients():
        absent(reason)
    with subprocess.Popen(
        [node, str(CLIENTS / "oracle.mjs")],
        cwd=CLIENTS,
        env=clean_environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        asked, answers = process.stdin, process.stdout

        def judge(chunks: list[bytes]) -> list[Said]:
            asked.write(json.dumps([base64.b64encode(chunk).decode() for chunk in chunks]) + "\n")
            asked.flush()
            return [(name, event_id, data) for name, event_id, data in json.loads(answers.readline())]

        yield judge


@pytest.mark.node
@pytest.mark.timeout(300)  # the first test of a run may have to install the package
def test_eventsource_parser_parses_the_recorded_stream_the_same(by_eventsource_parser: Judge):
    """The parser inside most JavaScript clients, with every line end, whole and byte by byte."""
    for end in LINE_ENDS.values():
        stream = RECORDED.replace(b"\n", end)
        assert by_eventsource_parser([stream]) == RECORDED_EVENTS
        assert by_eventsource_parser([bytes([byte]) for byte in stream]) == RECORDED_EVENTS


@pytest.mark.node
@pytest.mark.timeout(300)
def test_eventsource_parser_parses_the_same(by_eventsource_parser: Judge):
    """Any bytes, cut anywhere, broken ones too."""

    @given(STREAMS | tame_streams(), CUTS)
    @settings(max_examples=1000, deadline=None)
    def check(stream: bytes, places: list[int]) -> None:
        chunks = cut(stream, places)
        assert said(split(chunks)[0]) == by_eventsource_parser(chunks)

    check()


@given(tame_streams())
@settings(max_examples=200, deadline=None)
def test_python_client_parses_the_same(stream: bytes):
    """Replicate's own decoder, fed line by line as its `stream()` does."""
    decoder = sys.modules["replicate.stream"].EventSource.Decoder()
    read = [decoder.decode(line) for line in re.split("\r\n|\r|\n", stream.decode())]
    theirs = [(event.event.value, event.id, event.data) for event in read if event is not None]
    assert said(split([stream])[0]) == theirs
