"""Which requests share a result: rules, headers, teams, purges and limits."""

import asyncio
import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from click.testing import CliRunner

from gateway.cli import main
from gateway.simulator import Simulator
from tests.support.cached import PAINTING, warm
from tests.support.http_calls import until_metric
from tests.support.polling import attempts
from tests.support.session_calls import (
    CREATED,
    JOINED,
    STORED,
    STORY,
    ask,
    create,
    finished,
    get,
    open_session,
    teach_version,
    versioned_model,
)
from tests.support.simulator_models import hold_runs
from tests.support.stack import Stack, start_gateway
from tests.support.system_clocks import AdvancingClock
from tests.support.upstream import creates, version_of


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
async def test_nondeterministic_request_is_not_shared(upstream: Simulator, tmp_path: Path, given: Any, reason: str):
    """Without a seed, or with a random one, every caller gets its own run, and the reason in a header."""
    async with (
        start_gateway(upstream, tmp_path, cache={"random_seeds": [-1, 42]}) as stack,
        open_session(stack) as alpha,
    ):
        for _ in range(2):
            reply = await create(alpha, versioned_model(stack), given)
            assert (reply.bypass == reason) if reply.status == 201 else reply.status == 422
    assert creates(upstream) == 2


@pytest.mark.parametrize("given", [{"temperature": 0}, {"temperature": 0.0}, {"seed": 0}, {"seed": 10**12}], ids=str)
async def test_seed_or_zero_temperature_makes_a_request_shareable(gateway: Stack, given: dict[str, Any]):
    """A seed of 0 is a seed; a temperature of 0 leaves nothing to chance."""
    async with open_session(gateway) as alpha:
        await warm(alpha, gateway, {"prompt": "x", "max_tokens": 2} | given)
        assert (await create(alpha, versioned_model(gateway), {"prompt": "x", "max_tokens": 2} | given)).is_hit


async def test_cache_rules_override_a_targets_schema(upstream: Simulator, tmp_path: Path):
    """Modes always, seeded and never: the first matching rule counts, with its own age and ignored inputs."""
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
        go_on = hold_runs(upstream, "acme/storyteller")
        cold = await create(alpha, versioned_model(stack))
        assert cold.cache == "replicate-gateway; fwd=miss"
        joined = await create(alpha, versioned_model(stack))
        assert joined.cache == JOINED
        go_on.set()
        await finished(alpha, joined.json["id"])
        assert (await create(alpha, versioned_model(stack))).cache == "replicate-gateway; fwd=miss"
        assert (await create(alpha, versioned_model(stack), {"prompt": "x", "temperature": 0})).bypass == "no-seed"


async def test_deterministic_header_counts_where_the_team_allows_it(upstream: Simulator, tmp_path: Path):
    """`Gateway-Deterministic: true` shares runs of a model without a seed for one team and is refused for the other."""
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


async def test_never_rule_overrides_the_deterministic_header(upstream: Simulator, tmp_path: Path):
    """A target that the operator marked `never` is not shared, whatever the caller's header says."""
    rules = [{"model": "*", "mode": "never"}]
    teams = {"alpha": {"may_assert_deterministic": True}}
    async with (
        start_gateway(upstream, tmp_path, teams=teams, cache={"rules": rules}) as stack,
        open_session(stack) as alpha,
    ):
        reply = await create(alpha, version_of(upstream, "acme/storyteller"), Gateway_Deterministic="true")
        assert reply.bypass == "rule-never"


async def test_disabled_cache_shares_nothing(upstream: Simulator, tmp_path: Path):
    """`enabled = false`: every request is a run."""
    async with start_gateway(upstream, tmp_path, cache={"enabled": False}) as stack, open_session(stack) as alpha:
        replies = await asyncio.gather(*(create(alpha, versioned_model(stack)) for _ in range(3)))
        assert {reply.bypass for reply in replies} == {"disabled"}
    assert creates(upstream) == 3


async def test_admin_cache_lists_and_purges_by_target_and_team(upstream: Simulator, tmp_path: Path):
    """Purged results are no longer hits; predictions that were answered with them stay."""
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


async def test_cache_purge_command_takes_effect_on_a_running_gateway(upstream: Simulator, tmp_path: Path):
    """`gateway cache purge` in another shell applies to the next request."""
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


async def test_teams_share_nothing_by_default(upstream: Simulator, tmp_path: Path):
    """Equal requests of two teams are two runs, and neither team knows the other's id."""
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


async def test_teams_with_shared_cache_have_their_own_predictions(upstream: Simulator, tmp_path: Path):
    """`share = "all"`: one run, in progress and afterwards; still no team sees another team's prediction."""
    go_on = hold_runs(upstream, "acme/storyteller")
    async with (
        start_gateway(upstream, tmp_path, cache={"share": "all"}) as stack,
        open_session(stack) as alpha,
        open_session(stack, "beta") as beta,
    ):
        creating = asyncio.gather(
            create(alpha, versioned_model(stack), Prefer="wait"),
            create(beta, versioned_model(stack), Prefer="wait"),
        )
        await until_metric(stack, 'waiters{kind="sync"} 2.0')
        go_on.set()
        mine, theirs = await creating
        hit = await create(beta, versioned_model(stack))
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


async def test_allow_list_is_enforced_on_a_cached_result(upstream: Simulator, tmp_path: Path):
    """A result that another team left does not get around an allow-list, by name or by bare version id."""
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


async def test_key_without_predict_scope_gets_no_hit(upstream: Simulator, tmp_path: Path):
    """A read-only key is refused before anything is looked up."""
    teams = {"alpha": {"keys": [{"name": "reader", "scopes": ["read"]}]}}
    async with (
        start_gateway(upstream, tmp_path, teams=teams) as stack,
        open_session(stack) as alpha,
        open_session(stack, "alpha.reader") as reader,
    ):
        await warm(alpha, stack)
        assert (await create(reader, versioned_model(stack))).status == 403


async def test_cache_over_its_byte_limit_evicts_the_least_recently_used(upstream: Simulator, tmp_path: Path):
    """After the janitor's next turn the oldest unused results are gone and the used one stays."""
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
