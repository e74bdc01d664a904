"""npm `replicate` 1.4.0 from Node: `stream()`, of text and of files."""

import base64

import pytest

from gateway.simulator import Simulator
from gateway.simulator.models.image import paint
from tests.support.node import Play
from tests.support.simulator_models import hold_runs, hold_runs_until_read
from tests.support.stack import Stack
from tests.support.upstream import creates, version_of

pytestmark = pytest.mark.node

STORY = {"prompt": "a llama in the snow", "seed": 7, "max_tokens": 24}


async def test_text_streams_token_by_token(replicate_js: Play, upstream: Simulator, gateway: Stack, storyteller: str):
    """`stream()` yields what upstream sent, each event with its id, and ends with `done`; the stream needs no key."""
    hold_runs_until_read(upstream, "acme/storyteller", after=2)
    done = await replicate_js("stream", ref=f"acme/storyteller:{storyteller}", input=STORY)
    events = done.result
    assert [event["event"] for event in events].count("done") == 1
    assert events[-1]["event"] == "done"
    assert events[-1]["data"] == "{}"
    output = [event["data"] for event in events if event["event"] == "output"]
    assert output == upstream.predictions[0].output
    assert any(token.startswith(" ") for token in output)
    assert any("\n" in token for token in output)
    assert all(event["id"] for event in events)
    assert len({event["id"] for event in events}) == len(events)
    create, stream = done.requests
    assert "prefer" not in create.headers
    assert stream.url.startswith(f"{gateway.base_url}/streams/")
    assert not stream.authorized
    assert creates(upstream) == 1
    assert upstream.requests.count("streams.get") == 1
    assert upstream.requests.authorized("delivery") == 0


async def test_official_model_streams_by_its_name(replicate_js: Play, upstream: Simulator):
    """`stream("owner/name")`, as for every language model today."""
    done = await replicate_js("stream", ref="meta/meta-llama-3-8b-instruct", input=STORY)
    assert "".join(each["data"] for each in done.result if each["event"] == "output").startswith("\n\nHere is")
    assert upstream.requests.count("models.predictions.create") == 1


@pytest.mark.parametrize("use_file_output", [True, False])
async def test_files_stream_one_after_the_other(
    replicate_js: Play, upstream: Simulator, gateway: Stack, use_file_output: bool
):
    """A model whose output is files: 1.4.0 recognises such a stream by its path, which the gateway keeps."""
    version = version_of(upstream, "acme/frames")
    done = await replicate_js(
        "stream",
        ref=f"acme/frames:{version}",
        input={"count": 3, "size": 32, "seed": 5, "prompt": "a train"},
        options={"useFileOutput": use_file_output},
    )
    assert done.error is None
    assert done.requests[1].url.startswith(f"{gateway.base_url}/files/")
    files = [event["data"] for event in done.result if event["event"] == "output"]
    assert len(files) == 3
    if use_file_output:
        assert [each["kind"] for each in files] == ["FileOutput"] * 3
        assert [base64.b64decode(each["base64"]) for each in files] == [
            paint("a train", 5 + n, 32, 32) for n in range(3)
        ]
    else:
        assert files == upstream.predictions[0].output
    assert not any(request.authorized for request in done.requests[1:])


async def test_stream_of_a_failed_run_throws(replicate_js: Play, upstream: Simulator):
    """The stream's error event becomes an exception with its detail."""
    version = version_of(upstream, "acme/fail")
    done = await replicate_js("stream", ref=f"acme/fail:{version}", input={"kind": "exception"})
    assert done.error["message"] == '{"detail":"division by zero"}'


async def test_model_without_streaming_is_refused_by_the_client(replicate_js: Play, upstream: Simulator):
    """Without `urls.stream` the client says so itself. The run it started goes on."""
    version = version_of(upstream, "replicate/hello-world")
    done = await replicate_js("stream", ref=f"replicate/hello-world:{version}", input={"text": "Alice"})
    assert done.error["message"] == "Prediction does not support streaming"
    assert creates(upstream) == 1


async def test_aborted_stream_cancels_no_run(replicate_js: Play, upstream: Simulator, storyteller: str):
    """Closing the stream is no cancel: the prediction can be fetched afterwards."""
    go_on = hold_runs(upstream, "acme/storyteller", after=6)
    done = await replicate_js(
        "abortStream",
        ref=f"acme/storyteller:{storyteller}",
        input={**STORY, "max_tokens": 40},
        events=5,
    )
    assert done.result["ended"] == "AbortError"
    assert len(done.result["events"]) >= 5
    assert upstream.requests.count("predictions.cancel") == 0
    prediction = upstream.predictions[0]
    assert not prediction.terminal
    go_on.set()
    after = await replicate_js("waitFor", id=prediction.id, polls=500)
    assert after.result == "succeeded"
    after = await replicate_js("get", id=prediction.id)
    assert len(after.result["output"]) == 41
