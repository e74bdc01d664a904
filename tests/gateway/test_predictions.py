"""Predictions and trainings from create to end, through every trouble that upstream can make."""

import asyncio
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest

from gateway.domain import times
from gateway.simulator import Fault, Simulator
from tests.support.http_calls import ask, until_metric
from tests.support.polling import attempts, holds, stable, until
from tests.support.samples import create, finished
from tests.support.stack import OpenGateway, Stack
from tests.support.upstream import CREATES, creates, reads, version_of

WAYS: dict[str, Callable[[Simulator], tuple[str, dict[str, Any]]]] = {
    "a bare version": lambda up: ("/predictions", {"version": version_of(up, "acme/storyteller")}),
    "a named version": lambda up: (
        "/predictions",
        {"version": f"acme/storyteller:{version_of(up, 'acme/storyteller')}"},
    ),
    "an official model's name": lambda _: ("/predictions", {"version": "acme/official-storyteller"}),
    "an official model's route": lambda _: ("/models/acme/official-storyteller/predictions", {}),
    "a deployment": lambda _: ("/deployments/acme/story-service/predictions", {}),
}


@pytest.mark.parametrize("way", WAYS)
async def test_prediction_runs_from_create_to_end(gateway: Stack, way: str):
    """However the target is named: one create upstream, one id, a final status, an output."""
    path, body = WAYS[way](gateway.upstream)
    made = await ask(gateway, "POST", "/v1" + path, json=body | {"input": {"prompt": "hi", "seed": 1}})
    assert made.status == 201
    assert made.json["status"] == "starting"
    assert len(made.json["id"]) == 26
    # A bare version's model is learned from this answer, so that its schema could not be asked before.
    bare = "fwd=bypass; detail=model-unknown"
    reported = bare if way == "a bare version" else "fwd=miss; stored"
    assert made.headers["Cache-Status"] == f"replicate-gateway; {reported}"
    assert made.headers["Cache-Control"] == "no-store"
    assert "ratelimit-remaining" not in made.headers
    done = await finished(gateway, made.json["id"])
    assert done["status"] == "succeeded"
    assert "".join(done["output"])
    assert done["metrics"]["predict_time"] > 0
    assert creates(gateway.upstream) == 1
    (seen,) = gateway.upstream.requests.find(CREATES)
    assert seen.path == "/v1" + path
    assert "prefer" not in seen.headers
    assert sorted(seen.json) == sorted({*body, "input"})
    assert (done.get("deployment") == "acme/story-service") is (way == "a deployment")


async def test_training_runs_from_create_to_end(gateway: Stack):
    """Its create response links to /predictions, its GET to /trainings, as upstream's do."""
    version = version_of(gateway.upstream, "acme/storyteller")
    body = {"destination": "acme/painter", "input": {"train_data": "https://example.com/data.zip"}}
    made = await ask(gateway, "POST", f"/v1/models/acme/storyteller/versions/{version}/trainings", json=body)
    assert made.status == 201
    assert made.json["urls"]["get"] == f"{gateway.base_url}/predictions/{made.json['id']}"
    done = await finished(gateway, made.json["id"])
    assert done["status"] == "succeeded"
    shown = (await ask(gateway, "GET", f"/v1/trainings/{made.json['id']}")).json
    assert shown["urls"]["get"] == f"{gateway.base_url}/trainings/{made.json['id']}"
    assert shown["output"]["version"].startswith("acme/painter:")


@pytest.mark.parametrize(("prefer", "applied"), [("wait", 60), ("wait=30", 30), ("wait=99", 60), ("wait=300", 60)])
async def test_prefer_wait_returns_the_finished_prediction(gateway: Stack, prefer: str, applied: int):
    """201 with the output, and `Preference-Applied` says how long it would have waited."""
    reply = await create(gateway, model="acme/storyteller", headers={"Prefer": prefer})
    assert reply.status == 201
    assert reply.json["status"] == "succeeded"
    assert reply.json["output"]
    assert reply.headers["Preference-Applied"] == f"wait={applied}"


async def test_prefer_wait_that_expires_is_202_and_starting(gateway: Stack):
    """However much output there is: clients take any other status for the end."""
    given = {"prompt": "hi", "duration": 60.0}
    reply = await create(gateway, model="acme/storyteller", headers={"Prefer": "wait=1"}, **given)
    assert reply.status == 202
    assert reply.json["status"] == "starting"
    assert reply.json.get("output") is None
    assert not {"started_at", "completed_at", "metrics"} & reply.json.keys()
    now = (await ask(gateway, "GET", f"/v1/predictions/{reply.json['id']}")).json
    assert now["status"] == "processing"
    assert now["output"], "while waiting there was output to be taken for the whole"
    assert (await finished(gateway, now["id"]))["status"] == "succeeded"
    assert creates(gateway.upstream) == 1


async def test_failure_within_a_wait_is_returned_at_once(gateway: Stack):
    """A failed model run is a response, not an error of the gateway."""
    reply = await create(gateway, model="acme/fail", headers={"Prefer": "wait"}, kind="nsfw")
    assert (reply.status, reply.json["status"]) == (201, "failed")
    assert "NSFW" in reply.json["error"]


async def test_cancel_ends_a_waiting_create(gateway: Stack):
    """A user presses stop while the create still waits."""
    waiting = asyncio.create_task(create(gateway, headers={"Prefer": "wait=30"}))
    await until(lambda: gateway.upstream.predictions)
    prediction = gateway.upstream.predictions[0].id
    async with asyncio.timeout(5):
        async for _ in attempts():
            if (await ask(gateway, "POST", f"/v1/predictions/{prediction}/cancel")).status != 404:
                break
        reply = await waiting
    assert reply.json["status"] == "canceled"


async def test_cancel_after_sets_a_deadline(gateway: Stack):
    """The body shows the deadline, and the run ends then."""
    reply = await create(gateway, headers={"Cancel-After": "6s"})
    body = reply.json
    assert times.parse(body["deadline"]) - times.parse(body["created_at"]) == pytest.approx(6, abs=0.01)
    assert (await finished(gateway, body["id"]))["status"] == "canceled"
    gateway.upstream.faults.set(Fault("cold_boot", seconds=600))
    queued = (await create(gateway, headers={"Cancel-After": "5"})).json
    done = await finished(gateway, queued["id"])
    assert done["status"] == "aborted"
    assert done["deadline"] == queued["deadline"]


async def test_polling_costs_upstream_nothing(gateway: Stack):
    """A hundred polls of a caller are answered here; upstream sees only the tracker."""
    made = (await create(gateway)).json["id"]
    await until(lambda: reads(gateway.upstream))
    before = reads(gateway.upstream)
    for _ in range(100):
        assert (await ask(gateway, "GET", f"/v1/predictions/{made}")).status == 200
    assert reads(gateway.upstream) - before < 15


async def test_list_is_paged_in_both_directions(gateway: Stack):
    """205 predictions on three pages, newest first, each once; and back again."""
    body = {"version": version_of(gateway.upstream, "replicate/hello-world"), "input": {"text": "x"}}
    made = [reply.json["id"] for reply in await asyncio.gather(
        *(ask(gateway, "POST", "/v1/predictions", json=body) for _ in range(205)))]  # fmt: skip
    foreign = (await create(gateway, key="beta")).json["id"]
    pages: list[dict[str, Any]] = []
    path: str | None = f"{gateway.base_url}/predictions"
    while path:
        assert path.startswith(f"{gateway.base_url}/predictions")
        pages.append((await ask(gateway, "GET", path)).json)
        path = pages[-1]["next"]
    assert [len(page["results"]) for page in pages] == [100, 100, 5]
    items = [each for page in pages for each in page["results"]]
    assert sorted(each["id"] for each in items) == sorted(made)
    assert foreign not in {each["id"] for each in items}
    moments = [times.parse(each["created_at"]) for each in items]
    assert moments == sorted(moments, reverse=True)
    assert pages[0]["previous"] is None
    back = [pages[2]]
    while back[-1]["previous"]:
        back.append((await ask(gateway, "GET", back[-1]["previous"])).json)
    assert [[each["id"] for each in page["results"]] for page in back[::-1]] == [
        [each["id"] for each in page["results"]] for page in pages
    ]


async def test_list_is_filtered_by_time(gateway: Stack):
    """`created_after` includes its moment, `created_before` does not, in every spelling of a time."""
    items = []
    for _ in range(4):
        items.append((await create(gateway)).json)
        # Each is created in a millisecond of its own.
        await asyncio.sleep(0.01)
    ids = [item["id"] for item in items]
    after = items[1]["created_at"]

    async def listed(query: str) -> list[str]:
        page = await ask(gateway, "GET", f"/v1/predictions?{query}")
        return [each["id"] for each in page.json["results"]]

    assert set(ids[2:]) <= set(await listed(f"created_after={after}")) <= set(ids[1:])
    assert ids[0] in await listed(f"created_before={after}")
    assert ids[3] not in await listed(f"created_before={after}")
    assert await listed("created_after=2999-01-01") == []
    assert len(await listed("created_after=2020-01-01T00:00:00%2B00:00")) == 4
    assert len(await listed("created_after=2020-01-01T00:00:00+00:00")) == 4
    assert await listed("source=web") == []


async def test_cancel_is_immediate_and_sent_upstream_once(gateway: Stack):
    """The caller sees the end at once; a second cancel changes nothing and is not sent."""
    made = (await create(gateway)).json["id"]
    first = await ask(gateway, "POST", f"/v1/predictions/{made}/cancel")
    assert first.status == 200
    assert first.json["status"] == "canceled"
    assert first.json.get("output") is None
    assert first.json["completed_at"]
    second = await ask(gateway, "POST", f"/v1/predictions/{made}/cancel")
    assert second.json["status"] == "canceled"
    assert second.json["completed_at"] == first.json["completed_at"]
    await until(lambda: gateway.upstream.requests.count("predictions.cancel"))
    await until(lambda: gateway.upstream.predictions[0].completed_us is not None)
    await holds(lambda: gateway.upstream.requests.count("predictions.cancel") == 1)
    assert (await ask(gateway, "GET", f"/v1/predictions/{made}")).json["status"] == "canceled"


async def test_cancel_of_a_finished_prediction_changes_nothing(gateway: Stack):
    """The result stays; upstream is not asked."""
    made = await create(gateway, model="acme/storyteller", headers={"Prefer": "wait"})
    before = (await ask(gateway, "GET", f"/v1/predictions/{made.json['id']}")).settled
    assert (await ask(gateway, "POST", f"/v1/predictions/{made.json['id']}/cancel")).settled == before
    assert not gateway.upstream.requests.count("predictions.cancel")


async def test_cancelled_prediction_stays_canceled_when_its_run_succeeds(gateway: Stack):
    """A status that a caller has seen is not taken back (swift#79)."""
    gateway.upstream.faults.set(Fault("cancel_race"))
    made = (await create(gateway, duration=6)).json["id"]
    assert (await ask(gateway, "POST", f"/v1/predictions/{made}/cancel")).json["status"] == "canceled"
    await until(lambda: gateway.upstream.predictions[0].completed_us is not None)
    await stable(lambda: reads(gateway.upstream), 0.3)
    shown = (await ask(gateway, "GET", f"/v1/predictions/{made}")).json
    assert (shown["status"], shown["output"]) == ("canceled", None)


async def test_failed_upstream_cancel_is_repeated(gateway: Stack):
    """One lost request does not let unwanted work go on and cost money."""
    gateway.upstream.faults.set(Fault("html_error", operation="predictions.cancel", times=1))
    made = (await create(gateway)).json["id"]
    await ask(gateway, "POST", f"/v1/predictions/{made}/cancel")
    await until(lambda: gateway.upstream.predictions[0].completed_us is not None)
    assert gateway.upstream.requests.count("predictions.cancel") == 2


async def test_disconnected_waiter_cancels_nothing(gateway: Stack):
    """A closed laptop is no cancel: the run goes on, and its result is there afterwards."""
    body = {"version": version_of(gateway.upstream, "acme/slow"), "input": {"duration": 10}}
    async with gateway.caller(Prefer="wait") as session:
        with pytest.raises(asyncio.TimeoutError):
            await session.post("/v1/predictions", json=body, timeout=aiohttp.ClientTimeout(total=0.2))
    (listed,) = (await ask(gateway, "GET", "/v1/predictions")).json["results"]
    assert (await finished(gateway, listed["id"]))["status"] == "succeeded"
    assert not gateway.upstream.requests.count("predictions.cancel")
    assert creates(gateway.upstream) == 1


async def test_disconnect_during_the_create_loses_nothing(gateway: Stack):
    """The create is finished and recorded although no caller waits for its response."""
    gateway.upstream.faults.set(Fault("delay_headers", operation=CREATES, seconds=0.4))
    body = {"version": version_of(gateway.upstream, "acme/slow"), "input": {"duration": 1}}
    async with gateway.caller() as session:
        with pytest.raises(asyncio.TimeoutError):
            await session.post("/v1/predictions", json=body, timeout=aiohttp.ClientTimeout(total=0.2))
    async for _ in attempts():
        if listed := (await ask(gateway, "GET", "/v1/predictions")).json["results"]:
            break
    assert (await finished(gateway, listed[0]["id"]))["status"] == "succeeded"


async def test_restart_keeps_predictions_and_follows_runs(open_gateway: OpenGateway):
    """A deploy in the middle of work: ids resolve, lists are the same, and runs come to their end."""
    async with open_gateway() as stack:
        long = (await create(stack, duration=12)).json["id"]
        short = (await create(stack, model="acme/storyteller", headers={"Prefer": "wait"})).json["id"]
        canceled = (await create(stack)).json["id"]
        await ask(stack, "POST", f"/v1/predictions/{canceled}/cancel")
        foreign = (await create(stack, key="beta")).json["id"]
        before = [(await ask(stack, "GET", f"/v1/predictions/{each}")).json for each in (short, canceled)]
        keys = stack.keys
    async with open_gateway(keys=keys) as stack:
        after = [(await ask(stack, "GET", f"/v1/predictions/{each}")).json for each in (short, canceled)]
        strip = ("urls", "logs", "metrics", "started_at")
        assert [{k: v for k, v in each.items() if k not in strip} for each in after] == [
            {k: v for k, v in each.items() if k not in strip} for each in before
        ]
        assert (await finished(stack, long))["status"] == "succeeded"
        ids = {each["id"] for each in (await ask(stack, "GET", "/v1/predictions")).json["results"]}
        assert ids == {long, short, canceled}
        assert (await ask(stack, "GET", f"/v1/predictions/{foreign}")).status == 404
        assert (await ask(stack, "GET", f"/v1/predictions/{foreign}", key="beta")).status == 200
        await until(lambda: next(p for p in stack.upstream.predictions if p.id == canceled).completed_us is not None)
        assert creates(stack.upstream) == 4


async def test_shutdown_answers_waiting_creates(open_gateway: OpenGateway):
    """A deploy answers waiting callers with 202 and an id, instead of a broken connection."""
    async with open_gateway() as stack:
        waiting = asyncio.create_task(create(stack, headers={"Prefer": "wait=30"}))
        await until(lambda: stack.upstream.predictions)
        await until_metric(stack, 'waiters{kind="sync"} 1.0')
    reply = await waiting
    assert reply.status == 202
    assert reply.json["status"] == "starting"
