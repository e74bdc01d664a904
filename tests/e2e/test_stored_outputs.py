"""Stored copies behind TLS, two hours after upstream has thrown the files away: both official clients read them."""

import base64
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest
from replicate.helpers import FileOutput

from gateway.simulator import Simulator
from gateway.simulator.models.image import paint
from tests.support.http_calls import metrics_of
from tests.support.node import run_script
from tests.support.python_client import python_client
from tests.support.stack import Stack, start_gateway, start_upstream
from tests.support.system_clocks import AdvancingClock
from tests.support.tls import Door, tls_door
from tests.support.upstream import creates, version_of

LAKE = {"prompt": "a lake", "seed": 5, "width": 32, "height": 32, "num_outputs": 2}
PICTURES = [paint("a lake", 5 + number, 32, 32) for number in range(2)]


@pytest.fixture
async def door(tmp_path: Path) -> AsyncIterator[Door]:
    """TLS before the gateway."""
    folder = tmp_path / "tls"
    folder.mkdir()
    async with tls_door(folder) as door:
        yield door


@pytest.fixture
async def upstream() -> AsyncIterator[Simulator]:
    async with start_upstream() as simulator:
        yield simulator


@pytest.fixture
async def later(upstream: Simulator, tmp_path: Path, door: Door) -> AsyncIterator[Stack]:
    """A gateway that copied a result's files two hours ago."""
    clock = AdvancingClock(upstream)
    async with start_gateway(
        upstream,
        tmp_path,
        clock=clock,
        outputs={"url": str(tmp_path / "outputs")},
        server={"port": 0, "public_url": door.url},
    ) as stack:
        door.leads_to = stack.origin
        async with stack.caller(Prefer="wait") as alpha:
            body = {"version": reference(upstream), "input": LAKE}
            async with alpha.post("/v1/predictions", json=body) as response:
                links = (await response.json())["output"]
            assert all(link.startswith(upstream.delivery_url) for link in links)
            copied = "replicate_gateway_outputs_stored_total 2.0\n", "replicate_gateway_outputs_pending 0.0\n"
            page = ""
            while not all(line in page for line in copied):
                page = await metrics_of(stack)
            clock.advance(2 * 3600)
            for link in links:
                async with alpha.get(link, headers={"Authorization": ""}) as response:
                    assert response.status == 404
        upstream.requests.clear()
        yield stack


def reference(upstream: Simulator) -> str:
    return f"acme/painter:{version_of(upstream, 'acme/painter')}"


@pytest.mark.node
@pytest.mark.usefixtures("clients")
async def test_npm_replicate_reads_copies_that_upstream_deleted(later: Stack, upstream: Simulator, door: Door):
    """`run()` gives files as if the model had just made them; upstream is not asked."""
    play = partial(run_script, "replicate.mjs", base_url=later.base_url, key=later.keys["alpha"])
    done = await play(
        "runToFiles",
        ref=reference(upstream),
        input=LAKE,
        environ={"NODE_EXTRA_CA_CERTS": str(door.certificate)},
    )
    assert done.error is None
    assert [(each["kind"], each["type"]) for each in done.result] == [("FileOutput", "image/png")] * 2
    assert [base64.b64decode(each["base64"]) for each in done.result] == PICTURES
    assert all(each["url"].startswith(f"{door.url}/outputs/") for each in done.result)
    assert [request.authorized for request in done.requests] == [True, False, False]
    assert creates(upstream) == 0
    assert upstream.requests.count("outputs.get") == 0


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
async def test_pypi_replicate_reads_copies_that_upstream_deleted(
    later: Stack, upstream: Simulator, door: Door, is_async: bool, monkeypatch: pytest.MonkeyPatch
):
    """Its key, which it sends to every file's host, stays at the gateway."""
    monkeypatch.setenv("SSL_CERT_FILE", str(door.certificate))
    python = python_client(later.keys["alpha"], later.origin, is_async=is_async)
    try:
        files = await python.do(python.client, "run", reference(upstream), input=LAKE)
        assert all(isinstance(each, FileOutput) for each in files)
        assert [await python.read(each) for each in files] == PICTURES
        assert all(each.url.startswith(f"{door.url}/outputs/") for each in files)
    finally:
        await python.close()
    assert creates(upstream) == 0
    assert upstream.requests.count("outputs.get") == 0
