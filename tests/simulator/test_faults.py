"""Every fault does what its description says, to the requests that it matches."""

import json
import time

import aiohttp
import pytest

from gateway.simulator import FAULT_KINDS, Fault, load_faults
from gateway.simulator.faults import FaultBook
from tests.support.event_streams import parse_events
from tests.support.polling import holds, until
from tests.support.simulator_models import hold_runs

GREETING = {"text": "x"}


async def hello(api, **more):
    return await api.create("replicate/hello-world", GREETING, **more)


@pytest.mark.parametrize(
    ("fault", "status", "text"),
    [
        (Fault("html_error"), 502, "<html>"),
        (Fault("html_error", status=503), 503, "<html>"),
        (Fault("error"), 500, '{"detail":"Internal server error"}'),
        (Fault("error", status=503, value="busy"), 503, '{"detail":"busy"}'),
        (Fault("throttle"), 429, "Your rate limit resets in ~30s."),
        (Fault("throttle_low_credit"), 429, "reduced to 6 requests per minute"),
        (Fault("insufficient_credit"), 402, "You have insufficient credit"),
        (Fault("token_revoked"), 401, "You did not pass a valid authentication token"),
        (Fault("redirect"), 307, ""),
    ],
    ids=lambda value: getattr(value, "name", None),
)
async def test_faults_before_processing_create_nothing(api, fault, status, text):
    """The response is that of the fault."""
    api.simulator.faults.set(fault)
    reply = await hello(api)
    assert reply.status == status
    assert text in reply.raw.decode()
    assert api.simulator.predictions == []
    if status == 429:
        assert reply.headers["Retry-After"] == str(reply.body["retry_after"])
    if status == 307:
        assert reply.headers["Location"].startswith("https://elsewhere.invalid/")


@pytest.mark.parametrize(("name", "created"), [("drop_before", 0), ("drop_after", 1)])
async def test_dropped_connection_may_leave_a_prediction(api, name, created):
    """The client cannot tell; the log of the simulator can."""
    api.simulator.faults.set(Fault(name, operation="predictions.create"))
    with pytest.raises(aiohttp.ClientError):
        await hello(api)
    assert len(api.simulator.predictions) == created
    assert api.simulator.requests.count("predictions.create") == 1


async def test_html_error_after_a_create_keeps_the_prediction(api):
    """The response is a 502, but the run continues and is in the list."""
    api.simulator.faults.set(Fault("html_error_after", times=1))
    reply = await hello(api)
    assert (reply.status, reply.headers["Content-Type"]) == (502, "text/html; charset=UTF-8")
    (found,) = (await api.get("/predictions")).body["results"]
    assert (await api.finish(found["id"]))["output"] == "hello x"


async def test_long_sync_wait_can_end_with_html(start):
    """As reported of the real service; the run continues."""
    api = await start(speed=1)
    api.simulator.faults.set(Fault("html_error_after", seconds=0.1))
    reply = await api.create("acme/slow", {"duration": 100}, wait=True)
    assert reply.status == 502
    (alive,) = api.simulator.predictions
    assert not alive.terminal


async def test_reads_right_after_a_create_can_be_404(api):
    """404 twice, then the prediction."""
    api.simulator.faults.set(Fault("not_found_after_create", count=2))
    created = (await hello(api)).body["id"]
    assert [(await api.get(f"/predictions/{created}")).status for _ in range(3)] == [404, 404, 200]


async def test_responses_can_be_malformed_slow_or_compressed(api):
    """The request is processed."""
    api.simulator.faults.set(Fault("malformed_json"))
    with pytest.raises(json.JSONDecodeError):
        _ = (await hello(api)).body
    api.simulator.faults.set(Fault("gzip"))
    assert (await hello(api)).headers["Content-Encoding"] == "gzip"
    for name in ("delay", "delay_headers", "slow_body"):
        api.simulator.faults.set(Fault(name, seconds=0.15))
        before = time.monotonic()
        assert (await hello(api)).status == 201
        assert time.monotonic() - before >= 0.14
    assert len(api.simulator.predictions) == 5


async def test_format_and_fractions_of_times_can_be_set(api):
    """Both formats, and 0, 3, 6 or 9 fractional digits."""
    api.simulator.faults.set(Fault("shape", value="database"))
    created = (await hello(api)).body
    assert next(iter(created)) == "completed_at"
    api.simulator.faults.set(Fault("shape", value="edge"))
    assert next(iter((await api.post(f"/predictions/{created['id']}/cancel")).body)) == "id"
    for digits in (0, 3, 6, 9):
        api.simulator.faults.set(Fault("time_digits", count=digits))
        text = (await api.get(f"/predictions/{created['id']}")).body["created_at"]
        assert len(text) == 20 + digits + (1 if digits else 0)


async def test_status_of_sync_responses_can_be_set(start):
    """Finished as succeeded; unfinished as processing."""
    api = await start(speed=10)
    api.simulator.faults.set(Fault("sync_succeeded"))
    body = (await hello(api, wait=True)).body
    assert body["status"] == "succeeded"
    assert "predict_time" in body["metrics"]
    api.simulator.faults.set(Fault("sync_processing"), Fault("cold_boot", seconds=60))
    reply = await hello(api, wait="wait=1")
    assert (reply.status, reply.body["status"], reply.body["output"]) == (201, "processing", None)


async def test_recorded_version_and_model_can_be_overridden(api):
    """Another version, a hidden one, another model."""
    api.simulator.faults.set(Fault("version_override"))
    assert (await hello(api)).body["version"] == "5" * 64
    api.simulator.faults.set(Fault("hidden_version"), Fault("model_override", value="internal/x"))
    body = (await hello(api)).body
    assert (body["version"], body["model"]) == ("hidden", "internal/x")


async def test_prediction_can_boot_late_be_interrupted_or_hang(api):
    """Set when it is created."""
    api.simulator.faults.set(Fault("interrupted"))
    failed = await api.finish((await hello(api)).body["id"])
    assert failed["error"] == "Prediction interrupted; please retry (code: PA)"
    api.simulator.faults.set(Fault("hang"))
    hung = (await hello(api)).body["id"]
    await until(lambda: api.simulator.predictions[-1].status == "processing")
    assert (await api.post(f"/predictions/{hung}/cancel")).body["status"] == "canceled"
    api.simulator.faults.set(Fault("cold_boot", seconds=600))
    late = (await hello(api)).body["id"]
    await holds(lambda: api.simulator.predictions[-1].status == "starting")
    assert (await api.get(f"/predictions/{late}")).body["status"] == "starting"


async def test_cancel_can_lose_the_race_or_come_late(start):
    """The response says processing; the final status is succeeded, or canceled later."""
    api = await start(speed=10)
    given = {"duration": 1, "steps": 5}
    api.simulator.faults.set(Fault("cancel_race"))
    go_on = hold_runs(api.simulator, "acme/slow")
    first = (await api.create("acme/slow", given)).body["id"]
    await until(lambda: api.simulator.predictions[-1].status == "processing")
    assert (await api.post(f"/predictions/{first}/cancel")).body["status"] == "processing"
    go_on.set()
    assert (await api.finish(first))["status"] == "succeeded"
    api.simulator.faults.set(Fault("cancel_late", seconds=0.2))
    hold_runs(api.simulator, "acme/slow")
    second = (await api.create("acme/slow", {"duration": 1000})).body["id"]
    await until(lambda: api.simulator.predictions[-1].status == "processing")
    assert (await api.post(f"/predictions/{second}/cancel")).body["status"] == "processing"
    assert (await api.finish(second))["status"] == "canceled"


async def test_streams_can_be_aborted_ended_idle_or_of_another_type(api):
    """Readers must handle these, and resume where possible."""
    created = (await api.create("acme/storyteller", {"prompt": "x", "max_tokens": 9}, wait=True)).body
    await api.finish(created["id"])
    url = created["urls"]["stream"]
    events = parse_events(await api.stream(url))
    api.simulator.faults.set(Fault("stream_cut", count=3, times=1))
    with pytest.raises(aiohttp.ClientError):
        await api.stream(url)
    api.simulator.faults.set(Fault("stream_end", count=3, times=1))
    assert parse_events(await api.stream(url)) == events[:3]
    assert parse_events(await api.stream(url, {"Last-Event-ID": events[2][1]})) == events[3:]
    api.simulator.faults.set(Fault("stream_idle", count=2, seconds=0.05))
    raw = await api.stream(url)
    assert parse_events(raw) == events[:2]
    assert raw.endswith(b"\n\n:408: 408 Request Timeout\n\n")
    api.simulator.faults.set(Fault("stream_content_type"))
    assert (await api.get(url)).headers["Content-Type"] == "text/html"
    api.simulator.faults.set(Fault("error", operation="streams.get", status=503))
    assert (await api.get(url)).status == 503


async def test_outputs_can_be_missing(api):
    """A hosted file is deleted early."""
    made = (await api.create("acme/painter", {"width": 16, "height": 16}, wait=True)).body
    api.simulator.faults.set(Fault("output_missing", times=1))
    assert (await api.get(made["output"][0])).status == 404
    api.simulator.faults.set(Fault("output_cut", count=10, times=1))
    with pytest.raises(aiohttp.ClientError):
        await api.get(made["output"][0])
    assert (await api.get(made["output"][0])).status == 200


async def test_fault_applies_to_matching_requests_only(api):
    """By operation, path, model, version and deployment."""
    painter, hello_target = "acme/painter", "replicate/*"
    api.simulator.faults.set(Fault("throttle", operation="predictions.create", target=hello_target))
    assert (await hello(api)).status == 429
    assert (await api.create(painter, {})).status == 201
    api.simulator.faults.set(Fault("throttle", path="/v1/deployments/*"))
    assert (await api.get("/deployments/acme/story-service")).status == 429
    assert (await api.get("/deployments")).status == 200
    api.simulator.faults.set(Fault("error", target="acme/story-service"))
    assert (await api.post("/deployments/acme/story-service/predictions", {"input": {"prompt": "x"}})).status == 500
    created = api.simulator.predictions[0]
    api.simulator.faults.set(Fault("error", operation="predictions.get", target=created.model.ref))
    assert (await api.get(f"/predictions/{created.id}")).status == 500


async def test_after_and_times_limit_a_fault(api):
    """`after` matches pass first; it applies at most `times` times."""
    api.simulator.faults.set(Fault("throttle", operation="account.get", after=1, times=2))
    assert [(await api.get("/account")).status for _ in range(5)] == [200, 429, 429, 200, 200]
    assert api.simulator.faults.show()[0]["struck"] == 2


def test_probability_is_deterministic_by_seed():
    """A run can be repeated."""

    def struck(seed):
        book = FaultBook([Fault("error", probability=0.3, seed=seed)])
        return [bool(book.strike("account.get", "/v1/account")) for _ in range(200)]

    assert struck(1) == struck(1) != struck(2)
    assert 30 < sum(struck(1)) < 90


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"name": "explode"}, r"unknown fault 'explode'; known faults: .*drop_after"),
        (
            {"name": "error", "operation": "predictions.explode"},
            r"unknown operation .* known operations: .*predictions.create",
        ),
        ({"name": "drop_after", "seconds": 1}, r"has no parameter 'seconds'; its parameters: none"),
        ({"name": "error", "probability": 2}, r"between 0 and 1"),
        ({"name": "error", "colour": "red"}, r"colour"),
        ({"name": "error", "times": "often"}, r"times"),
        ({"name": "shape", "value": "round"}, r"edge, database"),
        ({"name": "time_digits", "count": 4}, r"0, 3, 6 or 9"),
    ],
)
@pytest.mark.parametrize("suffix", [".json", ".toml"])
def test_invalid_file_of_faults_is_reported(tmp_path, given, said, suffix):
    """With file, entry and valid values."""
    path = tmp_path / f"faults{suffix}"
    lines = "".join(f"{name} = {json.dumps(value)}\n" for name, value in given.items())
    path.write_text(json.dumps([given]) if suffix == ".json" else f"[[faults]]\n{lines}")
    with pytest.raises(ValueError, match=rf"(?s)faults{suffix}: faults\[0\]: .*{said}"):
        load_faults(path)


def test_files_of_faults_are_read(tmp_path):
    """TOML tables, or JSON with or without the key."""
    toml = tmp_path / "faults.toml"
    toml.write_text('[[faults]]\nname = "throttle"\ntimes = 3\nretry_after = 2\n')
    assert load_faults(toml) == (Fault("throttle", times=3, retry_after=2),)
    plain = tmp_path / "faults.json"
    plain.write_text('{"faults": [{"name": "delay", "seconds": 0.5}]}')
    assert load_faults(plain) == (Fault("delay", seconds=0.5),)
    for text in ("{", '{"fault": []}', "3"):
        plain.write_text(text)
        with pytest.raises(ValueError, match=r"faults\.json"):
            load_faults(plain)
    with pytest.raises(ValueError, match="cannot be read"):
        load_faults(tmp_path / "nothing.toml")


def test_every_kind_of_fault_can_be_created_and_has_a_description():
    """The table is complete."""
    for name, kind in FAULT_KINDS.items():
        assert Fault(name).fits("unknown", "/") in {True, False}
        assert kind.description
