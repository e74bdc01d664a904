"""Budgets of cost tags: refusals, limits, estimates, explanations, alerts, the console, and what a page sees."""

from typing import Any

from tests.support.dashboard import Tables, look, sign_in, visitor
from tests.support.session_calls import STORY, ask, create, open_session
from tests.support.spending import OWN, PRICES, limits, named, spend
from tests.support.stack import OpenGateway
from tests.support.webhook_receiver import start_receiver

TAGS = {"keys": ["project", "feature"]}
APOLLO, GEMINI = "project=apollo,feature=search", "project=gemini"
TEAM: dict[str, Any] = {
    "budget_usd_per_day": 50,
    "per_tag": {"project": {"budget_usd_per_day": 0.5}, "project:apollo": {"budget_usd_per_month": 0.25}},
}
ORIGIN = "https://app.example.com"


async def test_budget_of_a_value_refuses_its_creates_and_no_others(open_gateway: OpenGateway):
    """One value has a budget of its own. The answer names tag, value, budget, use and reset."""
    async with open_gateway(prices=PRICES, tags=TAGS, teams={"alpha": TEAM}) as stack, open_session(stack) as alpha:
        version = named(stack)
        made = await spend(alpha, version, STORY, Gateway_Tags=APOLLO)
        refused = await create(alpha, version, OWN, Gateway_Tags=APOLLO)
        assert refused.status == 402
        limit = refused.json["limit"]
        assert (limit["of"], limit["tag"], limit["value"], limit["name"]) == (
            *("tag", "project", "apollo"),
            "budget_usd_per_month",
        )
        assert (limit["used"], limit["limit"], limit["remaining"]) == ("0.250000", "0.250000", "0.000000")
        assert "your tag project=apollo has $0.25 per month, of which $0.25 is spent" in refused.json["detail"]
        assert limit["resets_at"] in refused.json["detail"]
        assert refused.headers["RateLimit"].startswith('"tag-budget-usd-per-month";r=0;t=')
        # A hit costs nothing. Other values have money of their own, and a create without the tag has no such limit.
        assert (await create(alpha, version, STORY, Gateway_Tags=APOLLO)).is_hit
        for _ in range(2):
            await spend(alpha, version, Gateway_Tags=GEMINI)
        assert (await create(alpha, version, OWN, Gateway_Tags=GEMINI)).json["limit"]["value"] == "gemini"
        await spend(alpha, version, Gateway_Tags="feature=search")

        shown = [(row["of"], row.get("value"), row["used"]) for row in await limits(alpha, Gateway_Tags=GEMINI)]
        assert shown == [("team", None, "1.000000"), ("tag", "gemini", "0.500000")]
        assert [row["of"] for row in await limits(alpha)] == ["team"]
        assert (await ask(alpha, "GET", "/gateway/limits", headers={"Gateway-Tags": "team=x"})).status == 422
        body = {"version": version, "input": OWN}
        for tags, expected in ((APOLLO, "budget_usd_per_month"), (GEMINI, "budget_usd_per_day"), ("", None)):
            reply = await ask(alpha, "POST", "/gateway/estimate", json=body, headers={"Gateway-Tags": tags})
            assert reply.json["refused_by"] == expected
        explained = (await ask(alpha, "GET", f"/gateway/explain/{made}")).json["limits"]["passed"]
        assert explained[1] == {
            "name": "budget_usd_per_month",
            "of": "tag",
            "tag": "project",
            "value": "apollo",
            "limit": "0.250000",
            "limit_microusd": 250_000,
        }
        # Operators see the values of the config, and those with the highest cost.
        async with visitor(stack) as operator:
            await sign_in(operator, stack)
            page = (await look(operator, "/dashboard/limits")).text
        cells = [row[:2] for body, rows in Tables(page).rows.items() if body.startswith("limits") for row in rows]
        assert cells[:3] == [
            ["budget_usd_per_day", "team"],
            ["budget_usd_per_month", "tag project=apollo"],
            ["budget_usd_per_day", "tag project=gemini"],
        ]


async def test_page_sees_no_amounts_of_its_tags(open_gateway: OpenGateway):
    """The tags of its token have a budget of all visitors, like its team."""
    team = TEAM | {"origins": [ORIGIN]}
    team["per_tag"] = TEAM["per_tag"] | {"feature": {"predictions_per_minute": 1, "burst": 1}}
    async with open_gateway(prices=PRICES, tags=TAGS, teams={"alpha": team}) as stack, open_session(stack) as alpha:
        given = {"ttl_seconds": 60, "user": "ann", "tags": {"project": "apollo"}}
        token = (await ask(alpha, "POST", "/gateway/tokens", json=given)).json["token"]
        of_page = {"Authorization": f"Bearer {token}", "Origin": ORIGIN, "Gateway-Tags": GEMINI}
        made = await spend(alpha, named(stack), **of_page)
        refused = await create(alpha, named(stack), OWN, **of_page)
        assert (refused.status, "limit" in refused.json) == (402, False)
        assert "budget_usd_per_month of one of your cost tags is used up" in refused.json["detail"]
        assert not {"RateLimit", "RateLimit-Policy"} & set(refused.headers)
        assert "0.25" not in refused.text.replace(refused.headers["X-Request-Id"], "")
        assert (await ask(alpha, "GET", "/gateway/limits", headers=of_page)).json == {"limits": []}
        explained = (await ask(alpha, "GET", f"/gateway/explain/{made}", headers=of_page)).json
        assert explained["limits"]["passed"] == []
        # Nor does it see the rates of its tags: it waits as long as it is told to.
        given["tags"] = {"feature": "search"}
        token = (await ask(alpha, "POST", "/gateway/tokens", json=given)).json["token"]
        of_page |= {"Authorization": f"Bearer {token}"}
        await spend(alpha, named(stack), **of_page)
        throttled = await create(alpha, named(stack), OWN, **of_page)
        assert (throttled.status, "Retry-After" in throttled.headers, "limit" in throttled.json) == (429, True, False)
        assert "predictions_per_minute of one of your cost tags is reached" in throttled.json["detail"]


async def test_alert_names_the_value_whose_budget_is_used(open_gateway: OpenGateway):
    """Once for each threshold, in the channel of the team."""
    local = {"allow_http": True, "allow_private_addresses": True}
    async with start_receiver() as receiver:
        team = TEAM | {"budget_webhook": f"{receiver.url}/services/T/B/x", "budget_webhook_format": "slack"}
        team["budget_thresholds"] = [50, 100]
        async with (
            open_gateway(prices=PRICES, tags=TAGS, webhooks=local, teams={"alpha": team}) as stack,
            open_session(stack) as alpha,
        ):
            for number in (1, 2):
                await spend(alpha, named(stack), Gateway_Tags=GEMINI)
                await receiver.count(number)
            assert (await create(alpha, named(stack), OWN, Gateway_Tags=GEMINI)).status == 402
        half, full = receiver.messages
        assert (half.json["text"], full.json["text"]) == ("Budget 50 % used: team alpha", "Budget used up: team alpha")
        fields = [each["text"] for each in half.json["blocks"][1]["fields"]]
        assert fields[1:4] == ["*Tag*\nproject", "*Value*\ngemini", "*Budget*\n$0.50 per day"]
