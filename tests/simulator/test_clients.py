"""Replicate's Python client with the simulator."""

import asyncio
import io

import pytest
import replicate
from replicate.exceptions import ModelError, ReplicateError

from gateway.simulator import Fault
from gateway.simulator.models.image import paint
from tests.support.simulator_api import find


@pytest.fixture
async def client(api):
    made = replicate.Client(api_token=api.simulator.token, base_url=api.simulator.base_url.removesuffix("/v1"))
    yield made
    made._client.close()
    await made._async_client.aclose()


def ref(simulator, name):
    model, version = find(simulator, name)
    return f"{model.ref}:{version.id}"


async def test_run_returns_the_output(client, simulator):
    """By version and by an official model's name; blocking and polling."""
    text = await asyncio.to_thread(
        lambda: "".join(client.run(ref(simulator, "acme/storyteller"), {"prompt": "x", "seed": 1}))
    )
    assert "Here is" in text
    links = await asyncio.to_thread(client.run, ref(simulator, "acme/painter"), {"width": 16, "height": 16, "seed": 1})
    assert str(links[0]).startswith(simulator.delivery_url)
    words = await client.async_run("acme/official-storyteller", {"prompt": "x", "temperature": 0})
    assert "".join(words).startswith("\n\nHere is")
    slow = await asyncio.to_thread(client.run, ref(simulator, "acme/slow"), {"duration": 1, "seed": 1}, wait=False)
    assert slow == "patience (seed 1, 20 steps)"


async def test_stream_yields_the_tokens(client, simulator):
    """Event by event until done. This client sends its token to every host."""

    def read():
        return [
            (event.event.value, str(event))
            for event in client.stream(ref(simulator, "acme/storyteller"), input={"prompt": "x"})
        ]

    events = await asyncio.to_thread(read)
    assert events[-1] == ("done", "")
    assert "Here is" in "".join(text for _, text in events)
    asynchronous = [
        event.event.value
        async for event in await client.async_stream("acme/official-storyteller", input={"prompt": "x"})
    ]
    assert asynchronous[-1] == "done"
    assert simulator.requests.authorized("delivery") == 2


async def test_predictions_are_created_reloaded_cancelled_and_waited_for(client, simulator):
    """Responses of both formats validate."""
    _, version = find(simulator, "acme/slow")
    prediction = await client.predictions.async_create(version=version.id, input={"duration": 1000})
    await prediction.async_reload()
    await prediction.async_cancel()
    assert prediction.status == "canceled"
    assert (await client.predictions.async_get(prediction.id)).status == "canceled"
    hello = await asyncio.to_thread(
        lambda: client.predictions.create(version=find(simulator, "replicate/hello-world")[1].id, input={"text": "x"})
    )
    await asyncio.to_thread(hello.wait)
    assert hello.output == "hello x"
    deployed = await client.deployments.predictions.async_create(("acme", "story-service"), {"prompt": "x"})
    await deployed.async_wait()
    assert deployed.status == "succeeded"


async def test_paginate_follows_the_links(client, api):
    """To the last page."""
    for _ in range(120):
        await api.create("replicate/hello-world", {"text": "x"})

    def count():
        return [len(page.results) for page in replicate.pagination.paginate(client.predictions.list)]

    assert await asyncio.to_thread(count) == [100, 20]


async def test_files_are_uploaded_and_used(client, simulator):
    """A file object in the input is uploaded and read by the model."""
    file = io.BytesIO(paint("x", 1, 20, 20))
    file.name = "a.png"
    link = await asyncio.to_thread(client.run, ref(simulator, "acme/upscale"), {"image": file})
    assert str(link).endswith("/output.png")
    (uploaded,) = await client.files.async_list()
    assert uploaded.name == "a.png"
    assert uploaded.content_type == "image/png"
    assert (await client.files.async_get(uploaded.id)).size == uploaded.size
    assert await client.files.async_delete(uploaded.id)


async def test_other_resources_validate_in_the_client(client, simulator):
    """Models, versions, collections, hardware, deployments, account, search, trainings, webhook secret."""
    model = await client.models.async_get("stability-ai/sdxl")
    assert model.latest_version.id.startswith("39ed52f2")
    assert len((await client.models.async_list()).results) > 5
    assert [each.name for each in (await client.models.async_search("llama")).results]
    assert len(await model.versions.async_list()) == 1
    assert (await client.collections.async_get("text-to-image")).name == "Text to image"
    assert any(each.slug == "testing" for each in (await client.collections.async_list()).results)
    assert any(each.sku == "cpu" for each in await client.hardware.async_list())
    assert (await client.deployments.async_get("acme/paint-service")).current_release.number == 1
    made = await client.deployments.async_create(
        name="new",
        model="acme/painter",
        version=find(simulator, "acme/painter")[1].id,
        hardware="cpu",
        min_instances=0,
        max_instances=1,
    )
    updated = await client.deployments.async_update(made.owner, made.name, max_instances=2)
    assert updated.current_release.number == 2
    assert await client.deployments.async_delete(made.owner, made.name)
    assert (await client.accounts.async_current()).username == "acme"
    assert (await client.webhooks.default.async_secret()).key.startswith("whsec_")
    private = await client.models.async_create("acme", "own", visibility="private", hardware="cpu")
    training = await client.trainings.async_create(
        "stability-ai/sdxl",
        model.latest_version.id,
        {"input_images": "https://example.com/a.zip"},
        destination=f"{private.owner}/{private.name}",
    )
    await training.async_reload()
    assert training.status in {"starting", "processing", "succeeded"}
    assert len((await client.trainings.async_list()).results) == 1


async def test_errors_become_the_clients_exceptions(client, simulator):
    """A model's failure is a ModelError, a refusal a ReplicateError; a 429 of a read is retried."""
    with pytest.raises(ModelError, match="division by zero"):
        await asyncio.to_thread(lambda: "".join(client.run(ref(simulator, "acme/fail"), {}, wait=False)))
    with pytest.raises(ReplicateError) as refused:
        await client.predictions.async_create(version="nonsense", input={})
    assert (refused.value.status, refused.value.title) == (422, "Invalid version or not permitted")
    simulator.faults.set(Fault("throttle", operation="account.get", retry_after=0, times=2))
    assert (await client.accounts.async_current()).username == "acme"
    assert simulator.requests.count("account.get") == 3
