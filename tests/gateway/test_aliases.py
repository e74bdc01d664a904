"""Aliases: a name of the operators' own runs what the config says, on every route that names a target."""

import json
from typing import Any

import pytest

from gateway.config import Config
from gateway.simulator import Simulator
from tests.support.access_log import AccessLog
from tests.support.http_calls import ask
from tests.support.python_client import python_client
from tests.support.stack import OpenGateway, Stack, stack_config
from tests.support.upstream import creates, version_of

SCHNELL, STORY = "black-forest-labs/flux-schnell", "acme/storyteller"
IMAGE = {"prompt": "a lake", "seed": 3}
WORDS = {"prompt": "a llama", "seed": 7, "max_tokens": 2}
WAIT = {"Prefer": "wait"}


def aliases_of(upstream: Simulator) -> list[dict[str, Any]]:
    painter = f"acme/painter:{version_of(upstream, 'acme/painter')}"
    return [
        {"name": "team/image", "target": SCHNELL},
        {"name": "team/image", "target": painter, "teams": ["beta"]},
        {"name": "team/story", "target": f"{STORY}:{version_of(upstream, STORY)}"},
        {"name": "team/service", "target": "deployments/acme/story-service"},
    ]


@pytest.fixture
def found() -> list[Config]:
    """The config that a reload reads, as its last item."""
    return []


@pytest.fixture
async def gateway(open_gateway: OpenGateway, upstream: Simulator, found: list[Config]):
    """A gateway with aliases of each kind."""
    async with open_gateway(aliases=aliases_of(upstream), reread=found.pop) as stack:
        yield stack


async def by_version(stack: Stack, version: str, given: Any, key: str = "alpha", **headers: str):
    body = {"version": version, "input": given}
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    return await ask(stack, "POST", "/v1/predictions", json=body, key=key, headers=WAIT | headers)


async def by_model(stack: Stack, model: str, given: Any, key: str = "alpha", kind: str = "models"):
    return await ask(stack, "POST", f"/v1/{kind}/{model}/predictions", json={"input": given}, key=key, headers=WAIT)


def sent(upstream: Simulator) -> tuple[str, Any]:
    """Return the path and the body of the last create that upstream received."""
    last = [seen for seen in upstream.requests if seen.operation.endswith("predictions.create")][-1]
    return last.path.removeprefix("/v1"), json.loads(last.body)


@pytest.mark.parametrize(
    ("name", "given", "model", "path"),
    [
        ("team/image", IMAGE, SCHNELL, f"/models/{SCHNELL}/predictions"),
        ("team/story", WORDS, STORY, "/predictions"),
        ("team/service", WORDS, STORY, "/deployments/acme/story-service/predictions"),
    ],
)
async def test_alias_runs_its_target_on_every_route(gateway: Stack, name: str, given: Any, model: str, path: str):
    """By version, as a model and as a deployment: one run, which upstream is asked for by the real name."""
    first = await by_model(gateway, name, given)
    assert (first.status, first.json["status"]) == (201, "succeeded"), first.text
    assert first.json["model"] == model
    where, body = sent(gateway.upstream)
    assert where == path
    assert name not in json.dumps(body)
    others = [await by_version(gateway, name, given), await by_model(gateway, name, given, kind="deployments")]
    assert [reply.headers["Cache-Status"].split("; ")[1] for reply in others] == ["hit", "hit"]
    assert creates(gateway.upstream) == 1
    for reply in (first, *others):
        assert name not in reply.text


async def test_alias_and_real_name_share_one_run(gateway: Stack):
    """They are the same request."""
    assert (await by_version(gateway, "team/image", IMAGE)).status == 201
    assert sent(gateway.upstream) == ("/predictions", {"version": SCHNELL, "input": IMAGE})
    assert "; hit" in (await by_model(gateway, SCHNELL, IMAGE)).headers["Cache-Status"]
    assert creates(gateway.upstream) == 1


async def test_alias_of_a_team_takes_precedence(gateway: Stack):
    """One name, and for beta another model."""
    small = {"prompt": "a lake", "seed": 3, "width": 32, "height": 32}
    assert (await by_model(gateway, "team/image", small, "beta")).json["model"] == "acme/painter"
    assert (await by_model(gateway, "team/image", IMAGE)).json["model"] == SCHNELL
    described = [await ask(gateway, "GET", "/v1/models/team/image", key=key) for key in ("alpha", "beta")]
    assert [reply.json["name"] for reply in described] == ["flux-schnell", "painter"]


async def test_version_of_a_request_is_one_of_the_target(gateway: Stack):
    """A client that pins a version under the alias gets that version of the real model."""
    version = version_of(gateway.upstream, STORY)
    assert (await by_version(gateway, f"team/story:{version}", WORDS)).json["model"] == STORY
    assert sent(gateway.upstream)[1]["version"] == f"{STORY}:{version}"


async def test_metadata_is_that_of_the_target(gateway: Stack):
    """The model, its versions and its readme, once for both names; a deployment among deployments only."""
    for path in ("", "/versions", "/readme", f"/versions/{version_of(gateway.upstream, STORY)}"):
        real, alias = [await ask(gateway, "GET", f"/v1/models/{name}{path}") for name in (STORY, "team/story")]
        assert (alias.status, alias.body) == (real.status, real.body)
    assert gateway.upstream.requests.count("models.get") == 1
    assert (await ask(gateway, "GET", "/v1/models/team/service")).status == 404
    service = await ask(gateway, "GET", "/v1/deployments/team/service")
    assert (service.status, service.json["name"]) == (200, "story-service")
    assert (await ask(gateway, "GET", "/v1/deployments/team/image")).status == 404


async def test_training_of_an_alias_trains_its_model(gateway: Stack):
    """The version is the caller's, the destination is no alias."""
    version = version_of(gateway.upstream, STORY)
    reply = await ask(
        gateway, "POST", f"/v1/models/team/story/versions/{version}/trainings",
        json={"destination": "acme/painter", "input": {"train_data": "https://example.com/a"}},
    )  # fmt: skip
    assert reply.status == 201, reply.text
    (seen,) = [seen for seen in gateway.upstream.requests if seen.operation == "trainings.create"]
    assert seen.path.endswith(f"/models/{STORY}/versions/{version}/trainings")


async def test_writes_do_not_follow_an_alias(gateway: Stack):
    """Deleting the alias deletes nothing of its target."""
    version = version_of(gateway.upstream, STORY)
    reply = await ask(gateway, "DELETE", f"/v1/models/team/story/versions/{version}", key="operator")
    assert reply.status == 404
    assert version_of(gateway.upstream, STORY) == version


async def test_allow_list_price_and_rules_are_those_of_the_target(open_gateway: OpenGateway, upstream: Simulator):
    """A list that allows the alias allows nothing; the estimate, the price and the rule follow the real name."""
    teams = {"alpha": {"models": [SCHNELL]}, "beta": {"models": ["team/*"]}}
    rules = {"rules": [{"model": SCHNELL, "mode": "always"}]}
    aliases = [{"name": "team/image", "target": SCHNELL}]
    async with open_gateway(teams=teams, cache=rules, aliases=aliases) as stack:
        refused = await by_model(stack, "team/image", IMAGE, "beta")
        assert (refused.status, refused.json["title"]) == (403, "Target not allowed")
        body = {"version": "team/image", "input": {"prompt": "a"}}
        estimate = (await ask(stack, "POST", "/gateway/estimate", json=body)).json
        assert (estimate["result"], estimate["reason"], estimate["estimate_microusd"]) == ("run", "rule-always", 3000)
        created = await by_version(stack, "team/image", {"prompt": "a"})
        explained = (await ask(stack, "GET", f"/gateway/explain/{created.json['id']}")).text
        assert SCHNELL in explained
        usage = (await ask(stack, "GET", "/gateway/usage?by=model")).text
        assert SCHNELL in usage
        assert "team/image" not in usage


async def test_token_for_an_alias_may_run_its_target(gateway: Stack):
    """The server that mints it need not know the model either."""
    body = {"ttl_seconds": 60, "scopes": ["predict"], "models": ["team/image"], "user": "u", "origins": None}
    body["origins"] = ["https://app.example.com"]
    minted = await ask(gateway, "POST", "/gateway/tokens", json=body)
    assert minted.status == 201, minted.text
    headers = {"Authorization": f"Bearer {minted.json['token']}", "Origin": "https://app.example.com"}

    async def status(model: str) -> int:
        path = f"/v1/models/{model}/predictions"
        return (await ask(gateway, "POST", path, json={"input": IMAGE}, key=None, headers=headers)).status

    assert [await status(model) for model in ("team/image", SCHNELL, "team/story")] == [201, 201, 403]


async def test_token_and_key_for_an_alias_follow_it(gateway: Stack, found: list[Config]):
    """A reload gives both the new target and takes the old one away."""
    origins = ["https://app.example.com"]
    body = {"ttl_seconds": 60, "models": ["team/image"], "user": "u", "origins": origins}
    minted = await ask(gateway, "POST", "/gateway/tokens", json=body)
    wanted = {"team": "alpha", "models": ["team/image"]}
    made = await ask(gateway, "POST", "/admin/keys", base=gateway.ops_url, key=None, json=wanted)
    assert made.status == 201, made.text

    async def status(model: str) -> list[int]:
        path, statuses = f"/v1/models/{model}/predictions", []
        for secret, more in ((minted.json["token"], {"Origin": origins[0]}), (made.json["key"], {})):
            headers = {"Authorization": f"Bearer {secret}"} | more
            statuses.append((await ask(gateway, "POST", path, json={"input": IMAGE}, key=None, headers=headers)).status)
        return statuses

    assert [await status(model) for model in ("team/image", SCHNELL, STORY)] == [[201, 201], [201, 201], [403, 403]]
    new = [{"name": "team/image", "target": STORY}]
    found.append(stack_config(gateway.upstream, gateway.database.parent, gateway.keys, aliases=new)[0])
    assert await gateway.running.reloading.reload()
    assert await status(SCHNELL) == [403, 403]
    assert 403 not in await status("team/image") + await status(STORY)


async def test_replicates_own_client_runs_an_alias(gateway: Stack):
    """`run`, and what it reads of the model, with the alias for a name."""
    python = python_client(gateway.keys["alpha"], gateway.origin, is_async=False)
    output = await python.do(python.client, "run", "team/story", input=WORDS)
    assert "".join(output).startswith("\n\nHere is")
    model = await python.do(python.client.models, "get", "team/story")
    assert (model.owner, model.name) == ("acme", "storyteller")
    versions = await python.do(model.versions, "list")
    assert next(version.id for version in versions) == version_of(gateway.upstream, STORY)
    await python.close()


async def test_reload_changes_an_alias_for_new_creates_only(gateway: Stack, found: list[Config]):
    """Predictions stay; a request that is repeated with its idempotency key stays the same request."""

    async def reload(**sections: Any) -> None:
        found.append(stack_config(gateway.upstream, gateway.database.parent, gateway.keys, **sections)[0])
        assert await gateway.running.reloading.reload()

    first = await by_version(gateway, "team/image", IMAGE, Idempotency_Key="one")
    target = f"acme/painter:{version_of(gateway.upstream, 'acme/painter')}"
    await reload(aliases=[{"name": "team/image", "target": target}])
    again = await by_version(gateway, "team/image", IMAGE, Idempotency_Key="one")
    assert (again.status, again.json["id"]) == (201, first.json["id"])
    assert again.headers["Idempotency-Replayed"] == "true"
    assert (await by_version(gateway, "team/image", IMAGE)).json["model"] == "acme/painter"
    assert (await ask(gateway, "GET", f"/v1/predictions/{first.json['id']}")).json["model"] == SCHNELL
    other = await by_version(gateway, SCHNELL, IMAGE, Idempotency_Key="one")
    assert other.status == 422
    await reload()
    assert (await by_version(gateway, "team/image", IMAGE)).status in (404, 422)


async def test_access_log_names_alias_and_target(gateway: Stack, access_log: AccessLog):
    """An operator finds the requests of an alias, and what it stood for. A real name has no such field."""
    await by_model(gateway, "team/image", IMAGE)
    await by_model(gateway, SCHNELL, IMAGE)
    await ask(gateway, "GET", "/v1/models/team/image")
    fields = [(line["route"], line["target"], line.get("alias")) for line in access_log.lines]
    assert fields == [
        ("models.predictions.create", SCHNELL, "team/image"),
        ("models.predictions.create", SCHNELL, None),
        ("models.get", SCHNELL, "team/image"),
    ]
