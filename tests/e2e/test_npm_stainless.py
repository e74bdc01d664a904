"""npm `replicate-stainless` 0.9.0, the generated client: other requests than `replicate`, the same gateway."""

import base64
import time
from functools import partial

import pytest

from gateway.domain.scopes import Scope
from gateway.simulator import Simulator
from gateway.simulator.models.image import paint
from tests.support.http_calls import until_polled
from tests.support.node import Play
from tests.support.polling import until
from tests.support.simulator_models import INLINE_PICTURE, add_inline, hold_runs_until
from tests.support.stack import Stack
from tests.support.upstream import creates, paced_reads, reads, version_of

pytestmark = pytest.mark.node

STORY = {"prompt": "a llama in the snow", "seed": 7, "max_tokens": 24}


@pytest.fixture
def stainless(play: Play) -> Play:
    """Run a scenario of npm `replicate-stainless`."""
    return partial(play, "stainless.mjs")


async def test_run_blocks_on_request(stainless: Play, upstream: Simulator):
    """`wait: {mode: "block"}`: one request, the whole text."""
    done = await stainless("run", ref="acme/official-storyteller", input=STORY, wait={"mode": "block"})
    assert done.error is None
    assert len(done.result["output"]) == STORY["max_tokens"] + 1
    assert [request.method for request in done.requests] == ["POST"]
    assert done.requests[0].headers["prefer"] == "wait"
    assert "x-stainless-lang" in done.requests[0].headers
    assert creates(upstream) == 1
    assert upstream.requests.find("*predictions.create")[0].json == {"input": STORY}
    assert not [name for name in upstream.requests[0].headers if name.startswith("x-stainless")]


async def test_run_polls_by_default(stainless: Play, upstream: Simulator, gateway: Stack):
    """Without `wait` this client polls; the polls end at the gateway."""
    hold_runs_until(upstream, "acme/slow", partial(until_polled, gateway, 40))
    began = time.monotonic()
    version = version_of(upstream, "acme/slow")
    done = await stainless(
        "run",
        ref=f"acme/slow:{version}",
        input={"prompt": "patience", "duration": 2, "steps": 10, "seed": 1},
        wait={"mode": "poll", "interval": 5},
    )
    assert done.result["output"] == "patience (seed 1, 10 steps)"
    polls = done.count("GET")
    assert polls >= 40
    assert creates(upstream) == 1
    assert reads(upstream) <= paced_reads(time.monotonic() - began)


async def test_abort_cancels_the_run_between_two_polls(stainless: Play, upstream: Simulator, slow: str):
    """As with `replicate`: the run that costs money ends."""
    done = await stainless(
        "abort",
        ref=f"acme/slow:{slow}",
        input={"duration": 600},
        wait={"mode": "poll", "interval": 50},
        after=300,
    )
    assert done.error is None
    assert done.result["seen"][-1]["status"] == "canceled"
    await until(lambda: upstream.predictions[0].status == "canceled")


async def test_base_and_key_come_from_the_environment(stainless: Play, gateway: Stack):
    """The two variables of its README are all that has to change."""
    environ = {"REPLICATE_BASE_URL": gateway.base_url, "REPLICATE_API_TOKEN": gateway.keys["alpha"]}
    done = await stainless("fromEnvironment", environ=environ)
    assert done.result == "alpha"


async def test_predictions_are_created_read_listed_and_canceled(stainless: Play, upstream: Simulator, gateway: Stack):
    """Every method for predictions, with the filters that only this client has."""
    done = await stainless("predictions", version=version_of(upstream, "acme/storyteller"), input=STORY)
    assert done.error is None
    result = done.result
    assert result["created"]["status"] == "starting"
    assert result["waited"]["status"] == result["ended"]["status"] == "succeeded"
    assert result["got"]["id"] == result["waited"]["id"]
    assert result["canceled"]["status"] == "canceled"
    assert [each["id"] for each in result["listed"]] == [
        result[name]["id"] for name in ("canceled", "waited", "created")
    ]
    assert [each["id"] for each in result["recent"]] == [result[name]["id"] for name in ("canceled", "waited")]
    assert result["got"]["urls"]["get"] == f"{gateway.base_url}/predictions/{result['got']['id']}"
    assert creates(upstream) == 2, "the awaited one, equal to the first and seeded, shares its run"
    assert upstream.requests.count("predictions.list") == 0
    await until(lambda: upstream.requests.count("predictions.cancel") == 1)


@pytest.mark.timeout(60)
async def test_lists_are_paged(stainless: Play, upstream: Simulator, gateway: Stack):
    """`for await` follows `next`, which it parses and builds again."""
    version = version_of(upstream, "replicate/hello-world")
    async with gateway.caller() as caller:
        for number in range(105):
            body = {"version": version, "input": {"text": str(number)}}
            async with caller.post("/v1/predictions", json=body) as answer:
                assert answer.status == 201
    done = await stainless("pages", what="predictions")
    assert done.result == [each.id for each in reversed(upstream.predictions)]
    assert done.count("GET") == 2


async def test_models_are_read_searched_created_and_deleted(stainless: Play, upstream: Simulator):
    """Every method for models, including those that `replicate` lacks: examples, readme, delete."""
    version = version_of(upstream, "stability-ai/sdxl")
    done = await stainless("models", owner="stability-ai", name="sdxl", version=version, made="for-a-moment")
    assert done.error is None
    result = done.result
    assert result["model"]["name"] == "sdxl"
    assert result["version"]["id"] == version
    assert len(result["examples"]["results"]) == 1
    assert result["readme"].startswith("# sdxl")
    assert [each["name"] for each in result["found"]["results"]]
    assert result["made"]["name"] == "for-a-moment"
    assert result["deleted"] == 204
    assert "acme/for-a-moment" not in upstream.world.registry.models
    for operation in ("models.get", "models.examples.list", "models.readme.get", "models.search", "models.delete"):
        assert upstream.requests.count(operation) == 1, operation


async def test_account_secret_hardware_collections_and_deployments(
    stainless: Play, upstream: Simulator, gateway: Stack
):
    """The rest of the client's methods."""
    done = await stainless("rest", version=version_of(upstream, "acme/storyteller"), input=STORY)
    assert done.error is None
    result = done.result
    assert result["account"]["username"] == "alpha"
    assert result["secret"]["key"].startswith("whsec_")
    assert {"name": "CPU", "sku": "cpu"} in result["hardware"]
    assert result["collection"]["slug"] == "text-to-image"
    assert result["collection"]["slug"] in [each["slug"] for each in result["collections"]["results"]]
    assert sorted(each["name"] for each in result["deployments"]) == ["paint-service", "story-service"]
    assert result["deployment"]["name"] == "story-service"
    assert result["updated"]["current_release"]["configuration"]["max_instances"] == 3
    assert result["deployed"]["status"] == "succeeded"
    assert result["deployed"]["deployment"] == "acme/story-service"
    assert upstream.requests.count("deployments.predictions.create") == creates(upstream) == 1


async def test_trainings_run_and_are_canceled(stainless: Play, upstream: Simulator, gateway: Stack):
    """As with `replicate`."""
    async with gateway.caller() as caller:
        body = {"owner": "acme", "name": "tuned", "visibility": "private", "hardware": "cpu"}
        async with caller.post("/v1/models", json=body) as answer:
            assert answer.status == 201
    done = await stainless(
        "trainings",
        owner="acme",
        name="storyteller",
        version=version_of(upstream, "acme/storyteller"),
        destination="acme/tuned",
        input={"train_data": "https://example.com/data.jsonl"},
    )
    assert done.error is None
    assert done.result["got"]["status"] == "succeeded"
    assert done.result["canceled"]["status"] == "canceled"
    assert len(done.result["listed"]) == 2
    assert upstream.requests.count("trainings.create") == 2


async def test_files_are_uploaded_listed_and_deleted(stainless: Play, upstream: Simulator):
    """Its multipart bodies are built differently; the file is the same."""
    data = paint("a picture", 1, 16, 16)
    done = await stainless("files", base64=base64.b64encode(data).decode())
    assert done.error is None
    assert (done.result["made"]["name"], done.result["made"]["size"]) == ("a.png", len(data))
    assert done.result["got"] == done.result["made"] == done.result["listed"][0]
    assert done.result["after"] == []
    assert upstream.requests.count("files.create") == upstream.requests.count("files.delete") == 1


async def test_metadata_in_this_clients_spelling_is_accepted(stainless: Play, upstream: Simulator):
    """It sends `metadata[purpose]` where Replicate expects one JSON part; the file is accepted anyway."""
    data = base64.b64encode(paint("a picture", 1, 16, 16)).decode()
    done = await stainless("files", base64=data, metadata={"purpose": "test"})
    assert done.error is None
    assert done.result["made"]["name"] == "a.png"


@pytest.mark.parametrize("kind", ["file", "buffer"])
@pytest.mark.parametrize("strategy", ["default", "upload", "data-uri"])
async def test_file_in_an_input_reaches_the_model(stainless: Play, upstream: Simulator, strategy: str, kind: str):
    """All three strategies work here, `data-uri` too."""
    data = base64.b64encode(paint("a picture", 1, 16, 16)).decode()
    version = version_of(upstream, "acme/upscale")
    done = await stainless("runWithFile", ref=f"acme/upscale:{version}", base64=data, strategy=strategy, kind=kind)
    assert done.error is None
    assert done.result.startswith(upstream.delivery_url)
    posted = upstream.requests.find("predictions.create")[0].json["input"]["image"]
    assert posted.startswith("data:" if strategy == "data-uri" else f"{upstream.base_url}/files/")
    assert upstream.requests.count("files.create") == (0 if strategy == "data-uri" else 1)


async def test_nameless_blob_is_omitted_by_this_client(stainless: Play, upstream: Simulator):
    """0.9.0 leaves such a Blob out of its multipart body. The gateway says what is missing; a `File` works."""
    data = base64.b64encode(paint("a picture", 1, 16, 16)).decode()
    version = version_of(upstream, "acme/upscale")
    done = await stainless("runWithFile", ref=f"acme/upscale:{version}", base64=data, strategy="upload", kind="blob")
    assert done.error["status"] == 422
    assert "content is required" in done.error["message"]
    assert creates(upstream) == 0


async def test_output_is_a_file_on_request(stainless: Play, upstream: Simulator):
    """`useFileOutput: true`; `http:` links stay strings here too."""
    add_inline(upstream)
    inline = await stainless("runToFiles", ref="acme/inline", input={})
    assert [(each["kind"], each["type"]) for each in inline.result] == [("FileOutput", "image/png")]
    assert base64.b64decode(inline.result[0]["base64"]) == INLINE_PICTURE
    hosted = await stainless("runToFiles", ref="black-forest-labs/flux-schnell", input={"prompt": "a lake"})
    assert [each["kind"] for each in hosted.result] == ["string"]


async def test_key_without_the_scope_gets_the_matching_error_class(
    stainless: Play, upstream: Simulator, gateway: Stack
):
    """403 is `PermissionDeniedError`, 401 `AuthenticationError`, with the gateway's message."""
    async with gateway.caller() as caller:
        body = {"ttl_seconds": 60, "scopes": [str(Scope.READ)], "origins": None}
        async with caller.post("/gateway/tokens", json=body) as answer:
            narrow = (await answer.json())["token"]
    refused = await stainless("run", ref="acme/official-storyteller", input=STORY, key=narrow)
    assert (refused.error["name"], refused.error["status"]) == ("PermissionDeniedError", 403)
    assert refused.error["body"]["detail"]
    unknown = await stainless("run", ref="acme/official-storyteller", input=STORY, key="rgw_nosuchkey000_" + "x" * 32)
    assert (unknown.error["name"], unknown.error["status"]) == ("AuthenticationError", 401)
    assert creates(upstream) == 0
