"""Predictions over HTTP: create, wait, cancel, deadlines, retention, and refusals."""

import pytest

from gateway.simulator import Fault
from tests.support.polling import attempts, until
from tests.support.simulator_api import find
from tests.support.simulator_models import hold_runs


async def test_prediction_runs_from_starting_to_succeeded(api):
    """Polls show each status, and metrics at the end."""
    created = (await api.create("acme/storyteller", {"prompt": "a llama", "seed": 1})).body
    assert created["status"] == "starting"
    assert created["output"] is None
    assert "source" not in created
    assert "metrics" not in created
    done = await api.finish(created["id"])
    assert done["status"] == "succeeded"
    assert done["source"] == "api"
    assert done["metrics"]["output_token_count"] == 64
    (run,) = api.simulator.predictions
    seconds = (run.completed_us - run.started_us) / 1_000_000
    assert done["metrics"]["predict_time"] == pytest.approx(seconds * api.simulator.clock.speed)
    assert done["metrics"]["predict_time"] >= 64 * 0.02 * 0.9
    assert done["metrics"]["total_time"] > done["metrics"]["predict_time"]


async def test_output_depends_on_the_seed(api):
    """With a seed, a text is repeatable; without one, it differs."""
    same = [
        (await api.create("acme/storyteller", {"prompt": "x", "seed": 7}, wait=True)).body["output"] for _ in range(2)
    ]
    other = (await api.create("acme/storyteller", {"prompt": "x", "seed": 8}, wait=True)).body["output"]
    free = [(await api.create("acme/storyteller", {"prompt": "x"}, wait=True)).body["output"] for _ in range(2)]
    assert same[0] == same[1] != other
    assert free[0] != free[1]


async def test_finished_sync_response_has_status_processing(start):
    """It has the whole output, but no completed_at and no metrics; a later read has them."""
    api = await start(speed=1)
    reply = await api.create("acme/storyteller", {"prompt": "x", "max_tokens": 5}, wait="wait=50")
    assert (reply.status, reply.headers["Preference-Applied"]) == (201, "wait=50")
    body = reply.body
    assert body["status"] == "processing"
    assert len(body["output"]) == 6
    assert not {"completed_at", "started_at", "metrics"} & set(body)
    assert (await api.finish(body["id"]))["status"] == "succeeded"


async def test_expired_sync_wait_returns_202(start):
    """With the current state; the run continues."""
    api = await start(speed=10)
    go_on = hold_runs(api.simulator, "acme/slow")
    reply = await api.create("acme/slow", {"duration": 5, "seed": 1}, wait="wait=1")
    assert reply.status == 202
    assert reply.body["status"] == "processing"
    assert reply.body["output"] is None
    go_on.set()
    assert (await api.finish(reply.body["id"]))["output"] == "patience (seed 1, 20 steps)"


@pytest.mark.parametrize("prefer", ["respond-async", "wait=0", "wait=100", "wait=1.5", "Wait"])
async def test_other_prefer_headers_are_refused(api, prefer):
    """Only wait and wait=n are valid."""
    reply = await api.create("acme/storyteller", {"prompt": "x"}, wait=prefer)
    assert reply.status == 422
    assert "Prefer" in reply.detail


async def test_official_model_hides_its_version(api):
    """Created by its route, by name or by version id, the version is `hidden`."""
    model, version = find(api.simulator, "acme/official-storyteller")
    given = {"prompt": "x"}
    replies = [
        await api.post("/models/acme/official-storyteller/predictions", {"input": given}),
        await api.post("/predictions", {"version": model.ref, "input": given}),
        await api.post("/predictions", {"version": version.id, "input": given}),
        await api.post("/predictions", {"version": f"{model.ref}:{version.id}", "input": given}),
    ]
    assert [(reply.status, reply.body["version"], reply.body["model"]) for reply in replies] == [
        (201, "hidden", model.ref)
    ] * 4


async def test_community_model_requires_a_version(api):
    """The name alone is refused; an id, or name and id, works."""
    _, version = find(api.simulator, "acme/painter")
    refused = await api.post("/predictions", {"version": "acme/painter", "input": {}})
    assert (refused.status, refused.body["title"]) == (422, "Invalid version or not permitted")
    assert (await api.post("/models/acme/painter/predictions", {"input": {}})).status == 404
    for text in (version.id, f"acme/painter:{version.id}"):
        assert (await api.post("/predictions", {"version": text, "input": {}})).body["version"] == version.id
    assert (await api.post("/predictions", {"version": f"acme/slow:{version.id}", "input": {}})).status == 422


async def test_deployment_runs_its_release(api):
    """The prediction has deployment, model and version."""
    reply = await api.post("/deployments/acme/story-service/predictions", {"input": {"prompt": "x"}})
    assert (reply.status, reply.body["deployment"], reply.body["model"]) == (
        201,
        "acme/story-service",
        "acme/storyteller",
    )
    assert (await api.post("/deployments/acme/nothing/predictions", {"input": {}})).status == 404


async def test_unknown_and_missing_fields_are_listed(api):
    """In the 422, with the recorded texts."""
    reply = await api.post("/predictions", {"model": "x", "input": {}})
    assert reply.status == 422
    assert reply.headers["Content-Type"] == "application/problem+json"
    assert reply.raw.endswith(b"\n")
    assert reply.body == {
        "detail": "- version is required\n- Additional property model is not allowed\n",
        "status": 422,
        "title": "Input validation failed",
        "invalid_fields": [
            {"type": "required", "field": "", "description": "version is required"},
            {
                "type": "additional_property_not_allowed",
                "field": "",
                "description": "Additional property model is not allowed",
            },
        ],
    }
    reply = await api.post("/models/meta/meta-llama-3-8b-instruct/predictions", {"version": "x", "input": {}})
    assert "Additional property version is not allowed" in reply.detail


@pytest.mark.parametrize(
    ("ref", "given", "kind", "field", "description"),
    [
        ("acme/storyteller", {}, "required", "input", "prompt is required"),
        (
            "black-forest-labs/flux-schnell",
            {"prompt": "x", "aspect_ratio": "2:1"},
            "enum",
            "input.aspect_ratio",
            'aspect_ratio must be one of the following: "1:1", "16:9", "9:16", "4:3", "3:4"',
        ),
        (
            "acme/painter",
            {"width": "wide"},
            "invalid_type",
            "input.width",
            "Invalid type. Expected: integer, given: string",
        ),
        ("acme/painter", {"num_outputs": 5}, "number_lte", "input.num_outputs", "Must be less than or equal to 4"),
    ],
)
async def test_inputs_are_validated_by_the_models_schema(api, ref, given, kind, field, description):
    """An invalid input is refused with its field before anything runs."""
    reply = await api.create(ref, given)
    assert reply.status == 422
    assert reply.body["invalid_fields"] == [{"type": kind, "field": field, "description": description}]
    assert reply.detail == f"- {field}: {description}\n"
    assert not api.simulator.predictions


async def test_body_that_is_not_json_is_a_400(api):
    """An empty body is the recorded EOF."""
    reply = await api.ask("POST", "/predictions", data=b"")
    assert (reply.status, reply.detail) == (400, "Failed to parse request body as JSON: EOF")
    assert (await api.ask("POST", "/predictions", data=b"[1]")).status == 400
    assert (await api.ask("POST", "/predictions", data=b"{nope")).status == 400
    assert (await api.ask("POST", "/predictions", data=b'{"input":' * 5000 + b"1" + b"}" * 5000)).status == 400


async def test_immediate_cancel_returns_the_database_format(api):
    """A prediction that never ran has nulls, and a predict_time of 3 microseconds."""
    api.simulator.faults.set(Fault("cold_boot", seconds=600))
    created = (await api.create("acme/slow", {})).body
    reply = await api.post(f"/predictions/{created['id']}/cancel")
    assert reply.status == 200
    assert list(reply.body)[:2] == ["completed_at", "created_at"]
    assert (reply.body["status"], reply.body["logs"], reply.body["output"]) == ("canceled", None, None)
    assert reply.body["metrics"]["predict_time"] == 3e-06
    assert (await api.get(f"/predictions/{created['id']}")).body["status"] == "canceled"


async def test_canceling_an_ended_prediction_changes_nothing(api):
    """It stays succeeded."""
    created = (await api.create("replicate/hello-world", {"text": "you"}, wait=True)).body
    done = await api.finish(created["id"])
    reply = await api.post(f"/predictions/{created['id']}/cancel")
    assert (reply.status, reply.body["status"], reply.body["output"]) == (200, "succeeded", "hello you")
    assert done["status"] == "succeeded"


async def test_deadline_cancels_running_and_aborts_starting_predictions(start):
    """Cancel-After counts from the creation."""
    api = await start(speed=1)
    running = (await api.create("acme/slow", {"duration": 500}, headers={"Cancel-After": "1h"})).body
    assert running["deadline"] > running["created_at"]
    await until(lambda: api.simulator.predictions[0].status == "processing")
    api.simulator.faults.set(Fault("cold_boot", seconds=600))
    waiting = (await api.create("acme/slow", {}, headers={"Cancel-After": "3600"})).body
    api.simulator.clock.advance(3601)
    assert (await api.finish(running["id"]))["status"] == "canceled"
    ended = await api.finish(waiting["id"])
    assert ended["status"] == "aborted"
    assert "started_at" not in ended
    assert "predict_time" not in ended["metrics"]
    refused = await api.create("acme/slow", {}, headers={"Cancel-After": "4"})
    assert refused.status == 422


async def test_advancing_the_clock_triggers_a_deadline(start):
    """Tests need not wait for hours."""
    api = await start(speed=1)
    created = (await api.create("acme/slow", {"duration": 1000}, headers={"Cancel-After": "1h"})).body
    await until(lambda: api.simulator.predictions[0].status == "processing")
    api.simulator.clock.advance(3601)
    assert (await api.get(f"/predictions/{created['id']}")).body["status"] == "canceled"


async def test_data_is_deleted_an_hour_after_the_end(api):
    """Input, output, logs and stream; the record stays, in the database format."""
    created = (await api.create("acme/storyteller", {"prompt": "x", "seed": 1}, wait=True)).body
    await api.finish(created["id"])
    api.simulator.clock.advance(3590)
    assert (await api.get(f"/predictions/{created['id']}")).body["data_removed"] is False
    api.simulator.clock.advance(11)
    body = (await api.get(f"/predictions/{created['id']}")).body
    assert (body["data_removed"], body["output"], body["input"], body["logs"]) == (True, None, {}, None)
    assert next(iter(body)) == "completed_at"
    assert body["metrics"]["predict_time"] > 0
    assert (await api.stream(created["urls"]["stream"])) == b": hi\n\n:408: 408 Request Timeout\n\n"


async def test_failures_have_the_models_error(api):
    """The text of an exception, the NSFW text, and logs with a traceback."""
    failed = await api.finish((await api.create("acme/fail", {})).body["id"])
    assert (failed["status"], failed["error"]) == ("failed", "division by zero")
    assert "ZeroDivisionError" in failed["logs"]
    nsfw = await api.finish((await api.create("acme/fail", {"kind": "nsfw"})).body["id"])
    assert nsfw["error"].startswith("NSFW content detected.")


async def test_logs_grow_while_a_slow_model_works(start):
    """Each poll shows more lines."""
    api = await start(speed=10)
    created = (await api.create("acme/slow", {"duration": 40, "steps": 10})).body
    seen = set()
    async for _ in attempts():
        if (body := (await api.get(f"/predictions/{created['id']}")).body)["status"] == "succeeded":
            break
        seen.add(body["logs"].count("step"))
        if len(seen) > 3:
            api.simulator.clock.speed = 1e6
    assert len(seen) > 3
    assert body["logs"].endswith("step 10/10\n")


async def test_webhook_must_be_https_by_default(start):
    """Like the real service."""
    api = await start(allow_http_webhooks=False)
    reply = await api.create("replicate/hello-world", {"text": "x"}, webhook="http://127.0.0.1:1/")
    assert (reply.status, reply.body["invalid_fields"][0]["field"]) == (422, "webhook")
    reply = await api.create("replicate/hello-world", {"text": "x"}, webhook_events_filter=["nonsense"])
    assert (reply.status, reply.body["invalid_fields"][0]["field"]) == (422, "webhook_events_filter.0")


async def test_edge_bodies_are_escaped_like_go(api):
    """`<`, `>` and `&` are escaped; other characters are not."""
    reply = await api.create("replicate/hello-world", {"text": "<ä&b>"})
    assert b'"text":"\\u003c\xc3\xa4\\u0026b\\u003e"' in reply.raw
    cancel = await api.post(f"/predictions/{reply.body['id']}/cancel")
    assert '"text":"<ä&b>"'.encode() in cancel.raw
