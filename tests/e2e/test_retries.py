"""What the clients do when upstream refuses or breaks, and how much of it the gateway lets through."""

import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from replicate.exceptions import ReplicateError

from gateway.simulator import Simulator
from gateway.simulator.faults import Fault
from tests.support.node import Play
from tests.support.python_client import Python, python_client
from tests.support.stack import Stack, start_gateway
from tests.support.upstream import assert_upstream_saw_no_key, creates

STORY = {"prompt": "a llama in the snow", "seed": 7, "max_tokens": 8}
CREATE = "models.predictions.create"


@pytest.fixture
async def gateway(upstream: Simulator, tmp_path: Path, a_quiet_gateway: None) -> AsyncIterator[Stack]:
    """A gateway that lets callers wait a second for a create of which nobody knows what upstream made.

    Creates of team alpha are held over a rate, those of team beta are refused at once.
    """
    teams = {"beta": {"max_wait_seconds": 0}}
    async with start_gateway(upstream, tmp_path, upstream={"adopt_wait_seconds": 1}, teams=teams) as stack:
        yield stack
        assert_upstream_saw_no_key(stack)


@pytest.fixture
async def python(gateway: Stack) -> AsyncIterator[Python]:
    """PyPI `replicate`, synchronous."""
    client = python_client(gateway.keys["alpha"], gateway.origin, is_async=False)
    yield client
    await client.close()


@pytest.mark.node
async def test_npm_replicate_sends_a_throttled_create_six_times(replicate_js: Play, upstream: Simulator):
    """It ignores `Retry-After` and does not pause. One of its six POSTs reaches upstream, which refuses it."""
    upstream.faults.set(Fault("throttle", operation=CREATE))
    began = time.monotonic()
    done = await replicate_js("run", ref="acme/official-storyteller", input=STORY, team="beta")
    assert done.error["status"] == 429
    # What is left of upstream's 30 seconds.
    assert 29 - (time.monotonic() - began) <= int(done.error["headers"]["retry-after"]) <= 30
    assert done.count("POST") == 6
    assert creates(upstream) == 1
    assert upstream.predictions == []


@pytest.mark.node
async def test_npm_replicate_succeeds_when_a_throttled_create_is_held(replicate_js: Play, upstream: Simulator):
    """Upstream refuses twice, for a second each; the one POST is held meanwhile and makes one run."""
    upstream.faults.set(Fault("throttle", operation=CREATE, retry_after=1, times=2))
    done = await replicate_js("run", ref="acme/official-storyteller", input=STORY)
    assert done.error is None
    assert done.count("POST") == 1
    assert creates(upstream) == 3
    assert len(upstream.predictions) == 1


@pytest.mark.node
@pytest.mark.parametrize("fault", ["drop_before", "html_error", "error"])
async def test_npm_replicate_sends_an_interrupted_create_once(replicate_js: Play, upstream: Simulator, fault: str):
    """This client would try a lost connection six times. The gateway always responds, so there is one."""
    upstream.faults.set(Fault(fault, operation=CREATE))
    done = await replicate_js("run", ref="acme/official-storyteller", input=STORY)
    assert done.error["status"] == 504
    assert done.error["headers"]["content-type"].startswith("application/problem+json")
    assert done.count("POST") == 1
    assert creates(upstream) == 1


@pytest.mark.node
async def test_npm_replicate_repeats_a_failed_read_six_times(replicate_js: Play, upstream: Simulator):
    """The gateway tries each three times, with pauses, until its breaker opens: fewer than 18 in all."""
    upstream.faults.set(Fault("error", operation="hardware.list", status=503))
    done = await replicate_js("hardware")
    assert done.error["status"] == 503
    assert done.count("GET") == 6
    assert 3 <= upstream.requests.count("hardware.list") < 18


@pytest.mark.node
async def test_npm_replicate_does_not_notice_one_failed_read(replicate_js: Play, upstream: Simulator):
    """The gateway asks again; the client asked once."""
    upstream.faults.set(Fault("drop_before", operation="hardware.list", times=1))
    done = await replicate_js("hardware")
    assert done.error is None
    assert done.count("GET") == 1
    assert upstream.requests.count("hardware.list") == 2


@pytest.mark.node
async def test_stainless_repeats_a_refused_create(play: Play, upstream: Simulator):
    """After a 429 it tries three times in all, as `Retry-After` says; the second finds upstream willing."""
    upstream.faults.set(Fault("throttle", operation=CREATE, times=1, retry_after=1))
    began = time.monotonic()
    done = await play(
        "stainless.mjs", "run", ref="acme/official-storyteller", input=STORY, wait={"mode": "block"}, team="beta"
    )
    assert done.error is None
    assert time.monotonic() - began >= 1
    assert 2 <= done.count("POST") <= 3
    assert creates(upstream) == 2
    assert len(upstream.predictions) == 1


@pytest.mark.node
@pytest.mark.timeout(60)
async def test_stainless_does_not_repeat_an_uncertain_create(play: Play, upstream: Simulator):
    """It would repeat any 500 and sends no idempotency key; `X-Should-Retry: false` stops it."""
    upstream.faults.set(Fault("error", operation=CREATE, status=500))
    done = await play("stainless.mjs", "run", ref="acme/official-storyteller", input=STORY, wait={"mode": "block"})
    assert done.error["status"] == 504
    assert done.count("POST") == creates(upstream) == 1
    assert upstream.predictions == []


@pytest.mark.node
async def test_stainless_retries_can_be_disabled(play: Play, upstream: Simulator):
    """`maxRetries: 0`: one POST, whatever the result."""
    upstream.faults.set(Fault("error", operation=CREATE, status=500))
    done = await play(
        "stainless.mjs", "run", ref="acme/official-storyteller", input=STORY, wait={"mode": "block"}, maxRetries=0
    )
    assert done.error["status"] >= 500
    assert done.count("POST") == creates(upstream) == 1


@pytest.mark.node
@pytest.mark.timeout(60)
async def test_ai_sdk_repeats_a_throttled_create(play: Play, upstream: Simulator):
    """Three attempts in all, with growing pauses."""
    upstream.faults.set(Fault("throttle", operation=CREATE, retry_after=1))
    done = await play(
        "ai.mjs", "image", model="acme/official-storyteller", prompt="p", environ={"GENERATION": "2"}, team="beta"
    )
    assert "429" in str(done.error) or "throttled" in done.error["message"]
    assert done.count("POST") == 3
    assert 1 <= creates(upstream) <= 3


async def test_pypi_replicate_never_repeats_a_create(gateway: Stack, upstream: Simulator):
    """One POST, and the refusal as an exception that says how long to wait."""
    upstream.faults.set(Fault("throttle", operation=CREATE))
    python = python_client(gateway.keys["beta"], gateway.origin, is_async=False)
    with pytest.raises(ReplicateError) as raised:
        await python.do(python.client, "run", "acme/official-storyteller", input=STORY)
    assert raised.value.status == 429
    assert "resets in ~30s" in raised.value.detail
    assert python.count("POST") == creates(upstream) == 1
    await python.close()


async def test_pypi_replicate_does_not_notice_a_held_create(python: Python, upstream: Simulator):
    """It never repeats a create itself; held for a second, it need not."""
    upstream.faults.set(Fault("throttle", operation=CREATE, retry_after=1, times=1))
    assert await python.do(python.client, "run", "acme/official-storyteller", input=STORY)
    assert python.count("POST") == 1
    assert creates(upstream) == 2


async def test_short_throttle_of_a_read_is_waited_out(python: Python, upstream: Simulator):
    """Upstream says "in a second"; the client notices nothing but the time."""
    upstream.faults.set(Fault("throttle", operation="hardware.list", times=1, retry_after=1))
    began = time.monotonic()
    assert await python.do(python.client.hardware, "list")
    assert time.monotonic() - began >= 1
    assert python.count("GET") == 1
    assert upstream.requests.count("hardware.list") == 2


async def test_pypi_replicate_repeats_a_failed_read_until_it_works(python: Python, upstream: Simulator):
    """The gateway gives up after three 503s; the client's own second attempt succeeds."""
    upstream.faults.set(Fault("error", operation="hardware.list", status=503, times=4))
    assert await python.do(python.client.hardware, "list")
    assert [each.status for each in python.sent] == [503, 200]
    assert upstream.requests.count("hardware.list") == 5


async def test_run_that_upstream_forgets_for_a_moment_is_found(python: Python, upstream: Simulator):
    """GET may be 404 upstream just after a create. At the gateway the prediction exists."""
    upstream.faults.set(Fault("not_found_after_create", count=3))
    prediction = await python.do(python.client.predictions, "create", model="acme/official-storyteller", input=STORY)
    await python.do(prediction, "wait")
    assert prediction.status == "succeeded"
    assert {each.status for each in python.sent} == {200, 201}
