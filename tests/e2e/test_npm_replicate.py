"""npm `replicate` 1.4.0 from Node: `run()` and predictions, and what of them upstream gets to see."""

import time
from functools import partial
from typing import Any

import pytest

from gateway.simulator import Simulator
from gateway.simulator.faults import Fault
from tests.support.http_calls import until_polled
from tests.support.node import Play
from tests.support.polling import attempts, until
from tests.support.simulator_models import hold_runs_until
from tests.support.stack import Stack
from tests.support.upstream import creates, paced_reads, reads, version_of

pytestmark = pytest.mark.node

STORY = {"prompt": "a llama in the snow", "seed": 7, "max_tokens": 24}


@pytest.mark.parametrize("form", ["version", "official"])
async def test_run_waits_for_the_result_in_one_request(
    replicate_js: Play, upstream: Simulator, gateway: Stack, storyteller: str, form: str
):
    """`run()` with its defaults: one POST, no polling, the whole text."""
    ref = f"acme/storyteller:{storyteller}" if form == "version" else "acme/official-storyteller"
    done = await replicate_js("run", ref=ref, input=STORY)
    assert done.error is None
    assert "".join(done.result["output"]).startswith("\n\nHere is")
    assert len(done.result["output"]) == STORY["max_tokens"] + 1
    assert [request.method for request in done.requests] == ["POST"]
    assert done.requests[0].headers["prefer"] == "wait"
    assert creates(upstream) == 1
    first = done.result["seen"][0]
    assert first["status"] == "succeeded"
    assert first["urls"]["get"] == f"{gateway.base_url}/predictions/{first['id']}"
    assert upstream.requests.find("*predictions.create")[0].headers.get("prefer") is None


@pytest.mark.parametrize("spelling", ["{origin}", "{origin}/v1", "{origin}/v1/", "{origin}/v1/v1"])
async def test_base_url_works_with_and_without_v1(
    replicate_js: Play, upstream: Simulator, gateway: Stack, storyteller: str, spelling: str
):
    """With /v1 is correct; both work, and links have one spelling."""
    base = spelling.format(origin=gateway.origin)
    done = await replicate_js("stream", base_url=base, ref=f"acme/storyteller:{storyteller}", input=STORY)
    assert done.error is None
    assert done.result[-1]["event"] == "done"
    assert done.requests[0].url == f"{base.rstrip('/')}/predictions"
    assert done.requests[1].url.startswith(f"{gateway.base_url}/streams/")
    assert creates(upstream) == 1


async def test_run_polls_the_gateway_not_upstream(replicate_js: Play, upstream: Simulator, gateway: Stack, slow: str):
    """A caller who polls two hundred times a second is served from memory; upstream is polled at the gateway's pace."""
    hold_runs_until(upstream, "acme/slow", partial(until_polled, gateway, 40), after=1)
    began = time.monotonic()
    done = await replicate_js(
        "run",
        ref=f"acme/slow:{slow}",
        input={"prompt": "patience", "duration": 2, "steps": 10, "seed": 1},
        wait={"mode": "poll", "interval": 5},
    )
    assert done.result["output"] == "patience (seed 1, 10 steps)"
    assert "prefer" not in done.requests[0].headers
    polls = done.count("GET", f"/predictions/{done.result['seen'][0]['id']}")
    assert polls >= 40
    assert creates(upstream) == 1
    assert reads(upstream) <= paced_reads(time.monotonic() - began)
    statuses = [seen["status"] for seen in done.result["seen"]]
    assert statuses[0] == "starting"
    assert statuses[-1] == "succeeded"
    assert "processing" in statuses


async def test_polling_a_finished_prediction_costs_upstream_nothing(
    replicate_js: Play, upstream: Simulator, storyteller: str
):
    """However long the polling goes on."""
    done = await replicate_js("run", ref=f"acme/storyteller:{storyteller}", input=STORY)
    before = len(upstream.requests)
    prediction = done.result["seen"][0]["id"]
    for _ in range(3):
        again = await replicate_js("get", id=prediction)
        assert again.result["status"] == "succeeded"
    assert len(upstream.requests) == before


async def test_progress_is_read_from_the_logs(replicate_js: Play, upstream: Simulator, gateway: Stack):
    """The progress callback gets the percentage of an image."""

    async def half_is_shown() -> None:
        before = reads(upstream)
        await until(lambda: reads(upstream) > before + 1)
        await until_polled(gateway, 2)

    hold_runs_until(upstream, "acme/painter", half_is_shown, after=3)
    version = version_of(upstream, "acme/painter")
    done = await replicate_js(
        "run",
        ref=f"acme/painter:{version}",
        input={"prompt": "a lake", "seed": 1, "width": 32, "height": 32},
        wait={"mode": "poll", "interval": 20},
    )
    progress = [seen["progress"]["percentage"] for seen in done.result["seen"] if seen["progress"]]
    assert progress == sorted(progress)
    assert any(0 < each < 1 for each in progress)
    assert progress[-1] == 1


async def test_expired_wait_continues_by_polling(replicate_js: Play, upstream: Simulator, gateway: Stack, slow: str):
    """`run()` with a wait that is too short: the client gets `starting`, polls, and has the whole output."""
    hold_runs_until(upstream, "acme/slow", partial(until_polled, gateway))
    done = await replicate_js(
        "run",
        ref=f"acme/slow:{slow}",
        input={"prompt": "patience", "duration": 2, "steps": 10, "seed": 1},
        wait={"mode": "block", "timeout": 1},
    )
    assert done.result["output"] == "patience (seed 1, 10 steps)"
    assert done.requests[0].headers["prefer"] == "wait=1"
    assert done.requests[0].status in (201, 202)
    assert done.result["seen"][0]["status"] == "starting"
    assert done.count("GET") >= 1
    assert creates(upstream) == 1


async def test_partial_output_is_never_taken_for_the_result(
    replicate_js: Play, upstream: Simulator, gateway: Stack, storyteller: str
):
    """Text that takes longer than the wait: the client takes `processing` for done, so the gateway must not say it."""
    hold_runs_until(upstream, "acme/storyteller", partial(until_polled, gateway), after=30)
    done = await replicate_js(
        "run",
        ref=f"acme/storyteller:{storyteller}",
        input={**STORY, "max_tokens": 60},
        wait={"mode": "block", "timeout": 1},
    )
    assert len(done.result["output"]) == 61
    assert done.requests[0].status == 202
    assert done.result["seen"][0]["status"] == "starting"


async def test_abort_cancels_the_run_between_two_polls(replicate_js: Play, upstream: Simulator, slow: str):
    """The user presses stop: the client cancels, the prediction is canceled, and so is the run that costs money."""
    done = await replicate_js(
        "abort",
        ref=f"acme/slow:{slow}",
        input={"duration": 600},
        wait={"mode": "poll", "interval": 50},
        after=300,
    )
    assert done.error is None
    assert done.result["output"] is None
    assert done.result["seen"][-1]["status"] == "canceled"
    assert done.count("POST", "/cancel") == 1
    await until(lambda: upstream.predictions[0].status == "canceled")
    assert upstream.requests.count("predictions.cancel") == 1


async def test_abort_while_blocking_takes_effect_after_the_response(replicate_js: Play, upstream: Simulator, slow: str):
    """1.4.0 does not pass the signal on: it waits for the response, then cancels what has ended, without effect."""
    done = await replicate_js(
        "abort",
        ref=f"acme/slow:{slow}",
        input={"prompt": "p", "duration": 10, "seed": 1},
        wait={"mode": "block"},
        after=100,
    )
    assert done.result["output"] == "p (seed 1, 20 steps)"
    assert done.count("POST", "/cancel") == 1
    assert done.result["seen"][-1]["status"] == "succeeded"
    assert upstream.requests.count("predictions.cancel") == 0


async def test_failed_run_makes_run_throw(replicate_js: Play, upstream: Simulator):
    """The error is the model's own message."""
    version = version_of(upstream, "acme/fail")
    for wait in ({"mode": "block"}, {"mode": "poll", "interval": 20}):
        done = await replicate_js("run", ref=f"acme/fail:{version}", input={"kind": "nsfw"}, wait=wait)
        assert done.error["message"].startswith("Prediction failed: NSFW content detected.")


async def test_predictions_are_created_read_listed_and_awaited(
    replicate_js: Play, upstream: Simulator, gateway: Stack, storyteller: str
):
    """The methods beneath `run()`; every link leads to the gateway, and lists come from its own records."""
    done = await replicate_js("predictions", version=storyteller, model="acme/official-storyteller", input=STORY)
    assert done.error is None
    result: dict[str, Any] = done.result
    assert result["created"]["status"] == "starting"
    assert result["created"]["input"] == STORY
    assert result["ended"]["status"] == result["waited"]["status"] == result["official"]["status"] == "succeeded"
    assert result["ended"]["output"] == result["waited"]["output"]
    assert result["official"]["version"] == "hidden"
    assert result["official"]["model"] == "acme/official-storyteller"
    assert result["got"]["metrics"]["predict_time"] > 0
    listed = [each["id"] for each in result["list"]["results"]]
    assert listed == [result[name]["id"] for name in ("official", "waited", "created")]
    assert result["list"]["next"] is None
    assert result["list"]["previous"] is None
    for prediction in (result["created"], result["got"], result["waited"], *result["list"]["results"]):
        urls = prediction["urls"]
        assert urls["get"] == f"{gateway.base_url}/predictions/{prediction['id']}"
        assert urls["cancel"] == f"{gateway.base_url}/predictions/{prediction['id']}/cancel"
        assert urls["stream"].startswith(f"{gateway.base_url}/streams/")
    assert upstream.requests.count("predictions.create") == 1, "the second, equal and seeded, shares the first's run"
    assert upstream.requests.count("models.predictions.create") == 1
    assert upstream.requests.count("predictions.list") == 0
    # Bodies go up with no field added.
    assert upstream.requests.find("predictions.create")[0].json == {"version": storyteller, "input": STORY}
    assert upstream.requests.find("models.predictions.create")[0].json == {"input": STORY}


async def test_cancel_is_visible_at_once(replicate_js: Play, upstream: Simulator, slow: str):
    """The response already says canceled; a second cancel changes nothing."""
    done = await replicate_js("cancel", version=slow, input={"duration": 600})
    created, canceled, got, again = done.result
    assert created["status"] == "starting"
    assert [each["status"] for each in (canceled, got, again)] == ["canceled"] * 3
    assert canceled["output"] is None
    await until(lambda: upstream.predictions[0].status == "canceled")
    assert upstream.requests.count("predictions.cancel") == 1


async def test_other_team_sees_nothing(replicate_js: Play, upstream: Simulator, storyteller: str):
    """Beta's list is empty and alpha's id is unknown to it; upstream is asked about neither."""
    done = await replicate_js("run", ref=f"acme/storyteller:{storyteller}", input=STORY)
    before = len(upstream.requests)
    listed = await replicate_js("list", team="beta")
    assert listed.result == []
    foreign = await replicate_js("get", team="beta", id=done.result["seen"][0]["id"])
    unknown = await replicate_js("get", team="beta", id="x" * 26)
    assert foreign.error["name"] == unknown.error["name"] == "ApiError"
    assert foreign.error["status"] == unknown.error["status"] == 404
    assert len(upstream.requests) == before


@pytest.mark.timeout(60)
async def test_paginate_follows_pages_of_predictions(replicate_js: Play, upstream: Simulator, gateway: Stack):
    """105 predictions are two pages; `paginate()` follows `next` to the gateway with its key."""
    version = version_of(upstream, "replicate/hello-world")
    async with gateway.caller() as caller:
        for number in range(105):
            async with caller.post("/v1/predictions", json={"version": version, "input": {"text": str(number)}}) as got:
                assert got.status == 201
    done = await replicate_js("pages", what="predictions")
    assert [len(page) for page in done.result] == [100, 5]
    assert [each for page in done.result for each in page] == [each.id for each in reversed(upstream.predictions)]
    assert done.requests[1].url.startswith(f"{gateway.base_url}/predictions?cursor=")
    assert done.requests[1].authorized
    assert upstream.requests.count("predictions.list") == 0


async def test_aborted_prediction_is_polled_forever(replicate_js: Play, upstream: Simulator, gateway: Stack, slow: str):
    """1.4.0 does not know `aborted` and polls on. The gateway tells the truth and serves those polls from memory."""
    upstream.faults.set(Fault("cold_boot", seconds=600))
    async with gateway.caller() as caller:
        body = {"version": slow, "input": {}}
        async with caller.post("/v1/predictions", json=body, headers={"Cancel-After": "5s"}) as answer:
            assert answer.status == 201
            prediction = await answer.json()
        assert prediction["deadline"]
        async for _ in attempts():
            async with caller.get(f"/v1/predictions/{prediction['id']}") as answer:
                if (await answer.json())["status"] == "aborted":
                    break
    before = reads(upstream)
    waited = await replicate_js("waitFor", id=prediction["id"], polls=20)
    assert waited.result == "aborted"
    assert waited.count("GET") >= 20
    assert reads(upstream) == before


async def test_callers_webhook_is_not_sent_upstream(replicate_js: Play, upstream: Simulator, storyteller: str):
    """The response shows it, and upstream does not see it: the gateway sends the events."""
    done = await replicate_js(
        "createWithWebhook", version=storyteller, input=STORY, webhook="https://example.com/hook?id=1"
    )
    assert done.error is None
    assert done.result["webhook"] == "https://example.com/hook?id=1"
    assert done.result["filter"] == ["completed"]
    assert upstream.requests.find("predictions.create")[0].json == {"version": storyteller, "input": STORY}
