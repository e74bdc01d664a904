"""The pages of the console: predictions, outputs, usage, limits and webhooks, and who sees which."""

import re
from typing import Any
from urllib.parse import quote

import pytest

from gateway.dashboard.formats import usd
from gateway.domain.audit import AuditFilter
from gateway.http.json_body import write_cursor
from gateway.simulator import Simulator
from gateway.webhooks.rules.deliveries import DeliveryState
from tests.support.console import failed_delivery, store_of, told
from tests.support.dashboard import OURS, Tables, look, sign_in, token_of, visitor
from tests.support.output_copies import PICTURE, paint_lake
from tests.support.outputs import gateway_with_copies
from tests.support.session_calls import STORY, ask, create, finished, open_session
from tests.support.stack import OpenGateway, Stack
from tests.support.upstream import version_of

PRICES = {"models": [{"model": "acme/*", "usd_per_run": 0.25}]}
PAGES = ("predictions", "outputs", "usage", "limits", "webhooks")
NOBODYS = "z" * 26


def named(stack: Stack, model: str = "acme/storyteller") -> str:
    return f"{model}:{version_of(stack.upstream, model)}"


async def test_predictions_are_listed_with_filters_and_explained(open_gateway: OpenGateway):
    """A run and a hit: the newest first, each with its cost and what it saved, and its own page."""
    async with open_gateway(prices=PRICES) as stack, visitor(stack) as operator:
        run, hit = await told(stack, "alpha"), await told(stack, "alpha")
        other = await told(stack, "beta", {"prompt": "other"})
        rows = Tables((await look(operator, "/dashboard/predictions")).text).rows["predictions"]
        assert [row[1] for row in rows] == [other, hit, run]
        assert rows[1][2:6] == ["succeeded", named(stack), "alpha", "hit"]
        assert rows[1][6:8] == ["$0.00", "$0.25"]
        assert rows[2][5:8] == ["miss", "$0.25", "$0.00"]
        for query, expected in (
            ("team=beta", [other]),
            ("source=hit&status=&user=", [hit]),
            ("target=acme/*&team=alpha", [hit, run]),
            ("status=failed", []),
        ):
            page = Tables((await look(operator, f"/dashboard/predictions?{query}")).text)
            assert [row[1] for row in page.rows["predictions"] if len(row) > 1] == expected, query
        page = (await look(operator, f"/dashboard/predictions/{hit}")).text
        assert "a llama in the snow" in page
        assert [row[0] for row in Tables(page).rows["sharers"]] == [run]
        assert "hit" in [row[1] for row in Tables(page).rows["timeline"]]
        assert (await look(operator, f"/dashboard/predictions/{NOBODYS}")).status == 404


@pytest.mark.parametrize(
    ("query", "field"),
    [("status=done", "status"), ("since=yesterday", "since"), ("cursor=x", "cursor"), ("tag=Nope", "tag")],
)
async def test_filter_that_cannot_be_read_is_refused_with_its_name(open_gateway: OpenGateway, query: str, field: str):
    async with open_gateway() as stack, visitor(stack) as operator:
        refused = await look(operator, f"/dashboard/predictions?{query}")
        assert refused.status == 422
        assert refused.json["invalid_fields"][0]["field"] == field


@pytest.mark.parametrize("place", ["x", "-1", "9" * 400])
async def test_cursor_of_the_audit_log_is_refused_with_its_name(open_gateway: OpenGateway, place: str):
    """One that was made up, in the form that cursors have."""
    async with open_gateway() as stack, visitor(stack) as operator:
        refused = await look(operator, f"/dashboard/audit?cursor={write_cursor((1.0, place))}")
        assert refused.status == 422
        assert refused.json["invalid_fields"][0]["field"] == "cursor"


async def test_team_sees_its_own_predictions_only(open_gateway: OpenGateway, guarded: dict[str, Any]):
    """In the list, whatever it asks for, and on their pages: another's is like one that does not exist."""
    async with open_gateway(prices=PRICES, **guarded) as stack, visitor(stack) as lead, visitor(stack) as stranger:
        mine, other = await told(stack, "beta"), await told(stack, "alpha", {"prompt": "of alpha"})
        for path in (*PAGES, f"predictions/{mine}", f"predictions/{mine}/files/0"):
            asked = f"/dashboard/sign-in?next={quote(f'/dashboard/{path}', safe='')}"
            assert (await look(stranger, f"/dashboard/{path}")).headers["Location"] == asked
        assert (await sign_in(lead, stack.keys["beta"])).status == 303
        for query in ("", "?team=alpha"):
            page = await look(lead, f"/dashboard/predictions{query}")
            assert [row[1] for row in Tables(page.text).rows["predictions"]] == [mine]
            assert "of alpha" not in page.text
        assert (await look(lead, f"/dashboard/predictions/{mine}")).status == 200
        unknown = await look(lead, f"/dashboard/predictions/{NOBODYS}")
        foreign = await look(lead, f"/dashboard/predictions/{other}")
        assert (foreign.status, foreign.text) == (unknown.status, unknown.text) == (404, unknown.text)
        assert (await look(lead, f"/dashboard/predictions/{other}/files/0")).status == 404
        for page in PAGES:
            text = (await look(lead, f"/dashboard/{page}")).text
            assert "alpha" not in text, page
            assert "Nodes" not in text
        assert (await look(lead, "/dashboard/nodes")).status == 404


async def test_run_that_is_shared_with_another_team_names_nobody_else(
    open_gateway: OpenGateway, guarded: dict[str, Any]
):
    """A team sees what it saved, and no id, team or key of the others."""
    cache = {"share": "all"}
    async with open_gateway(prices=PRICES, cache=cache, **guarded) as stack, visitor(stack) as lead:
        run = await told(stack, "alpha")
        mine = await told(stack, "beta")
        assert (await sign_in(lead, stack.keys["beta"])).status == 303
        page = (await look(lead, f"/dashboard/predictions/{mine}")).text
        assert run not in page
        assert "alpha" not in page
        assert Tables(page).rows["sharers"] == [["No other prediction of this team."]]


async def test_inputs_and_outputs_can_be_hidden(open_gateway: OpenGateway):
    """With `[console] show_data` false, no page has them."""
    async with open_gateway(console={"show_data": False}) as stack, visitor(stack) as operator:
        mine = await told(stack, "alpha")
        page = (await look(operator, f"/dashboard/predictions/{mine}")).text
        assert "a llama" not in page
        assert "show_data" in page


async def test_stored_pictures_are_in_the_gallery(open_gateway: OpenGateway, upstream: Simulator, outputs_url: str):
    """Served byte for byte from the output store, sandboxed; other numbers are not found."""
    async with gateway_with_copies(open_gateway, upstream, outputs_url) as it, visitor(it.stack) as operator:
        made = await paint_lake(it.stack)
        await it.settled(1)
        gallery = (await look(operator, "/dashboard/outputs")).text
        path = f"/dashboard/predictions/{made.json['id']}/files/0"
        assert f'src="{path}"' in gallery
        async with operator.get(path) as answer:
            assert answer.status == 200
            assert await answer.read() == PICTURE
            assert answer.headers["Content-Type"] == "image/png"
            assert answer.headers["Content-Security-Policy"] == "sandbox; default-src 'none'"
        assert (await look(operator, path[:-1] + "7")).status == 404


async def test_usage_of_any_month_is_shown_and_refused_for_none(open_gateway: OpenGateway):
    """The rows and totals equal `GET /gateway/usage`."""
    async with open_gateway(prices=PRICES) as stack, visitor(stack) as operator, open_session(stack) as alpha:
        await told(stack, "alpha")
        await told(stack, "alpha")
        total = (await ask(alpha, "GET", "/gateway/usage")).json["total"]
        for by in ("team", "day", "key", "model", "user"):
            shown = Tables((await look(operator, f"/dashboard/usage?by={by}")).text)
            assert shown.tiles["Spent"] == usd(total["spend_microusd"]) == "$0.25"
            assert [row[-2] for row in shown.rows["usage-rows"]] == ["$0.25"], by
        assert (await look(operator, "/dashboard/usage?month=2020-01")).status == 200
        async with alpha.get("/gateway/usage?by=user", headers={"Accept": "text/csv"}) as answer:
            assert answer.content_type == "text/csv"
            heading, of_nobody = (await answer.text()).splitlines()
        assert heading.startswith("team,user,run,joined,")
        assert of_nobody.startswith("alpha,,1,0,1,")
        async with operator.get("/dashboard/usage.csv?by=model") as answer:
            assert answer.content_type == "text/csv"
            assert (await answer.text()).splitlines()[1].startswith("alpha,acme/storyteller,1,0,1,")
        for query in ("month=2020-13", "month=9999-01", "month=now", "by=color"):
            assert (await look(operator, f"/dashboard/usage?{query}")).status == 422, query


async def test_usage_is_shown_by_cost_tag(open_gateway: OpenGateway):
    """For each key of the config, with what has no tag."""
    async with open_gateway(prices=PRICES, tags={"keys": ["project"]}) as stack, visitor(stack) as operator:
        async with open_session(stack) as alpha:
            made = await create(alpha, named(stack), STORY, **{"Gateway-Tags": "project=apollo"})
            await finished(alpha, made.json["id"])
            await finished(alpha, (await create(alpha, named(stack), {"prompt": "untagged"})).json["id"])
        shown = Tables((await look(operator, "/dashboard/usage?by=tag:project")).text)
        assert sorted(row[0] for row in shown.rows["usage-rows"]) == ["apollo", "no tag"]
        found = Tables((await look(operator, "/dashboard/predictions?tag=project:apollo")).text)
        assert [row[1] for row in found.rows["predictions"]] == [made.json["id"]]
        assert (await look(operator, "/dashboard/usage?by=tag:feature")).status == 422


async def test_browser_sees_errors_as_pages(open_gateway: OpenGateway):
    """With the navigation; programs get problem documents."""
    async with open_gateway() as stack, visitor(stack) as operator:
        path = f"/dashboard/predictions/{NOBODYS}"
        page = await look(operator, path, headers={"Accept": "text/html,*/*;q=0.8"})
        assert page.status == 404
        assert "<nav" in page.text
        assert (await look(operator, path)).json["status"] == 404


async def test_used_up_budget_is_marked_and_says_when_it_resets(open_gateway: OpenGateway):
    teams = {"beta": {"budget_usd_per_month": 0.25}}
    async with open_gateway(prices=PRICES, teams=teams) as stack, visitor(stack) as operator:
        await told(stack, "beta")
        page = (await look(operator, "/dashboard/limits")).text
        assert 'class="used-up"' in page
        rows = [row for body, rows in Tables(page).rows.items() if body.startswith("limits") for row in rows]
        (row,) = [row for row in rows if row[0] == "budget_usd_per_month"]
        assert row[2:6] == ["$0.25", "$0.00", "$0.25", "$0.00"]
        assert row[6].startswith("Used up.")
        overview = (await look(operator)).text
        assert "has used up its budget of this month" in re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", overview))


async def test_failed_webhook_is_sent_again_by_a_form(open_gateway: OpenGateway):
    """The form needs its token; the change is in the audit log."""
    async with open_gateway() as stack, visitor(stack) as operator:
        delivery_id = await failed_delivery(stack, "beta")
        overview = re.sub(r"\s+", " ", (await look(operator)).text)
        assert "1 webhook of team <strong>beta</strong> failed" in overview
        page = (await look(operator, "/dashboard/webhooks?state=dead")).text
        assert "secret-path" not in page
        (row,) = Tables(page).rows["deliveries"]
        assert row[1:4] == ["failed", "beta", "hooks.example.com"]

        async def send(**fields: str) -> int:
            form = {"data": fields, "headers": OURS, "allow_redirects": False}
            return int((await ask(operator, "POST", "/dashboard/webhooks/redeliver", **form)).status)

        assert await send(id=delivery_id) == 403
        assert await send(id=delivery_id, form_token="0" * 64) == 403
        assert await send(id="msg_unknown", form_token=token_of(page)) == 404
        assert await send(id=delivery_id, form_token=token_of(page)) == 303
        async with store_of(stack) as store:
            entries = (await store.audit_entries(AuditFilter(), limit=10)).entries
        assert [(each.actor, each.action, each.subject) for each in entries if each.subject == delivery_id] == [
            ("console:operators", "webhooks.redelivered", delivery_id)
        ]


async def test_team_without_the_scope_keys_cannot_send_webhooks_again(
    open_gateway: OpenGateway, guarded: dict[str, Any]
):
    """And with it, its own only."""
    teams = {"beta": {"scopes": ["read", "predict", "keys"], "keys": [{"name": "reader", "scopes": ["predict"]}]}}
    async with open_gateway(teams=teams, **guarded) as stack, visitor(stack) as lead, visitor(stack) as reader:
        mine, other = await failed_delivery(stack, "beta"), await failed_delivery(stack, "operator")
        assert (await sign_in(lead, stack.keys["beta"])).status == 303
        assert (await sign_in(reader, stack.keys["beta.reader"])).status == 303
        token = token_of((await look(lead, "/dashboard/webhooks")).text)
        assert "Send again" not in (await look(reader, "/dashboard/webhooks")).text
        for session, delivery_id, expected in ((lead, other, 404), (reader, mine, 403), (lead, mine, 303)):
            fields = {"id": delivery_id, "form_token": token}
            form = {"data": fields, "headers": OURS, "allow_redirects": False}
            assert (await ask(session, "POST", "/dashboard/webhooks/redeliver", **form)).status == expected
        async with store_of(stack) as store:
            states = {each.id: each.state for each in await store.deliveries()}
        assert states[other] is DeliveryState.DEAD


async def test_every_limit_of_a_team_and_its_keys_is_shown(open_gateway: OpenGateway, guarded: dict[str, Any]):
    """Rates, those of each user, and those of keys, with what is used where it is counted; no other team's."""
    key = {"name": "mobile", "concurrent_predictions": 3, "per_user": {"requests_per_minute": 6}}
    teams = {
        "beta": {"requests_per_minute": 120, "per_user": {"budget_usd_per_day": 0.5}, "keys": [key]},
        "alpha": {"requests_per_minute": 77},
    }
    async with open_gateway(prices=PRICES, teams=teams, **guarded) as stack, visitor(stack) as lead:
        async with open_session(stack) as operator:
            made = {"team": "beta", "name": "made", "limits": {"budget_usd_per_month": 2}}
            asked = {"json": made, "headers": {"Authorization": f"Bearer {stack.keys['alpha']}"}}
            assert (await ask(operator, "POST", f"{stack.ops_url}/admin/keys", **asked)).status == 201
        async with open_session(stack, "beta.mobile") as mobile:
            await finished(mobile, (await create(mobile, named(stack), STORY)).json["id"])
        assert (await sign_in(lead, stack.keys["beta"])).status == 303
        page = (await look(lead, "/dashboard/limits")).text
        rows = {(row[0], row[1]): row[2:] for row in Tables(page).rows["limits-1"]}
        assert rows["requests_per_minute", "team"][2] == "120"
        assert rows["budget_usd_per_day", "each user"] == ["–", "–", "$0.50", "–", "–"]
        assert rows["concurrent_predictions", "key mobile"][:4] == ["0", "0", "3", "3"]
        assert rows["requests_per_minute", "each user of key mobile"][2] == "6"
        assert rows["budget_usd_per_month", "key made"][2:4] == ["$2.00", "$2.00"]
        assert "77" not in [row[2] for row in rows.values()]


async def test_form_for_a_key_reports_all_that_is_wrong_and_the_answer_shows_its_limits(open_gateway: OpenGateway):
    async with open_gateway() as stack, visitor(stack) as operator:
        token = token_of((await look(operator, "/dashboard/keys")).text)

        async def send(**fields: str) -> Any:
            form = {"data": {"form_token": token, "team": "beta", **fields}, "headers": OURS}
            return await ask(operator, "POST", "/dashboard/keys/create", **form)

        wrong = {"budget_usd_per_day": "abc", "requests_per_minute": "-1", "origins": "foo.example.com"}
        refused = await send(**wrong)
        assert refused.status == 422
        for field in ("limits.budget_usd_per_day", "limits.requests_per_minute", "origins"):
            assert f"<li>{field}:" in refused.text, field
        made = await send(budget_usd_per_day="1", requests_per_minute="60")
        assert made.status == 200
        assert "budget_usd_per_day: 1" in made.text
        assert "requests_per_minute: 60" in made.text
        assert 'id="copy"' in made.text
