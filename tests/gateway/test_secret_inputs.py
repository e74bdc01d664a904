"""Inputs that a model's schema marks as secret go upstream and nowhere else (docs/architecture.md, Invariants 16).

The scanner of this folder searches for the values in every answer, log line and metric, and in every byte of the
database, its journal included.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from gateway.models.rules.secrets import REDACTED
from gateway.simulator import Fault, Simulator
from tests.support.http_calls import Reply, ask, metrics_of
from tests.support.polling import attempts
from tests.support.samples import finished
from tests.support.secret_scanner import LogScanner, SecretScanner
from tests.support.stack import OpenGateway, Stack
from tests.support.system_clocks import AdvancingClock
from tests.support.upstream import creates, version_of
from tests.support.webhook_receiver import Receiver, start_receiver

TOKEN, MORE, BAD, HUB = "sk-4f1c9e77aa02d6", 'sk-b"e/<é>88', "bad-5b31c0ffee42", "hf-0a9d8c7b6e5f"
LOCAL = {"webhooks": {"allow_http": True, "allow_private_addresses": True}}
RULES = {"rules": [{"model": "acme/*", "mode": "always"}]}
WAIT = {"Prefer": "wait"}
BYPASS = "replicate-gateway; fwd=bypass; detail="


@pytest.fixture(autouse=True)
def searched(secret_scanner: SecretScanner) -> None:
    """Search for the values in whatever leaves the gateway but for its requests to upstream."""
    for value in (TOKEN, "88\u00e9", BAD, HUB):
        secret_scanner.add("a secret input", value, is_sent=True)
    secret_scanner.add("a secret input", json.dumps(MORE)[1:-1], is_sent=True)
    secret_scanner.add("a secret input", MORE, is_sent=True)


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with start_receiver() as made:
        yield made


def named(upstream: Simulator, model: str = "acme/signer") -> str:
    return f"{model}:{version_of(upstream, model)}"


async def sign(stack: Stack, version: str, *, headers: dict[str, str] | None = None, **given: Any) -> Reply:
    body: dict[str, Any] = {"version": version, "input": {"text": "hi", "seed": 1, "api_token": TOKEN} | given}
    return await ask(stack, "POST", "/v1/predictions", json=body, headers={"Prefer": "wait"} | (headers or {}))


def sent_to(upstream: Simulator) -> list[Any]:
    """Return the inputs of the creates that upstream received."""
    return [json.loads(each.body)["input"] for each in upstream.requests if each.operation.endswith(".create")]


@pytest.mark.parametrize("kind", ["named", "bare"])
async def test_secret_reaches_the_model_and_nobody_else(
    open_gateway: OpenGateway, upstream: Simulator, receiver: Receiver, secret_scanner: SecretScanner, kind: str
):
    """The model signs with it; lists, get, webhooks, explain and the whole disk show Replicate's redaction."""
    async with open_gateway(**LOCAL, cache=RULES) as stack:
        version = named(upstream) if kind == "named" else version_of(upstream, "acme/signer")
        body = {
            "version": version,
            "input": {"text": "hi", "api_token": TOKEN, "more_tokens": [MORE, MORE], "seed": 3},
            "webhook": receiver.url + "/hook",
        }
        headers = WAIT | {"Idempotency-Key": "one"}
        made = await ask(stack, "POST", "/v1/predictions", json=body, headers=headers)
        assert (made.status, made.json["status"]) == (201, "succeeded")
        assert sent_to(upstream) == [body["input"]]
        shown = {"text": "hi", "seed": 3, "api_token": REDACTED, "more_tokens": [REDACTED, REDACTED]}
        assert made.json["input"] == shown
        assert (await ask(stack, "GET", "/v1/predictions/" + made.json["id"])).json["input"] == shown
        assert (await ask(stack, "GET", "/v1/predictions")).json["results"][0]["input"] == shown
        assert (await ask(stack, "GET", "/gateway/explain/" + made.json["id"])).status == 200
        await receiver.until(lambda: "succeeded" in receiver.statuses(made.json["id"]))
        for message in receiver.messages:
            secret_scanner.scan("a webhook", message.body)
            assert message.json["input"] == shown
        again = await ask(stack, "POST", "/v1/predictions", json=body, headers=headers)
        assert again.headers["Idempotency-Replayed"] == "true"
        other = body | {"input": body["input"] | {"api_token": "sk-another"}}
        assert (await ask(stack, "POST", "/v1/predictions", json=other, headers=headers)).status == 422


async def test_request_with_a_secret_is_not_shared(open_gateway: OpenGateway, upstream: Simulator):
    """Neither a seed nor a rule `always` shares it, and the reason says so."""
    async with open_gateway(cache=RULES) as stack:
        version = named(upstream)
        replies = [await sign(stack, version) for _ in range(2)]
        assert {each.headers["Cache-Status"] for each in replies} == {BYPASS + "secret-input"}
        assert replies[0].json["output"] == replies[1].json["output"]
        estimate = {"version": version, "input": {"text": "hi", "seed": 1, "api_token": TOKEN}}
        foreseen = await ask(stack, "POST", "/gateway/estimate", json=estimate)
        assert (foreseen.json["result"], foreseen.json["reason"]) == ("run", "secret-input")
        assert 'reason="secret-input"' in await metrics_of(stack)
        assert creates(upstream) == 2


async def test_secret_of_an_unknown_version_is_not_shared(open_gateway: OpenGateway, upstream: Simulator):
    """Equal requests by a bare version id wait for its model, then each gets a run of its own."""
    async with open_gateway() as stack:
        version = version_of(upstream, "acme/signer")
        replies = await asyncio.gather(*(sign(stack, version) for _ in range(3)))
        assert [each.json["status"] for each in replies] == ["succeeded"] * 3
        assert creates(upstream) == 3


@pytest.mark.parametrize("kind", ["named", "bare"])
async def test_model_that_quotes_a_secret_in_its_error_is_redacted(
    open_gateway: OpenGateway, upstream: Simulator, kind: str
):
    """The error and the logs of the run name the token; no record of the gateway does."""
    async with open_gateway() as stack:
        version = named(upstream) if kind == "named" else version_of(upstream, "acme/signer")
        reply = await sign(stack, version, api_token=BAD, seed=None)
        shown = await finished(stack, reply.json["id"])
        assert (shown["status"], shown["error"]) == ("failed", f"Invalid API token: {REDACTED}")
        assert shown["logs"] == f"token: {REDACTED}\n"


@pytest.mark.parametrize("value", ["predict_time", "succeeded"])
async def test_secret_cannot_hide_what_its_run_cost(open_gateway: OpenGateway, upstream: Simulator, value: str):
    """Values are struck where a model can quote them, not in the fields that say how the run went."""
    async with open_gateway() as stack:
        reply = await sign(stack, named(upstream), more_tokens=[value])
        assert reply.json["status"] == "succeeded"
        assert reply.json["metrics"]["predict_time"] > 0


@pytest.mark.parametrize("kind", ["named", "bare"])
async def test_refusal_that_quotes_a_secret_is_redacted(open_gateway: OpenGateway, upstream: Simulator, kind: str):
    """Upstream refuses the create and repeats the value: neither logs nor recent errors have it."""
    async with open_gateway() as stack:
        version = named(upstream) if kind == "named" else version_of(upstream, "acme/signer")
        upstream.faults.set(
            Fault("error", operation="predictions.create", status=422, value=f"bad token {BAD}", times=1)
        )
        reply = await sign(stack, version, api_token=BAD)
        assert reply.status == 422
        assert REDACTED in reply.text


async def test_refusal_that_quotes_a_secret_of_a_list_is_redacted(open_gateway: OpenGateway, upstream: Simulator):
    """Nothing is known of a bare version: the texts of lists are searched for, too."""
    async with open_gateway() as stack:
        upstream.faults.set(
            Fault("error", operation="predictions.create", status=422, value=f"bad token {BAD}", times=1)
        )
        reply = await sign(stack, version_of(upstream, "acme/signer"), more_tokens=["sk-other", BAD])
        assert reply.status == 422
        assert REDACTED in reply.text


async def test_training_with_a_secret(open_gateway: OpenGateway, upstream: Simulator):
    """`TrainingInput` has secrets of its own."""
    async with open_gateway(teams={"alpha": {"scopes": ["read", "predict", "train"]}}) as stack:
        path = f"/v1/models/acme/signer/versions/{version_of(upstream, 'acme/signer')}/trainings"
        body = {"destination": "acme/painter", "input": {"examples": "x", "hub_token": HUB}}
        made = await ask(stack, "POST", path, json=body)
        assert made.status == 201, made.text
        assert made.json["input"] == {"examples": "x", "hub_token": REDACTED}
        assert sent_to(upstream) == [body["input"]]


@pytest.mark.parametrize("kind", ["named", "bare"])
async def test_uncertain_create_with_a_secret_is_found(open_gateway: OpenGateway, upstream: Simulator, kind: str):
    """The list shows the redaction: the one run that is equal otherwise is the caller's."""
    async with open_gateway() as stack:
        version = named(upstream) if kind == "named" else version_of(upstream, "acme/signer")
        upstream.faults.set(Fault("drop_after", operation="predictions.create", times=1))
        reply = await sign(stack, version)
        assert (reply.status, reply.json["id"]) == (201, upstream.predictions[0].id)
        assert creates(upstream) == 1


@pytest.mark.parametrize("kind", ["named", "bare"])
async def test_adopted_run_that_quotes_a_secret_is_redacted(open_gateway: OpenGateway, upstream: Simulator, kind: str):
    """The run has failed, with its token in its error, before the search finds it."""
    async with open_gateway() as stack:
        version = named(upstream) if kind == "named" else version_of(upstream, "acme/signer")
        upstream.faults.set(
            Fault("drop_after", operation="predictions.create", times=1),
            Fault("error", operation="predictions.list", times=2),
        )
        reply = await sign(stack, version, api_token=BAD)
        assert reply.status == 201, reply.text
        shown = await finished(stack, reply.json["id"])
        assert (shown["status"], shown["error"]) == ("failed", f"Invalid API token: {REDACTED}")


async def test_runs_that_differ_in_secrets_only_are_not_confused(
    open_gateway: OpenGateway, upstream: Simulator, log_scanner: LogScanner
):
    """Two uncertain creates with different tokens: neither gets the other's run, and nothing is sent again."""
    clock = AdvancingClock(upstream)
    async with open_gateway(clock=clock, upstream={"adopt_wait_seconds": 0.2}) as stack:
        version = named(upstream)
        await ask(stack, "POST", "/gateway/estimate", json={"version": version, "input": {"text": "x", "seed": 1}})
        upstream.faults.set(Fault("drop_after", operation="predictions.create", times=2))
        one, two = await asyncio.gather(sign(stack, version), sign(stack, version, api_token="sk-77" + TOKEN[5:]))
        assert (one.status, two.status) == (504, 504)
        clock.advance(700.0)
        async for _ in attempts():
            if 'orphans_total{result="released"} 2' in await metrics_of(stack):
                break
        assert (await ask(stack, "GET", "/v1/predictions")).json["results"] == []
        assert creates(upstream) == 2
        assert all("never found" in error for error in log_scanner.errors)
        log_scanner.errors.clear()


@pytest.mark.parametrize("kind", ["named", "bare"])
async def test_restart_finds_the_run_and_sends_nothing_again(open_gateway: OpenGateway, upstream: Simulator, kind: str):
    """The next process knows neither the value nor the schema, and still recognises the run."""
    version = named(upstream) if kind == "named" else version_of(upstream, "acme/signer")
    async with open_gateway(upstream={"adopt_wait_seconds": 0.1}) as stack:
        upstream.faults.set(
            Fault("drop_after", operation="predictions.create", times=1), Fault("error", operation="predictions.list")
        )
        assert (await sign(stack, version)).status == 504
    upstream.faults.set()
    async with open_gateway() as stack:
        async for _ in attempts():
            if shown := (await ask(stack, "GET", "/v1/predictions")).json["results"]:
                break
        assert shown[0]["id"] == upstream.predictions[0].id
        assert shown[0]["input"] == {"text": "hi", "seed": 1, "api_token": REDACTED}
        assert creates(upstream) == 1


@pytest.mark.parametrize("value", ["status", "succeeded", "predict_time", "completed_at", '","status":"'])
async def test_value_that_looks_like_a_part_of_the_document_keeps_it_readable(
    open_gateway: OpenGateway, upstream: Simulator, value: str
):
    """A caller chooses the value: the run ends, and is charged, whatever it is."""
    async with open_gateway() as stack:
        reply = await sign(stack, named(upstream), more_tokens=[value])
        assert (reply.status, reply.json["status"]) == (201, "succeeded"), reply.text
        assert reply.json["metrics"]["predict_time"] > 0
        explained = await ask(stack, "GET", f"/gateway/explain/{reply.json['id']}")
        assert explained.json["price"]["charged_microusd"] > 0
