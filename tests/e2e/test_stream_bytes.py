"""The bytes of a stream, judged by parsers that others wrote: `eventsource-parser` of npm and `httpx-sse` of PyPI."""

import asyncio
from typing import Any

import httpx
import httpx_sse
import pytest

from gateway.simulator import Simulator
from tests.support.node import Play
from tests.support.polling import until
from tests.support.simulator_models import hold_runs_until_read
from tests.support.stack import Stack
from tests.support.upstream import version_of

STORY = {"prompt": "a llama in the snow", "seed": 7, "max_tokens": 64}

MODELS = {
    "acme/storyteller": STORY,
    "acme/frames": {"prompt": "hi", "seed": 7},
    "acme/fail": {},
}


@pytest.fixture(autouse=True)
def runs_that_are_read(upstream: Simulator) -> None:
    """Streams are read while their runs are in progress: what has ended is replayed."""
    for model in MODELS:
        hold_runs_until_read(upstream, model, after=1)


async def created(gateway: Stack, version: str, given: dict[str, Any]) -> dict[str, Any]:
    """Create a prediction that streams."""
    body = {"version": version, "input": given}
    async with gateway.caller() as caller, caller.post("/v1/predictions", json=body) as answer:
        prediction: dict[str, Any] = await answer.json()
        return prediction


@pytest.mark.node
async def test_stream_parses_equally_whole_and_byte_by_byte(
    play: Play, upstream: Simulator, gateway: Stack, storyteller: str
):
    """No error, only the four event names, an id on each, and the prediction's text to the last space and line
    break.
    """
    prediction = await created(gateway, storyteller, STORY)
    done = await play("sse.mjs", "read", url=prediction["urls"]["stream"])
    read = done.result
    assert (read["status"], read["type"]) == (200, "text/event-stream; charset=utf-8")
    assert read["whole"] == read["piecemeal"]
    assert read["whole"]["errors"] == []
    events = read["whole"]["events"]
    assert {each["event"] for each in events} <= {"output", "logs", "error", "done"}
    assert all(each["id"] for each in events)
    assert [each["data"] for each in events if each["event"] == "output"] == upstream.predictions[0].output


@pytest.mark.node
async def test_upstream_stream_is_passed_on_byte_for_byte(
    play: Play, upstream: Simulator, gateway: Stack, storyteller: str
):
    """Except for comments, which keep a connection open, nothing is added, removed or reordered."""
    prediction = await created(gateway, storyteller, STORY)
    through = await play("sse.mjs", "read", url=prediction["urls"]["stream"])
    await until(lambda: upstream.predictions[0].terminal)
    async with httpx.AsyncClient(timeout=None) as client:
        text = ""
        async with client.stream("GET", straight_to(upstream)) as response:
            async for chunk in response.aiter_text():
                text += chunk
                if "event: done" in text and text.endswith("\n\n"):
                    break
    assert without_comments(through.result["text"]) == without_comments(text)


@pytest.mark.node
async def test_stream_resumes_after_last_event_id(play: Play, upstream: Simulator, gateway: Stack, storyteller: str):
    """`Last-Event-ID`, as a browser sends it when it reconnects: the rest, and nothing twice."""
    prediction = await created(gateway, storyteller, STORY)
    url = prediction["urls"]["stream"]
    full = (await play("sse.mjs", "read", url=url)).result["whole"]["events"]
    seen = full[len(full) // 2]
    rest = (await play("sse.mjs", "read", url=url, lastEventId=seen["id"])).result["whole"]["events"]
    assert rest == full[len(full) // 2 + 1 :]


@pytest.mark.parametrize("model", sorted(MODELS))
async def test_httpx_sse_reads_the_same_as_from_upstream(upstream: Simulator, gateway: Stack, model: str):
    """An independent parser: every field of every event is the same through the gateway and directly."""
    prediction = await created(gateway, version_of(upstream, model), MODELS[model])
    through = await read_events(prediction["urls"]["stream"])
    await until(lambda: upstream.predictions[0].terminal)
    straight = await read_events(straight_to(upstream))
    assert through == straight
    assert len(through) > 1
    names = [name for name, *_ in through]
    assert names.count("done") == 1
    assert names[-1] == "done"
    assert set(names) <= {"output", "logs", "error", "done"}
    said = [data for name, data, *_ in through if name == "output"]
    output = upstream.predictions[0].output
    assert said == (output if isinstance(output, list) else [output] if output else [])


@pytest.mark.node
@pytest.mark.parametrize("model", sorted(MODELS))
async def test_eventsource_parser_reads_the_same_as_from_upstream(
    play: Play, upstream: Simulator, gateway: Stack, model: str
):
    """The parser inside most JavaScript clients, for text, for files and for a failed run."""
    prediction = await created(gateway, version_of(upstream, model), MODELS[model])
    url = prediction["urls"]["stream"]
    assert ("/v1/files/" in url) == (model == "acme/frames")
    # Read from the first moment on, so that nothing is a replay of the result: Node takes its time to start.
    _, done = await asyncio.gather(read_events(url), play("sse.mjs", "read", url=url))
    through = done.result
    straight = (await play("sse.mjs", "read", url=straight_to(upstream), endsWithDone=True)).result
    assert through["whole"]["errors"] == through["piecemeal"]["errors"] == []
    assert through["whole"]["events"] == through["piecemeal"]["events"] == straight["whole"]["events"]
    assert without_comments(through["text"]) == without_comments(straight["text"])


async def read_events(url: str) -> list[tuple[str, str, str, int | None]]:
    """Read a stream to its `done`: name, data, id and retry of each event."""
    events = []
    async with httpx.AsyncClient(timeout=None) as client, httpx_sse.aconnect_sse(client, "GET", url) as source:
        async for event in source.aiter_sse():
            if event.event == "message":  # a comment, such as a heartbeat: httpx-sse makes an empty event of it
                continue
            events.append((event.event, event.data, event.id, event.retry))
            if event.event == "done":
                break
    return events


def straight_to(upstream: Simulator) -> str:
    """Return upstream's own address of the first prediction's stream."""
    return f"{upstream.delivery_url}{upstream.predictions[0].stream_path}"


def without_comments(text: str) -> str:
    """Leave out the comments, with the blank line after each."""
    return "".join(block for block in text.split("\n\n") if not block.startswith(":"))
