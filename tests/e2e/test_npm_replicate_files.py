"""npm `replicate` 1.4.0 from Node: files that go up, in each of its ways, and those that come down."""

import base64
import io

import pytest
from PIL import Image

from gateway.simulator import Simulator
from gateway.simulator.faults import Fault
from gateway.simulator.models.image import paint
from tests.support.node import Play
from tests.support.stack import Stack
from tests.support.upstream import creates, version_of

pytestmark = pytest.mark.node

STORY = {"prompt": "a llama in the snow", "seed": 7, "max_tokens": 24}


def picture(size: int = 16) -> str:
    """Make a small picture, as base64."""
    return base64.b64encode(paint("a picture", 1, size, size)).decode()


@pytest.mark.parametrize("kind", ["blob", "file", "buffer"])
async def test_files_are_uploaded_listed_and_deleted(
    replicate_js: Play, upstream: Simulator, gateway: Stack, kind: str
):
    """A file keeps its name, type, bytes and metadata, and its link leads to the gateway."""
    data = base64.b64decode(picture())
    done = await replicate_js("files", kind=kind, base64=picture())
    assert done.error is None
    made = done.result["made"]
    assert made["size"] == len(data)
    assert made["content_type"] == ("application/octet-stream" if kind == "buffer" else "image/png")
    if kind == "file":
        assert made["name"] == "näme ☃.png"
    assert made["metadata"] == {"purpose": "test", "nested": {"n": 1}}
    assert made["urls"]["get"] == f"{gateway.base_url}/files/{made['id']}"
    assert done.result["got"] == made
    assert done.result["list"]["results"] == [made]
    assert done.result["deleted"] is True
    assert done.result["after"]["results"] == []
    assert upstream.requests.count("files.create") == upstream.requests.count("files.delete") == 1
    assert upstream.requests.count("files.list") == upstream.requests.count("files.get") == 0


@pytest.mark.parametrize("kind", ["blob", "buffer"])
@pytest.mark.parametrize("strategy", ["default", "upload"])
async def test_uploaded_file_in_an_input_is_read_by_the_model(
    replicate_js: Play, upstream: Simulator, strategy: str, kind: str
):
    """The client puts the gateway's link into the input; upstream gets its own link, and the model finds the file."""
    version = version_of(upstream, "acme/upscale")
    done = await replicate_js(
        "runWithFile", ref=f"acme/upscale:{version}", kind=kind, base64=picture(), strategy=strategy, nested=False
    )
    assert done.error is None
    assert done.result["seen"][0]["status"] == "succeeded"
    assert upstream.requests.count("files.create") == 1
    posted = upstream.requests.find("predictions.create")[0].json
    assert posted["input"]["image"].startswith(f"{upstream.base_url}/files/")
    assert size_of(upstream, done.result["output"]) == (32, 32)


async def test_nested_file_in_an_input_is_found(replicate_js: Play, upstream: Simulator):
    """Links are rewritten at any depth."""
    version = version_of(upstream, "acme/upscale")
    done = await replicate_js(
        "runWithFile", ref=f"acme/upscale:{version}", kind="blob", base64=picture(), strategy="upload", nested=True
    )
    assert done.error is None
    posted = upstream.requests.find("predictions.create")[0].json
    assert posted["input"]["more"]["deep"][0].startswith(f"{upstream.base_url}/files/")


async def test_failed_upload_falls_back_to_a_data_uri(replicate_js: Play, upstream: Simulator):
    """With the default strategy a 500 at /files makes the client inline the file; the run still works."""
    upstream.faults.set(Fault("error", operation="files.create", status=500))
    version = version_of(upstream, "acme/upscale")
    done = await replicate_js(
        "runWithFile", ref=f"acme/upscale:{version}", kind="blob", base64=picture(), strategy="default", nested=False
    )
    assert done.error is None
    assert upstream.requests.find("predictions.create")[0].json["input"]["image"].startswith("data:image/png;base64,")
    assert size_of(upstream, done.result["output"]) == (32, 32)


async def test_broken_data_uri_strategy_is_refused(replicate_js: Play, upstream: Simulator, gateway: Stack):
    """1.4.0 sends itself, key included, as the input. The gateway says so, stores nothing and sends nothing."""
    version = version_of(upstream, "acme/upscale")
    done = await replicate_js(
        "runWithFile", ref=f"acme/upscale:{version}", kind="blob", base64=picture(), strategy="data-uri", nested=False
    )
    assert done.error["name"] == "ApiError"
    assert done.error["status"] == 422
    assert "data-uri" in done.error["message"]
    assert creates(upstream) == 0
    listed = await replicate_js("list")
    assert listed.result == []
    for path in gateway.database.parent.iterdir():
        if path.is_file():
            assert gateway.keys["alpha"].encode() not in path.read_bytes(), path.name


async def test_http_output_is_a_string(replicate_js: Play, upstream: Simulator):
    """1.4.0 makes files of `https:` links only; over plain http the caller gets the link."""
    done = await replicate_js("runToFiles", ref="black-forest-labs/flux-schnell", input={"prompt": "a lake", "seed": 3})
    assert [each["kind"] for each in done.result] == ["string"]
    assert done.result[0]["url"].startswith(upstream.delivery_url)
    assert size_of(upstream, done.result[0]["url"]) == (512, 512)


def size_of(upstream: Simulator, url: str) -> tuple[int, int]:
    """Look into a picture that upstream hosts."""
    output = upstream.world.outputs.get(url.removeprefix(upstream.delivery_url))
    assert output is not None
    return Image.open(io.BytesIO(output.data)).size
