"""The stub of Replicate: what it answers, and that requests arrive in any pieces."""

import json

import pytest

from bench.load import http_request, response_end
from bench.stub import MODEL, MOST_RUNS, Connection, Stub
from gateway.models.rules.schema import read_schema

CREATE = f"/v1/models/{MODEL}/predictions"


def body(response: bytes) -> dict:
    assert response_end(response) == len(response)
    return json.loads(response.partition(b"\r\n\r\n")[2])


def create(stub: Stub, seed: int = 1) -> dict:
    return body(stub.answer(b"POST", CREATE.encode(), json.dumps({"input": {"seed": seed}}).encode()))


@pytest.mark.parametrize("reads", [1, 2, 5])
def test_a_run_succeeds_at_the_read_that_was_asked_for(reads: int):
    stub = Stub(reads)
    made = create(stub, seed=7)
    path = f"/v1/predictions/{made['id']}".encode()
    statuses = [body(stub.answer(b"GET", path, b""))["status"] for _ in range(reads + 1)]
    assert made["status"] == "starting"
    assert made["input"] == {"seed": 7}
    assert statuses == ["processing"] * (reads - 1) + ["succeeded"] * 2
    assert body(stub.answer(b"GET", b"/counts", b"")) == {"creates": 1, "reads": reads + 1}


def test_old_runs_are_forgotten_except_the_first():
    stub = Stub(1)
    made = [create(stub)["id"] for _ in range(MOST_RUNS + 2)]
    known = [b" 200 " in stub.answer(b"GET", f"/v1/predictions/{made[at]}".encode(), b"")[:14] for at in (0, 1, 2, -1)]
    assert known == [True, False, False, True]


def test_the_model_has_a_schema_that_makes_requests_deterministic():
    response = Stub(1).answer(b"GET", f"/v1/models/{MODEL}".encode(), b"")
    assert read_schema(response.partition(b"\r\n\r\n")[2]) is not None


@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_requests_may_come_in_any_pieces(size: int):
    written: list[bytes] = []

    class Transport:
        write = written.append

    connection = Connection(Stub(2))
    connection.connection_made(Transport())
    sent = http_request(f"http://h{CREATE}", {}, b'{"input": {"seed": 1}}') + http_request("http://h/counts", {})
    for at in range(0, len(sent), size):
        connection.data_received(sent[at : at + size])
    assert [body(response).get("status", "counts") for response in written] == ["starting", "counts"]
