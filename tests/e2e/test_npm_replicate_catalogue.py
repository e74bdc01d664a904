"""npm `replicate` 1.4.0 from Node: models, collections, deployments, trainings, the account, and errors."""

import pytest

from gateway.simulator import Simulator
from tests.support.node import Play
from tests.support.polling import until
from tests.support.stack import Stack
from tests.support.upstream import creates, version_of

pytestmark = pytest.mark.node

STORY = {"prompt": "a llama in the snow", "seed": 7, "max_tokens": 24}


async def test_paginate_follows_pages_of_models(replicate_js: Play, upstream: Simulator, gateway: Stack):
    """Links of relayed lists lead to the gateway, too."""
    program = upstream.world.registry.models["replicate/hello-world"].versions[0].program
    for number in range(30):
        upstream.world.registry.add_version(f"many/model-{number}", program)
    done = await replicate_js("pages", what="models")
    assert [len(page) for page in done.result][:1] == [25]
    names = [each for page in done.result for each in page]
    assert len(names) == len(set(names)) == len(upstream.world.registry.models)
    assert all(request.url.startswith(f"{gateway.base_url}/models") for request in done.requests)
    assert upstream.requests.count("models.list") == len(done.result)


async def test_models_and_versions_are_relayed(replicate_js: Play, upstream: Simulator, gateway: Stack):
    """Metadata is upstream's; links inside examples are unchanged."""
    done = await replicate_js("models", owner="stability-ai", name="sdxl")
    assert done.error is None
    model = done.result["model"]
    assert model["owner"] == "stability-ai"
    assert model["latest_version"]["openapi_schema"]["components"]["schemas"]["Input"]["properties"]["seed"]
    assert model["default_example"]["urls"]["get"].startswith(upstream.base_url)
    assert "stability-ai/sdxl" in [f"{each['owner']}/{each['name']}" for each in done.result["list"]["results"]]
    assert (
        done.result["version"]["id"]
        == done.result["versions"]["results"][0]["id"]
        == version_of(upstream, "stability-ai/sdxl")
    )
    for operation in ("models.get", "models.list", "models.versions.list", "models.versions.get"):
        assert upstream.requests.count(operation) == 1, operation


async def test_repeated_metadata_is_served_from_memory(replicate_js: Play, upstream: Simulator):
    """Two programs that start within a minute cost upstream one read."""
    first = await replicate_js("models", owner="stability-ai", name="sdxl")
    second = await replicate_js("models", owner="stability-ai", name="sdxl")
    assert second.result == first.result
    for operation in ("models.get", "models.list", "models.versions.list", "models.versions.get"):
        assert upstream.requests.count(operation) == 1, operation


async def test_models_are_searched(replicate_js: Play, upstream: Simulator):
    """The method QUERY with the words in quotes, as 1.4.0 sends them."""
    done = await replicate_js("search", words="llama")
    assert len(done.result["results"]) >= 2
    assert all("llama" in f"{each['name']} {each['description']}".lower() for each in done.result["results"])
    assert done.requests[0].method == "QUERY"
    assert upstream.requests.count("models.search") == 1


async def test_model_is_created(replicate_js: Play, upstream: Simulator):
    """A team that may manage models creates one in the account."""
    done = await replicate_js("createModel", owner="acme", name="made-here")
    assert done.error is None
    assert done.result["url"].endswith("acme/made-here")
    assert "acme/made-here" in upstream.world.registry.models


async def test_collections_and_hardware_are_relayed(replicate_js: Play, upstream: Simulator):
    """Lists that belong to no team."""
    done = await replicate_js("collections")
    assert done.result["one"]["slug"] == done.result["list"]["results"][0]["slug"]
    assert done.result["one"]["models"]
    assert upstream.requests.count("collections.list") == upstream.requests.count("collections.get") == 1
    hardware = await replicate_js("hardware")
    assert {"name": "CPU", "sku": "cpu"} in hardware.result
    assert upstream.requests.count("hardware.list") == 1


async def test_deployments_are_created_run_changed_and_deleted(
    replicate_js: Play, upstream: Simulator, gateway: Stack, storyteller: str
):
    """The whole life of a deployment; a prediction through it is one create, and upstream's refusals pass through."""
    done = await replicate_js("deployments", version=storyteller, input=STORY)
    assert done.error is None
    assert done.result["made"]["current_release"]["number"] == 1
    assert done.result["made"]["current_release"]["configuration"]["hardware"] == "cpu"
    assert "from-a-test" in [each["name"] for each in done.result["list"]["results"]]
    assert done.result["got"]["name"] == "from-a-test"
    assert done.result["changed"]["current_release"]["number"] == 2
    prediction = done.result["prediction"]
    assert prediction["status"] == "succeeded"
    assert prediction["deployment"] == "acme/from-a-test"
    assert prediction["urls"]["get"] == f"{gateway.base_url}/predictions/{prediction['id']}"
    assert upstream.requests.count("deployments.predictions.create") == creates(upstream) == 1
    assert upstream.requests.count("deployments.create") == upstream.requests.count("deployments.update") == 1

    busy = await replicate_js("deleteDeployment", owner="acme", name="from-a-test")
    assert busy.error["status"] == 403
    assert "unused for at least 15 minutes" in busy.error["message"]
    upstream.clock.advance(16 * 60)
    gone = await replicate_js("deleteDeployment", owner="acme", name="from-a-test")
    assert gone.result is True
    assert "acme/from-a-test" not in upstream.world.registry.deployments


async def test_trainings_run_to_their_end_or_are_canceled(
    replicate_js: Play, upstream: Simulator, gateway: Stack, storyteller: str
):
    """A training is followed like a prediction, under both URLs that Replicate gives it."""
    await replicate_js("createModel", owner="acme", name="tuned")
    done = await replicate_js(
        "trainings",
        owner="acme",
        name="storyteller",
        version=storyteller,
        destination="acme/tuned",
        input={"train_data": "https://example.com/data.jsonl"},
    )
    assert done.error is None
    created, got = done.result["created"], done.result["got"]
    assert created["status"] == "starting"
    assert created["urls"]["get"] == f"{gateway.base_url}/predictions/{created['id']}"
    assert got["urls"]["get"] == f"{gateway.base_url}/trainings/{created['id']}"
    assert got["status"] == done.result["asPrediction"]["status"] == "succeeded"
    assert got["output"]["version"].startswith("acme/tuned:")
    assert done.result["canceled"]["status"] == "canceled"
    assert [each["id"] for each in done.result["list"]["results"]] == [done.result["second"]["id"], created["id"]]
    assert upstream.requests.count("trainings.create") == 2
    assert upstream.requests.count("trainings.list") == 0
    await until(lambda: upstream.requests.count("trainings.cancel") == 1)
    seen = upstream.requests.find("trainings.create")[0].json
    assert seen == {"destination": "acme/tuned", "input": {"train_data": "https://example.com/data.jsonl"}}


async def test_account_is_the_team(replicate_js: Play, upstream: Simulator):
    """`accounts.current()` names the caller's team; only an operator sees the account."""
    alpha = await replicate_js("account")
    assert (alpha.result["type"], alpha.result["username"]) == ("organization", "alpha")
    assert upstream.requests.count("account.get") == 0
    operator = await replicate_js("account", team="operator")
    assert operator.result["username"] == "acme"


async def test_webhook_secret_is_the_teams_own(replicate_js: Play, upstream: Simulator):
    """Each team has its own, always the same, which the client's own check accepts; upstream's is not shown."""
    first, again, other = [
        await replicate_js("secret", team=team, message='{"a":1}') for team in ("alpha", "alpha", "beta")
    ]
    assert first.result["key"].startswith("whsec_")
    assert first.result["isValid"] is True
    assert first.result == again.result
    assert first.result["key"] != other.result["key"]
    assert upstream.settings.webhook_secret not in (first.result["key"], other.result["key"])
    assert upstream.requests.count("webhooks.default.secret.get") == 0


async def test_errors_carry_the_problem_document(replicate_js: Play, upstream: Simulator, gateway: Stack):
    """`ApiError`: status, content type and a body that says what is wrong, whether the gateway's or upstream's."""
    refused = await replicate_js("list", key="rgw_nosuchkey000_" + "x" * 32)
    assert refused.error["status"] == 401
    assert refused.error["headers"]["content-type"].startswith("application/problem+json")
    wrong = await replicate_js("run", ref="black-forest-labs/flux-schnell", input={})
    assert wrong.error["name"] == "ApiError"
    assert wrong.error["status"] == 422
    assert "prompt is required" in wrong.error["message"]
    assert wrong.error["message"].startswith(
        f"Request to {gateway.base_url}/models/black-forest-labs/flux-schnell/predictions "
        "failed with status 422 Unprocessable Entity: {"
    )
    missing = await replicate_js("run", ref="acme/storyteller:" + "0" * 64, input={})
    assert missing.error["status"] == 422
    assert "Invalid version or not permitted" in missing.error["message"]
    nowhere = await replicate_js("request", path="/no-such-route")
    assert nowhere.error["status"] == 404
    assert nowhere.error["headers"]["content-type"].startswith("application/problem+json")
