"""Usage, warnings and corrections, as callers and operators see them."""

import asyncio
import json
import sqlite3
import time
from contextlib import closing
from typing import Any

import pytest

from gateway.errors import StoreUnavailable
from gateway.simulator import Fault
from gateway.store.sqlite import SQLiteStore
from tests.support.audit import BY_TEST
from tests.support.polling import until
from tests.support.secret_scanner import LogScanner
from tests.support.session_calls import STORY, ask, create, finished, open_session
from tests.support.spending import OWN, PRICES, limits, named, rows, spend, usage
from tests.support.stack import OpenGateway, Stack
from tests.support.system_clocks import ShiftedClock
from tests.support.upstream import creates
from tests.support.webhook_receiver import start_receiver


async def test_usage_has_the_documented_shape(open_gateway: OpenGateway):
    """The fields of `/gateway/usage` are those of the documentation."""
    async with open_gateway(prices=PRICES) as stack, open_session(stack) as alpha:
        burst = await asyncio.gather(*(create(alpha, named(stack), STORY) for _ in range(3)))
        for each in burst:
            await finished(alpha, each.json["id"])
        await create(alpha, named(stack), STORY)
        found = await usage(alpha)
        today = found["to"]
        assert found["by"] == "day"
        assert found["from"] == today[:8] + "01"
        (row,) = found["rows"]
        seconds = row["seconds"]
        sums = {
            "predictions": {"run": 1, "joined": 2, "hit": 1},
            "seconds": seconds,
            "spend_usd": "0.250000",
            "spend_microusd": 250_000,
            "saved_usd": "0.750000",
            "saved_microusd": 750_000,
        }
        assert seconds > 0
        assert row == {"team": "alpha", "day": today, **sums}
        assert found["total"] == sums
        for by, names in (
            ("key", {"key": "alpha/default", "key_name": "default"}),
            ("model", {"model": "acme/storyteller"}),
            ("user", {"user": None}),
        ):
            assert (await usage(alpha, by=by))["rows"] == [{"team": "alpha", **names, **sums}]
        assert (await usage(alpha, **{"from": "2020-01-01", "to": "2020-02-01"}))["rows"] == []
        assert (await usage(alpha, **{"from": f"{today}T12:00:00Z"}))["rows"][0]["day"] == today


async def test_team_sees_only_its_own_usage(open_gateway: OpenGateway):
    """One team's usage contains nothing of another team."""
    async with open_gateway(prices=PRICES) as stack, open_session(stack) as alpha, open_session(stack, "beta") as beta:
        await spend(alpha, named(stack))
        assert (await usage(beta))["rows"] == []
        assert (await usage(beta))["total"]["spend_microusd"] == 0
        async with open_session(stack, "operator") as operator:
            assert (await usage(operator))["rows"] == []
        assert (await usage(alpha))["total"]["predictions"]["run"] == 1


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"from": "yesterday"}, "from"),
        ({"to": "2026-02-30"}, "to"),
        ({"from": "2026-02-02", "to": "2026-02-01"}, "to"),
        ({"by": "hour"}, "by"),
        ({"by": "team"}, "by"),
        ({"by": ""}, "by"),
        ({"from": ""}, "from"),
        ({"from": "99999-01-01"}, "from"),
        ({"from": "0001-01-01T00:00:00+10:00"}, "from"),
        ({"to": "9999-12-31T23:00:00-10:00"}, "to"),
    ],
)
async def test_invalid_usage_query_names_its_field(gateway: Stack, query: dict[str, str], field: str):
    """The error says which parameter is wrong."""
    async with open_session(gateway) as alpha:
        reply = await ask(alpha, "GET", "/gateway/usage", params=query)
        assert reply.status == 422
        assert [each["field"] for each in reply.json["invalid_fields"]] == [field]


async def test_limits_are_empty_where_none_are_set(gateway: Stack):
    """A team without limits gets an empty list."""
    async with open_session(gateway) as alpha:
        assert await limits(alpha) == []


async def test_budget_resets_at_midnight_utc(open_gateway: OpenGateway):
    """A day later the budget is available again."""
    clock = ShiftedClock()
    async with (
        open_gateway(clock=clock, prices=PRICES, teams={"alpha": {"budget_usd_per_day": 0.25}}) as stack,
        open_session(stack) as alpha,
    ):
        await spend(alpha, named(stack))
        refused = await create(alpha, named(stack), OWN)
        assert refused.status == 402
        clock.shift += int(refused.headers["Retry-After"])
        await spend(alpha, named(stack))


async def test_uncertain_create_holds_its_reservation_until_it_is_found(open_gateway: OpenGateway):
    """The response is lost, the run is not: it is found, followed and settled once."""
    async with (
        open_gateway(
            prices=PRICES, teams={"alpha": {"budget_usd_per_day": 1}}, upstream={"adopt_wait_seconds": 10}
        ) as stack,
        open_session(stack) as alpha,
    ):
        stack.upstream.faults.set(Fault("drop_after", operation="*predictions.create", times=1))
        await spend(alpha, named(stack))
        assert (await usage(alpha))["total"]["spend_usd"] == "0.250000"
        assert (await limits(alpha))[0]["held_microusd"] == 0
        assert rows(stack, "SELECT count(*) FROM ledger WHERE kind = 'spend'") == [(1,)]


async def test_run_recorded_after_a_store_timeout_is_settled_once(
    open_gateway: OpenGateway, monkeypatch: pytest.MonkeyPatch
):
    """The disk stalls and the record is written late: the caller gets its prediction, and the run is settled once."""
    record = SQLiteStore.record_created

    async def unheard(store: SQLiteStore, *given: Any) -> None:
        await record(store, *given)
        raise StoreUnavailable("The gateway's store did not answer in time.")

    monkeypatch.setattr(SQLiteStore, "record_created", unheard)
    async with open_gateway(prices=PRICES) as stack, open_session(stack) as alpha:
        reply = await create(alpha, named(stack), OWN, Prefer="wait")
        assert (reply.status, reply.json["status"]) == (201, "succeeded")
        assert rows(stack, "SELECT * FROM reservations") == []
        assert (await usage(alpha))["total"]["spend_usd"] == "0.250000"
    assert creates(stack.upstream) == 1


async def test_budget_warnings_are_logged_once_at_80_and_100_percent(
    open_gateway: OpenGateway, caplog: pytest.LogCaptureFixture
):
    """Each threshold is logged when it is passed, and not again."""
    team = {"budget_usd_per_day": 1.25}
    async with open_gateway(prices=PRICES, teams={"alpha": team}) as stack, open_session(stack) as alpha:
        for _ in range(5):
            await spend(alpha, named(stack))
        await create(alpha, named(stack), OWN)
        await until(lambda: len([r for r in caplog.records if r.message == "budget used up"]) == 1)
        logged = [record for record in caplog.records if "budget" in record.message]
        reported = [(record.message, record.__dict__["percent"]) for record in logged]
        assert reported in (
            [("budget nearly used up", 80), ("budget used up", 100)],
            [("budget used up", 100)],
        )


async def test_budget_webhook_delivers_both_warnings_once(open_gateway: OpenGateway):
    """Both warnings arrive at the configured address, signed, once."""
    local = {"allow_http": True, "allow_private_addresses": True}
    async with start_receiver() as receiver:
        team = {"budget_usd_per_day": 0.3, "budget_webhook": f"{receiver.url}/budget"}
        async with (
            open_gateway(prices=PRICES, webhooks=local, teams={"alpha": team}) as stack,
            open_session(stack) as alpha,
        ):
            await spend(alpha, named(stack))
            await receiver.count(1)
            assert (await create(alpha, named(stack), OWN)).status == 402
            await receiver.count(2)
            warned, exhausted = receiver.messages
            assert (warned.path, warned.json["type"], warned.json["data"]["percent"]) == (
                "/budget",
                "budget.warning",
                80,
            )
            assert warned.json["data"]["limit"]["used"] == "0.250000"
            assert (exhausted.json["type"], exhausted.json["data"]["percent"]) == ("budget.exhausted", 100)
            assert warned.headers["webhook-signature"].startswith("v1,")
            await create(alpha, named(stack), OWN)
        assert len(receiver.messages) == 2


async def test_budget_alerts_in_slacks_form_at_the_teams_thresholds_and_of_a_user(open_gateway: OpenGateway):
    """A team lead reads in a channel which budget is half used, and whose."""
    local = {"allow_http": True, "allow_private_addresses": True}
    async with start_receiver() as receiver:
        team = {
            "budget_webhook": f"{receiver.url}/services/T/B/x",
            "budget_webhook_format": "slack",
            "budget_thresholds": [50, 100],
            "budget_usd_per_day": 50,
            "per_user": {"budget_usd_per_month": 0.5},
        }
        async with (
            open_gateway(prices=PRICES, webhooks=local, teams={"alpha": team}) as stack,
            open_session(stack) as alpha,
        ):
            await spend(alpha, named(stack), Gateway_User="ann")
            await receiver.count(1)
            await spend(alpha, named(stack), Gateway_User="ann")
            await receiver.count(2)
            assert (await create(alpha, named(stack), OWN, Gateway_User="ann")).status == 402
        half, full = receiver.messages
        assert (half.json["text"], full.json["text"]) == ("Budget 50 % used: team alpha", "Budget used up: team alpha")
        fields = [each["text"] for each in half.json["blocks"][1]["fields"]]
        assert fields[:4] == ["*Team*\nalpha", "*User*\nann", "*Budget*\n$0.50 per month", "*Spent*\n$0.25"]
        assert len(receiver.messages) == 2


async def test_usage_adjust_takes_effect_on_a_running_gateway(open_gateway: OpenGateway):
    """`gateway usage adjust` writes into the same database: a credit makes room for the next run."""
    async with (
        open_gateway(prices=PRICES, teams={"alpha": {"budget_usd_per_day": 0.25}}) as stack,
        open_session(stack) as alpha,
    ):
        await spend(alpha, named(stack))
        assert (await create(alpha, named(stack), OWN)).status == 402
        beside = SQLiteStore(stack.database)
        await beside.open()
        await beside.adjust("alpha", -250_000, "a gift", time.time(), actor=BY_TEST)
        await beside.close()
        await spend(alpha, named(stack))


async def test_altered_totals_are_corrected_at_the_next_start(open_gateway: OpenGateway, log_scanner: LogScanner):
    """Someone edited the database: the totals are recomputed from the ledger, and the log says so."""
    async with open_gateway(prices=PRICES) as stack, open_session(stack) as alpha:
        await spend(alpha, named(stack))
    with closing(sqlite3.connect(stack.database)) as database:
        database.execute("UPDATE spent SET microusd = 0")
        database.execute("UPDATE usage_days SET microusd = 7")
        database.commit()
    async with open_gateway(prices=PRICES, keys=stack.keys) as again, open_session(again) as alpha:
        assert (await usage(alpha))["total"]["spend_usd"] == "0.250000"
    log_scanner.errors.clear()


async def test_money_responses_contain_no_secret(open_gateway: OpenGateway):
    """Neither key nor token is in any response about money; the fixtures scan everything."""
    async with (
        open_gateway(prices=PRICES, teams={"alpha": {"budget_usd_per_day": 0.25}}) as stack,
        open_session(stack) as alpha,
    ):
        await spend(alpha, named(stack))
        texts = [
            (await create(alpha, named(stack), OWN)).text,
            json.dumps(await usage(alpha, by="key")),
            json.dumps(await limits(alpha)),
        ]
        for text in texts:
            assert stack.upstream.token not in text
            assert stack.keys["alpha"] not in text
