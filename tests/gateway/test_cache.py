"""The cache, seen from outside: what answers a later request, what does not, and the header that says why."""

import asyncio
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from gateway.domain import times
from gateway.simulator import Simulator
from tests.support.cached import PAINTING, warm
from tests.support.http_calls import until_metric
from tests.support.polling import attempts, stable
from tests.support.session_calls import (
    CREATED,
    JOINED,
    STORED,
    STORY,
    ask,
    cancel,
    create,
    get,
    open_session,
    versioned_model,
)
from tests.support.simulator_models import hold_runs
from tests.support.stack import Stack, start_gateway
from tests.support.system_clocks import AdvancingClock
from tests.support.upstream import creates

MINUTE, HOUR = 60.0, 3600.0


async def test_hit_is_a_prediction_of_its_own(gateway: Stack):
    """A hit has a new id, current times, working links and the run's metrics; upstream receives no request."""
    async with open_session(gateway) as alpha:
        first = await warm(alpha, gateway)
        asked = await stable(lambda: len(gateway.upstream.requests))
        reply = await create(alpha, versioned_model(gateway))
        body = reply.json
        assert reply.status == 201
        assert reply.headers["Location"] == body["urls"]["get"] == f"{gateway.base_url}/predictions/{body['id']}"
        assert reply.is_hit
        assert 86_000 < int(reply.cache.rpartition("=")[2]) <= 86_400
        assert body["id"] != first["id"]
        assert len(body["id"]) == 26
        assert body["status"] == "succeeded"
        assert body["output"] == first["output"]
        assert body["metrics"] == first["metrics"]
        created, started, completed = (times.parse(body[f"{name}_at"]) for name in ("created", "started", "completed"))
        assert times.parse(first["completed_at"]) < created <= started <= completed
        assert body["urls"]["cancel"] == f"{gateway.base_url}/predictions/{body['id']}/cancel"
        assert await get(alpha, body["id"]) == body
        assert await cancel(alpha, body["id"]) == body
        assert body["urls"]["stream"] != first["urls"]["stream"]
        listed = [each["id"] for each in (await ask(alpha, "GET", CREATED)).json["results"]]
        assert listed == [body["id"], first["id"]]
        assert len(gateway.upstream.requests) == asked
        async with aiohttp.ClientSession() as nobody, nobody.get(body["urls"]["stream"]) as response:
            assert (await response.text()).endswith("data: {}\n\n")


async def test_hit_with_prefer_wait_is_201_and_echoes_the_preference(gateway: Stack):
    """`Prefer: wait` on a hit: 201 at once, with `Preference-Applied`."""
    async with open_session(gateway) as alpha:
        await warm(alpha, gateway)
        reply = await create(alpha, versioned_model(gateway), Prefer="wait=5")
        assert (reply.status, reply.headers["Preference-Applied"]) == (201, "wait=5")
        assert reply.is_hit


async def test_no_cache_replaces_the_cached_result(gateway: Stack):
    """A caller asks for a fresh result: there is one more run, and later hits are of that one."""
    async with open_session(gateway) as alpha:
        await warm(alpha, gateway)
        fresh = await create(alpha, versioned_model(gateway), Gateway_Cache="no-cache", Prefer="wait")
        assert fresh.cache == STORED
        assert creates(gateway.upstream) == 2
        later = await create(alpha, versioned_model(gateway))
        assert later.is_hit
        assert later.json["metrics"] == fresh.json["metrics"]


async def test_no_cache_joins_a_run_in_progress(gateway: Stack):
    """A run that has not finished yet is fresh enough."""
    hold_runs(gateway.upstream, "acme/storyteller")
    async with open_session(gateway) as alpha:
        await create(alpha, versioned_model(gateway))
        assert (await create(alpha, versioned_model(gateway), Gateway_Cache="no-cache")).cache == JOINED
    assert creates(gateway.upstream) == 1


async def test_no_store_is_never_shared(gateway: Stack):
    """The run is not a hit, cannot be joined and is not cached."""
    async with open_session(gateway) as alpha:
        await warm(alpha, gateway)
        assert (await create(alpha, versioned_model(gateway), Gateway_Cache="no-store")).bypass == "no-store"
        hold_runs(gateway.upstream, "acme/storyteller")
        other = STORY | {"seed": 8}
        alone = await create(alpha, versioned_model(gateway), other, Gateway_Cache="no-store")
        assert alone.bypass == "no-store"
        assert (await create(alpha, versioned_model(gateway), other)).cache == STORED
    assert creates(gateway.upstream) == 4


async def test_max_age_accepts_only_a_young_enough_result(upstream: Simulator, tmp_path: Path):
    """A ten-minute-old result is a hit for `max-age=900` and a miss for `max-age=60`."""
    clock = AdvancingClock(upstream)
    async with start_gateway(upstream, tmp_path, clock=clock) as stack, open_session(stack) as alpha:
        await warm(alpha, stack)
        clock.advance(10 * MINUTE)
        assert (await create(alpha, versioned_model(stack), Gateway_Cache="max-age=900")).is_hit
        assert (await create(alpha, versioned_model(stack), Gateway_Cache="max-age=60, only-if-cached")).status == 504
        assert (await create(alpha, versioned_model(stack), Gateway_Cache="max-age=60", Prefer="wait")).cache == STORED
        assert (await create(alpha, versioned_model(stack), Gateway_Cache="max-age=60")).is_hit
        assert (await create(alpha, versioned_model(stack), Gateway_Cache="max-age=0", Prefer="wait")).cache == STORED
    assert creates(upstream) == 3


async def test_only_if_cached_creates_no_run(gateway: Stack):
    """Nothing cached: 504 at once and no create. A run in progress or a finished one is used."""
    go_on = hold_runs(gateway.upstream, "acme/storyteller")
    async with open_session(gateway) as alpha:
        refused = await create(alpha, versioned_model(gateway), Gateway_Cache="only-if-cached")
        assert refused.status == 504
        assert refused.headers["Content-Type"].startswith("application/problem+json")
        assert refused.json["title"] == "Not cached"
        unseeded = await create(alpha, versioned_model(gateway), {"prompt": "x"}, Gateway_Cache="only-if-cached")
        assert unseeded.status == 504
        assert "no-seed" in unseeded.json["detail"]
        assert creates(gateway.upstream) == 0
        await create(alpha, versioned_model(gateway))
        joining = asyncio.create_task(
            create(alpha, versioned_model(gateway), Gateway_Cache="only-if-cached", Prefer="wait")
        )
        await until_metric(gateway, 'waiters{kind="sync"} 1.0')
        go_on.set()
        joined = await joining
        assert (joined.cache, joined.json["status"]) == (JOINED, "succeeded")
        assert (await create(alpha, versioned_model(gateway), Gateway_Cache="only-if-cached")).is_hit
    assert creates(gateway.upstream) == 1


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("Gateway-Cache", "no-cash"),
        ("Gateway-Cache", "max-age"),
        ("Gateway-Cache", "max-age=-1"),
        ("Gateway-Cache", "no-store=1"),
        ("Gateway-Cache", "no-cache; no-store"),
        ("Gateway-Deterministic", "yes"),
        ("Gateway-Deterministic", "false"),
    ],
)
async def test_misspelled_cache_directive_is_422(gateway: Stack, header: str, value: str):
    """A typing error must not cost money: the 422 names the header, and nothing is run."""
    async with open_session(gateway) as alpha:
        body = {"version": versioned_model(gateway), "input": STORY}
        for path in (CREATED, "/gateway/estimate"):
            reply = await ask(alpha, "POST", path, json=body, headers={header: value})
            assert reply.status == 422
            assert reply.json["invalid_fields"][0]["field"] == header
            assert header in reply.json["detail"]
    assert creates(gateway.upstream) == 0


async def test_cache_control_header_counts_only_for_teams_that_enable_it(upstream: Simulator, tmp_path: Path):
    """Browsers send `no-cache` unintentionally; a team that means it enables it in the config."""
    teams = {"beta": {"honor_cache_control": True}}
    async with (
        start_gateway(upstream, tmp_path, teams=teams) as stack,
        open_session(stack) as alpha,
        open_session(stack, "beta") as beta,
    ):
        for session in (alpha, beta):
            await warm(session, stack)
        assert (await create(alpha, versioned_model(stack), Cache_Control="no-cache")).is_hit
        assert (await create(alpha, versioned_model(stack), Cache_Control="no-store")).is_hit
        assert (await create(beta, versioned_model(stack), Cache_Control="no-transform, max-age=600")).is_hit
        assert (await create(beta, versioned_model(stack), Cache_Control="no-cache", Prefer="wait")).cache == STORED
        assert (await create(beta, versioned_model(stack), Cache_Control="no-store")).bypass == "no-store"
        assert (
            await create(beta, versioned_model(stack), {"prompt": "x"}, Cache_Control="only-if-cached")
        ).status == 504
        assert (await create(beta, versioned_model(stack), Cache_Control="no-cash, max-age=x")).is_hit


async def test_results_with_links_are_shared_for_at_most_55_minutes(upstream: Simulator, tmp_path: Path):
    """Upstream's files live an hour, so a picture is shared for less than that; text for as long as the config says."""
    clock = AdvancingClock(upstream)
    async with start_gateway(upstream, tmp_path, clock=clock) as stack, open_session(stack) as alpha:
        await warm(alpha, stack, PAINTING, "acme/painter")
        await warm(alpha, stack)
        clock.advance(54 * MINUTE)
        hit = await create(alpha, versioned_model(stack, "acme/painter"), PAINTING)
        assert hit.is_hit
        assert 0 < int(hit.cache.rpartition("=")[2]) <= 60
        async with aiohttp.ClientSession() as nobody, nobody.get(hit.json["output"][0]) as response:
            assert response.status == 200
        clock.advance(1 * MINUTE + 1)
        assert (await create(alpha, versioned_model(stack, "acme/painter"), PAINTING)).cache == STORED
        assert (await create(alpha, versioned_model(stack))).is_hit
        clock.advance(5 * HOUR)
        late = await create(alpha, versioned_model(stack))
        assert late.is_hit
        assert late.json["output"]


async def test_result_expires_after_its_time_to_live(upstream: Simulator, tmp_path: Path):
    """A second before its end it is a hit, a second after it a miss."""
    clock = AdvancingClock(upstream)
    async with (
        start_gateway(upstream, tmp_path, clock=clock, cache={"ttl_seconds": 120}) as stack,
        open_session(stack) as alpha,
    ):
        await warm(alpha, stack)
        clock.advance(115)
        hit = await create(alpha, versioned_model(stack))
        assert hit.is_hit
        assert int(hit.cache.rpartition("=")[2]) <= 5
        clock.advance(6)
        assert (await create(alpha, versioned_model(stack), Gateway_Cache="only-if-cached")).status == 504
        assert (await create(alpha, versioned_model(stack))).cache == STORED
        # What was given out stays what it was.
        assert (await get(alpha, hit.json["id"]))["status"] == "succeeded"


async def test_cached_results_survive_a_restart(upstream: Simulator, tmp_path: Path):
    """The cache is on disk, and a stricter config applies to it."""
    async with start_gateway(upstream, tmp_path) as stack, open_session(stack) as alpha:
        await warm(alpha, stack)
    async with start_gateway(upstream, tmp_path, keys=stack.keys) as stack, open_session(stack) as alpha:
        assert (await create(alpha, versioned_model(stack))).is_hit
    async with (
        start_gateway(upstream, tmp_path, keys=stack.keys, cache={"enabled": False}) as stack,
        open_session(stack) as alpha,
    ):
        assert (await create(alpha, versioned_model(stack))).bypass == "disabled"


async def test_shorter_ttl_applies_to_results_cached_before(upstream: Simulator, tmp_path: Path):
    """After `ttl_seconds` is lowered and the gateway restarted, results kept under the longer one are not served
    too long.
    """
    clock = AdvancingClock(upstream)
    async with start_gateway(upstream, tmp_path, clock=clock) as stack, open_session(stack) as alpha:
        await warm(alpha, stack)
    clock.advance(2 * MINUTE)
    for ttl_seconds, is_hit in ((600, True), (60, False)):
        narrowed = {"ttl_seconds": ttl_seconds}
        async with (
            start_gateway(upstream, tmp_path, keys=stack.keys, clock=clock, cache=narrowed) as stack,
            open_session(stack) as alpha,
        ):
            assert (await create(alpha, versioned_model(stack))).is_hit is is_hit


@pytest.mark.parametrize("end", ["failed", "canceled"])
async def test_only_succeeded_runs_are_cached(gateway: Stack, end: str):
    """A failed or cancelled run is not shared: the next caller gets a new run."""
    model = "acme/fail" if end == "failed" else "acme/slow"
    given: dict[str, Any] = {"seed": 1} if end == "failed" else {"seed": 1, "duration": 600}
    async with open_session(gateway) as alpha:
        made = (await create(alpha, versioned_model(gateway, model), given)).json["id"]
        if end == "canceled":
            await cancel(alpha, made)
        async for _ in attempts():
            if (await get(alpha, made))["status"] == end:
                break
        await stable(lambda: len(gateway.upstream.requests))
        assert (
            await create(alpha, versioned_model(gateway, model), given, Gateway_Cache="only-if-cached")
        ).status == 504
        assert (await create(alpha, versioned_model(gateway, model), given)).cache == STORED
    assert creates(gateway.upstream) == 2
