"""Control routes, request log, and the simulator as a program."""

import asyncio
import hashlib
import signal
import sys

from gateway.simulator import Fault, SimulatorSettings, simulate
from tests.support.polling import until


async def test_control_is_off_by_default(api):
    """A reachable simulator cannot be manipulated."""
    reply = await api.get(api.simulator.base_url.removesuffix("/v1") + "/_control/requests")
    assert reply.status == 404


async def test_log_records_requests_of_both_origins(start):
    """Method, path, headers, size and hash of the body, and operation."""
    api = await start(control=True, max_body_logged=10)
    control = api.simulator.base_url.removesuffix("/v1") + "/_control"
    created = (await api.create("acme/storyteller", {"prompt": "x" * 50, "max_tokens": 1}, wait=True)).body
    await api.stream(created["urls"]["stream"])
    log = (await api.get(f"{control}/requests")).body
    assert log["counts"] == {"predictions.create": 1, "streams.get": 1}
    assert log["authorized"] == {"api": 1, "delivery": 0}
    create, stream = log["requests"]
    assert (create["method"], create["path"], create["origin"], create["status"]) == (
        "POST",
        "/v1/predictions",
        "api",
        201,
    )
    assert create["headers"]["prefer"] == "wait"
    assert len(create["body"]) == 10 < create["body_size"]
    assert len(create["body_sha256"]) == len(hashlib.sha256().hexdigest())
    assert stream["origin"] == "delivery"
    only = (await api.get(f"{control}/requests?operation=streams.*")).body["requests"]
    assert [each["operation"] for each in only] == ["streams.get"]
    assert (await api.ask("DELETE", f"{control}/requests")).status == 204
    assert (await api.get(f"{control}/requests")).body["requests"] == []


async def test_counts_stay_exact_when_the_log_overflows(start):
    """The log is bounded, the counts are not."""
    api = await start(max_requests_logged=5)
    for _ in range(12):
        await api.get("/account")
    assert len(api.simulator.requests) == 5
    assert api.simulator.requests.count(operation="account.get") == 12
    assert api.simulator.requests.count("account.get", status=200) == 5
    assert api.simulator.requests[-1].has_authorization
    api.simulator.requests.clear()
    assert api.simulator.requests.count() == 0


async def test_control_reads_and_sets_clock_faults_and_state(start):
    """Like the Python interface."""
    api = await start(control=True, faults=(Fault("delay", seconds=0.01, times=1),))
    control = api.simulator.base_url.removesuffix("/v1") + "/_control"
    before = (await api.get(f"{control}/clock")).body["now"]
    after = (await api.post(f"{control}/clock", {"advance": 100})).body["now"]
    assert 100 <= after - before < 110
    assert (await api.post(f"{control}/clock", {"advance": -1})).status == 400
    assert (await api.post(f"{control}/clock", {"forward": 1})).status == 400
    faults = [{"name": "model_override", "value": "other/name"}]
    put = await api.ask("PUT", f"{control}/faults", json={"faults": faults})
    assert put.body == {"faults": [{**faults[0], "struck": 0}]}
    wrong = await api.ask("PUT", f"{control}/faults", json=[{"name": "nonsense"}])
    assert wrong.status == 400
    assert "known faults" in wrong.detail
    await api.create("acme/painter", {"width": 16, "height": 16})
    (truth,) = (await api.get(f"{control}/predictions")).body["predictions"]
    assert (truth["model"], truth["runs"], truth["account"]) == ("other/name", "acme/painter", "acme")
    assert (await api.post(f"{control}/faults", [{"name": "throttle"}])).body["faults"][1]["name"] == "throttle"
    assert (await api.ask("DELETE", f"{control}/faults")).status == 204
    assert (await api.post(f"{control}/reset")).status == 204
    assert api.simulator.predictions == []
    assert [entry["name"] for entry in api.simulator.faults.show()] == ["delay"]
    assert (await api.get(f"{control}/clock")).body["now"] < after


async def test_start_message_has_a_working_request():
    """With URLs and models."""
    lines: list[str] = []
    task = asyncio.create_task(simulate(SimulatorSettings(), lines.append))
    await until(lambda: lines)
    await asyncio.sleep(0)
    text = "\n".join(lines)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert "REPLICATE_API_TOKEN" in text
    assert "acme/storyteller" in text
    assert "curl" in text


async def test_sigterm_stops_the_program():
    """It exits cleanly."""
    program = "import asyncio; from gateway.simulator import *; asyncio.run(simulate(SimulatorSettings()))"
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", program, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    while b"Try:" not in await process.stdout.readline():
        pass
    process.send_signal(signal.SIGTERM)
    assert await process.wait() == 0
    await process.communicate()
