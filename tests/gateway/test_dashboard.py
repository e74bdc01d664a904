"""The console over HTTP: who may look at what, whence its figures come, and what a browser may do with it."""

import asyncio
import json
import secrets
import time
from typing import Any

import aiohttp
import pytest
from yarl import URL

from gateway.access.rules.api_keys import new_key
from gateway.dashboard.formats import usd
from gateway.domain.records import Key
from gateway.http.ops import dashboard_streams
from gateway.store.sqlite import SQLiteStore
from tests.support.audit import BY_TEST
from tests.support.dashboard import Tables, look, sign_in, visitor
from tests.support.session_calls import STORY, ask, create, finished, open_session
from tests.support.session_calls import cancel as cancel_prediction
from tests.support.stack import OpenGateway, Stack
from tests.support.upstream import version_of

PRICES = {"models": [{"model": "acme/*", "usd_per_run": 0.25}]}
OWN = {"prompt": "a llama", "max_tokens": 2}


def named(stack: Stack, model: str = "acme/storyteller") -> str:
    return f"{model}:{version_of(stack.upstream, model)}"


async def spend(session: aiohttp.ClientSession, version: str, given: Any) -> None:
    made = await create(session, version, given)
    assert made.status == 201, made.text
    await finished(session, made.json["id"])


async def usage_of(session: aiohttp.ClientSession, by: str) -> Any:
    return (await ask(session, "GET", "/gateway/usage", params={"by": by})).json


async def test_figures_equal_the_ledger(open_gateway: OpenGateway):
    """Two teams run, hit and are refused: the page and `/gateway/usage` agree to the micro-dollar."""
    teams = {"beta": {"budget_usd_per_month": 0.5}}
    async with (
        open_gateway(prices=PRICES, teams=teams) as stack,
        open_session(stack) as alpha,
        open_session(stack, "beta") as beta,
        visitor(stack) as operator,
    ):
        for given in (STORY, STORY, OWN):
            await spend(alpha, named(stack), given)
        for _ in range(2):
            await spend(beta, named(stack), OWN)
        assert (await create(beta, named(stack), OWN)).status == 402
        slow = (await create(alpha, named(stack, "acme/slow"), {"duration": 3000.0})).json["id"]
        page = await look(operator)
        assert page.status == 200
        shown = Tables(page.text)
        totals = [(await usage_of(each, "day"))["total"] for each in (alpha, beta)]
        assert shown.tiles["Spent"] == usd(sum(each["spend_microusd"] for each in totals)) == "$1.00"
        assert shown.tiles["Saved by sharing"] == usd(sum(each["saved_microusd"] for each in totals)) == "$0.25"
        assert shown.tiles["Predictions"] == "5"
        assert (shown.tiles["Hits"], shown.tiles["Runs in progress"]) == ("20.0 %", "1")
        rows = {row[0]: row[1:] for row in shown.rows["teams"]}
        for team, each in zip(("alpha", "beta"), totals, strict=True):
            counts = [str(each["predictions"][word]) for word in ("run", "joined", "hit")]
            assert rows[team] == [
                *counts, f"{each['seconds']:,.3f}", usd(each["spend_microusd"]), usd(each["saved_microusd"]),
            ]  # fmt: skip
        (target,) = (await usage_of(alpha, "model"))["rows"]
        assert shown.rows["targets"][0][:5] == ["acme/storyteller", "alpha", "2", "0", "1"]
        assert shown.rows["targets"][0][6] == usd(target["spend_microusd"])
        assert shown.rows["spend-days"][0][1:3] == ["$1.00", "$0.25"]
        budgets = {row[0]: row for row in shown.rows["budgets"]}
        assert budgets["beta"][2] == "$0.50 of $0.50 used up"
        assert budgets["beta"][4].endswith("above the budget")
        assert budgets["alpha"][3] == "$0.25"
        assert shown.rows["runs"][0][1:4] == [slow, "alpha", named(stack, "acme/slow")]
        assert shown.rows["refusals"] == [["Budget used up", "beta", "1"]]
        assert [row[1:3] for row in shown.rows["recent-errors"]] == [["beta", "create: 402"]]
        assert "Over budget: your team has" in shown.rows["recent-errors"][0][3]
        await cancel_prediction(alpha, slow)


async def test_failures_and_upstream_refusals_are_shown_with_reasons(open_gateway: OpenGateway):
    """Failed runs and upstream's refusals are listed with the reason of each."""
    async with open_gateway() as stack, open_session(stack) as alpha, visitor(stack) as operator:
        await spend(alpha, named(stack, "acme/fail"), {"kind": "exception"})
        assert (await create(alpha, named(stack), {"prompt": 5})).status == 422
        assert (await ask(alpha, "GET", "/v1/predictions/" + "z" * 26)).status == 404
        rows = Tables((await look(operator)).text).rows["recent-errors"]
        assert [row[2] for row in rows] == ["create: 422", f"failed {named(stack, 'acme/fail')}"]
        assert "prompt" in rows[0][3]
        assert rows[1][3].startswith("division by zero")


async def test_team_sees_only_its_own_data(open_gateway: OpenGateway, guarded: dict[str, Any]):
    """A lead signs in with a team's key: neither the page nor its stream contains another team's data."""
    async with (
        open_gateway(prices=PRICES, **guarded) as stack,
        open_session(stack) as alpha,
        open_session(stack, "beta") as beta,
        visitor(stack) as lead,
    ):
        await spend(alpha, named(stack), STORY)
        await spend(beta, named(stack), OWN)
        theirs = (await create(alpha, named(stack, "acme/slow"), {"duration": 3000.0})).json["id"]
        assert (await sign_in(lead, stack.keys["beta"])).status == 303
        page = await look(lead)
        assert "Overview of team beta" in page.text
        assert "alpha" not in page.text
        assert theirs not in page.text
        shown = Tables(page.text)
        assert shown.tiles["Spent"] == "$0.25"
        assert "Requests in progress" not in shown.tiles
        assert "teams" not in shown.rows
        assert [row[0] for row in shown.rows["budgets"]] == ["beta"]
        assert shown.rows["runs"] == [["None."]]
        async with lead.get("/dashboard/events") as stream:
            event = (await stream.content.readuntil(b"\n\n")).decode()
        assert "alpha" not in event
        assert theirs not in event
        await cancel_prediction(alpha, theirs)


async def test_every_response_has_the_content_security_policy(open_gateway: OpenGateway, guarded: dict[str, Any]):
    """Pages, files, redirects, refusals and the stream: no inline or foreign content, no framing."""
    async with open_gateway(**guarded) as stack, visitor(stack) as operator:
        await sign_in(operator, stack.keys["alpha"])
        for path, status in (
            ("/dashboard", 200),
            ("/dashboard/sign-in", 200),
            ("/dashboard/files/page.js", 200),
            ("/dashboard/files/page.css", 200),
            ("/dashboard/files/icon.svg", 200),
            ("/dashboard/files/nothing.js", 404),
        ):
            reply = await look(operator, path)
            assert reply.status == status
            policy = reply.headers["Content-Security-Policy"]
            assert "unsafe" not in policy
            assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
            assert "frame-ancestors 'none'" in policy
            assert reply.headers["X-Content-Type-Options"] == "nosniff"
            assert reply.headers["Cache-Control"] == "no-store"
        async with operator.get("/dashboard/events") as stream:
            assert stream.headers["Content-Type"] == "text/event-stream; charset=utf-8"
            assert "default-src 'none'" in stream.headers["Content-Security-Policy"]


async def test_event_stream_sends_everything_once_and_then_changes(open_gateway: OpenGateway):
    """The first event has all sections; later ones have the time and what has changed."""
    async with (
        open_gateway(prices=PRICES) as stack,
        open_session(stack) as alpha,
        visitor(stack) as operator,
        operator.get("/dashboard/events") as stream,
    ):
        first = json.loads((await stream.content.readuntil(b"\n\n")).decode().partition("data: ")[2])
        assert "$0.00" in first["month"]
        await spend(alpha, named(stack), STORY)
        changed: dict[str, str] = {}
        while "$0.25" not in changed.get("month", ""):
            event = (await stream.content.readuntil(b"\n\n")).decode()
            changed = json.loads(event.partition("data: ")[2])
        assert "refusals" not in changed
        assert {"updated", "month", "teams", "spend-chart"} <= set(changed)


async def test_page_that_is_closed_before_its_event_stream_begins_is_no_error(gateway: Stack):
    """A browser that goes on to another page ends the connection while the request is being handled."""
    url = URL(gateway.ops_url)
    reader, writer = await asyncio.open_connection(url.host, url.port)
    for path in ("/dashboard", "/dashboard/events"):
        writer.write(f"GET {path} HTTP/1.1\r\nHost: {url.authority}\r\n\r\n".encode())
    # The end of the input arrives while the first request is being handled.
    writer.write_eof()
    received = await reader.read()
    writer.close()
    assert received.startswith(b"HTTP/1.1 200 OK")
    assert b"event: board" not in received
    assert b"HTTP/1.1 500" not in received


async def test_number_of_live_pages_is_limited(
    open_gateway: OpenGateway, guarded: dict[str, Any], monkeypatch: pytest.MonkeyPatch
):
    """One team's screens leave room for others; a refused page gets `Retry-After`."""
    monkeypatch.setattr(dashboard_streams, "MAX_PER_VIEWER", 2)
    async with open_gateway(**guarded) as stack:
        beta = {"Authorization": f"Bearer {stack.keys['beta']}"}
        async with (
            visitor(stack, **beta) as lead,
            lead.get("/dashboard/events"),
            lead.get("/dashboard/events"),
            visitor(stack, Authorization=f"Bearer {stack.keys['alpha']}") as operator,
        ):
            refused = await look(lead, "/dashboard/events")
            assert (refused.status, refused.headers["Retry-After"]) == (429, "1")
            async with operator.get("/dashboard/events") as stream:
                assert stream.status == 200
                metrics = (await ask(operator, "GET", "/metrics")).text
            assert 'replicate_gateway_refusals_total{reason="RateLimited"} 1.0' in metrics
            assert "replicate_gateway_dashboard_streams 3.0" in metrics


async def test_page_with_a_revoked_key_is_asked_to_sign_in(open_gateway: OpenGateway, guarded: dict[str, Any]):
    """Within seconds, in the middle of its stream."""
    async with open_gateway(**guarded) as stack, visitor(stack) as lead:
        beside = SQLiteStore(stack.database)
        await beside.open()
        minted = new_key(secrets.token_bytes)
        key = Key(id=minted.id, team="beta", name="lead", sha256=minted.sha256, created_at=time.time())
        await beside.add_key(key, actor=BY_TEST)
        assert (await sign_in(lead, minted.key)).status == 303
        async with lead.get("/dashboard/events") as stream:
            await stream.content.readuntil(b"\n\n")
            await beside.revoke_key(key.id, time.time(), actor=BY_TEST)
            text = (await stream.content.read()).decode()
        await beside.close()
        assert text.endswith("event: signed-out\ndata: {}\n\n")
        assert (await look(lead)).headers["Location"] == "/dashboard/sign-in"


async def test_open_pages_do_not_delay_shutdown(open_gateway: OpenGateway):
    """A gateway with open dashboards stops at once."""
    async with aiohttp.ClientSession() as session:
        async with open_gateway() as stack:
            stream = await session.get(f"{stack.ops_url}/dashboard/events")
            await stream.content.readuntil(b"\n\n")
        await stream.content.read()
        stream.close()


async def test_dashboard_without_its_extra_says_how_to_install_it(
    open_gateway: OpenGateway, monkeypatch: pytest.MonkeyPatch
):
    """The page names the command."""
    monkeypatch.setattr("gateway.assembly.listeners.load_renderer", lambda: None)
    async with open_gateway() as stack, visitor(stack) as operator:
        for path in ("/dashboard", "/dashboard/sign-in", "/dashboard/events"):
            page = await look(operator, path)
            assert page.status == 501
            assert "pip install '.[dashboard]'" in page.text
        assert (await look(operator, "/metrics")).status == 200
