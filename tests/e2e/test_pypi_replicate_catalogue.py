"""PyPI `replicate` 1.0.7, synchronous and asynchronous: models, files, trainings, deployments, and the rest."""

import base64
import hashlib
import hmac
import io
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from replicate.helpers import FileOutput
from replicate.webhook import Webhooks

from gateway.simulator import Simulator
from gateway.simulator.models.image import paint
from tests.support.polling import attempts
from tests.support.python_client import Python, python_client
from tests.support.simulator_models import INLINE_PICTURE, add_inline
from tests.support.stack import Stack
from tests.support.upstream import creates, version_of

STORY = {"prompt": "a llama in the snow", "seed": 7, "max_tokens": 24}


async def test_models_are_read_searched_created_run_and_deleted(python: Python, upstream: Simulator):
    """Every method of `client.models`."""
    models = python.client.models
    model = await python.do(models, "get", "stability-ai/sdxl")
    assert (model.owner, model.name) == ("stability-ai", "sdxl")
    assert model.latest_version.openapi_schema["components"]["schemas"]["Input"]
    versions = await python.do(model.versions, "list")
    version = await python.do(model.versions, "get", versions[0].id)
    assert version.id == model.latest_version.id
    assert "sdxl" in [each.name for each in await python.do(models, "list")]
    found = await python.do(models, "search", "llama")
    assert len(found.results) >= 2
    made = await python.do(models, "create", owner="acme", name="made-here", visibility="private", hardware="cpu")
    assert made.name == "made-here"
    assert await python.do(models, "delete", "acme/made-here") is True
    assert "acme/made-here" not in upstream.world.registry.models
    prediction = await python.do(
        models.predictions, "create", model="acme/official-storyteller", input=STORY, wait=True
    )
    assert prediction.status == "succeeded"
    # The second is the gateway's, which reads the model's schema before it creates.
    read = [seen.path for seen in upstream.requests.find("models.get")]
    assert read == ["/v1/models/stability-ai/sdxl", "/v1/models/acme/official-storyteller"]
    for operation in ("models.versions.list", "models.versions.get", "models.search", "models.delete"):
        assert upstream.requests.count(operation) == 1, operation


async def test_version_is_deleted(python: Python, upstream: Simulator):
    """Replicate answers 202, where 1.0.7 expects a 204: it returns False, and the version is gone."""
    program = upstream.world.registry.models["replicate/hello-world"].versions[0].program
    version = upstream.world.registry.add_version("acme/mine", program).id
    upstream.world.registry.models["acme/mine"].visibility = "private"
    model = await python.do(python.client.models, "get", "acme/mine")
    assert await python.do(model.versions, "delete", version) is False
    assert python.sent[-1].status == 202
    assert upstream.requests.count("models.versions.delete") == 1
    assert not upstream.world.registry.models["acme/mine"].versions


async def test_files_are_uploaded_listed_and_deleted(
    python: Python, upstream: Simulator, gateway: Stack, tmp_path: Path
):
    """From a path and from an open file, with metadata; the link leads to the gateway."""
    files = python.client.files
    data = paint("a picture", 1, 16, 16)
    path = tmp_path / "näme.png"
    path.write_bytes(data)
    by_path = await python.do(files, "create", path)
    by_handle = await python.do(files, "create", io.BytesIO(data), filename="b.png", metadata={"purpose": "test"})
    assert (by_path.name, by_path.content_type, by_path.size) == ("näme.png", "image/png", len(data))
    assert by_path.checksums["sha256"] == hashlib.sha256(data).hexdigest()
    assert by_handle.metadata == {"purpose": "test"}
    assert by_path.urls["get"] == f"{gateway.base_url}/files/{by_path.id}"
    assert (await python.do(files, "get", by_path.id)).etag == by_path.etag
    assert [each.id for each in await python.do(files, "list")] == [by_handle.id, by_path.id]
    assert await python.do(files, "delete", by_path.id) is True
    assert [each.id for each in await python.do(files, "list")] == [by_handle.id]
    # The same bytes went up once; upstream was asked whether it still had them, and for nothing else.
    assert (upstream.requests.count("files.create"), upstream.requests.count("files.get")) == (1, 1)
    assert upstream.requests.count("files.list") == upstream.requests.count("files.delete") == 0


@pytest.mark.parametrize("strategy", ["url", "base64"])
async def test_file_in_an_input_reaches_the_model(python: Python, upstream: Simulator, tmp_path: Path, strategy: str):
    """Uploaded or inlined; upstream gets its own link to an uploaded one."""
    path = tmp_path / "a.png"
    path.write_bytes(paint("a picture", 1, 16, 16))
    version = version_of(upstream, "acme/upscale")
    with path.open("rb") as file:
        output = await python.do(
            python.client,
            "run",
            f"acme/upscale:{version}",
            input={"image": file, "scale": 2},
            file_encoding_strategy=strategy,
        )
    assert str(output).startswith(upstream.delivery_url)
    posted = upstream.requests.find("predictions.create")[0].json["input"]["image"]
    assert posted.startswith("data:image/png" if strategy == "base64" else f"{upstream.base_url}/files/")
    assert upstream.requests.count("files.create") == (0 if strategy == "base64" else 1)


async def test_output_is_a_file_if_its_link_is_not_http(python: Python, upstream: Simulator):
    """A data URI becomes a `FileOutput`; an `http:` link stays a string, and nothing is fetched."""
    add_inline(upstream)
    (inline,) = await python.do(python.client, "run", "acme/inline", input={})
    assert isinstance(inline, FileOutput)
    assert await python.read(inline) == INLINE_PICTURE
    (hosted,) = await python.do(python.client, "run", "black-forest-labs/flux-schnell", input={"prompt": "a lake"})
    assert isinstance(hosted, str)
    assert hosted.startswith(upstream.delivery_url)
    assert upstream.requests.count("outputs.get") == 0


async def test_trainings_run_are_canceled_and_listed(python: Python, upstream: Simulator, storyteller: str):
    """Every method of `client.trainings`."""
    await python.do(python.client.models, "create", owner="acme", name="tuned", visibility="private", hardware="cpu")
    trainings = python.client.trainings
    given: dict[str, Any] = {"input": {"train_data": "https://example.com/data.jsonl"}, "destination": "acme/tuned"}
    first = await python.do(trainings, "create", model="acme/storyteller", version=storyteller, **given)
    assert first.status == "starting"
    async for _ in attempts():
        await python.do(first, "reload")
        if first.status not in ("starting", "processing"):
            break
    assert first.status == "succeeded"
    assert first.output["version"].startswith("acme/tuned:")
    second = await python.do(trainings, "create", model="acme/storyteller", version=storyteller, **given)
    assert (await python.do(trainings, "cancel", second.id)).status == "canceled"
    assert (await python.do(trainings, "get", second.id)).status == "canceled"
    assert [each.id for each in await python.do(trainings, "list")] == [second.id, first.id]
    assert upstream.requests.count("trainings.create") == 2
    assert upstream.requests.count("trainings.list") == 0


async def test_deployments_are_created_run_changed_and_deleted(python: Python, upstream: Simulator, storyteller: str):
    """Every method of `client.deployments`."""
    deployments = python.client.deployments
    made = await python.do(
        deployments,
        "create",
        name="from-a-test",
        model="acme/storyteller",
        version=storyteller,
        hardware="cpu",
        min_instances=0,
        max_instances=1,
    )
    assert made.current_release.number == 1
    got = await python.do(deployments, "get", "acme/from-a-test")
    assert got.name == "from-a-test"
    assert "from-a-test" in [each.name for each in await python.do(deployments, "list")]
    changed = await python.do(
        deployments, "update", deployment_owner="acme", deployment_name="from-a-test", max_instances=2
    )
    assert changed.current_release.number == 2
    prediction = await python.do(got.predictions, "create", input=STORY, wait=True)
    assert prediction.status == "succeeded"
    upstream.clock.advance(16 * 60)
    assert await python.do(deployments, "delete", "acme", "from-a-test") is True
    assert upstream.requests.count("deployments.predictions.create") == creates(upstream) == 1


async def test_collections_hardware_and_account(python: Python, upstream: Simulator):
    """The rest of what can be read. The account is the team."""
    collections = await python.do(python.client.collections, "list")
    collection = await python.do(python.client.collections, "get", collections[0].slug)
    assert len(collection.models) > 0
    hardware = await python.do(python.client.hardware, "list")
    assert "cpu" in [each.sku for each in hardware]
    account = await python.do(python.client.accounts, "current")
    assert (account.type, account.username) == ("organization", "alpha")
    assert upstream.requests.count("account.get") == 0
    assert upstream.requests.count("hardware.list") == upstream.requests.count("collections.get") == 1


async def test_webhook_secret_is_the_teams_own_and_validates(
    python: Python, upstream: Simulator, gateway: Stack, is_async: bool
):
    """The client's own signature check accepts it, and it is not another team's."""
    secret = await python.do(python.client.webhooks.default, "secret")
    other = python_client(gateway.keys["beta"], gateway.origin, is_async=is_async)
    async with AsyncExitStack() as exits:
        exits.push_async_callback(other.close)
        assert (await other.do(other.client.webhooks.default, "secret")).key != secret.key
    body = '{"id":"x"}'
    signed = hmac.digest(
        base64.b64decode(secret.key.removeprefix("whsec_")), f"msg_1.1700000000.{body}".encode(), "sha256"
    )
    headers = {
        "webhook-id": "msg_1",
        "webhook-timestamp": "1700000000",
        "webhook-signature": f"v1,{base64.b64encode(signed).decode()}",
    }
    Webhooks.validate(headers=headers, body=body, secret=secret)
    assert upstream.requests.count("webhooks.default.secret.get") == 0
