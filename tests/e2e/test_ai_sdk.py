"""The AI SDK's Replicate provider, images and video, in both of its generations."""

import base64
from functools import partial
from typing import Any

import pytest

from gateway.simulator import Simulator
from gateway.simulator.models.image import paint
from tests.support.http_calls import until_polled
from tests.support.node import Play, node_22
from tests.support.simulator_models import FILM, INLINE_PICTURE, add_film, add_inline, hold_runs_until
from tests.support.stack import Stack
from tests.support.upstream import creates, version_of

pytestmark = pytest.mark.node


@pytest.fixture(params=["2", "3"], ids=["@ai-sdk/replicate-2", "@ai-sdk/replicate-3"])
def generation(request: pytest.FixtureRequest) -> str:
    """The generation of the provider: 2 with `ai` 6, or 3 with `ai` 7 on Node 22."""
    return str(request.param)


@pytest.fixture
def sdk(play: Play, generation: str) -> Play:
    """Run a scenario of the AI SDK."""
    more: dict[str, Any] = {"environ": {"GENERATION": generation}}
    return partial(play, "ai.mjs", **more, node=node_22() if generation == "3" else None)


async def test_generate_image_works_with_an_official_model(sdk: Play, upstream: Simulator, generation: str):
    """`generateImage()`: one create that waits, then the picture; no key is sent to the file's host."""
    add_inline(upstream)
    done = await sdk("image", model="acme/inline", prompt="a lake")
    assert done.error is None
    assert [base64.b64decode(each["base64"]) for each in done.result] == [INLINE_PICTURE]
    assert done.requests[0].headers["prefer"] == "wait"
    assert done.count("POST") == creates(upstream) == 1
    assert not any(request.authorized for request in done.requests if request.url.startswith("data:"))


async def test_generate_image_works_with_a_version_id(sdk: Play, upstream: Simulator):
    """`owner/name:version` goes to /predictions, with seed, ratio and the provider's options in the input."""
    version = add_inline(upstream)
    done = await sdk(
        "image",
        model=f"acme/inline:{version}",
        prompt="a lake",
        seed=5,
        aspectRatio="16:9",
        options={"num_inference_steps": 4},
    )
    assert done.error is None
    assert base64.b64decode(done.result[0]["base64"]) == INLINE_PICTURE
    posted = upstream.requests.find("predictions.create")[0].json
    assert posted["version"] == version
    assert posted["input"]["seed"] == 5
    assert posted["input"]["num_inference_steps"] == 4


async def test_output_on_another_private_address_is_fetched_by_version_2_only(
    sdk: Play, upstream: Simulator, generation: str
):
    """Version 3 refuses links into private networks other than the gateway's own; Replicate's links are public."""
    version = version_of(upstream, "acme/painter")
    done = await sdk(
        "image", model=f"acme/painter:{version}", prompt="a lake", seed=5, options={"width": 32, "height": 32}
    )
    if generation == "2":
        assert base64.b64decode(done.result[0]["base64"]) == paint("a lake", 5, 32, 32)
        assert [request.authorized for request in done.requests] == [True, False]
    else:
        assert "is not allowed" in done.error["message"]
    assert creates(upstream) == 1


async def test_image_input_is_sent_as_a_data_uri(sdk: Play, upstream: Simulator):
    """Editing a picture: it is inlined in the one create."""
    add_inline(upstream)
    data = base64.b64encode(paint("a picture", 1, 16, 16)).decode()
    done = await sdk("editImage", model="acme/inline", prompt="make it larger", base64=data)
    assert done.error is None
    assert upstream.requests.find("*predictions.create")[0].json["input"]["image"] == f"data:image/png;base64,{data}"


async def test_image_that_takes_longer_than_the_wait(sdk: Play, upstream: Simulator, generation: str, gateway: Stack):
    """Version 3 polls `urls.get`, with its key since the origin is the base's; version 2 fails."""
    add_inline(upstream)
    hold_runs_until(upstream, "acme/inline", partial(until_polled, gateway))
    done = await sdk("image", model="acme/inline", prompt="p", options={"maxWaitTimeInSeconds": 1}, maxRetries=0)
    assert done.requests[0].status == 202
    assert creates(upstream) == 1
    if generation == "2":
        assert done.error is not None
        return
    assert base64.b64decode(done.result[0]["base64"]) == INLINE_PICTURE
    polls = [request for request in done.requests if request.method == "GET" and request.url.startswith("http")]
    assert polls
    assert all(each.url.startswith(f"{gateway.base_url}/predictions/") and each.authorized for each in polls)
    assert all(each.status == 200 for each in polls)


async def test_generate_video_polls_for_the_result(sdk: Play, upstream: Simulator, gateway: Stack, generation: str):
    """`experimental_generateVideo()`: version 3 creates and polls, version 2 waits; one run either way."""
    add_film(upstream)
    poll = {"intervalMs": 20} if generation == "3" else None
    done = await sdk("video", model="acme/film", prompt="a train", poll=poll, options={"pollIntervalMs": 20})
    assert done.error is None
    assert [(base64.b64decode(each["base64"]), each["mediaType"]) for each in done.result] == [(FILM, "video/mp4")]
    assert creates(upstream) == 1
    polls = done.find("GET")[:-1]
    if generation == "3":
        # How many depends on the machine.
        assert polls
        assert "prefer" not in done.requests[0].headers
    assert all(each.url.startswith(f"{gateway.base_url}/predictions/") and each.authorized for each in polls)
    assert not done.requests[-1].authorized


async def test_error_has_the_gateways_words(sdk: Play, upstream: Simulator):
    """The SDK shows `detail` of the problem document and retries nothing that is the caller's fault."""
    done = await sdk("image", model="acme/inline", prompt="p", key="rgw_nosuchkey000_" + "x" * 32)
    assert done.error["status"] == 401
    assert done.error["message"]
    assert done.count("POST") == 1
    assert len(upstream.requests) == 0
