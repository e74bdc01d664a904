"""The hold, with the client that it is for: npm `replicate` sends a refused create six times within 20 ms.

See docs/replicate-api.md, Client retries.

Each test runs twice: with a team whose creates are held over a rate, and with one whose are not.
"""

from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from gateway.simulator import Simulator
from tests.support.node import Play
from tests.support.stack import Stack, start_gateway, start_upstream
from tests.support.upstream import assert_upstream_saw_no_key, creates

pytestmark = pytest.mark.node

MODEL = "acme/official-storyteller"
HASTY = {"max_wait_seconds": 0}


@pytest.fixture
def per_minute() -> int:
    """How many predictions the account may create in a minute; the gateway's config does not say so."""
    return 30


@pytest.fixture
async def upstream(per_minute: int) -> AsyncIterator[Simulator]:
    """A simulator of such an account."""
    async with start_upstream(creates_per_minute=per_minute) as simulator:
        yield simulator


@pytest.fixture
async def gateway(upstream: Simulator, tmp_path: Path, a_quiet_gateway: None) -> AsyncIterator[Stack]:
    """Alpha and gamma are held, beta and delta are not; gamma and delta have rates of their own."""
    scopes = ["read", "predict"]
    teams = {
        "beta": HASTY,
        "gamma": {"requests_per_minute": 20, "burst": 1, "scopes": scopes},
        "delta": {"requests_per_minute": 1, "burst": 1, "scopes": scopes} | HASTY,
    }
    async with start_gateway(upstream, tmp_path, teams=teams) as stack:
        yield stack
        assert_upstream_saw_no_key(stack)


@pytest.fixture
async def used_up(upstream: Simulator, per_minute: int) -> None:
    """Somebody else has just used what the account may."""
    headers = {"Authorization": f"Bearer {upstream.token}"}
    async with aiohttp.ClientSession(headers=headers) as session:
        for _ in range(per_minute):
            url = f"{upstream.base_url}/models/{MODEL}/predictions"
            async with session.post(url, json={"input": {"prompt": "x"}}) as reply:
                assert reply.status == 201


async def test_held_create_survives_upstreams_throttle(
    used_up: None, replicate_js: Play, upstream: Simulator, per_minute: int
):
    """Its one POST waits for the two seconds after which upstream accepts a create again."""
    done = await replicate_js("run", ref=MODEL, input={"prompt": "held", "seed": 1})
    assert done.error is None
    assert done.count("POST") == 1
    assert creates(upstream) - per_minute <= 3


@pytest.mark.parametrize("per_minute", [1])
async def test_unheld_create_fails_on_upstreams_throttle(
    used_up: None, replicate_js: Play, upstream: Simulator, per_minute: int
):
    """Six POSTs at once, six refusals; upstream was asked once."""
    done = await replicate_js("run", ref=MODEL, input={"prompt": "refused", "seed": 1}, team="beta")
    assert done.error["status"] == 429
    assert done.count("POST") == 6
    assert creates(upstream) - per_minute == 1


async def test_held_create_survives_its_teams_rate(replicate_js: Play, gateway: Stack):
    """The team's one request is used up; the create waits up to three seconds for the next, and runs."""
    await _use_up(gateway, "gamma")
    done = await replicate_js("run", ref=MODEL, input={"prompt": "held"}, team="gamma")
    assert done.error is None
    assert done.count("POST") == 1


async def test_unheld_create_fails_at_its_teams_rate(replicate_js: Play, gateway: Stack, upstream: Simulator):
    """Six refusals from memory."""
    await _use_up(gateway, "delta")
    done = await replicate_js("run", ref=MODEL, input={"prompt": "refused"}, team="delta")
    assert done.error["status"] == 429
    assert done.count("POST") == 6
    assert creates(upstream) == 0


async def _use_up(stack: Stack, team: str) -> None:
    async with stack.caller(team) as session:
        while (await session.get("/v1/account")).status == 200:
            pass
