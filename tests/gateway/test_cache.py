"""The cache, seen from outside: what answers a later request, what does not, and the header that says why."""

import asyncio
import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from click.testing import CliRunner

from gateway.cli import main
from gateway.domain import times
from gateway.simulator import Simulator
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
    teach_version,
    versioned_model,
)
from tests.support.stack import Stack, start_gateway
from tests.support.system_clocks import AdvancingClock
from tests.support.upstream import creates, version_of

PAINTING = {"prompt": "a lake", "seed": 3, "width": 32, "height": 32}
MINUTE, HOUR = 60.0, 3600.0


async def warm(session: aiohttp.ClientSession, stack: Stack, given: Any = None, model: str = "acme/storyteller") -> Any:
    """Run something once, to be found later."""
    reply = await create(session, versioned_model(stack, model), given, Prefer="wait")
    assert (reply.status, reply.json["status"], reply.cache) == (201, "succeeded", STORED)
    return reply.json


# A hit is a real new prediction


async def test_a_hit_is_a_prediction_of_its_own(gateway: Stack):
    """A new id, times of now, links that work, the run's metrics; and upstream hears nothing of it."""
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


async def test_a_hit_within_a_wait_says_what_was_asked(gateway: Stack):
    """`Prefer: wait` on a hit: 201 at once, and the header echoes the wish."""
    async with open_session(gateway) as alpha:
        await warm(alpha, gateway)
        reply = await create(alpha, versioned_model(gateway), Prefer="wait=5")
        assert (reply.status, reply.headers["Preference-Applied"]) == (201, "wait=5")
        assert reply.is_hit


# The caller's own words


async def test_no_cache_makes_a_new_run_that_takes_the_olds_place(gateway: Stack):
    """A fresh result is wanted: there is one more run, and later hits are of that one."""
    async with open_session(gateway) as alpha:
        await warm(alpha, gateway)
        fresh = await create(alpha, versioned_model(gateway), Gateway_Cache="no-cache", Prefer="wait")
        assert fresh.cache == STORED
        assert creates(gateway.upstream) == 2
        later = await create(alpha, versioned_model(gateway))
        assert later.is_hit
        assert later.json["metrics"] == fresh.json["metrics"]


async def test_no_cache_may_join_what_is_under_way(gateway: Stack):
    """What has not finished yet is fresh enough."""
    given = STORY | {"duration": 20.0}
    async with open_session(gateway) as alpha:
        await create(alpha, versioned_model(gateway), given)
        assert (await create(alpha, versioned_model(gateway), given, Gateway_Cache="no-cache")).cache == JOINED
    assert creates(gateway.upstream) == 1


async def test_no_store_is_a_run_for_oneself(gateway: Stack):
    """Neither answered from what there is, nor joined, nor kept."""
    async with open_session(gateway) as alpha:
        await warm(alpha, gateway)
        assert (await create(alpha, versioned_model(gateway), Gateway_Cache="no-store")).bypass == "no-store"
        other = STORY | {"seed": 8, "duration": 20.0}
        alone = await create(alpha, versioned_model(gateway), other, Gateway_Cache="no-store")
        assert alone.bypass == "no-store"
        assert (await create(alpha, versioned_model(gateway), other, Prefer="wait")).cache == STORED
    assert creates(gateway.upstream) == 4


async def test_max_age_takes_a_young_result_only(upstream: Simulator, tmp_path: Path):
    """A result of ten minutes ago will do for `max-age=900`, and not for `max-age=60`."""
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


async def test_only_if_cached_makes_no_run(gateway: Stack):
    """Nothing there: 504 at once and no create; in flight or finished: that."""
    given = STORY | {"duration": 10.0}
    async with open_session(gateway) as alpha:
        refused = await create(alpha, versioned_model(gateway), given, Gateway_Cache="only-if-cached")
        assert refused.status == 504
        assert refused.headers["Content-Type"].startswith("application/problem+json")
        assert refused.json["title"] == "Not cached"
        unseeded = await create(alpha, versioned_model(gateway), {"prompt": "x"}, Gateway_Cache="only-if-cached")
        assert unseeded.status == 504
        assert "no-seed" in unseeded.json["detail"]
        assert creates(gateway.upstream) == 0
        await create(alpha, versioned_model(gateway), given)
        joined = await create(alpha, versioned_model(gateway), given, Gateway_Cache="only-if-cached", Prefer="wait")
        assert (joined.cache, joined.json["status"]) == (JOINED, "succeeded")
        assert (await create(alpha, versioned_model(gateway), given, Gateway_Cache="only-if-cached")).is_hit
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
async def test_a_misspelt_wish_is_refused_by_name(gateway: Stack, header: str, value: str):
    """A typing error must not cost money: 422 that names the header, and nothing is run."""
    async with open_session(gateway) as alpha:
        body = {"version": versioned_model(gateway), "input": STORY}
        for path in (CREATED, "/gateway/estimate"):
            reply = await ask(alpha, "POST", path, json=body, headers={header: value})
            assert reply.status == 422
            assert reply.json["invalid_fields"][0]["field"] == header
            assert header in reply.json["detail"]
    assert creates(gateway.upstream) == 0


async def test_cache_control_counts_only_for_teams_that_say_so(upstream: Simulator, tmp_path: Path):
    """Pages send `no-cache` without meaning it. A team that does mean it says so in the config."""
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


# What is deterministic


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"prompt": "x"}, "no-seed"),
        ({"prompt": "x", "seed": None}, "no-seed"),
        ({"prompt": "x", "seed": -1}, "random-seed"),
        ({"prompt": "x", "seed": -1.0}, "random-seed"),
        ({"prompt": "x", "seed": 42}, "random-seed"),
        ({"prompt": "x", "seed": 1.5}, "odd-seed"),
        ({"prompt": "x", "seed": "7"}, "odd-seed"),
        ({"prompt": "x", "temperature": 0.1}, "no-seed"),
    ],
    ids=str,
)
async def test_what_is_left_to_chance_is_not_shared(upstream: Simulator, tmp_path: Path, given: Any, reason: str):
    """No seed, or one that asks for a random one: every caller gets a run of its own, and is told why."""
    async with (
        start_gateway(upstream, tmp_path, cache={"random_seeds": [-1, 42]}) as stack,
        open_session(stack) as alpha,
    ):
        for _ in range(2):
            reply = await create(alpha, versioned_model(stack), given)
            assert (reply.bypass == reason) if reply.status == 201 else reply.status == 422
    assert creates(upstream) == 2


@pytest.mark.parametrize("given", [{"temperature": 0}, {"temperature": 0.0}, {"seed": 0}, {"seed": 10**12}], ids=str)
async def test_a_seed_or_a_temperature_of_zero_proves_it(gateway: Stack, given: dict[str, Any]):
    """A seed of 0 is a seed; the coldest temperature leaves nothing to chance."""
    async with open_session(gateway) as alpha:
        await warm(alpha, gateway, {"prompt": "x", "max_tokens": 2} | given)
        assert (await create(alpha, versioned_model(gateway), {"prompt": "x", "max_tokens": 2} | given)).is_hit


async def test_rules_say_for_a_target_what_its_schema_does_not(upstream: Simulator, tmp_path: Path):
    """Always, seeded and never, the first that fits; with an age of its own, and inputs that do not matter."""
    rules = [
        {"model": "acme/slow", "mode": "never"},
        {"model": "replicate/*", "mode": "always", "ttl_seconds": 60, "ignore_inputs": ["note"]},
        {"model": "acme/story*", "mode": "seeded", "ttl_seconds": 0},
    ]
    hello = "replicate/hello-world"
    clock = AdvancingClock(upstream)
    async with (
        start_gateway(upstream, tmp_path, clock=clock, cache={"rules": rules}) as stack,
        open_session(stack) as alpha,
    ):
        slow = {"duration": 1.0, "seed": 1}
        assert (await create(alpha, versioned_model(stack, "acme/slow"), slow)).bypass == "rule-never"
        first = await create(alpha, versioned_model(stack, hello), {"text": "x", "note": 1}, Prefer="wait")
        hit = await create(alpha, versioned_model(stack, hello), {"text": "x", "note": 2})
        assert (first.cache, hit.is_hit) == (STORED, True)
        assert 50 < int(hit.cache.rpartition("=")[2]) <= 60
        assert hit.json["output"] == "hello x"
        clock.advance(61)
        assert (await create(alpha, versioned_model(stack, hello), {"text": "x", "note": 3})).cache == STORED
        # Joined while it runs, kept for nobody afterwards.
        given = STORY | {"duration": 10.0}
        cold = await create(alpha, versioned_model(stack), given)
        assert cold.cache == "replicate-gateway; fwd=miss"
        assert (await create(alpha, versioned_model(stack), given, Prefer="wait")).cache == JOINED
        assert (await create(alpha, versioned_model(stack), given)).cache == "replicate-gateway; fwd=miss"
        assert (await create(alpha, versioned_model(stack), {"prompt": "x", "temperature": 0})).bypass == "no-seed"


async def test_a_callers_word_counts_where_its_team_may_give_it(upstream: Simulator, tmp_path: Path):
    """`Gateway-Deterministic: true` makes a model without a seed shared for one team, and is refused to the other."""
    hello, given = "replicate/hello-world", {"text": "x"}
    teams = {"beta": {"may_assert_deterministic": True}}
    async with (
        start_gateway(upstream, tmp_path, teams=teams) as stack,
        open_session(stack) as alpha,
        open_session(stack, "beta") as beta,
    ):
        reply = await create(alpha, versioned_model(stack, hello), given, Gateway_Deterministic="true")
        assert (reply.status, reply.bypass) == (201, "assertion-refused")
        first = await create(beta, versioned_model(stack, hello), given, Gateway_Deterministic="true", Prefer="wait")
        assert first.cache == STORED
        assert (await create(beta, versioned_model(stack, hello), given, Gateway_Deterministic="true")).is_hit
        assert (await create(beta, versioned_model(stack, hello), given)).bypass == "no-seed-input"


async def test_a_rule_of_never_stands_against_a_callers_word(upstream: Simulator, tmp_path: Path):
    """The operator's no is a no."""
    rules = [{"model": "*", "mode": "never"}]
    teams = {"alpha": {"may_assert_deterministic": True}}
    async with (
        start_gateway(upstream, tmp_path, teams=teams, cache={"rules": rules}) as stack,
        open_session(stack) as alpha,
    ):
        reply = await create(alpha, version_of(upstream, "acme/storyteller"), Gateway_Deterministic="true")
        assert reply.bypass == "rule-never"


async def test_a_cache_that_is_switched_off_shares_nothing(upstream: Simulator, tmp_path: Path):
    """`enabled = false`: every request is a run."""
    async with start_gateway(upstream, tmp_path, cache={"enabled": False}) as stack, open_session(stack) as alpha:
        replies = await asyncio.gather(*(create(alpha, versioned_model(stack)) for _ in range(3)))
        assert {reply.bypass for reply in replies} == {"disabled"}
    assert creates(upstream) == 3


# How long


async def test_links_bound_a_result_to_fifty_five_minutes(upstream: Simulator, tmp_path: Path):
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


async def test_a_result_past_its_time_is_run_anew(upstream: Simulator, tmp_path: Path):
    """A second before the end it is a hit, a second after it a run."""
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


async def test_results_survive_a_restart(upstream: Simulator, tmp_path: Path):
    """The cache is on disk; and a narrower config is obeyed."""
    async with start_gateway(upstream, tmp_path) as stack, open_session(stack) as alpha:
        await warm(alpha, stack)
    async with start_gateway(upstream, tmp_path, keys=stack.keys) as stack, open_session(stack) as alpha:
        assert (await create(alpha, versioned_model(stack))).is_hit
    async with (
        start_gateway(upstream, tmp_path, keys=stack.keys, cache={"enabled": False}) as stack,
        open_session(stack) as alpha,
    ):
        assert (await create(alpha, versioned_model(stack))).bypass == "disabled"


async def test_a_shorter_life_in_the_config_counts_for_what_is_kept_already(upstream: Simulator, tmp_path: Path):
    """Who narrows `ttl_seconds` and restarts is not served what the wider one kept."""
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
async def test_only_success_is_kept(gateway: Stack, end: str):
    """What failed or was cancelled is tried again by the next who asks."""
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


# Purging


async def test_operators_see_and_purge_the_cache(upstream: Simulator, tmp_path: Path):
    """By target and by team, at /admin/cache; purged results answer no more, what was given out stays."""
    async with (
        start_gateway(upstream, tmp_path) as stack,
        open_session(stack) as alpha,
        open_session(stack, "beta") as beta,
        aiohttp.ClientSession(stack.ops_url) as ops,
    ):
        mine = await warm(alpha, stack)
        await warm(alpha, stack, PAINTING, "acme/painter")
        await warm(beta, stack)
        stats = (await ask(ops, "GET", "/admin/cache")).json
        assert stats["entries"] == 3
        assert stats["bytes"] > 300
        assert (await ask(ops, "GET", "/admin/cache?team=alpha")).json["entries"] == 2
        assert (await ask(ops, "DELETE", "/admin/cache?target=acme/p*")).json == {"purged": 1}
        assert (await create(alpha, versioned_model(stack, "acme/painter"), PAINTING)).cache == STORED
        assert (await ask(ops, "DELETE", "/admin/cache?team=beta")).json == {"purged": 1}
        assert (await create(beta, versioned_model(stack), Gateway_Cache="only-if-cached")).status == 504
        assert (await create(alpha, versioned_model(stack))).is_hit
        assert (await ask(ops, "DELETE", "/admin/cache")).json["purged"] >= 1
        assert (await create(alpha, versioned_model(stack), Gateway_Cache="only-if-cached")).status == 504
        assert (await get(alpha, mine["id"]))["output"] == mine["output"]


async def test_the_command_line_purges_beside_a_running_gateway(upstream: Simulator, tmp_path: Path):
    """`gateway cache purge` in another shell is obeyed by the next request."""
    async with start_gateway(upstream, tmp_path) as stack, open_session(stack) as alpha:
        await warm(alpha, stack)
        config = tmp_path / "config.toml"
        config.write_text(f'[store]\nurl = "sqlite:///{stack.database}"\n[[teams]]\nname = "alpha"\n')

        def gateway_cache(*arguments: str) -> str:
            command = ["cache", *arguments, "--config", str(config)]
            result = CliRunner().invoke(main, command, env={"REPLICATE_API_TOKEN": None})
            assert result.exit_code == 0, result.output
            return result.stdout

        stats = json.loads(await asyncio.to_thread(gateway_cache, "stats", "--format", "json"))
        assert stats["entries"] == 1
        assert await asyncio.to_thread(gateway_cache, "purge", "--target", "other/*") == "purged 0\n"
        assert (await create(alpha, versioned_model(stack))).is_hit
        assert await asyncio.to_thread(gateway_cache, "purge", "--yes") == "purged 1\n"
        assert (await create(alpha, versioned_model(stack), Gateway_Cache="only-if-cached")).status == 504


# Whose


async def test_teams_share_nothing_unless_the_config_says_so(upstream: Simulator, tmp_path: Path):
    """Equal requests of two teams are two runs, and an id of the one is unknown to the other."""
    async with (
        start_gateway(upstream, tmp_path) as stack,
        open_session(stack) as alpha,
        open_session(stack, "beta") as beta,
    ):
        mine = await warm(alpha, stack)
        theirs = await warm(beta, stack)
        assert creates(upstream) == 2
        for session, foreign in ((alpha, theirs), (beta, mine)):
            assert (await ask(session, "GET", f"{CREATED}/{foreign['id']}")).status == 404
            assert foreign["id"] not in (await ask(session, "GET", CREATED)).text


async def test_teams_that_share_have_predictions_of_their_own(upstream: Simulator, tmp_path: Path):
    """`share = "all"`: one run, in flight and afterwards; still nobody sees another team's prediction."""
    given = STORY | {"duration": 10.0}
    async with (
        start_gateway(upstream, tmp_path, cache={"share": "all"}) as stack,
        open_session(stack) as alpha,
        open_session(stack, "beta") as beta,
    ):
        mine, theirs = await asyncio.gather(
            create(alpha, versioned_model(stack), given, Prefer="wait"),
            create(beta, versioned_model(stack), given, Prefer="wait"),
        )
        hit = await create(beta, versioned_model(stack), given)
        assert hit.is_hit
        assert {mine.json["status"], theirs.json["status"]} == {"succeeded"}
        ids = {"alpha": [mine.json["id"]], "beta": [theirs.json["id"], hit.json["id"]]}
        for session, own, foreign in ((alpha, "alpha", "beta"), (beta, "beta", "alpha")):
            for prediction in ids[own]:
                assert (await get(session, prediction))["status"] == "succeeded"
            for prediction in ids[foreign]:
                # Asked for by its owner a moment ago, so it is in memory; and still not shown.
                assert (await ask(session, "GET", f"{CREATED}/{prediction}")).status == 404
            listed = {each["id"] for each in (await ask(session, "GET", CREATED)).json["results"]}
            assert listed == set(ids[own])
    assert creates(upstream) == 1


async def test_what_a_team_may_not_run_is_refused_though_it_is_there(upstream: Simulator, tmp_path: Path):
    """A result that another team left is no way around an allow-list, neither by name nor by bare version id."""
    teams = {"beta": {"models": ["acme/painter"]}}
    async with (
        start_gateway(upstream, tmp_path, cache={"share": "all"}, teams=teams) as stack,
        open_session(stack) as alpha,
        open_session(stack, "beta") as beta,
    ):
        await warm(alpha, stack)
        for version in (versioned_model(stack), version_of(upstream, "acme/storyteller")):
            assert (await create(beta, version)).status == 403
            assert (await create(beta, version, Gateway_Cache="only-if-cached")).status == 403
        await teach_version(alpha, "acme/storyteller", version_of(upstream, "acme/storyteller"))
    assert creates(upstream) == 1


async def test_a_key_without_the_scope_gets_no_hit(upstream: Simulator, tmp_path: Path):
    """A read-only key is refused before anything is looked up."""
    teams = {"alpha": {"keys": [{"name": "reader", "scopes": ["read"]}]}}
    async with (
        start_gateway(upstream, tmp_path, teams=teams) as stack,
        open_session(stack) as alpha,
        open_session(stack, "alpha.reader") as reader,
    ):
        await warm(alpha, stack)
        assert (await create(reader, versioned_model(stack))).status == 403


async def test_the_bound_in_bytes_lets_the_least_used_go(upstream: Simulator, tmp_path: Path):
    """More results than the bound allows: after the janitor's turn the oldest unused are gone, the used one stays."""
    clock = AdvancingClock(upstream)
    async with (
        start_gateway(upstream, tmp_path, clock=clock, cache={"max_bytes": 6000}) as stack,
        open_session(stack) as alpha,
        aiohttp.ClientSession(stack.ops_url) as ops,
    ):
        for seed in range(8):
            await warm(alpha, stack, STORY | {"seed": seed})
            clock.advance(0.1)
            assert (await create(alpha, versioned_model(stack), STORY | {"seed": 0})).is_hit
        before = (await ask(ops, "GET", "/admin/cache")).json
        assert before["bytes"] > 6000, before
        clock.advance(61)
        async for _ in attempts():
            if (await ask(ops, "GET", "/admin/cache")).json["bytes"] <= 6000:
                break
        assert (await create(alpha, versioned_model(stack), STORY | {"seed": 0})).is_hit
        assert (
            await create(alpha, versioned_model(stack), STORY | {"seed": 1}, Gateway_Cache="only-if-cached")
        ).status == 504
        assert (await create(alpha, versioned_model(stack), STORY | {"seed": 7})).is_hit
