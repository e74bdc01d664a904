"""PyPI `replicate` 1.0.7, synchronous and asynchronous: run, stream, predictions, and what upstream gets to see."""

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import pytest
from replicate.exceptions import ModelError, ReplicateError

from gateway.simulator import Simulator
from gateway.simulator.faults import Fault
from tests.support.http_calls import until_metric, until_polled
from tests.support.polling import attempts, until
from tests.support.python_client import Python, python_client
from tests.support.simulator_models import hold_runs_until, hold_runs_until_read
from tests.support.stack import Stack, start_gateway
from tests.support.system_clocks import AdvancingClock
from tests.support.tools import clean_environment
from tests.support.upstream import creates, paced_reads, reads, version_of

STORY = {"prompt": "a llama in the snow", "seed": 7, "max_tokens": 24}
WAIT = 20


async def test_run_waits_for_an_official_model_in_one_request(python: Python, upstream: Simulator):
    """`replicate.run("owner/name")`: one POST with `Prefer: wait`, no polling, the whole output."""
    output = await python.do(python.client, "run", "acme/official-storyteller", input=STORY)
    assert "".join(output).startswith("\n\nHere is")
    assert len(output) == STORY["max_tokens"] + 1
    assert [each.method for each in python.sent] == ["POST"]
    assert python.sent[0].headers["prefer"] == "wait"
    assert creates(upstream) == 1


async def test_run_of_a_version_reads_its_schema_and_returns_an_iterator(
    python: Python, upstream: Simulator, storyteller: str
):
    """It reads the version after each create, to learn whether the output is a stream of text: upstream is asked
    once. The other upstream read is the gateway's own, before the first create: does the model take a seed? It
    does, so the second run is a hit.
    """
    for _ in range(2):
        output = await python.do(python.client, "run", f"acme/storyteller:{storyteller}", input=STORY)
        assert output == upstream.predictions[-1].output
    assert [each.method for each in python.sent] == ["POST", "GET"] * 2
    assert creates(upstream) == 1
    assert upstream.requests.count("models.versions.get") == 2


async def test_run_without_waiting_polls_the_gateway_not_upstream(python: Python, upstream: Simulator, gateway: Stack):
    """`wait=False`: polls come as fast as the caller likes and end at the gateway."""
    hold_runs_until(upstream, "acme/slow", partial(until_polled, gateway, 40))
    began = time.monotonic()
    version = version_of(upstream, "acme/slow")
    given = {"prompt": "patience", "duration": 2, "steps": 10, "seed": 1}
    python.client.poll_interval = 0.005
    output = await python.do(python.client, "run", f"acme/slow:{version}", input=given, wait=False)
    assert output == "patience (seed 1, 10 steps)"
    polls = len([each for each in python.sent if "/predictions/" in each.url])
    assert polls >= 40
    assert reads(upstream) <= paced_reads(time.monotonic() - began)
    assert creates(upstream) == 1


@pytest.fixture
def clock() -> AdvancingClock:
    """The gateway's clock, where a wait is to expire: this client gives its wait half a second more, and no longer."""
    return AdvancingClock()


@pytest.fixture
async def advanced(
    upstream: Simulator, tmp_path: Path, a_quiet_gateway: None, clock: AdvancingClock
) -> AsyncIterator[Stack]:
    """A gateway with that clock."""
    async with start_gateway(upstream, tmp_path, clock=clock) as stack:
        yield stack


@pytest.fixture
async def waiting(advanced: Stack, is_async: bool) -> AsyncIterator[Python]:
    """The client of team alpha at that gateway."""
    client = python_client(advanced.keys["alpha"], advanced.origin, is_async=is_async)
    yield client
    await client.close()


async def expire_wait(stack: Stack, clock: AdvancingClock) -> None:
    """Let the wait of a create expire when the gateway has read what its run has given so far."""
    await until_metric(stack, 'replicate_gateway_waiters{kind="sync"} 1.0')
    await until(lambda: stack.upstream.predictions[0].log_parts)
    before = reads(stack.upstream)
    await until(lambda: reads(stack.upstream) > before + 1)
    clock.advance(WAIT)


async def test_expired_wait_continues_by_polling(
    waiting: Python, upstream: Simulator, advanced: Stack, clock: AdvancingClock
):
    """A wait that is too short: `starting`, then polls, then the whole output."""
    hold_runs_until(upstream, "acme/slow", partial(until_polled, advanced), after=1)
    version = version_of(upstream, "acme/slow")
    given = {"prompt": "patience", "duration": 2, "steps": 10, "seed": 1}
    output, _ = await asyncio.gather(
        waiting.do(waiting.client, "run", f"acme/slow:{version}", input=given, wait=WAIT), expire_wait(advanced, clock)
    )
    assert output == "patience (seed 1, 10 steps)"
    assert waiting.sent[0].headers["prefer"] == f"wait={WAIT}"
    assert waiting.sent[0].status == 202
    assert creates(upstream) == 1


async def test_text_later_than_the_wait_arrives_in_full(
    waiting: Python, upstream: Simulator, advanced: Stack, storyteller: str, clock: AdvancingClock
):
    """Output that was there when the wait expired is not taken for all of it."""
    hold_runs_until(upstream, "acme/storyteller", partial(until_polled, advanced), after=30)
    given = {**STORY, "max_tokens": 60}
    output, _ = await asyncio.gather(
        waiting.do(waiting.client, "run", f"acme/storyteller:{storyteller}", input=given, wait=WAIT),
        expire_wait(advanced, clock),
    )
    assert output == upstream.predictions[0].output
    assert len(output) == 61


@pytest.mark.parametrize("wait", [True, False])
async def test_failed_run_raises_the_models_message(python: Python, upstream: Simulator, wait: bool):
    """`ModelError`, with the prediction in it."""
    version = version_of(upstream, "acme/fail")
    with pytest.raises(ModelError, match="NSFW content detected") as raised:
        await python.do(python.client, "run", f"acme/fail:{version}", input={"kind": "nsfw"}, wait=wait)
    assert raised.value.prediction.status == "failed"
    assert raised.value.prediction.id == upstream.predictions[0].id


@pytest.mark.parametrize("ref", ["acme/storyteller", "meta/meta-llama-3-8b-instruct"])
async def test_text_streams_token_by_token(python: Python, upstream: Simulator, gateway: Stack, ref: str):
    """`replicate.stream()`: every event has an id, nothing is trimmed, `done` ends it; the key stays at the gateway."""
    full = f"{ref}:{version_of(upstream, ref)}" if ref == "acme/storyteller" else ref
    hold_runs_until_read(upstream, ref, after=2)
    events = await python.do(python.client, "stream", full, input=STORY)
    output = [event.data for event in events if event.event.value == "output"]
    assert output == upstream.predictions[0].output
    assert "".join(str(event) for event in events) == "".join(output)
    assert events[-1].event.value == "done"
    assert len({event.id for event in events}) == len(events)
    assert python.sent[-1].url.startswith(f"{gateway.base_url}/streams/")
    assert creates(upstream) == upstream.requests.count("streams.get") == 1
    assert upstream.requests.authorized("delivery") == 0


async def test_stream_of_a_finished_prediction_is_complete(python: Python, upstream: Simulator, storyteller: str):
    """`prediction.stream()` after the end gives all of it again."""
    prediction = await python.do(python.client.predictions, "create", version=storyteller, input=STORY)
    await python.do(prediction, "wait")
    events = await python.do(prediction, "stream")
    output = [event.data for event in events if event.event.value == "output"]
    assert output == prediction.output


async def test_files_stream_as_links(python: Python, upstream: Simulator):
    """Over plain http they are strings, for `http:` links are not made into files."""
    version = version_of(upstream, "acme/frames")
    events = await python.do(python.client, "stream", f"acme/frames:{version}", input={"count": 3, "size": 32})
    assert [event.data for event in events if event.event.value == "output"] == upstream.predictions[0].output
    assert upstream.requests.authorized("delivery") == 0


async def test_stream_of_a_failed_run_raises(python: Python, upstream: Simulator):
    """The error event becomes a RuntimeError with the detail."""
    version = version_of(upstream, "acme/fail")
    with pytest.raises(RuntimeError, match="division by zero"):
        await python.do(python.client, "stream", f"acme/fail:{version}", input={"kind": "exception"})


async def test_model_without_streaming_is_refused_by_the_client(python: Python, upstream: Simulator):
    """The client finds no `urls.stream` and says so itself."""
    version = version_of(upstream, "replicate/hello-world")
    with pytest.raises(ReplicateError) as raised:
        await python.do(python.client, "stream", f"replicate/hello-world:{version}", input={"text": "A"})
    assert "does not support streaming" in str(raised.value.type)


async def test_predictions_are_created_in_three_ways_and_read(
    python: Python, upstream: Simulator, gateway: Stack, storyteller: str
):
    """By version, by official model, by deployment; then get, reload, wait, list."""
    predictions = python.client.predictions
    by_version = await python.do(predictions, "create", version=storyteller, input=STORY)
    by_model = await python.do(predictions, "create", model="acme/official-storyteller", input=STORY)
    by_deployment = await python.do(predictions, "create", deployment="acme/story-service", input=STORY)
    assert by_version.status == "starting"
    assert by_version.urls["get"] == f"{gateway.base_url}/predictions/{by_version.id}"
    for each in (by_version, by_model, by_deployment):
        await python.do(each, "wait")
        assert each.status == "succeeded"
        assert each.metrics["predict_time"] > 0
    await python.do(by_version, "reload")
    again = await python.do(predictions, "get", by_version.id)
    assert again.output == by_version.output
    assert again.version == storyteller
    assert by_model.version == "hidden"
    listed = await python.do(predictions, "list")
    assert [each.id for each in listed] == [each.id for each in (by_deployment, by_model, by_version)]
    assert listed.next is None
    assert upstream.requests.count("predictions.create") == 1
    assert upstream.requests.count("models.predictions.create") == 1
    assert upstream.requests.count("deployments.predictions.create") == 1
    assert upstream.requests.count("predictions.list") == 0
    # `stream=True` and the like are the client's; nothing is added by the gateway.
    assert upstream.requests.find("predictions.create")[0].json == {"version": storyteller, "input": STORY}


async def test_output_iterator_yields_while_output_grows(python: Python, upstream: Simulator, storyteller: str):
    """`output_iterator()` polls and yields what is new; progress comes from the logs."""
    given = {**STORY, "max_tokens": 40, "duration": 16}
    prediction = await python.do(python.client.predictions, "create", version=storyteller, input=given)
    output = await python.do(prediction, "output_iterator")
    assert output == upstream.predictions[0].output
    painter = version_of(upstream, "acme/painter")
    picture = {"prompt": "a lake", "seed": 1, "width": 32, "height": 32}
    prediction = await python.do(python.client.predictions, "create", version=painter, input=picture)
    await python.do(prediction, "wait")
    assert prediction.progress.percentage == 1.0


async def test_cancel_is_visible_at_once(python: Python, upstream: Simulator):
    """By the namespace and by the object; a finished prediction stays as it is."""
    version = version_of(upstream, "acme/slow")
    predictions = python.client.predictions
    first = await python.do(predictions, "create", version=version, input={"duration": 600})
    assert (await python.do(predictions, "cancel", first.id)).status == "canceled"
    second = await python.do(predictions, "create", version=version, input={"duration": 600})
    await python.do(second, "cancel")
    assert second.status == "canceled"
    await python.do(second, "reload")
    assert second.status == "canceled"
    await until(lambda: all(each.status == "canceled" for each in upstream.predictions))
    assert upstream.requests.count("predictions.cancel") == 2


async def test_aborted_prediction_breaks_this_client(python: Python, upstream: Simulator, gateway: Stack):
    """`aborted` is not among the states that 1.0.7 knows: it raises a validation error. The gateway tells the truth."""
    upstream.faults.set(Fault("cold_boot", seconds=600))
    version = version_of(upstream, "acme/slow")
    async with gateway.caller() as caller:
        body = {"version": version, "input": {}}
        async with caller.post("/v1/predictions", json=body, headers={"Cancel-After": "5s"}) as answer:
            prediction_id = (await answer.json())["id"]
        async for _ in attempts():
            async with caller.get(f"/v1/predictions/{prediction_id}") as answer:
                status = (await answer.json())["status"]
            if status != "starting":
                break
    assert status == "aborted"
    with pytest.raises(ValueError, match="unexpected value; permitted: 'starting'"):
        await python.do(python.client.predictions, "get", prediction_id)


@pytest.mark.timeout(60)
async def test_pages_are_followed(python: Python, upstream: Simulator, gateway: Stack):
    """`paginate()` follows `next`, with its key, so it must lead to the gateway."""
    version = version_of(upstream, "replicate/hello-world")
    async with gateway.caller() as caller:
        for number in range(105):
            body = {"version": version, "input": {"text": str(number)}}
            async with caller.post("/v1/predictions", json=body) as answer:
                assert answer.status == 201
    pages = await python.pages(python.client.predictions)
    assert [len(page) for page in pages] == [100, 5]
    assert [each.id for page in pages for each in page] == [each.id for each in reversed(upstream.predictions)]
    assert pages[1].previous.startswith(f"{gateway.base_url}/predictions?cursor=")
    assert upstream.requests.count("predictions.list") == 0


@pytest.mark.parametrize("spelling", ["{origin}", "{origin}/", "{origin}/v1", "{origin}/v1/"])
async def test_base_url_works_with_and_without_v1(gateway: Stack, upstream: Simulator, is_async: bool, spelling: str):
    """1.x puts /v1 before every path, 2.x does not, and both read one variable: either spelling works."""
    python = python_client(gateway.keys["alpha"], spelling.format(origin=gateway.origin), is_async=is_async)
    try:
        prediction = await python.do(
            python.client.predictions, "create", version=version_of(upstream, "acme/storyteller"), input=STORY
        )
        # Links have one spelling, whatever the caller's.
        assert prediction.urls["get"] == f"{gateway.base_url}/predictions/{prediction.id}"
        await python.do(prediction, "wait")
        events = await python.do(prediction, "stream")
        assert events[-1].event.value == "done"
        assert creates(upstream) == 1
    finally:
        await python.close()


async def test_module_functions_need_two_variables_and_no_change(gateway: Stack, upstream: Simulator):
    """A program that only calls `replicate.run(…)` is moved to the gateway by its environment."""
    program = (
        "import json, replicate; "
        "print(json.dumps(''.join(replicate.run('acme/official-storyteller', input={'prompt': 'hi', 'seed': 1}))))"
    )
    environ = {"REPLICATE_BASE_URL": gateway.origin, "REPLICATE_API_TOKEN": gateway.keys["alpha"]}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, env=clean_environment(**environ), stdout=asyncio.subprocess.PIPE
    )
    said, _ = await process.communicate()
    assert process.returncode == 0
    assert json.loads(said).startswith("\n\nHere is")
    assert creates(upstream) == 1


async def test_errors_carry_the_problem_document(python: Python, upstream: Simulator, gateway: Stack, is_async: bool):
    """`ReplicateError` with title, detail and status, whether the gateway's or upstream's."""
    with pytest.raises(ReplicateError) as raised:
        await python.do(python.client, "run", "black-forest-labs/flux-schnell", input={})
    assert raised.value.status == 422
    assert raised.value.title == "Input validation failed"
    assert "prompt is required" in raised.value.detail
    with pytest.raises(ReplicateError) as raised:
        await python.do(python.client.predictions, "get", "x" * 26)
    assert raised.value.status == 404
    assert raised.value.detail
    stranger = python_client("rgw_nosuchkey000_" + "x" * 32, gateway.origin, is_async=is_async)
    async with AsyncExitStack() as exits:
        exits.push_async_callback(stranger.close)
        with pytest.raises(ReplicateError) as raised:
            await stranger.do(stranger.client.predictions, "list")
    assert raised.value.status == 401
    assert upstream.requests.count("predictions.*", status=401) == 0
