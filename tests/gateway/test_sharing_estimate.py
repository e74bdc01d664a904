"""`POST /gateway/estimate`: what a create would come to, without one."""

from pathlib import Path
from typing import Any

import aiohttp
import pytest

from gateway.simulator import Simulator
from tests.support.polling import attempts, until
from tests.support.session_calls import CREATED, STORY, ask, cancel, create, open_session, versioned_model
from tests.support.simulator_models import hold_runs
from tests.support.stack import Stack, start_gateway
from tests.support.upstream import creates, version_of

LONG = STORY | {"duration": 1200.0}


async def estimate(session: aiohttp.ClientSession, version: str, given: Any = None, **headers: str) -> Any:
    """Ask what a create would come to."""
    body = {"version": version, "input": STORY if given is None else given}
    named_so = {name.replace("_", "-"): value for name, value in headers.items()}
    reply = await ask(session, "POST", "/gateway/estimate", json=body, headers=named_so)
    assert reply.status == 200, reply.text
    return reply.json


def brief(answer: Any) -> tuple[str, bool, str]:
    """Take what decides."""
    return answer["result"], answer["deterministic"], answer["reason"]


async def test_estimate_follows_a_request_from_run_to_hit(gateway: Stack):
    """Run before, join while it runs, hit afterwards, run again when the last caller has cancelled."""
    go_on = hold_runs(gateway.upstream, "acme/storyteller")
    async with open_session(gateway) as alpha:
        before = await estimate(alpha, versioned_model(gateway))
        assert brief(before) == ("run", True, "seed")
        assert len(before["fingerprint"]) == 64
        assert before["refused_by"] is None
        assert {"estimate_usd", "estimate_microusd"} <= before.keys()
        made = (await create(alpha, versioned_model(gateway))).json["id"]
        during = await estimate(alpha, versioned_model(gateway))
        assert brief(during) == ("join", True, "seed")
        assert during["fingerprint"] == before["fingerprint"]
        assert brief(await estimate(alpha, versioned_model(gateway), Gateway_Cache="no-cache"))[0] == "join"
        go_on.set()
        await until(lambda: gateway.upstream.predictions[0].status == "succeeded")
        async for _ in attempts():
            if brief(await estimate(alpha, versioned_model(gateway)))[0] == "hit":
                break
        assert brief(await estimate(alpha, versioned_model(gateway), Gateway_Cache="no-cache"))[0] == "run"
        assert brief(await estimate(alpha, versioned_model(gateway), Gateway_Cache="max-age=0"))[0] == "run"
        listed = (await ask(alpha, "GET", CREATED)).json["results"]
        assert [each["id"] for each in listed] == [made]
        hold_runs(gateway.upstream, "acme/storyteller")
        long = (await create(alpha, versioned_model(gateway), LONG)).json["id"]
        await cancel(alpha, long)
        assert brief(await estimate(alpha, versioned_model(gateway), LONG))[0] == "run"
    assert creates(gateway.upstream) == 2


async def test_estimate_is_equal_for_every_spelling_of_a_version(gateway: Stack):
    """Named, bare once it is known, and an official model's name."""
    async with open_session(gateway) as alpha:
        bare = version_of(gateway.upstream, "acme/storyteller")
        assert brief(await estimate(alpha, bare)) == ("run", False, "model-unknown")
        await create(alpha, bare, Prefer="wait")
        one, two = await estimate(alpha, bare), await estimate(alpha, versioned_model(gateway))
        # How much of the account's limits is in use changes from one moment to the next.
        assert {**one, "gateway_limits": None} == {**two, "gateway_limits": None}
        assert one["result"] == "hit"
        assert brief(await estimate(alpha, "acme/official-storyteller")) == ("run", True, "seed")
    assert creates(gateway.upstream) == 1


@pytest.mark.parametrize(
    ("given", "reason"),
    [({"prompt": "x"}, "no-seed"), ({"prompt": "x", "seed": -1}, "random-seed")],
    ids=["none", "random"],
)
async def test_estimate_of_an_unshareable_request_says_why(gateway: Stack, given: Any, reason: str):
    """The reason is the one in `Cache-Status`."""
    async with open_session(gateway) as alpha:
        answer = await estimate(alpha, versioned_model(gateway), given)
        assert brief(answer) == ("run", False, reason)
        assert answer["fingerprint"] is None
        assert (await create(alpha, versioned_model(gateway), given)).bypass == reason
        assert brief(await estimate(alpha, versioned_model(gateway), Gateway_Cache="no-store")) == (
            "run",
            False,
            "no-store",
        )


async def test_estimate_names_the_refusal(upstream: Simulator, tmp_path: Path):
    """A model that is not on the list; a cache that has nothing."""
    teams = {"beta": {"models": ["acme/painter"]}}
    async with (
        start_gateway(upstream, tmp_path, teams=teams) as stack,
        open_session(stack) as alpha,
        open_session(stack, "beta") as beta,
    ):
        refused = await estimate(beta, versioned_model(stack))
        assert (refused["result"], refused["refused_by"]) == ("refused", "models")
        assert "acme/storyteller" in refused["reason"]
        empty = await estimate(alpha, versioned_model(stack), Gateway_Cache="only-if-cached")
        assert (empty["result"], empty["refused_by"]) == ("refused", "only-if-cached")
    assert creates(upstream) == 0


async def test_estimate_shows_nothing_of_another_team(gateway: Stack):
    """The fingerprint contains the team: a hit for one is a run for the other."""
    async with open_session(gateway) as alpha, open_session(gateway, "beta") as beta:
        await create(alpha, versioned_model(gateway), Prefer="wait")
        mine, theirs = await estimate(alpha, versioned_model(gateway)), await estimate(beta, versioned_model(gateway))
        assert (mine["result"], theirs["result"]) == ("hit", "run")
        assert mine["fingerprint"] != theirs["fingerprint"]
