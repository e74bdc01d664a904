"""Sharing runs, seen from outside: many callers of one deterministic request, over real sockets.

The short ways to ask stand here too; the neighbouring files about sharing take them from here.
"""

import asyncio
import base64
import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from gateway.domain import times
from gateway.simulator import Fault, Simulator
from gateway.simulator.models import text
from gateway.simulator.models.image import paint
from tests.support.http_calls import until_metric
from tests.support.polling import attempts, until
from tests.support.session_calls import (
    CREATED,
    JOINED,
    STORED,
    STORY,
    ask,
    cancel,
    create,
    finished,
    get,
    open_session,
    teach_version,
    versioned_model,
)
from tests.support.simulator_models import hold_runs
from tests.support.stack import Stack, start_gateway, start_upstream
from tests.support.upstream import creates, version_of

# Which spellings are one request


@pytest.mark.parametrize(
    "spelling",
    [
        pytest.param('{"max_tokens":4,"seed":7,"prompt":"a llama in the snow"}', id="other key order"),
        pytest.param('{"prompt":"a llama in the snow","seed":7.0,"max_tokens":4e0}', id="other numbers"),
        pytest.param('{"prompt":"a \\u006clama in the snow","seed":7,"max_tokens":4}', id="an escaped letter"),
        pytest.param(
            '{ "prompt": "a llama in the snow", "seed": 7, "max_tokens": 4, "temperature": 0.75,'
            ' "token_delay": 0.02, "system_prompt": "You are a helpful assistant." }',
            id="explicit defaults",
        ),
        pytest.param('{"prompt":"x","prompt":"a llama in the snow","seed":7,"max_tokens":4}', id="a repeated key"),
    ],
)
async def test_equal_requests_share_a_run_in_any_spelling(gateway: Stack, spelling: str):
    """However a program writes the same input, it is answered from the one run."""
    async with gateway.caller() as alpha:
        first = await create(alpha, versioned_model(gateway), Prefer="wait")
        assert (first.json["status"], first.cache) == ("succeeded", STORED)
        body = f'{{"version":"{version_of(gateway.upstream, "acme/storyteller")}","input":{spelling}}}'
        again = await ask(alpha, "POST", CREATED, data=body, headers={"Content-Type": "application/json"})
        assert again.is_hit, again.cache
        assert again.json["output"] == first.json["output"]
        assert creates(gateway.upstream) == 1


@pytest.mark.parametrize(
    "other",
    [
        {"seed": 8},
        {"seed": 70},
        {"prompt": "a llama in the snow "},
        {"prompt": "A llama in the snow"},
        {"max_tokens": 5},
        {"temperature": 0.5},
        {"extra": None},
        {"system_prompt": ""},
    ],
    ids=str,
)
async def test_different_requests_do_not_share_a_run(gateway: Stack, other: dict[str, Any]):
    """A request whose output may differ is never answered from another one's result."""
    async with gateway.caller() as alpha:
        await create(alpha, versioned_model(gateway), Prefer="wait")
        reply = await create(alpha, versioned_model(gateway), STORY | other, Prefer="wait")
        assert reply.cache == STORED or reply.status == 422, reply.cache
        assert creates(gateway.upstream) == 2


async def test_other_version_or_deployment_is_not_shared(gateway: Stack):
    """The older version gets its own run; so does a deployment, which may move to another version."""
    older, newer = (version.id for version in gateway.upstream.world.registry.models["acme/storyteller"].versions)
    async with gateway.caller() as alpha:
        for version in (newer, older):
            reply = await create(alpha, f"acme/storyteller:{version}", Prefer="wait")
            assert reply.cache == STORED
        path = "/v1/deployments/acme/story-service/predictions"
        for expected in ("stored", "ttl="):
            reply = await ask(alpha, "POST", path, json={"input": STORY}, headers={"Prefer": "wait"})
            assert expected in reply.cache
    assert creates(gateway.upstream) == 3


async def test_official_model_is_shared_across_both_routes(gateway: Stack):
    """`/models/…/predictions` and a `version` that is the model's name are one request."""
    async with gateway.caller() as alpha:
        path = "/v1/models/acme/official-storyteller/predictions"
        first = await ask(alpha, "POST", path, json={"input": STORY}, headers={"Prefer": "wait"})
        assert first.cache == STORED
        assert (await create(alpha, "acme/official-storyteller")).is_hit
    assert creates(gateway.upstream) == 1


async def test_equal_files_are_shared_however_they_are_sent(upstream: Simulator, tmp_path: Path):
    """One picture as an upload, another upload and a data: URI is one run; another picture is another run."""
    rules = [{"model": "acme/upscale", "mode": "always"}]
    async with start_gateway(upstream, tmp_path, cache={"rules": rules}) as stack, stack.caller() as alpha:

        async def uploaded(data: bytes) -> str:
            form = aiohttp.FormData()
            form.add_field("content", data, filename="a.png", content_type="image/png")
            url: str = (await ask(alpha, "POST", "/v1/files", data=form)).json["urls"]["get"]
            return url

        picture, other = paint("a", 1, 16, 16), paint("b", 2, 16, 16)
        links = [await uploaded(picture), await uploaded(picture)]
        links.append("data:image/png;base64," + base64.b64encode(picture).decode())
        assert len(set(links)) == 3
        replies = [
            await create(alpha, versioned_model(stack, "acme/upscale"), {"image": each}, Prefer="wait")
            for each in links
        ]
        assert [reply.json["status"] for reply in replies] == ["succeeded"] * 3
        assert [reply.is_hit for reply in replies] == [False, True, True]
        different = await create(
            alpha, versioned_model(stack, "acme/upscale"), {"image": await uploaded(other)}, Prefer="wait"
        )
        assert different.cache == STORED
    assert creates(upstream) == 2


# Bare version ids


async def test_burst_by_bare_version_id_is_one_run_on_a_cold_gateway(gateway: Stack):
    """Fifty pages send what `run("owner/name:version")` sends, and the model is not known yet: one run, fifty ids."""
    version = version_of(gateway.upstream, "acme/storyteller")
    async with open_session(gateway) as alpha:
        replies = await asyncio.gather(*(create(alpha, version, Prefer="wait") for _ in range(50)))
        assert {(reply.status, reply.json["status"]) for reply in replies} == {(201, "succeeded")}
        assert len({reply.json["id"] for reply in replies}) == 50
        assert creates(gateway.upstream) == 1
        assert (await create(alpha, version)).is_hit
        assert (await create(alpha, versioned_model(gateway))).is_hit
    assert creates(gateway.upstream) == 1


async def test_burst_for_a_model_without_a_seed_splits_into_runs(gateway: Stack):
    """The model's schema has no seed: no run can be shared, so every caller gets its own."""
    version = version_of(gateway.upstream, "replicate/hello-world")
    async with open_session(gateway) as alpha:
        replies = await asyncio.gather(
            *(create(alpha, version, {"text": "x", "seed": 1}, Prefer="wait") for _ in range(10))
        )
        statuses = {(reply.status, reply.json["status"]) for reply in replies}
        assert statuses == {(201, "succeeded")}
        assert len({reply.json["id"] for reply in replies}) == 10
        assert {reply.bypass for reply in replies} <= {"no-seed-input", "model-unknown"}
        shown = [await get(alpha, reply.json["id"]) for reply in replies]
        assert {each["status"] for each in shown} == {"succeeded"}
        listed = (await ask(alpha, "GET", CREATED)).json["results"]
        assert {each["id"] for each in listed} == {reply.json["id"] for reply in replies}
    assert creates(gateway.upstream) == len({each.id for each in gateway.upstream.predictions}) == 10


async def test_run_of_a_split_burst_has_one_caller(gateway: Stack):
    """The model takes no seed, so a burst splits: each caller is the only one of its run and can end it."""
    program = text.program(seeded=False)
    version = gateway.upstream.world.registry.add_version("acme/unseeded", program).id
    async with open_session(gateway) as alpha:
        given = {"prompt": "x", "seed": 1, "duration": 1200.0}
        replies = await asyncio.gather(*(create(alpha, version, given) for _ in range(5)))
        assert {reply.status for reply in replies} == {201}
        assert creates(gateway.upstream) == 5
        for reply in replies:
            assert (await cancel(alpha, reply.json["id"]))["status"] == "canceled"
        await until(lambda: all(each.status == "canceled" for each in gateway.upstream.predictions))
    assert gateway.upstream.requests.count("predictions.cancel") == 5


@pytest.mark.parametrize("fault", ["version_override", "hidden_version", "model_override"])
async def test_burst_for_a_hidden_version_fails_no_caller(gateway: Stack, fault: str):
    """Upstream's response does not name the model, so nothing is shared; every caller still gets a run."""
    gateway.upstream.faults.set(Fault(fault))
    version = version_of(gateway.upstream, "acme/storyteller")
    async with open_session(gateway) as alpha:
        replies = await asyncio.gather(*(create(alpha, version, Prefer="wait") for _ in range(12)))
        assert {(reply.status, reply.json.get("status")) for reply in replies} == {(201, "succeeded")}
        assert len({reply.json["id"] for reply in replies}) == 12
    assert creates(gateway.upstream) <= 12


async def test_bare_version_without_a_seed_waits_for_no_other(gateway: Stack):
    """A request that could never be shared is not delayed by others."""
    version = version_of(gateway.upstream, "acme/storyteller")
    async with open_session(gateway) as alpha:
        replies = await asyncio.gather(*(create(alpha, version, {"prompt": "x"}) for _ in range(5)))
        assert {reply.status for reply in replies} == {201}
    assert creates(gateway.upstream) == 5


async def test_learned_version_survives_a_restart(upstream: Simulator, tmp_path: Path):
    """After a restart a bare id needs no second run to be known."""
    version = version_of(upstream, "acme/storyteller")
    async with start_gateway(upstream, tmp_path) as stack, stack.caller() as alpha:
        await create(alpha, version, Prefer="wait")
    async with start_gateway(upstream, tmp_path, keys=stack.keys) as stack, stack.caller() as alpha:
        assert (await create(alpha, version)).is_hit
    assert creates(upstream) == 1


# Joining


async def test_joined_callers_keep_their_own_wait_and_webhook(gateway: Stack):
    """One waits, one waits briefly, one does not: each gets its own response and its own webhook in the body."""
    go_on = hold_runs(gateway.upstream, "acme/storyteller")
    async with open_session(gateway) as alpha:
        run_creator = await create(alpha, versioned_model(gateway))
        webhook = {"version": versioned_model(gateway), "input": STORY, "webhook": "https://example.com/mine"}
        waiting = asyncio.create_task(create(alpha, versioned_model(gateway), Prefer="wait"))
        briefly, hooked = await asyncio.gather(
            create(alpha, versioned_model(gateway), Prefer="wait=1"),
            ask(alpha, "POST", CREATED, json=webhook | {"webhook_events_filter": ["completed"]}),
        )
        await until_metric(gateway, 'waiters{kind="sync"} 1.0')
        go_on.set()
        waits = await waiting
        assert (run_creator.cache, run_creator.json["status"]) == (STORED, "starting")
        assert {waits.cache, briefly.cache, hooked.cache} == {JOINED}
        assert (waits.status, waits.json["status"]) == (201, "succeeded")
        assert "".join(waits.json["output"]).startswith("\n\nHere is")
        assert (briefly.status, briefly.json["status"]) == (202, "starting")
        assert hooked.json["webhook"] == "https://example.com/mine"
        assert hooked.json["webhook_events_filter"] == ["completed"]
        assert "webhook" not in waits.json
        bodies = [await finished(alpha, each.json["id"]) for each in (run_creator, waits, briefly, hooked)]
        assert len({body["id"] for body in bodies}) == 4
        assert len({json.dumps(body["output"]) for body in bodies}) == 1
        for body in bodies:
            assert body["urls"]["get"] == f"{gateway.base_url}/predictions/{body['id']}"
            assert times.parse(body["created_at"]) <= times.parse(body["completed_at"])
        assert len({body["urls"]["stream"] for body in bodies}) == 4
    assert creates(gateway.upstream) == 1
    (seen,) = gateway.upstream.requests.find("*predictions.create")
    assert "webhook" not in seen.json


async def test_expired_wait_of_a_joined_caller_is_202_starting(gateway: Stack):
    """Though the run has long begun: any other status would be taken for the result."""
    hold_runs(gateway.upstream, "acme/storyteller")
    async with open_session(gateway) as alpha:
        run_creator = (await create(alpha, versioned_model(gateway))).json["id"]
        async for _ in attempts():
            if (await get(alpha, run_creator))["status"] == "processing":
                break
        reply = await create(alpha, versioned_model(gateway), Prefer="wait=1")
        assert (reply.status, reply.json["status"], reply.json.get("output")) == (202, "starting", None)
        assert reply.cache == JOINED
        await cancel(alpha, reply.json["id"])


async def test_upstream_refusal_answers_all_joined_callers(gateway: Stack):
    """A bad input, ten times at once: ten times upstream's 422, which was asked once."""
    gateway.upstream.faults.set(Fault("delay", operation="predictions.create", seconds=600))
    async with open_session(gateway) as alpha:
        bad = {"prompt": "x", "seed": 1, "max_tokens": "many"}
        creating = asyncio.gather(*(create(alpha, versioned_model(gateway), bad, Prefer="wait") for _ in range(10)))
        await until_metric(gateway, 'waiters{kind="create"} 9.0')
        gateway.upstream.faults.clear()
        replies = await creating
        assert {reply.status for reply in replies} == {422}
        assert len({reply.text for reply in replies}) == 1
        assert replies[0].json["invalid_fields"][0]["field"].startswith("input")
        assert (await ask(alpha, "GET", CREATED)).json["results"] == []
        assert creates(gateway.upstream) == 1
        # Refusals are not kept.
        assert (await create(alpha, versioned_model(gateway), bad)).status == 422
    assert creates(gateway.upstream) == 2


async def test_upstream_throttle_is_waited_out_for_all_joined_callers(gateway: Stack):
    """Upstream answers the one create with 429; it is sent again, and all ten share the run."""
    async with open_session(gateway) as alpha:
        await teach_version(alpha, "acme/storyteller", version_of(gateway.upstream, "acme/storyteller"))
        gateway.upstream.faults.set(
            Fault("delay", operation="predictions.create", seconds=0.5, times=1),
            Fault("throttle", operation="predictions.create", retry_after=1, times=1),
        )
        replies = await asyncio.gather(*(create(alpha, versioned_model(gateway)) for _ in range(10)))
        assert {reply.status for reply in replies} == {201}
        assert creates(gateway.upstream) == 2
    assert len(gateway.upstream.predictions) == 1


async def test_joined_callers_get_429_when_there_is_no_turn_in_time(tmp_path: Path):
    """The one create may not wait; all ten get the same 429, and each tried at most once more."""
    async with start_upstream() as upstream:
        teams = {"alpha": {"max_wait_seconds": 0}}
        async with start_gateway(upstream, tmp_path, teams=teams) as stack, open_session(stack) as alpha:
            await teach_version(alpha, "acme/storyteller", version_of(upstream, "acme/storyteller"))
            upstream.faults.set(
                Fault("delay", operation="predictions.create", seconds=0.5, times=1),
                Fault("throttle", operation="predictions.create", retry_after=60),
            )
            replies = await asyncio.gather(*(create(alpha, versioned_model(stack)) for _ in range(10)))
            assert {reply.status for reply in replies} == {429}
            assert all(1 <= int(reply.headers["Retry-After"]) <= 60 for reply in replies)
            assert (await ask(alpha, "GET", CREATED)).json["results"] == []
            assert creates(upstream) == 1
            assert upstream.predictions == []


async def test_joined_callers_of_an_unsent_create_retry_once(tmp_path: Path):
    """Upstream is down: no caller waits long, and twenty callers are two attempts, not twenty."""
    async with start_upstream() as upstream:
        rules = [{"model": "acme/storyteller", "mode": "seeded"}]
        async with start_gateway(upstream, tmp_path, cache={"rules": rules}) as stack, open_session(stack) as alpha:
            await teach_version(alpha, "acme/storyteller", version_of(upstream, "acme/storyteller"))
            await create(alpha, versioned_model(stack), STORY | {"seed": 1}, Prefer="wait")
            await upstream.close()
            replies = await asyncio.gather(*(create(alpha, versioned_model(stack)) for _ in range(20)))
            assert {reply.status for reply in replies} == {503}
            assert all("Retry-After" in reply.headers for reply in replies)
            async with aiohttp.ClientSession() as session, session.get(f"{stack.ops_url}/metrics") as response:
                lines = (await response.text()).splitlines()
            (line,) = (each for each in lines if 'operation="predictions.create"' in each and "unreachable" in each
                       and "requests_total" in each)  # fmt: skip
            assert 1 <= float(line.rpartition(" ")[2]) <= 2
            assert len((await ask(alpha, "GET", CREATED)).json["results"]) == 1


async def test_disconnected_first_caller_leaves_the_run_to_the_others(gateway: Stack):
    """The first caller disconnects before upstream has responded; nine get their prediction from one create."""
    upstream = gateway.upstream
    async with open_session(gateway) as alpha:
        await teach_version(alpha, "acme/storyteller", version_of(upstream, "acme/storyteller"))
        upstream.faults.set(Fault("delay", operation="predictions.create", seconds=600))
        async with open_session(gateway) as leaving:
            run_creator = asyncio.create_task(create(leaving, versioned_model(gateway), Prefer="wait"))
            await until(lambda: creates(upstream))
            run_creator.cancel()
            await asyncio.gather(run_creator, return_exceptions=True)
        joining = asyncio.gather(*(create(alpha, versioned_model(gateway), Prefer="wait") for _ in range(9)))
        await until_metric(gateway, 'waiters{kind="create"} 9.0')
        upstream.faults.clear()
        replies = await joining
        assert {(reply.status, reply.json["status"], reply.cache) for reply in replies} == {(201, "succeeded", JOINED)}
    assert creates(upstream) == 1


async def test_rapid_retries_after_lost_connections_are_one_run(gateway: Stack):
    """The JavaScript client sends a create six times when its connection breaks; upstream sees one."""
    upstream = gateway.upstream
    async with open_session(gateway) as alpha:
        upstream.faults.set(Fault("delay", operation="predictions.create", seconds=0.5))
        for _ in range(5):
            async with open_session(gateway) as broken:
                lost = asyncio.create_task(create(broken, versioned_model(gateway), Prefer="wait"))
                await until(lambda: creates(upstream))
                # Long enough for the request to arrive, shorter than upstream's delay.
                await asyncio.sleep(0.05)
                lost.cancel()
                await asyncio.gather(lost, return_exceptions=True)
        last = await create(alpha, versioned_model(gateway), Prefer="wait")
        assert last.json["status"] == "succeeded"
        listed = (await ask(alpha, "GET", CREATED)).json["results"]
        assert {each["status"] for each in listed} == {"succeeded"}
    assert creates(upstream) == 1


async def test_failed_run_fails_for_all_and_is_not_cached(gateway: Stack):
    """Joined callers see the failure; the next caller gets a new run."""
    async with open_session(gateway) as alpha:
        go_on = hold_runs(gateway.upstream, "acme/fail")
        given = {"kind": "nsfw", "seed": 1, "after": 8.0}
        first = await create(alpha, versioned_model(gateway, "acme/fail"), given)
        joining = asyncio.gather(
            *(create(alpha, versioned_model(gateway, "acme/fail"), given, Prefer="wait") for _ in range(5))
        )
        await until_metric(gateway, 'waiters{kind="sync"} 5.0')
        go_on.set()
        replies = await joining
        assert {reply.cache for reply in replies} == {JOINED}
        assert {reply.json["status"] for reply in replies} == {"failed"}
        assert all("NSFW" in reply.json["error"] for reply in replies)
        assert (await get(alpha, first.json["id"]))["status"] == "failed"
        assert (await create(alpha, versioned_model(gateway, "acme/fail"), given)).cache == STORED
    assert creates(gateway.upstream) == 2
