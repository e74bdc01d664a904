"""Request rates at the edge: who is counted, what is held, what a refusal says and what it costs.

See docs/architecture.md, Limits.
"""

import asyncio
import time
from collections import Counter
from typing import Any

import pytest

from gateway.assembly import base
from gateway.simulator import Simulator
from gateway.throttling.rules.request_rates import NAME
from tests.support.http_calls import PAGE, Reply, ask, metrics_of, raw_request, send_raw, until_metric
from tests.support.polling import attempts, until
from tests.support.samples import create, finished
from tests.support.stack import OpenGateway, Stack
from tests.support.system_clocks import PausedClock

FAST = "acme/storyteller"
SEPARATE = "RateLimit", "RateLimit-Policy", "ratelimit-remaining", "ratelimit-reset"


async def shown(stack: Stack, start: str) -> None:
    """Wait until a metric begins so."""
    await until_metric(stack, f"\nreplicate_gateway_{start}")


def slow(per_minute: int = 6, burst: int = 3, **more: Any) -> dict[str, Any]:
    return {"requests_per_minute": per_minute, "burst": burst, "max_wait_seconds": 0} | more


async def poll(stack: Stack, **more: Any) -> Reply:
    return await ask(stack, "GET", "/v1/account", **more)


async def test_team_over_its_rate_gets_429_with_a_retry_time(open_gateway: OpenGateway):
    """Three at once of six a minute; the fourth is refused with all that a client needs to know."""
    async with open_gateway(teams={"alpha": slow()}, clock=PausedClock()) as stack:
        assert [(await poll(stack)).status for _ in range(3)] == [200] * 3
        began = time.time()
        refused = await poll(stack)
        assert (refused.status, refused.headers["Content-Type"]) == (429, "application/problem+json")
        body = refused.json
        assert (body["title"], body["status"], body["retry_after"]) == ("Too many requests", 429, 10)
        assert body["detail"] == (
            "Request was throttled. The limit of your team is 6 requests per minute with a burst of 3 requests. "
            "Your rate limit resets in ~10s."
        )
        limit = body["limit"]
        resets_at = limit.pop("resets_at")
        assert limit == {"name": NAME, "of": "team", "limit": 6, "used": 3, "held": 0, "remaining": 0, "burst": 3}
        assert resets_at > time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(began + 29))
        assert refused.headers["Retry-After"] == "10"
        assert (await poll(stack, key="beta")).status == 200
        assert 'request_refusals_total{of="team"} 1.0' in await metrics_of(stack)


async def test_every_response_shows_the_remaining_requests(open_gateway: OpenGateway):
    """The standard's two headers and Replicate's two, on successes, errors and refusals, readable by pages."""
    async with open_gateway(teams={"alpha": slow()}, clock=PausedClock()) as stack:
        page = {"Origin": PAGE}
        replies = [
            await poll(stack, headers=page),
            await ask(stack, "GET", "/v1/predictions/" + "z" * 26, headers=page),
            await poll(stack, headers=page),
            await poll(stack, headers=page),
        ]
        assert [reply.status for reply in replies] == [200, 404, 200, 429]
        assert [reply.headers["RateLimit"] for reply in replies] == [
            f'"team-requests";r={left};t=10' for left in (2, 1, 0, 0)
        ]
        assert [reply.headers["ratelimit-remaining"] for reply in replies] == ["2", "1", "0", "0"]
        for reply in replies:
            assert reply.headers["RateLimit-Policy"] == '"team-requests";q=6;w=60'
            assert reply.headers["ratelimit-reset"] == "10"
            exposed = reply.headers["Access-Control-Expose-Headers"]
            assert all(name in exposed for name in (*SEPARATE, "Retry-After"))


async def test_unlimited_team_gets_no_rate_headers(gateway: Stack):
    """The gateway adds none, and drops upstream's, which describe the account, on creates and relayed answers."""
    made = await create(gateway, model=FAST)
    relayed = [
        await ask(gateway, method, path, key=key)
        for key, method, path in (
            ("alpha", "GET", "/v1/models/acme/storyteller"),
            ("alpha", "GET", "/v1/models/acme/none"),
            ("alpha", "GET", "/v1/collections"),
            ("operator", "GET", "/v1/account"),
            ("operator", "GET", "/v1/predictions?cursor="),
            ("operator", "GET", "/v1/deployments"),
            ("operator", "POST", "/v1/models"),
        )
    ]
    for reply in (await poll(gateway), made, *relayed):
        assert not [name for name in reply.headers if name.lower().startswith("ratelimit")], reply.status


async def test_limited_team_does_not_see_upstreams_rate_headers(open_gateway: OpenGateway):
    """It sees its own count where others see the account's."""
    async with open_gateway(teams={"alpha": slow(600, 100)}, clock=PausedClock()) as stack:
        assert (await create(stack, model=FAST)).headers["ratelimit-remaining"] == "99"


async def test_every_request_with_a_key_counts_and_a_stream_counts_once(open_gateway: OpenGateway):
    """A create, a poll, a list, a cancel, an unknown id, an estimate, and one stream however long it runs."""
    async with open_gateway(teams={"alpha": slow(60, 20)}, clock=PausedClock()) as stack:
        made = await create(stack, model=FAST)
        prediction = made.json["id"]
        await ask(stack, "GET", f"/v1/predictions/{prediction}")
        await ask(stack, "GET", "/v1/predictions")
        await ask(stack, "POST", f"/v1/predictions/{prediction}/cancel")
        await ask(stack, "GET", "/v1/predictions/" + "z" * 26)
        await ask(stack, "POST", "/gateway/estimate", json={"version": "acme/storyteller", "input": {}})
        streamed = await ask(stack, "GET", made.json["urls"]["stream"], key=None)
        assert streamed.status == 200
        assert streamed.text.count("event: ") >= 1
        await ask(stack, "GET", "/v1/nothing")
        await ask(stack, "OPTIONS", "/v1/predictions", key=None, headers={"Origin": PAGE})
        assert (await poll(stack)).headers["ratelimit-remaining"] == "12"


async def test_stream_over_the_rate_is_refused_but_may_resume(open_gateway: OpenGateway):
    """A stream's URL does not get around the team's rate; a page that resumes is no new reader."""
    async with open_gateway(teams={"alpha": slow(60, 2)}, clock=PausedClock()) as stack:
        url = (await create(stack, model=FAST)).json["urls"]["stream"]
        read, refused = [await ask(stack, "GET", url, key=None) for _ in range(2)]
        assert (read.status, refused.status) == (200, 429)
        assert [reply.headers["ratelimit-remaining"] for reply in (read, refused)] == ["0", "0"]
        seen = next(line for line in read.text.splitlines() if line.startswith("id: "))[4:]
        again = await ask(stack, "GET", url, key=None, headers={"Last-Event-ID": seen})
        assert again.status == 200


async def test_key_has_its_own_rate_within_the_team(open_gateway: OpenGateway):
    """One key may have a lower rate; its refused requests cost the team nothing."""
    keys = [{"name": "small", "requests_per_minute": 6, "burst": 1}]
    async with open_gateway(teams={"alpha": slow(60, 10, keys=keys)}, clock=PausedClock()) as stack:
        first, second = await poll(stack, key="alpha.small"), await poll(stack, key="alpha.small")
        assert (first.status, second.status) == (200, 429)
        assert first.headers["RateLimit-Policy"] == '"team-requests";q=60;w=60, "key-requests";q=6;w=60'
        assert (second.json["limit"]["of"], second.headers["RateLimit"]) == ("key", '"key-requests";r=0;t=10')
        assert (await poll(stack)).headers["ratelimit-remaining"] == "8"


async def test_named_users_have_their_own_rates(open_gateway: OpenGateway):
    """`Gateway-User` names the user; an invalid name is refused."""
    team = {"per_user": {"requests_per_minute": 6, "burst": 1}}
    async with open_gateway(teams={"alpha": team}, clock=PausedClock()) as stack:
        replies = [await poll(stack, headers={"Gateway-User": name}) for name in ("ann", "ann", "ben")]
        assert [reply.status for reply in replies] == [200, 429, 200]
        assert replies[1].json["limit"]["of"] == "user"
        assert [(await poll(stack)).status for _ in range(3)] == [200] * 3
        assert (await poll(stack, headers={"Gateway-User": "x" * 201})).status == 422


async def test_page_cannot_name_another_user(open_gateway: OpenGateway):
    """The user inside a browser token counts, not the page's header."""
    team = {"per_user": {"requests_per_minute": 6, "burst": 1}}
    async with open_gateway(teams={"alpha": team}, clock=PausedClock()) as stack:
        wanted = {"ttl_seconds": 600, "user": "ann"}
        minted = await ask(stack, "POST", "/gateway/tokens", json=wanted, headers={"Gateway-User": "server"})
        token = minted.json["token"]
        page = {"Origin": PAGE, "Authorization": f"Bearer {token}"}
        replies = [await poll(stack, headers=page | {"Gateway-User": name}) for name in ("ben", "cid")]
        assert [reply.status for reply in replies] == [200, 429]
        assert (await poll(stack, headers={"Gateway-User": "ann"})).status == 429


async def test_browser_token_has_its_own_limits(open_gateway: OpenGateway):
    """Minted with two requests; the next token starts afresh, and an invalid limit is named."""
    async with open_gateway(clock=PausedClock()) as stack:
        limits = {"requests_per_minute": 6, "burst": 2}
        for _ in range(2):
            minted = await ask(stack, "POST", "/gateway/tokens", json={"ttl_seconds": 600, "limits": limits})
            page = {"Origin": PAGE, "Authorization": f"Bearer {minted.json['token']}"}
            replies = [await poll(stack, headers=page) for _ in range(3)]
            assert [reply.status for reply in replies] == [200, 200, 429]
            assert replies[0].headers["RateLimit-Policy"] == '"token-requests";q=6;w=60'
        for wrong in ({"requests_per_minute": 0}, {"requests": 1}, {"burst": "many"}):
            reply = await ask(stack, "POST", "/gateway/tokens", json={"ttl_seconds": 600, "limits": wrong})
            assert reply.status == 422
            assert "limits" in reply.json["invalid_fields"][0]["field"]


PUBLISHABLE = {
    "name": "page",
    "origins": [PAGE],
    "per_address": {"requests_per_minute": 6, "burst": 1},
}


async def test_publishable_key_limits_each_address(open_gateway: OpenGateway):
    """Behind a trusted proxy the forwarded address counts; what an untrusted client claims does not."""
    teams = {"alpha": {"keys": [PUBLISHABLE], "per_address": {"requests_per_minute": 6, "burst": 1}}}
    async with open_gateway(
        teams=teams, server={"trusted_proxies": ["127.0.0.1", "10.0.0.0/8"]}, clock=PausedClock()
    ) as stack:

        async def from_(forwarded: str | None) -> int:
            headers = {"Origin": PAGE} | ({"X-Forwarded-For": forwarded} if forwarded else {})
            return (await poll(stack, key="alpha.page", headers=headers)).status

        assert [await from_("192.0.2.1"), await from_("192.0.2.1"), await from_("192.0.2.2")] == [200, 429, 200]
        assert await from_("198.51.100.9, 192.0.2.1") == 429
        assert await from_("192.0.2.1, 10.1.2.3") == 429
        assert [await from_("192.0.2.1:4711"), await from_("192.0.2.1, 10.1.2.3:4711")] == [429, 429]
        assert [await from_("2001:db8::1"), await from_("2001:db8::2"), await from_("2001:db8:0:1::1")] == [
            200,
            429,
            200,
        ]
        assert [await from_("[2001:db8::3]"), await from_("[2001:db8::3]:4711")] == [429, 429]
        assert [await from_("::ffff:192.0.2.1"), await from_("unknown"), await from_("garbage")] == [429, 200, 429]
        assert [await from_(None), await from_(None)] == [200, 429]
        assert [(await poll(stack)).status for _ in range(3)] == [200] * 3


async def test_forwarded_address_is_ignored_without_trusted_proxies(open_gateway: OpenGateway):
    """The connection's own address counts, whatever the header says."""
    async with open_gateway(teams={"alpha": {"keys": [PUBLISHABLE]}}, clock=PausedClock()) as stack:
        replies = [
            await poll(stack, key="alpha.page", headers={"Origin": PAGE, "X-Forwarded-For": f"192.0.2.{number}"})
            for number in range(2)
        ]
        assert [reply.status for reply in replies] == [200, 429]
        assert replies[1].json["limit"]["of"] == "address"


async def test_create_over_the_rate_is_held(open_gateway: OpenGateway):
    """Eight creates at once, four a second: none is refused, polls pass before them, and nothing is sent early."""
    team = {"requests_per_minute": 240, "burst": 4, "max_wait_seconds": 10}
    clock = PausedClock()
    async with open_gateway(teams={"alpha": team}, clock=clock) as stack:
        making = [asyncio.create_task(create(stack, model=FAST)) for _ in range(8)]
        await shown(stack, 'waiters{kind="rate"} 4.0')
        await until(lambda: sum(task.done() for task in making) == 4)
        clock.advance(0.5)
        assert [(await poll(stack)).status for _ in range(3)] == [200, 200, 429]
        assert stack.upstream.requests.count("predictions.create") == 4
        clock.resume()
        replies = await asyncio.gather(*making)
        assert {reply.status for reply in replies} == {201}
        assert 'creates_held_total{result="admitted"}' in await metrics_of(stack)


async def test_create_that_cannot_be_admitted_in_time_is_refused_at_once(open_gateway: OpenGateway):
    """It is not held, because its turn is too late; the 429 names the team's rate, and when a retry can succeed."""
    team = {"requests_per_minute": 6, "burst": 1, "max_wait_seconds": 5}
    async with open_gateway(teams={"alpha": team}, clock=PausedClock()) as stack:
        assert (await create(stack, model=FAST)).status == 201
        refused = await create(stack, model=FAST)
        assert (refused.status, refused.json["limit"]["of"]) == (429, "team")
        assert 5 < int(refused.headers["Retry-After"]) <= 10
        assert stack.upstream.requests.count("predictions.create") == 1


async def test_held_create_is_dropped_when_its_caller_disconnects(open_gateway: OpenGateway, upstream: Simulator):
    """It costs nothing, and its turn goes to the next."""
    team = {"requests_per_minute": 60, "burst": 1, "max_wait_seconds": 10}
    clock = PausedClock()
    async with open_gateway(teams={"alpha": team}, clock=clock) as stack:
        await poll(stack)
        making = asyncio.create_task(create(stack, model=FAST))
        await shown(stack, 'waiters{kind="rate"} 1.0')
        making.cancel()
        await asyncio.gather(making, return_exceptions=True)
        clock.resume()
        await shown(stack, 'waiters{kind="rate"} 0.0')
        assert upstream.requests.count("predictions.create") == 0
        async for _ in attempts():
            if (await poll(stack)).status == 200:
                break


async def test_refused_requests_reach_neither_store_nor_upstream(
    open_gateway: OpenGateway, upstream: Simulator, monkeypatch: pytest.MonkeyPatch
):
    """A thousand refused requests of every kind: no store operation, no upstream call."""
    steps: Counter[str] = Counter()
    open_store = base.open_store

    class Counting:
        """The store, and how often it was asked."""

        def __init__(self, *given: Any) -> None:
            self._store = open_store(*given)

        def __getattr__(self, name: str) -> Any:
            steps[name] += 1
            return getattr(self._store, name)

    monkeypatch.setattr(base, "open_store", Counting)
    async with open_gateway(teams={"alpha": slow(1, 1)}, clock=PausedClock()) as stack:
        made = await create(stack, model=FAST)
        assert made.status == 201
        await finished(stack, made.json["id"], key="operator")
        await shown(stack, "runs_followed 0.0")
        before, asked = steps.total(), len(upstream.requests)
        version = made.json["version"]
        for _ in range(100):
            replies = await asyncio.gather(
                create(stack, model=FAST),
                ask(stack, "GET", f"/v1/predictions/{made.json['id']}"),
                ask(stack, "GET", "/v1/predictions"),
                ask(stack, "GET", f"/v1/models/acme/storyteller/versions/{version}"),
                ask(stack, "POST", f"/v1/predictions/{made.json['id']}/cancel"),
            )
            assert {reply.status for reply in replies} == {429}
        assert (steps.total() - before, len(upstream.requests) - asked) == (0, 0)


async def test_refusal_does_not_wait_for_the_body(open_gateway: OpenGateway):
    """The 429 comes before a megabyte that would not be read."""
    async with open_gateway(teams={"alpha": slow(1, 1)}, clock=PausedClock()) as stack:
        await poll(stack)
        head = raw_request("POST", "/v1/predictions", [("Content-Length", "1000000")], key=stack.keys["alpha"])
        assert (await send_raw(stack, head)).status == 429
