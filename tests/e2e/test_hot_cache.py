"""Every client again, with the cache hot: whoever asked first paid, and nobody sees a difference but the speed."""

import base64
from functools import partial

import pytest

from gateway.simulator import Simulator
from tests.support.node import Play
from tests.support.python_client import python_client
from tests.support.stack import Stack
from tests.support.upstream import creates, version_of

pytestmark = pytest.mark.node

STORY = {"prompt": "a llama in the snow", "seed": 7, "max_tokens": 24}


@pytest.fixture
def ref(upstream: Simulator) -> str:
    """The storyteller as `run()` takes it."""
    return f"acme/storyteller:{version_of(upstream, 'acme/storyteller')}"


@pytest.fixture
async def story(gateway: Stack, upstream: Simulator, ref: str) -> list[str]:
    """The stream of the first request, which the cache has from then on."""
    client = python_client(gateway.keys["alpha"], gateway.origin, is_async=True)
    reported = await client.do(client.client, "run", ref, input=STORY)
    await client.close()
    assert creates(upstream) == 1
    upstream.requests.clear()
    return list(reported)


async def test_python_clients_run_stream_and_poll_hits(gateway: Stack, upstream: Simulator, ref: str, story: list[str]):
    """Sync and async: `run`, `run(wait=False)`, `stream`, and a prediction that is created, reloaded and listed."""
    for is_async in (False, True):
        client = python_client(gateway.keys["alpha"], gateway.origin, is_async=is_async)
        assert list(await client.do(client.client, "run", ref, input=STORY)) == story
        assert list(await client.do(client.client, "run", ref, input=STORY, wait=False)) == story
        events = await client.do(client.client, "stream", ref, input=STORY)
        assert [event.data for event in events if event.event.value == "output"] == story
        assert events[-1].event.value == "done"
        await client.close()
    assert creates(upstream) == upstream.requests.count("*predictions.get") == 0
    async with gateway.caller() as alpha, alpha.get("/v1/predictions") as answer:
        listed = (await answer.json())["results"]
    assert len({prediction["id"] for prediction in listed}) == 7
    assert {prediction["status"] for prediction in listed} == {"succeeded"}


@pytest.mark.parametrize("wait", [{"mode": "block"}, {"mode": "poll", "interval": 5}])
async def test_javascript_clients_run_hits(play: Play, upstream: Simulator, ref: str, story: list[str], wait: dict):
    """Npm `replicate` and `replicate-stainless`, blocking and polling."""
    for script in ("replicate.mjs", "stainless.mjs"):
        done = await partial(play, script)("run", ref=ref, input=STORY, wait=wait)
        assert done.error is None
        assert done.result["output"] == story
    assert creates(upstream) == 0


async def test_javascript_client_streams_and_cancels_hits(play: Play, upstream: Simulator, ref: str, story: list[str]):
    """A stream of a hit has everything; a cancel of a hit changes nothing, since it has ended."""
    done = await play("replicate.mjs", "stream", ref=ref, input=STORY)
    assert done.error is None
    assert [event["data"] for event in done.result if event["event"] == "output"] == story
    assert done.result[-1]["event"] == "done"
    canceled = await play("replicate.mjs", "cancel", version=ref.partition(":")[2], input=STORY)
    assert canceled.error is None
    assert creates(upstream) == upstream.requests.count("*.cancel") == 0


async def test_ai_sdk_generates_from_hits(play: Play, upstream: Simulator):
    """`generateImage()` twice with one seed: one picture, one run."""
    version = version_of(upstream, "acme/painter")
    sdk = partial(play, "ai.mjs", environ={"GENERATION": "2"})
    options = {"width": 32, "height": 32}
    pictures = [
        (await sdk("image", model=f"acme/painter:{version}", prompt="a lake", seed=5, options=options)).result[0][
            "base64"
        ]
        for _ in range(2)
    ]
    assert base64.b64decode(pictures[0]).startswith(b"\x89PNG")
    assert pictures[0] == pictures[1]
    assert creates(upstream) == 1
