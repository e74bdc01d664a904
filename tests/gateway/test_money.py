"""Money over HTTP: budgets and rates that refuse, what is said of them, and what is shown of use."""

import asyncio
from decimal import Decimal
from typing import Any

import pytest

from gateway.domain import money
from gateway.simulator import Fault
from tests.support.http_calls import until_metric
from tests.support.polling import attempts
from tests.support.session_calls import CREATED, STORY, ask, cancel, create, finished, open_session
from tests.support.spending import OWN, PRICES, limits, named, reported, spend, usage
from tests.support.stack import OpenGateway
from tests.support.upstream import creates, version_of

LONG = {"prompt": "a llama", "duration": 1200.0}


async def test_spent_budget_refuses_with_402_and_details(open_gateway: OpenGateway):
    """Two runs of a quarter spend half a dollar: the third response names the budget, its usage and its reset time."""
    async with (
        open_gateway(prices=PRICES, teams={"alpha": {"budget_usd_per_day": 0.5}}) as stack,
        open_session(stack) as alpha,
        open_session(stack, "beta") as beta,
    ):
        for _ in range(2):
            await spend(alpha, named(stack))
        reply = await create(alpha, named(stack), OWN)
        assert reply.status == 402
        assert reply.headers["Content-Type"] == "application/problem+json"
        body = reply.json
        assert body["title"] == "Budget exceeded"
        assert body["status"] == 402
        assert "your team" in body["detail"]
        assert "$0.50 per day" in body["detail"]
        assert body["retry_after"] == int(reply.headers["Retry-After"])
        assert 1 <= body["retry_after"] <= 86_400
        resets_at = body["limit"].pop("resets_at")
        assert resets_at.endswith("T00:00:00.000Z")
        assert body["limit"] == {
            "name": "budget_usd_per_day",
            "of": "team",
            "limit": "0.500000",
            "limit_microusd": 500_000,
            "used": "0.500000",
            "used_microusd": 500_000,
            "held": "0.000000",
            "held_microusd": 0,
            "remaining": "0.000000",
            "remaining_microusd": 0,
        }
        # Somebody else's money is somebody else's.
        await spend(beta, named(stack))
    assert creates(stack.upstream) == 3


async def test_reserved_money_counts_until_the_run_ends(open_gateway: OpenGateway):
    """One long run reserves the whole budget; cancelled, it costs nothing and another run may start."""
    async with (
        open_gateway(prices=PRICES, teams={"alpha": {"budget_usd_per_month": 0.25}}) as stack,
        open_session(stack) as alpha,
    ):
        made = await create(alpha, named(stack), LONG)
        assert made.status == 201
        reply = await create(alpha, named(stack), OWN)
        assert reply.status == 402
        limit = reply.json["limit"]
        assert (limit["name"], limit["used_microusd"], limit["held_microusd"]) == ("budget_usd_per_month", 0, 250_000)
        (standing,) = await limits(alpha)
        assert standing == limit
        await cancel(alpha, made.json["id"])
        async for _ in attempts():
            if not (await limits(alpha))[0]["held_microusd"]:
                break
        await spend(alpha, named(stack))


async def test_hits_joins_and_reads_work_with_a_spent_budget(open_gateway: OpenGateway):
    """The money is spent; what was paid for can still be read and shared."""
    async with (
        open_gateway(prices=PRICES, teams={"alpha": {"budget_usd_per_day": 0.25}}) as stack,
        open_session(stack) as alpha,
    ):
        first = await spend(alpha, named(stack), STORY)
        assert (await create(alpha, named(stack), OWN)).status == 402
        hit = await create(alpha, named(stack), STORY)
        assert hit.status == 201
        assert hit.is_hit
        assert (await ask(alpha, "GET", f"{CREATED}/{first}")).status == 200
        assert (await usage(alpha))["total"] | {"seconds": 0} == {
            "predictions": {"run": 1, "joined": 0, "hit": 1},
            "seconds": 0,
            "spend_usd": "0.250000",
            "spend_microusd": 250_000,
            "saved_usd": "0.250000",
            "saved_microusd": 250_000,
        }


async def test_fifty_concurrent_creates_do_not_overspend(open_gateway: OpenGateway):
    """Fifty callers at once with money for four runs: four runs, 46 refusals, and the ledger agrees."""
    async with (
        open_gateway(prices=PRICES, teams={"alpha": {"budget_usd_per_day": 1.1}}) as stack,
        open_session(stack) as alpha,
    ):
        replies = await asyncio.gather(*(create(alpha, named(stack), OWN) for _ in range(50)))
        assert sorted(reply.status for reply in replies) == [201] * 4 + [402] * 46
        for reply in replies[:50]:
            if reply.status == 201:
                await finished(alpha, reply.json["id"])
        assert (await usage(alpha))["total"]["spend_usd"] == "1.000000"
    assert creates(stack.upstream) == 4


async def test_empty_rate_holds_a_create_and_then_refuses_with_429(open_gateway: OpenGateway):
    """No token for an hour: after the team's hold time the caller gets a time to retry."""
    team = {"predictions_per_minute": 1, "max_wait_seconds": 0.2}
    async with open_gateway(prices=PRICES, teams={"alpha": team}) as stack, open_session(stack) as alpha:
        assert (await create(alpha, named(stack), OWN)).status == 201
        reply = await create(alpha, named(stack), OWN)
        assert reply.status == 429
        body = reply.json
        assert body["title"] == "Too many requests"
        assert "1 predictions per minute" in body["detail"]
        assert body["limit"].pop("resets_at") is not None
        assert body["limit"] == {
            "name": "predictions_per_minute",
            "of": "team",
            "limit": 1,
            "used": 1,
            "held": 0,
            "remaining": 0,
            "burst": 1,
        }
        after = reply.headers["Retry-After"]
        assert 0 < int(after) <= 60
        assert reported(reply) == ('"team-predictions";q=1;w=60', f'"team-predictions";r=0;t={after}', "0", after)
    assert creates(stack.upstream) == 1


async def test_estimate_above_the_whole_budget_does_not_suggest_to_wait(open_gateway: OpenGateway):
    """The next day changes nothing: no time to retry in the body or in any header. No alert says it is used up."""
    team = {"budget_usd_per_day": 0.2, "budget_usd_per_month": 0.24}
    async with open_gateway(prices=PRICES, teams={"alpha": team}) as stack, open_session(stack) as alpha:
        reply = await create(alpha, named(stack), OWN)
        assert (reply.status, reply.json["limit"]["name"]) == (402, "budget_usd_per_day")
        assert reply.json["detail"] == (
            "Over budget: this prediction is estimated at $0.25, which is more than the whole budget of your team: "
            "$0.20 per day. It can never pass under this budget."
        )
        assert "retry_after" not in reply.json
        assert not {"Retry-After", "ratelimit-reset"} & reply.headers.keys()
        assert reply.headers["RateLimit"] == '"team-budget-usd-per-day";r=200000'
        assert creates(stack.upstream) == 0


async def test_402_has_no_rate_limit_headers_that_suggest_a_retry(open_gateway: OpenGateway):
    """Requests are left and money is not: no header suggests that another attempt would succeed."""
    team = {"requests_per_minute": 600, "budget_usd_per_day": 0.3, "concurrent_predictions": 1, "max_wait_seconds": 0}
    async with open_gateway(prices=PRICES, teams={"alpha": team}) as stack, open_session(stack) as alpha:
        first = (await create(alpha, named(stack), LONG)).json["id"]
        reply = await create(alpha, named(stack), OWN)
        assert (reply.status, reply.json["limit"]["name"]) == (402, "budget_usd_per_day")
        name, requests = '"team-budget-usd-per-day"', '"team-requests";q=600;w=60'
        assert reported(reply) == (f"{requests}, {name};q=300000;w=86400", f"{name};r=50000;t=1", "0", "1")
        await cancel(alpha, first)
    team |= {"budget_usd_per_day": 100}
    async with open_gateway(prices=PRICES, teams={"alpha": team}) as stack, open_session(stack) as alpha:
        await create(alpha, named(stack), LONG)
        reply = await create(alpha, named(stack), OWN)
        name = '"team-concurrent-predictions"'
        assert reported(reply) == (f"{requests}, {name};q=1", f"{name};r=0;t=1", "0", "1")


async def test_create_over_a_rate_is_held_until_its_turn(open_gateway: OpenGateway):
    """Six a second: five at once all get 201, the later ones a moment later."""
    team = {"predictions_per_minute": 600, "burst": 1}
    async with open_gateway(prices=PRICES, teams={"alpha": team}) as stack, open_session(stack) as alpha:
        replies = await asyncio.gather(*(create(alpha, named(stack), OWN) for _ in range(5)))
        assert [reply.status for reply in replies] == [201] * 5
    assert creates(stack.upstream) == 5


async def test_create_waits_for_a_concurrency_place(open_gateway: OpenGateway):
    """One at a time: the second starts when the first is cancelled, and `Prefer: wait` counts from the beginning."""
    team = {"concurrent_predictions": 1, "max_wait_seconds": 300}
    async with open_gateway(prices=PRICES, teams={"alpha": team}) as stack, open_session(stack) as alpha:
        first = (await create(alpha, named(stack), LONG)).json["id"]
        second = asyncio.create_task(create(alpha, named(stack), OWN))
        await until_metric(stack, 'waiters{kind="limit"} 1.0')
        assert not second.done()
        (standing,) = await limits(alpha)
        assert (standing["limit"], standing["used"], standing["remaining"]) == (1, 1, 0)
        assert standing["resets_at"] is None
        await cancel(alpha, first)
        assert (await second).status == 201
    assert creates(stack.upstream) == 2


async def test_freed_places_are_used_while_another_create_is_slow(open_gateway: OpenGateway):
    """Two places come free and two creates wait: upstream is slow with the first, and the second goes meanwhile."""
    team = {"concurrent_predictions": 2}
    async with open_gateway(prices=PRICES, teams={"alpha": team}) as stack, open_session(stack) as alpha:
        running = [(await create(alpha, named(stack), LONG)).json["id"] for _ in range(2)]
        waiting = []
        for number in (1, 2):
            waiting.append(asyncio.create_task(create(alpha, named(stack), OWN)))
            await until_metric(stack, f'waiters{{kind="limit"}} {number}.0')
        stack.upstream.faults.set(Fault("delay_headers", operation="*predictions.create", times=1, seconds=600))
        for each in running:
            await cancel(alpha, each)
        assert (await waiting[1]).status == 201
        assert not waiting[0].done()
        stack.upstream.faults.clear()
        assert (await waiting[0]).status == 201


async def test_creates_waiting_for_the_same_run_share_it(open_gateway: OpenGateway):
    """Ten equal creates wait for the one place; then one runs and nine join it."""
    async with (
        open_gateway(prices=PRICES, teams={"alpha": {"concurrent_predictions": 1}}) as stack,
        open_session(stack) as alpha,
    ):
        first = (await create(alpha, named(stack), LONG)).json["id"]
        tasks = [asyncio.create_task(create(alpha, named(stack), STORY)) for _ in range(10)]
        await until_metric(stack, 'waiters{kind="limit"} 10.0')
        await cancel(alpha, first)
        replies = await asyncio.gather(*tasks)
        assert [reply.status for reply in replies] == [201] * 10
    assert creates(stack.upstream) == 2


async def test_upstream_refusal_frees_the_place(open_gateway: OpenGateway):
    """When upstream refuses a create, nothing stays reserved for it."""
    async with (
        open_gateway(prices=PRICES, teams={"alpha": {"concurrent_predictions": 1, "max_wait_seconds": 0}}) as stack,
        open_session(stack) as alpha,
    ):
        for _ in range(3):
            assert (await create(alpha, named(stack), {"prompt": 7})).status == 422
        assert (await create(alpha, named(stack), OWN)).status == 201


@pytest.mark.parametrize("status", ["succeeded", "failed"])
async def test_cost_follows_upstreams_predict_time(open_gateway: OpenGateway, status: str):
    """Priced by the second: the ledger has exactly what `predict_time` says, to the micro-dollar."""
    prices = {"models": [{"model": "acme/*", "usd_per_second": 0.001525}]}
    model, given = ("acme/fail", {"after": 0.5}) if status == "failed" else ("acme/storyteller", OWN)
    async with open_gateway(prices=prices) as stack, open_session(stack) as alpha:
        made = await spend(alpha, named(stack, model), given)
        body = (await ask(alpha, "GET", f"{CREATED}/{made}")).json
        assert body["status"] == status
        # Exact, as the ledger counts: a float of 0.5075 is a little less than that.
        predict_time = Decimal(str(body["metrics"]["predict_time"]))
        expected = round(predict_time * 1525)
        total = (await usage(alpha))["total"]
        assert total["spend_microusd"] == expected
        assert total["spend_usd"] == money.usd(expected)
        assert total["seconds"] == float(round(predict_time, 3))


async def test_trainings_are_reserved_and_settled_like_predictions(open_gateway: OpenGateway):
    """A training takes a place and money as a prediction does."""
    team = {"concurrent_predictions": 1, "max_wait_seconds": 0}
    async with open_gateway(prices=PRICES, teams={"alpha": team}) as stack, open_session(stack) as alpha:
        version = version_of(stack.upstream, "acme/storyteller")
        path = f"/v1/models/acme/storyteller/versions/{version}/trainings"
        given = {"train_data": "https://example.com/data.zip", "num_train_epochs": 1000}
        made = await ask(alpha, "POST", path, json={"destination": "acme/painter", "input": given})
        assert made.status == 201, made.text
        assert (await create(alpha, named(stack), OWN)).status == 429
        # It has been long enough.
        stack.upstream.clock.speed = 1e6
        async for _ in attempts():
            if (await usage(alpha))["total"]["predictions"]["run"] != 0:
                break
        (standing,) = await limits(alpha)
        assert standing["used"] == 0


async def test_keys_and_users_have_their_own_limits(open_gateway: OpenGateway):
    """Ann has used up her limit; Bob and the team have not."""
    team = {
        "per_user": {"budget_usd_per_day": 0.25},
        "keys": [{"name": "web", "budget_usd_per_day": 0.5}],
        "budget_usd_per_day": 100,
    }
    async with open_gateway(prices=PRICES, teams={"alpha": team}) as stack, open_session(stack, "alpha.web") as alpha:
        await spend(alpha, named(stack), Gateway_User="ann")
        refused = await create(alpha, named(stack), OWN, Gateway_User="ann")
        assert (refused.status, refused.json["limit"]["of"]) == (402, "user")
        await spend(alpha, named(stack), Gateway_User="bob")
        refused = await create(alpha, named(stack), OWN, Gateway_User="eve")
        assert (refused.status, refused.json["limit"]["of"]) == (402, "key")
        found = {row["of"]: row["used"] for row in await limits(alpha, Gateway_User="ann")}
        assert found == {"team": "0.500000", "key": "0.500000", "user": "0.250000"}
        by_user = (await usage(alpha, by="user"))["rows"]
        assert {row["user"]: row["spend_usd"] for row in by_user} == {"ann": "0.250000", "bob": "0.250000"}
        assert [row["key"] for row in (await usage(alpha, by="key"))["rows"]] == ["alpha/web"]


async def test_estimate_shows_the_cost_and_the_refusing_limit(open_gateway: OpenGateway):
    """The estimate names the limit that would refuse the run, and nothing is run."""
    async with (
        open_gateway(prices=PRICES, teams={"alpha": {"budget_usd_per_day": 0.3}}) as stack,
        open_session(stack) as alpha,
    ):

        async def estimate(given: Any) -> Any:
            body = {"version": named(stack), "input": given}
            return (await ask(alpha, "POST", "/gateway/estimate", json=body)).json

        before = await estimate(STORY)
        assert (before["result"], before["estimate_usd"], before["estimate_microusd"]) == ("run", "0.250000", 250_000)
        assert before["refused_by"] is None
        assert set(before) == {
            "gateway_limits",
            *("result", "deterministic", "reason", "fingerprint", "estimate_usd", "estimate_microusd", "refused_by"),
        }
        await spend(alpha, named(stack), STORY)
        hit = await estimate(STORY)
        assert (hit["result"], hit["estimate_usd"], hit["estimate_microusd"]) == ("hit", "0.000000", 0)
        other = await estimate(OWN)
        assert (other["result"], other["refused_by"]) == ("refused", "budget_usd_per_day")
        assert other["estimate_usd"] == "0.250000"


async def test_unpriced_target_is_refused_where_configured(open_gateway: OpenGateway):
    """`prices.unknown = "refuse"`: a 403 that names the setting; nothing is sent."""
    prices = {"unknown": "refuse", "models": [{"model": "acme/painter", "usd_per_run": 0.01}]}
    async with open_gateway(prices=prices) as stack, open_session(stack) as alpha:
        reply = await create(alpha, named(stack), OWN)
        assert reply.status == 403
        assert reply.json["title"] == "Price unknown"
        assert "prices.unknown" in reply.json["detail"]
        body = {"version": named(stack), "input": OWN}
        found = (await ask(alpha, "POST", "/gateway/estimate", json=body)).json
        assert (found["result"], found["refused_by"], found["estimate_usd"]) == ("refused", "prices.unknown", None)
        assert (await create(alpha, named(stack, "acme/painter"), {"prompt": "x"})).status == 201
    assert creates(stack.upstream) == 1
