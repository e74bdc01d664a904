"""npm `replicate` 1.4.0 with the cache on: bursts, hits and hot retries of the real client."""

import base64
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from gateway.simulator import Fault, Simulator
from gateway.simulator.models.image import paint
from tests.support.node import Play, run_script
from tests.support.simulator_models import hold_runs_until_read
from tests.support.stack import Stack, start_gateway
from tests.support.upstream import creates, version_of

pytestmark = pytest.mark.node

STORY = {"prompt": "a llama in the snow", "seed": 7, "max_tokens": 24}


@pytest.fixture
def sharing(play: Play) -> Play:
    """Run a scenario of the sharing script."""
    return partial(play, "sharing.mjs")


@pytest.fixture
async def shared_files(upstream: Simulator, tmp_path: Path, clients: Path) -> AsyncIterator[Stack]:
    """A gateway that takes the upscaler for deterministic."""
    rules = [{"model": "acme/upscale", "mode": "always"}]
    async with start_gateway(upstream, tmp_path, cache={"rules": rules}) as stack:
        yield stack


@pytest.mark.parametrize("wait", [None, {"mode": "poll", "interval": 20}], ids=["block", "poll"])
async def test_burst_by_version_is_one_create_on_a_cold_gateway(
    sharing: Play, upstream: Simulator, gateway: Stack, storyteller: str, wait: Any
):
    """Twenty visitors at once, `run("owner/name:version")`, which sends a bare id: one run, twenty predictions."""
    done = await sharing("burst", ref=f"acme/storyteller:{storyteller}", input=STORY, wait=wait, times=20)
    assert done.error is None
    assert len(done.result) == 20
    assert len({"".join(each["output"]) for each in done.result}) == 1
    assert len({each["last"]["id"] for each in done.result}) == 20
    for each in done.result:
        assert each["last"]["urls"]["get"] == f"{gateway.base_url}/predictions/{each['last']['id']}"
    assert creates(upstream) == 1
    # Another process, a warm gateway: hits, in one request each.
    later = await sharing("burst", ref=f"acme/storyteller:{storyteller}", input=STORY, wait=wait, times=5)
    assert [each["output"] for each in later.result] == [done.result[0]["output"]] * 5
    assert later.count("POST") == 5
    assert creates(upstream) == 1


async def test_burst_without_a_seed_is_as_many_runs(sharing: Play, upstream: Simulator, storyteller: str):
    """A random output differs for every caller."""
    given = {name: value for name, value in STORY.items() if name != "seed"}
    done = await sharing("burst", ref=f"acme/storyteller:{storyteller}", input=given, times=4)
    assert done.error is None
    assert creates(upstream) == 4


async def test_streams_of_one_run_are_equal_for_all(sharing: Play, upstream: Simulator, storyteller: str):
    """Six pages stream one deterministic request: one run, and every page gets every event."""
    hold_runs_until_read(upstream, "acme/storyteller", after=2)
    done = await sharing("streams", ref=f"acme/storyteller:{storyteller}", input=STORY, times=6)
    assert done.error is None
    assert len(done.result) == 6
    assert all(events == done.result[0] for events in done.result)
    assert [event for event, _, _ in done.result[0]].count("output") == STORY["max_tokens"] + 1
    assert done.result[0][-1][0] == "done"
    assert creates(upstream) == 1


async def test_blob_is_shared_however_it_is_sent(upstream: Simulator, shared_files: Stack):
    """Sent three times, upstream gets one upload and one create; as a data: URI when uploads fail, it is the same
    request.
    """
    version = version_of(upstream, "acme/upscale")
    async with shared_files.caller() as alpha, alpha.get(f"/v1/models/acme/upscale/versions/{version}") as response:
        # Without a seed a bare id is shared only when its model is known.
        assert response.status == 200
    pictures = partial(
        run_script,
        "sharing.mjs",
        "pictures",
        base_url=shared_files.base_url,
        key=shared_files.keys["alpha"],
        ref=f"acme/upscale:{version}",
        base64=base64.b64encode(paint("a lake", 1, 16, 16)).decode(),
    )
    done = await pictures(strategies=["upload", "default", "upload"])
    assert done.error is None
    assert done.count("POST", "/files") == 3
    assert upstream.requests.count("files.create") == 1
    assert creates(upstream) == 1
    upstream.faults.set(Fault("error", operation="files.create"))
    fallen_back = await pictures(strategies=["default"])
    assert fallen_back.error is None
    assert len(set(done.result + fallen_back.result)) == 1
    assert creates(upstream) == 1


@pytest.mark.parametrize("breaks", [1, 5])
async def test_rapid_retries_over_a_broken_connection_are_one_run(
    sharing: Play, upstream: Simulator, storyteller: str, breaks: int
):
    """The connection breaks during the create; the client sends it again at once, up to six times."""
    upstream.faults.set(Fault("delay", operation="predictions.create", seconds=0.5))
    done = await sharing("fragile", ref=f"acme/storyteller:{storyteller}", input=STORY, breaks=breaks)
    assert done.error is None
    assert len(done.result) == STORY["max_tokens"] + 1
    posts = done.find("POST", "/predictions")
    assert [post.status for post in posts] == [0] * breaks + [201]
    assert creates(upstream) == 1


async def test_program_controls_the_cache(sharing: Play, upstream: Simulator, storyteller: str):
    """`Gateway-Cache` through the client's own `fetch`; `Cache-Control` of a page changes nothing."""
    headers = [{}, {}, {"Gateway-Cache": "no-store"}, {"Cache-Control": "no-cache"}]
    done = await sharing("again", ref=f"acme/storyteller:{storyteller}", input=STORY, headers=headers)
    assert done.error is None
    words = [said.removeprefix("replicate-gateway; ").partition("=")[0] for said in done.result["said"]]
    assert words == ["fwd", "hit; ttl", "fwd", "hit; ttl"]
    assert done.result["said"][2] == "replicate-gateway; fwd=bypass; detail=no-store"
    assert creates(upstream) == 2
