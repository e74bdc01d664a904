"""Predictions and trainings from create to end, through every trouble that upstream can make."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import pytest

from gateway.domain import times
from gateway.simulator import Fault, Simulator
from tests.support.http_calls import Reply, ask, assert_problem, metrics_of, until_metric
from tests.support.polling import attempts, holds, stable, until
from tests.support.raw_server import answer, raw_server
from tests.support.samples import create, finished, upload
from tests.support.secret_scanner import LogScanner
from tests.support.stack import OpenGateway, Stack
from tests.support.system_clocks import ShiftedClock
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


# Upstream's trouble.


async def test_prediction_unknown_to_upstream_is_known_here(gateway: Stack):
    """js#68: GET right after create is 404 upstream for a moment; callers of the gateway never see that."""
    gateway.upstream.faults.set(Fault("not_found_after_create", count=3))
    made = (await create(gateway, duration=1)).json["id"]
    assert (await ask(gateway, "GET", f"/v1/predictions/{made}")).status == 200
    assert (await finished(gateway, made))["status"] == "succeeded"


@pytest.fixture
async def hasty(open_gateway: OpenGateway) -> AsyncIterator[Stack]:
    """A gateway that lets callers wait for an uncertain create for a moment only."""
    async with open_gateway(upstream={"adopt_wait_seconds": 0.4}) as stack:
        yield stack


@pytest.mark.parametrize(
    "fault",
    [
        Fault("html_error", status=502),
        Fault("html_error", status=524),
        Fault("error", status=500),
        Fault("drop_before"),
        Fault("redirect"),
    ],
    ids=lambda fault: f"{fault.name} {fault.status or ''}",
)
async def test_create_of_unknown_outcome_is_sent_once_and_is_504(hasty: Stack, fault: Fault):
    """A second create might be a second bill, so the response tells clients not to retry."""
    hasty.upstream.faults.set(Fault(**{**_given(fault), "operation": CREATES}))
    reply = await create(hasty, model="acme/storyteller")
    problem = assert_problem(reply, 504, origin=None)
    assert problem["detail"]
    assert reply.headers["X-Should-Retry"] == "false"
    await holds(lambda: creates(hasty.upstream) == 1, 0.3)
    assert hasty.upstream.requests.count("predictions.list") >= 1, "it was looked for"
    assert "<html" not in reply.text
    assert (await ask(hasty, "GET", "/v1/predictions")).json["results"] == []


@pytest.mark.parametrize("name", ["html_error_after", "drop_after", "malformed_json"])
async def test_create_that_upstream_accepted_silently_is_found(gateway: Stack, name: str):
    """It is in upstream's list, and the caller sees no trouble; nothing is sent again."""
    gateway.upstream.faults.set(Fault(name, operation=CREATES))
    reply = await create(gateway, model="acme/storyteller")
    assert reply.status == 201
    assert reply.json["id"] == gateway.upstream.predictions[0].id
    assert (await finished(gateway, reply.json["id"]))["status"] == "succeeded"
    (listed,) = (await ask(gateway, "GET", "/v1/predictions")).json["results"]
    assert listed["id"] == reply.json["id"]
    assert creates(gateway.upstream) == len(gateway.upstream.predictions) == 1


def _given(fault: Fault) -> dict[str, Any]:
    names = ("name", "seconds", "status", "count", "retry_after", "value", "times")
    return {name: getattr(fault, name) for name in names if getattr(fault, name) is not None}


@pytest.mark.parametrize("name", ["html_error", "drop_after", "malformed_json", "redirect"])
async def test_uncertain_create_says_how_to_proceed(hasty: Stack, name: str):
    """The list fails as well: the caller learns that it may be running, and how to ask again without paying twice."""
    hasty.upstream.faults.set(Fault(name, operation=f"{CREATES},predictions.list"))
    reply = await create(hasty, model="acme/storyteller")
    detail = assert_problem(reply, 504, origin=None)["detail"]
    assert "may be running" in detail
    assert "Idempotency-Key" in detail
    assert reply.headers["X-Should-Retry"] == "false"
    assert creates(hasty.upstream) == 1


async def test_create_that_was_not_sent_is_503(open_gateway: OpenGateway):
    """A refused connection is 503 and free to repeat, unlike a lost response."""
    async with open_gateway(base_url="http://127.0.0.1:9/v1") as stack:
        reply = await create(stack)
        assert_problem(reply, 503, origin=None)
        assert int(reply.headers["Retry-After"]) >= 1
        assert (await ask(stack, "GET", "/v1/predictions")).json["results"] == []


async def test_rejected_token_is_502_and_degraded(open_gateway: OpenGateway, log_scanner: LogScanner):
    """Callers get 502, not 401; the metric counts it, readiness is degraded, and both recover with the token."""
    clock = ShiftedClock()
    async with open_gateway(clock=clock) as stack:
        assert (await ask(stack, "GET", "/readyz", key=None)).status == 200
        stack.upstream.faults.set(Fault("token_revoked"))
        problem = assert_problem(await create(stack), 502, origin=None)
        assert "operator" in problem["detail"]
        assert_problem(await ask(stack, "GET", "/v1/models"), 502, origin=None)
        assert "replicate_gateway_upstream_token_refused_total 2.0" in await metrics_of(stack)
        ready = await ask(stack, "GET", "/readyz", key=None)
        # Not 503: all processes have the same token, and none would be left to answer from its cache.
        assert (ready.status, ready.json["status"], ready.json["checks"]["store"]) == (200, "degraded", "ok")
        assert "refused" in ready.json["checks"]["upstream"]
        assert 'replicate_gateway_degraded{cause="upstream"} 1.0' in await metrics_of(stack)
        assert "replicate_gateway_ready 1.0" in await metrics_of(stack)
        stack.upstream.faults.clear()
        assert (await create(stack)).status == 201
        clock.shift += 10
        assert (await ask(stack, "GET", "/readyz", key=None)).json["status"] == "ready"
        assert 'replicate_gateway_degraded{cause="upstream"} 0.0' in await metrics_of(stack)


@pytest.mark.parametrize(
    ("fault", "status"),
    [
        (Fault("insufficient_credit"), 402),
        (Fault("error", status=422, value="odd"), 422),
        (Fault("error", status=403, value="no"), 403),
        (Fault("error", status=404, value="Not found."), 404),
    ],
    ids=lambda each: each.name if isinstance(each, Fault) else "",
)
async def test_upstream_refusals_are_passed_on_unchanged(gateway: Stack, fault: Fault, status: int):
    """Upstream's status and bytes; nothing is recorded, nothing repeated."""
    gateway.upstream.faults.set(Fault(**{**_given(fault), "operation": CREATES}))
    reply = await create(gateway)
    direct = await ask(
        gateway,
        "POST",
        f"{gateway.upstream.base_url}/predictions",
        headers={"Authorization": f"Bearer {gateway.upstream.token}"},
        json={"version": version_of(gateway.upstream, "acme/slow"), "input": {}},
    )
    assert (reply.status, reply.body) == (status, direct.body)
    for name in ("Content-Type", "Retry-After"):
        assert reply.headers.get(name) == direct.headers.get(name)
    assert creates(gateway.upstream) == 2
    assert (await ask(gateway, "GET", "/v1/predictions")).json["results"] == []


async def test_upstream_validation_errors_are_passed_on(gateway: Stack):
    """The contents of the input are validated by upstream, and its message arrives."""
    reply = await create(gateway, model="acme/storyteller", max_tokens="many")
    assert reply.status == 422
    assert reply.json["invalid_fields"]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_token_is_not_sent_to_a_redirect(hasty: Stack, status: int):
    """Someone who can make upstream redirect must not get the account's token."""
    async with raw_server(answer(b"{}")) as elsewhere:
        hasty.upstream.faults.set(Fault("redirect", status=status, value=f"{elsewhere.url}/v1/predictions"))
        made, *read = await together(
            create(hasty),
            ask(hasty, "GET", "/v1/models"),
            ask(hasty, "GET", "/v1/account", key="operator"),
        )
        assert_problem(made, 504, origin=None)
        for reply in read:
            assert_problem(reply, 502, origin=None)
        assert not elsewhere.heads


@pytest.mark.parametrize("name", ["html_error", "drop_before"])
async def test_failed_reads_are_retried_a_limited_number_of_times(gateway: Stack, name: str):
    """A read survives two failures; a third is an error."""
    gateway.upstream.faults.set(Fault(name, operation="models.get", times=2))
    assert (await ask(gateway, "GET", "/v1/models/acme/painter")).status == 200
    assert gateway.upstream.requests.count("models.get") == 3
    gateway.upstream.requests.clear()
    gateway.upstream.faults.set(Fault(name, operation="models.list"))
    reply = await ask(gateway, "GET", "/v1/models")
    assert reply.status in (502, 504)
    assert_problem(reply, reply.status, origin=None)
    assert gateway.upstream.requests.count("models.list") == 3


async def test_throttled_read_waits_briefly_or_passes_429_on(gateway: Stack):
    """A second is waited out; half a minute is left to the caller."""
    gateway.upstream.faults.set(Fault("throttle", operation="models.get", retry_after=1, times=1))
    assert (await ask(gateway, "GET", "/v1/models/acme/painter")).status == 200
    gateway.upstream.faults.set(Fault("throttle", operation="models.list", retry_after=30))
    reply = await ask(gateway, "GET", "/v1/models")
    assert (reply.status, reply.headers["Retry-After"]) == (429, "30")
    assert gateway.upstream.requests.count("models.list") == 1


@pytest.mark.parametrize("operation", ["deployments.update", "models.create", "files.delete"])
async def test_relayed_writes_are_sent_once(gateway: Stack, operation: str):
    """A write whose response is lost is not repeated."""
    file = (await ask(gateway, "POST", "/v1/files", **upload())).json
    gateway.upstream.faults.set(Fault("drop_after", operation=operation))
    made = {"owner": "acme", "name": "fresh", "visibility": "private", "hardware": "cpu"}
    reply = {
        "deployments.update": lambda: ask(
            gateway, "PATCH", "/v1/deployments/acme/story-service", json={"hardware": "cpu"}
        ),
        "models.create": lambda: ask(gateway, "POST", "/v1/models", json=made),
        "files.delete": lambda: ask(gateway, "DELETE", f"/v1/files/{file['id']}"),
    }[operation]()
    assert_problem(await reply, 504, origin=None)
    assert gateway.upstream.requests.count(operation) == 1


async def test_breaker_opens_and_closes_again(open_gateway: OpenGateway):
    """An upstream that is down gets no requests, callers learn so at once, and one trial request finds that it is
    back.
    """
    clock = ShiftedClock()
    async with open_gateway(clock=clock) as stack:
        stack.upstream.faults.set(Fault("html_error"))

        # Writes that are sent once, and not looked for afterwards as creates are.
        async def write() -> int:
            return (await ask(stack, "PATCH", "/v1/deployments/acme/story-service", json={"hardware": "cpu"})).status

        for _ in range(10):
            assert await write() == 502
        assert len(stack.upstream.requests) == 10
        refused = await create(stack)
        assert_problem(refused, 503, origin=None)
        assert 1 <= int(refused.headers["Retry-After"]) <= 5
        assert await write() == 503
        assert len(stack.upstream.requests) == 10
        assert "replicate_gateway_upstream_breaker_state 2.0" in await metrics_of(stack)
        clock.shift += 6
        assert await write() == 502
        assert (await create(stack)).status == 503, "the trial failed: closed for another while"
        assert len(stack.upstream.requests) == 11
        assert (await ask(stack, "GET", "/v1/predictions")).json["results"] == []
        stack.upstream.faults.clear()
        clock.shift += 6
        assert (await create(stack)).status == 201
        assert (await create(stack)).status == 201
        assert "replicate_gateway_upstream_breaker_state 0.0" in await metrics_of(stack)


@pytest.mark.parametrize(
    "fault",
    [
        Fault("shape", value="database"),
        Fault("shape", value="edge"),
        Fault("time_digits", count=9),
        Fault("time_digits", count=0),
        Fault("gzip"),
        Fault("slow_body", seconds=0.1),
        Fault("version_override"),
        Fault("hidden_version"),
        Fault("model_override"),
        Fault("malformed_json", operation="predictions.get", times=2),
        Fault("html_error", operation="predictions.get", times=4),
        Fault("drop_after", operation="predictions.get", times=4),
        Fault("error", operation="predictions.get", times=2),
        Fault("interrupted"),
    ],
    ids=lambda fault: f"{fault.name} {fault.value or fault.count or ''}",
)
async def test_run_ends_for_every_form_of_upstream_body(gateway: Stack, fault: Fault):
    """Either body format, any fraction of a second, failures in between: the caller sees one prediction that ends."""
    gateway.upstream.faults.set(fault)
    reply = await create(gateway, model="acme/storyteller")
    assert reply.status == 201
    done = await finished(gateway, reply.json["id"])
    assert done["status"] == ("failed" if fault.name == "interrupted" else "succeeded")
    (listed,) = (await ask(gateway, "GET", "/v1/predictions")).json["results"]
    assert listed == done
    assert creates(gateway.upstream) == 1


BAD_BODIES = [
    b"",
    b"null",
    b"[]",
    b"{}",
    b'{"results":null}',
    b'{"results":[1]}',
    b'{"results":[{}],"next":5}',
    b'{"next":null,"previous":null,"results":[{"id":5}]}',
    b'{"id":"x","status":"new"}',
    b"\xff\xfe",
    b'{"next":null,"results":[{"owner":1,"name":2}]}',
    b'{"id":"x","status":"starting","urls":5}',
    b'{"id":"x","status":"starting","urls":{"get":{}}}',
    b'{"id":"../x","status":"starting"}',
    b"[" * 5000,
]
READS: list[tuple[str, str, str]] = [
    ("GET", "/v1/predictions", "operator"),
    ("GET", "/v1/predictions/" + "a" * 26, "operator"),
    ("POST", "/v1/predictions/" + "a" * 26 + "/cancel", "operator"),
    ("GET", "/v1/trainings", "operator"),
    ("GET", "/v1/files/" + "a" * 48, "operator"),
    ("GET", "/v1/account", "operator"),
    ("GET", "/v1/deployments", "alpha"),
    ("GET", "/v1/models", "alpha"),
    ("GET", "/v1/models/acme/painter", "alpha"),
    ("GET", "/v1/models/acme/painter/versions", "alpha"),
    ("GET", "/v1/hardware", "alpha"),
]


@pytest.mark.parametrize("body", BAD_BODIES, ids=lambda body: body[:30].decode("latin-1"))
async def test_invalid_upstream_body_never_crashes_a_read(open_gateway: OpenGateway, body: bytes):
    """Callers get what upstream sent, or a clear 502: no traceback, no 500."""
    async with (
        raw_server(answer(body, Connection="close")) as nonsense,
        open_gateway(
            base_url=nonsense.url + "/v1", cache={"metadata_ttl_seconds": 0}, upstream={"adopt_wait_seconds": 0.2}
        ) as stack,
    ):
        for method, path, key in READS:
            reply = await ask(stack, method, path, key=key)
            assert reply.status != 500, f"{method} {path}: {reply.text}"
        created = await ask(stack, "POST", "/v1/predictions", json={"version": "acme/x", "input": {}})
        assert created.status in (201, 502, 504), created.text
        listed = await ask(stack, "GET", "/v1/predictions")
        assert listed.status == 200
        sent = await ask(stack, "POST", "/v1/files", **upload())
        assert sent.status in (201, 502), sent.text


HEADS = [
    b"",
    b"garbage\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nshort",
    b"HTTP/1.1 999 ?\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\nabcd",
    b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000 + b"\r\n\r\n",
    b"HTTP/1.1 204 No Content\r\n\r\n",
    b"HTTP/1.1 304 Not Modified\r\n\r\n",
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Type: \xff\xfe\r\nContent-Length: 2\r\n\r\n{}",
    b"HTTP/1.1 500 \xff\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 6\r\n\r\n<html>",
]


@pytest.mark.parametrize("head", HEADS, ids=lambda head: head[:40].decode("latin-1"))
async def test_invalid_upstream_http_never_crashes(open_gateway: OpenGateway, head: bytes):
    """A broken proxy in between costs a 502 or 504, and creates are not repeated."""
    async with (
        raw_server(head) as broken,
        open_gateway(
            base_url=broken.url + "/v1", cache={"metadata_ttl_seconds": 0}, upstream={"adopt_wait_seconds": 0.2}
        ) as stack,
    ):
        body = {"version": "acme/x", "input": {}}
        made = await ask(stack, "POST", "/v1/predictions", json=body)
        assert made.status in (204, 304, 502, 504), made.text
        assert len([head for head in broken.heads if head.startswith(b"POST ")]) == 1
        chosen = (READS[0], READS[1], READS[7])
        for reply in await together(*(ask(stack, method, path, key=key) for method, path, key in chosen)):
            assert "Internal server error" not in reply.text
        assert (await ask(stack, "GET", "/v1/predictions")).json["results"] == []


async def together(*requests: Awaitable[Reply]) -> list[Reply]:
    return list(await asyncio.gather(*requests))


async def test_slow_creates_do_not_delay_other_requests(gateway: Stack):
    """While creates hang, polls, lists and cached metadata are served as usual."""
    made = (await create(gateway)).json["id"]
    await ask(gateway, "GET", "/v1/hardware")
    gateway.upstream.faults.set(Fault("delay", operation=CREATES, seconds=15.0))
    hanging = [asyncio.create_task(create(gateway)) for _ in range(20)]
    await until(lambda: creates(gateway.upstream) == 21)
    for reply in await together(
        ask(gateway, "GET", f"/v1/predictions/{made}"),
        ask(gateway, "GET", "/v1/predictions"),
        ask(gateway, "GET", "/v1/hardware"),
        ask(gateway, "GET", "/healthz", key=None),
    ):
        assert reply.status == 200
    assert not any(each.done() for each in hanging)
    gateway.upstream.faults.clear()
    assert {reply.status for reply in await together(*hanging)} == {201}
