"""Outputs under `https:` links, as Replicate's are: both official clients make files of them, and fetch those."""

import base64
import io
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from PIL import Image
from replicate.helpers import FileOutput

from gateway.simulator import Simulator
from gateway.simulator.models.image import paint
from tests.support.node import Play
from tests.support.python_client import python_client
from tests.support.stack import Stack, start_upstream
from tests.support.tls import Door, tls_door
from tests.support.upstream import creates, version_of


@pytest.fixture
async def door(tmp_path: Path) -> AsyncIterator[Door]:
    """TLS before the simulator's delivery host."""
    folder = tmp_path / "tls"
    folder.mkdir()
    async with tls_door(folder) as door:
        yield door


@pytest.fixture
async def upstream(door: Door) -> AsyncIterator[Simulator]:
    """A simulator that hosts its outputs behind TLS."""
    async with start_upstream(delivery_public_url=door.url) as simulator:
        host = simulator.world.links.delivery
        assert host == door.url
        door.leads_to = plain_delivery_url(simulator)
        yield simulator


def plain_delivery_url(simulator: Simulator) -> str:
    """Say where the delivery host really listens."""
    _, delivery = simulator._runners
    host, port = delivery.addresses[0]
    return f"{host}:{port}"


@pytest.fixture
def trusting(door: Door, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let httpx trust the door."""
    monkeypatch.setenv("SSL_CERT_FILE", str(door.certificate))
    yield
    assert os.environ["SSL_CERT_FILE"]


@pytest.mark.node
async def test_npm_replicate_fetches_files_without_the_key(replicate_js: Play, upstream: Simulator, door: Door):
    """`run()` gives `FileOutput`s over a plain http gateway too: the link of an output is upstream's own."""
    version = version_of(upstream, "acme/painter")
    done = await replicate_js(
        "runToFiles",
        ref=f"acme/painter:{version}",
        input={"prompt": "a lake", "seed": 5, "width": 32, "height": 32, "num_outputs": 2},
        environ={"NODE_EXTRA_CA_CERTS": str(door.certificate)},
    )
    assert done.error is None
    assert [(each["kind"], each["type"]) for each in done.result] == [("FileOutput", "image/png")] * 2
    assert [base64.b64decode(each["base64"]) for each in done.result] == [
        paint("a lake", 5 + n, 32, 32) for n in range(2)
    ]
    assert all(each["url"].startswith(door.url) for each in done.result)
    assert [request.authorized for request in done.requests] == [True, False, False]
    assert creates(upstream) == 1
    assert upstream.requests.count("outputs.get") == 2
    assert upstream.requests.authorized("delivery") == 0


@pytest.mark.node
async def test_npm_replicate_gives_links_on_request(replicate_js: Play, upstream: Simulator, door: Door):
    """`useFileOutput: false`: nothing is fetched."""
    done = await replicate_js(
        "run", ref="black-forest-labs/flux-schnell", input={"prompt": "a lake"}, options={"useFileOutput": False}
    )
    assert done.result["output"][0].startswith(door.url)
    assert upstream.requests.count("outputs.get") == 0


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@pytest.mark.usefixtures("trusting")
async def test_pypi_replicate_sends_its_key_to_the_file_host(gateway: Stack, upstream: Simulator, is_async: bool):
    """1.0.7 sends its Authorization wherever it reads a file: the outputs' host sees the caller's gateway key. The
    gateway cannot prevent it while the links are upstream's; the key is of no use there.
    """
    python = python_client(gateway.keys["alpha"], gateway.origin, is_async=is_async)
    try:
        (output,) = await python.do(
            python.client, "run", "black-forest-labs/flux-schnell", input={"prompt": "a lake", "seed": 3}
        )
        assert isinstance(output, FileOutput)
        assert upstream.requests.count("outputs.get") == 0
        assert Image.open(io.BytesIO(await python.read(output))).size == (512, 512)
    finally:
        await python.close()
    assert upstream.requests.count("outputs.get") == 1
    (read,) = upstream.requests.find("outputs.get")
    assert read.headers["authorization"] == f"Bearer {gateway.keys['alpha']}"
