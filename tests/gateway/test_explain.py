"""`GET /gateway/explain/<id>`: how a prediction was handled and why, for its owner only."""

import asyncio
from typing import Any

import aiohttp

from tests.support.polling import attempts
from tests.support.samples import UNKNOWN_ID
from tests.support.session_calls import STORY, ask, cancel, create, finished, open_session
from tests.support.simulator_models import hold_runs
from tests.support.stack import OpenGateway, Stack
from tests.support.upstream import version_of

PRICES = {"models": [{"model": "acme/*", "usd_per_run": 0.25}]}
OWN = {"prompt": "a llama", "max_tokens": 2}
LONG = STORY | {"duration": 600.0}


def named(stack: Stack, model: str = "acme/storyteller") -> str:
    return f"{model}:{version_of(stack.upstream, model)}"


async def explain(session: aiohttp.ClientSession, prediction: str) -> Any:
    reply = await ask(session, "GET", f"/gateway/explain/{prediction}")
    assert reply.status == 200, reply.text
    return reply.json


def words(answer: Any) -> list[str]:
    return [each["what"] for each in answer["timeline"]]


async def test_run_hit_and_bypass_are_explained(open_gateway: OpenGateway):
    """The first cost a quarter of a dollar; the second is a hit; without a seed nothing is shared."""
    limits = {"budget_usd_per_day": 5, "predictions_per_minute": 60}
    async with open_gateway(prices=PRICES, teams={"alpha": limits}) as stack, open_session(stack) as alpha:
        first = (await create(alpha, named(stack), STORY)).json["id"]
        await finished(alpha, first)
        ran = await explain(alpha, first)
        assert ran["prediction"] == first
        assert ran["key"] == {"id": "alpha/default", "name": "default"}
        assert (ran["source"], ran["deterministic"], ran["reason"]) == ("run", True, "seed")
        assert ran["run"]["id"].startswith("run_")
        assert ran["run"] | {"id": ""} == {"id": "", "upstream_id": first, "status": "succeeded"}
        assert {"asked", "reserved", "created", "recorded", "started", "ended", "settled"} == set(words(ran))
        assert ran["price"]["charged_usd"] == ran["price"]["estimate_usd"] == "0.250000"
        assert ran["price"]["basis"] == {"usd_per_run": "0.25", "origin": "rule"}
        assert ran["price"]["parts"] == [{"unit": "run", "quantity": "1", "usd_each": "0.25", "usd": "0.25"}]
        assert [each["name"] for each in ran["limits"]["passed"]] == ["predictions_per_minute", "budget_usd_per_day"]
        assert ran["limits"]["waited_for"] is None

        again = (await create(alpha, named(stack), STORY)).json["id"]
        hit = await explain(alpha, again)
        assert (hit["source"], hit["reason"], hit["fingerprint"]) == ("hit", "seed", ran["fingerprint"])
        assert hit["run"] == ran["run"]
        assert (hit["price"]["charged_microusd"], hit["price"]["saved_microusd"]) == (0, 250_000)
        assert "hit" in words(hit)

        other = (await create(alpha, named(stack), OWN)).json["id"]
        bypass = await explain(alpha, other)
        assert (bypass["source"], bypass["deterministic"], bypass["reason"]) == ("run", False, "no-seed")
        assert bypass["fingerprint"] is None


async def test_explanation_of_a_bare_version_names_the_reason_found_later(open_gateway: OpenGateway):
    """The model was unknown when the create came; upstream's response named it, and the seed made the run shareable."""
    async with open_gateway() as stack, open_session(stack) as alpha:
        made = (await create(alpha, version_of(stack.upstream, "acme/storyteller"), STORY)).json["id"]
        await finished(alpha, made)
        # The identity is settled beside the answer to the create.
        async for _ in attempts():
            if (answer := await explain(alpha, made))["deterministic"]:
                break
        assert answer["reason"] == "seed"
        assert answer["fingerprint"] is not None


async def test_wait_for_a_limit_is_explained(open_gateway: OpenGateway):
    """One at a time: the second create waited for the first, and the explanation says for what and how long."""
    async with open_gateway(teams={"alpha": {"concurrent_predictions": 1}}) as stack, open_session(stack) as alpha:
        first = (await create(alpha, named(stack), LONG)).json["id"]
        second = asyncio.create_task(create(alpha, named(stack), OWN))
        async for _ in attempts():
            if 'waiters{kind="limit"} 1.0' in (await ask(alpha, "GET", f"{stack.ops_url}/metrics")).text:
                break
        await cancel(alpha, first)
        answer = await explain(alpha, (await second).json["id"])
        assert words(answer)[:3] == ["asked", "waited", "reserved"]
        assert answer["limits"]["waited_for"] == {"name": "concurrent_predictions", "of": "team", "limit": 1}
        assert answer["limits"]["waited_seconds"] > 0


async def test_foreign_and_unknown_predictions_are_the_same_404(open_gateway: OpenGateway):
    """No caller learns from an explanation that an id exists. An operator sees every prediction."""
    async with (
        open_gateway() as stack,
        open_session(stack) as alpha,
        open_session(stack, "beta") as beta,
        open_session(stack, "operator") as operator,
    ):
        made = (await create(alpha, named(stack), OWN)).json["id"]
        foreign = await ask(beta, "GET", f"/gateway/explain/{made}")
        unknown = await ask(beta, "GET", f"/gateway/explain/{UNKNOWN_ID}")
        assert (foreign.status, foreign.text) == (unknown.status, unknown.text) == (404, unknown.text)
        assert (await ask(beta, "GET", "/gateway/explain/nonsense")).status == 404
        assert (await explain(operator, made))["run"]["upstream_id"] == made


async def test_explanation_of_a_shared_run_hides_other_teams_ids(open_gateway: OpenGateway):
    """For joins and hits: no id of the other team, and nothing from before this caller asked."""
    async with (
        open_gateway(prices=PRICES, cache={"share": "all"}) as stack,
        open_session(stack) as alpha,
        open_session(stack, "beta") as beta,
    ):
        go_on = hold_runs(stack.upstream, "acme/storyteller")
        theirs = (await create(alpha, named(stack), STORY)).json["id"]
        run = (await explain(alpha, theirs))["run"]
        joined = (await create(beta, named(stack), STORY)).json["id"]
        go_on.set()
        await finished(beta, joined)
        hit = (await create(beta, named(stack), STORY)).json["id"]
        for prediction, source in ((joined, "joined"), (hit, "hit")):
            reply = await ask(beta, "GET", f"/gateway/explain/{prediction}")
            assert theirs not in reply.text
            assert run["id"] not in reply.text
            assert "alpha" not in reply.text
            answer = reply.json
            assert answer["source"] == source
            assert answer["run"] == {"id": None, "upstream_id": None, "status": "succeeded"}
            assert answer["fingerprint"] is not None
            assert (answer["price"]["charged_microusd"], answer["price"]["saved_microusd"]) == (0, 250_000)
            assert answer["timeline"][0]["what"] == source
        # The team that started it sees all of it.
        assert (await explain(alpha, theirs))["price"]["charged_microusd"] == 250_000


async def test_cancel_is_explained_and_a_key_without_scope_gets_nothing(open_gateway: OpenGateway):
    """The caller's cancel and the cancel sent upstream both have their lines."""
    keys = [{"name": "reader", "scopes": ["read"]}]
    async with (
        open_gateway(teams={"alpha": {"keys": keys}}) as stack,
        open_session(stack) as alpha,
        open_session(stack, "alpha.reader") as reader,
    ):
        made = (await create(alpha, named(stack), LONG)).json["id"]
        await cancel(alpha, made)
        answer = await explain(alpha, made)
        assert answer["status"] == "canceled"
        assert "canceled" in words(answer)
        assert "cancel asked" in words(answer)
        assert (await ask(reader, "GET", f"/gateway/explain/{made}")).status == 403


async def test_undelivered_webhook_is_explained(open_gateway: OpenGateway):
    """The message waits; the explanation says how often it was tried and with what result."""
    webhooks = {"allow_http": True, "allow_private_addresses": True}
    async with open_gateway(webhooks=webhooks) as stack, open_session(stack) as alpha:
        body = {"version": named(stack), "input": OWN, "webhook": "http://127.0.0.1:9/nobody"}
        made = (await ask(alpha, "POST", "/v1/predictions", json=body)).json["id"]
        await finished(alpha, made)
        async for _ in attempts():
            if "last error: " in str(answer := await explain(alpha, made)):
                break
        (queued,) = [each for each in answer["timeline"] if each["what"] == "webhook queued"]
        assert queued["detail"].startswith("attempts: 1, last error: ")
