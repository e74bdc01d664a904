"""The administration of the ops listener: predictions, teams, usage, webhooks and cache of all teams."""

import csv
import json
from typing import Any

from gateway.domain import times
from tests.support.http_calls import Reply, ask, metrics_of
from tests.support.polling import attempts
from tests.support.session_calls import STORY, create, finished, open_session
from tests.support.spending import OWN, PRICES, named, spend
from tests.support.stack import OpenGateway, Stack
from tests.support.webhook_receiver import answering, ok, start_receiver

HOOKS = {"allow_http": True, "allow_private_addresses": True}
LISTS = ("predictions", "usage", "webhooks", "cache", "nodes")
WRONG = (
    "limit=1001", "limit=0", "limit=x", "status=done", "source=cache", "cursor=x", "since=yesterday", "tag=apollo",
    "until=99999-01-01", "target=[a]", "kind=file",
)  # fmt: skip


async def admin(stack: Stack, path: str, method: str = "GET", **headers: str) -> Reply:
    return await ask(stack, method, f"/admin/{path}", base=stack.ops_url, key=None, headers=headers)


async def listed(stack: Stack, query: str = "") -> list[dict[str, Any]]:
    reply = await admin(stack, f"predictions{query}")
    assert reply.status == 200, reply.text
    found: list[dict[str, Any]] = reply.json["results"]
    return found


async def test_predictions_of_all_teams_are_listed(open_gateway: OpenGateway):
    """Who asked, how it was answered, its cost and saving, and the id of the request, in JSON and in CSV."""
    async with open_gateway(prices=PRICES) as stack, open_session(stack) as alpha, open_session(stack, "beta") as beta:
        first = await create(alpha, named(stack), STORY, Gateway_User="ann", X_Request_Id="mine")
        await finished(alpha, first.json["id"])
        hit = await create(alpha, named(stack), STORY)
        assert hit.is_hit
        other = await spend(beta, named(stack))
        rows = {row["id"]: row for row in await listed(stack)}
        assert list(rows) == [other, hit.json["id"], first.json["id"]]
        row = rows[first.json["id"]]
        assert row["completed_at"] >= row["created_at"]
        assert {name: row[name] for name in ("team", "key", "key_name", "user", "source", "status", "target")} == {
            "team": "alpha",
            "key": "alpha/default",
            "key_name": "default",
            "user": "ann",
            "source": "miss",
            "status": "succeeded",
            "target": named(stack),
        }
        assert (row["cost_microusd"], row["saved_microusd"], row["request_id"]) == (250_000, 0, "mine")
        row = rows[hit.json["id"]]
        assert (row["cost_microusd"], row["saved_microusd"], row["source"]) == (0, 250_000, "hit")
        assert row["request_id"] == hit.headers["X-Request-Id"]
        assert [each["id"] for each in await listed(stack, "?team=beta")] == [other]
        assert [each["id"] for each in await listed(stack, "?source=hit&team=alpha")] == [hit.json["id"]]
        page = await admin(stack, "predictions?limit=2", Accept="text/csv")
        assert [each["id"] for each in csv.DictReader(page.text.splitlines())] == [other, hit.json["id"]]
        url = page.headers["Link"].removeprefix(f"<{stack.ops_url}/admin/").removesuffix('>; rel="next"')
        rest = (await admin(stack, url)).json
        assert ([each["id"] for each in rest["results"]], rest["next"]) == ([first.json["id"]], None)


async def test_a_held_create_says_for_how_long(open_gateway: OpenGateway):
    """A create that waited for a limit has the seconds in its row."""
    limits = {"alpha": {"concurrent_predictions": 1}}
    async with open_gateway(teams=limits) as stack, open_session(stack) as alpha:
        await create(alpha, named(stack), OWN)
        second = await create(alpha, named(stack), OWN)
        rows = {row["id"]: row["held_seconds"] for row in await listed(stack)}
        assert rows.pop(second.json["id"]) > 0
        assert list(rows.values()) == [0]


async def test_one_prediction_is_explained_with_its_data(open_gateway: OpenGateway):
    """Input and output as its caller sees them; the explanation of a run that another team started is complete."""
    async with (
        open_gateway(cache={"share": "all"}) as stack,
        open_session(stack) as alpha,
        open_session(stack, "beta") as beta,
    ):
        first = await create(alpha, named(stack), STORY)
        shown = await finished(alpha, first.json["id"])
        hit = (await create(beta, named(stack), STORY)).json["id"]
        found = (await admin(stack, f"predictions/{hit}")).json
        assert found["prediction"] == (await listed(stack, "?team=beta"))[0]
        assert found["explanation"]["run"]["upstream_id"] == first.json["id"]
        assert found["data"]["input"] == shown["input"]
        assert found["data"]["output"] == shown["output"]
        assert found["data_state"] == "shown"
        assert (await admin(stack, "predictions/unknown")).status == 404


async def test_data_is_hidden_where_the_config_says_so(open_gateway: OpenGateway):
    async with open_gateway(console={"show_data": False}) as stack, open_session(stack) as alpha:
        made = await create(alpha, named(stack), {"prompt": "a secret plan", "seed": 1, "max_tokens": 2})
        await finished(alpha, made.json["id"])
        found = await admin(stack, f"predictions/{made.json['id']}")
        assert "secret plan" not in found.text
        assert (found.json["data"], found.json["data_state"]) == (None, "hidden")


async def test_bounds_of_what_operators_read_are_settings(open_gateway: OpenGateway):
    """A page has one prediction at least, and `next`; larger data is left out. The metric counts both."""
    bounds = {"max_page_bytes": 1, "max_data_bytes": 10}
    async with open_gateway(ops=bounds) as stack, open_session(stack) as alpha:
        for seed in (1, 2):
            made = await create(alpha, named(stack), STORY | {"seed": seed})
            await finished(alpha, made.json["id"])
        page = (await admin(stack, "predictions")).json
        assert len(page["results"]) == 1
        assert page["next"] is not None
        found = (await admin(stack, f"predictions/{made.json['id']}")).json
        assert (found["data"], found["data_state"]) == (None, "too large")
        metrics = await metrics_of(stack)
        for bound in ("page", "data"):
            assert f'replicate_gateway_search_bounds_total{{bound="{bound}"}} 1' in metrics


async def test_teams_are_listed_with_their_limits_as_used(open_gateway: OpenGateway):
    """Spend of today and of the month, budgets and rates; teams without limits have none."""
    limits = {"alpha": {"budget_usd_per_day": 5, "predictions_per_minute": 60}}
    async with open_gateway(prices=PRICES, teams=limits) as stack, open_session(stack) as alpha:
        await spend(alpha, named(stack))
        teams = {team["name"]: team for team in (await admin(stack, "teams")).json["results"]}
        assert list(teams) == ["alpha", "beta", "operator"]
        assert (teams["alpha"]["spend_day_microusd"], teams["alpha"]["spend_month_microusd"]) == (250_000, 250_000)
        budget = next(each for each in teams["alpha"]["limits"] if each["name"] == "budget_usd_per_day")
        assert (budget["limit"], budget["used"], budget["remaining"]) == ("5.000000", "0.250000", "4.750000")
        assert (teams["beta"]["limits"], teams["beta"]["spend_day_microusd"]) == ([], 0)


async def test_usage_of_all_teams(open_gateway: OpenGateway):
    """By team unless asked otherwise, of one team or of all, in JSON and in CSV; as `gateway usage` shows it."""
    async with open_gateway(prices=PRICES) as stack, open_session(stack) as alpha, open_session(stack, "beta") as beta:
        await spend(alpha, named(stack))
        await spend(beta, named(stack))
        report = (await admin(stack, "usage")).json
        assert report["by"] == "team"
        assert [(row["team"], row["spend_microusd"]) for row in report["rows"]] == [
            ("alpha", 250_000),
            ("beta", 250_000),
        ]
        assert report["total"]["spend_usd"] == "0.500000"
        by_model = (await admin(stack, "usage?by=model&team=beta")).json
        assert [(row["team"], row["model"]) for row in by_model["rows"]] == [("beta", "acme/storyteller")]
        assert (await admin(stack, "usage?from=2020-01-01&to=2020-02-01")).json["rows"] == []
        table = (await admin(stack, "usage?by=key", Accept="text/csv")).text.splitlines()
        assert table[0] == "team,key,key_name,run,joined,hit,seconds,spend_usd,saved_usd"
        assert table[1].startswith("alpha,alpha/default,default,1,0,0,")
        assert (await admin(stack, "usage?from=2026-02-02&to=2026-02-01")).status == 422


async def test_a_failed_webhook_is_delivered_again(open_gateway: OpenGateway):
    """It is listed with the reason, and leaves the list once its receiver has accepted it."""
    async with start_receiver() as receiver, open_gateway(webhooks=HOOKS | {"max_attempts": 1}) as stack:
        receiver.answer = answering(500)
        body = {"version": named(stack), "input": STORY, "webhook": receiver.url}
        body["webhook_events_filter"] = ["completed"]
        made = (await ask(stack, "POST", "/v1/predictions", json=body)).json["id"]
        dead: list[dict[str, Any]] = []
        async for _ in attempts():
            dead = (await admin(stack, "webhooks?state=dead&team=alpha")).json["results"]
            if dead:
                break
        assert (dead[0]["prediction"], dead[0]["error"], dead[0]["attempts"]) == (made, "answered 500", 1)
        assert (await admin(stack, "webhooks?team=beta")).json == {"results": [], "next": None}
        receiver.answer = ok
        again = await admin(stack, f"webhooks/{dead[0]['id']}/redeliver", "POST")
        assert (again.status, again.json) == (200, {"id": dead[0]["id"], "state": "queued"})
        async for _ in attempts():
            if not (await admin(stack, "webhooks")).json["results"]:
                break
        assert len(receiver.ids) == 2
        assert (await admin(stack, f"webhooks/{dead[0]['id']}/redeliver", "POST")).status == 404


async def test_a_query_that_is_not_understood_is_refused(gateway: Stack):
    """A filter with a wrong name, or a script's empty variable, must not select everything."""
    for name in LISTS:
        for query, field in (("taem=alpha", "taem"), ("limit=", "limit"), ("x=1&x=2", "x")):
            reply = await admin(gateway, f"{name}?{query}")
            assert reply.status == 422, reply.text
            assert field in json.dumps(reply.json["invalid_fields"])
    for query in ("team=", "tema=alpha"):
        assert (await admin(gateway, f"cache?{query}", "DELETE")).status == 422
    for query in WRONG:
        reply = await admin(gateway, f"predictions?{query}")
        assert reply.status == 422, reply.text
        assert reply.json["invalid_fields"][0]["field"] == query.partition("=")[0]
    for by in ("team%0A", "tag:project%0A", "tag", "tag:Project"):
        reply = await admin(gateway, f"usage?by={by}")
        assert (reply.status, reply.json["invalid_fields"][0]["field"]) == (422, "by"), reply.text


async def test_refused_parameters_are_explained(gateway: Stack):
    """With the values that a parameter can have, or the parameters that there are."""
    for query, text in (
        ("status=done", "status must be one of starting, processing, succeeded, failed, canceled, aborted"),
        ("foo=1", "foo is no parameter; the parameters are "),
    ):
        refused = await admin(gateway, f"predictions?{query}")
        (wrong,) = refused.json["invalid_fields"]
        assert wrong["field"] == query.partition("=")[0]
        assert wrong["description"].startswith(text)


async def test_size_of_the_cache_has_a_time_like_all_others(open_gateway: OpenGateway):
    """Not seconds since 1970."""
    async with open_gateway(prices=PRICES) as stack, open_session(stack) as alpha:
        assert (await admin(stack, "cache")).json == {"entries": 0, "bytes": 0, "oldest_ended_at": None}
        await spend(alpha, named(stack), STORY)
        found = (await admin(stack, "cache")).json
        assert found["entries"] == 1
        assert times.parse(found["oldest_ended_at"]) > 0
