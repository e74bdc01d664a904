"""Predictions whose documents do not fit into memory behave like all others: they are read from the store."""

import asyncio

from tests.support.http_calls import ask, metrics_of
from tests.support.samples import create, finished
from tests.support.simulator_models import hold_runs
from tests.support.stack import OpenGateway
from tests.support.upstream import version_of

NO_ROOM = {"memory_bytes": 1, "followed_bytes": 1}


async def test_predictions_are_the_same_without_room_in_memory(open_gateway: OpenGateway):
    """Get, list, stream, sync wait, cancel and hits."""
    async with open_gateway(cache=NO_ROOM) as stack:
        go_on = hold_runs(stack.upstream, "acme/storyteller")
        made = await create(stack, model="acme/storyteller", prompt="hi", duration=60.0)
        path = f"/v1/predictions/{made.json['id']}"
        first = await ask(stack, "GET", path)
        assert (first.status, first.json["input"]) == (200, {"prompt": "hi", "duration": 60.0})
        listed = await ask(stack, "GET", "/v1/predictions")
        assert [each["input"] for each in listed.json["results"]] == [first.json["input"]]
        gone = await ask(stack, "POST", f"{path}/cancel")
        assert (gone.status, gone.json["status"], gone.json["input"]) == (200, "canceled", first.json["input"])
        assert (await ask(stack, "GET", path)).json["status"] == "canceled"

        go_on.set()
        body = {"version": version_of(stack.upstream, "acme/storyteller"), "input": {"prompt": "hi", "seed": 7}}
        replies = [await ask(stack, "POST", "/v1/predictions", json=body, headers={"Prefer": "wait"}) for _ in "ab"]
        assert [reply.json["status"] for reply in replies] == ["succeeded"] * 2
        assert "hit" in replies[1].headers["Cache-Status"]
        assert replies[0].json["output"] == replies[1].json["output"]
        stream = await ask(stack, "GET", replies[1].json["urls"]["stream"], key=None)
        assert b"event: done" in stream.body
        assert (await finished(stack, replies[0].json["id"]))["output"] == replies[0].json["output"]
        lines = (await metrics_of(stack)).splitlines()
        for name in ("followed_bytes", "recent_bytes", "shown_bytes"):
            assert f"replicate_gateway_{name} 0.0" in lines


async def test_a_run_whose_document_was_dropped_is_polled_and_ends(open_gateway: OpenGateway):
    """Polls bring the same document again and again; the end is seen and recorded."""
    async with open_gateway(cache=NO_ROOM) as stack:
        made = [await create(stack, model="acme/storyteller", prompt=str(n), duration=8.0) for n in range(3)]
        ends = await asyncio.gather(*(finished(stack, each.json["id"]) for each in made))
        assert [each["status"] for each in ends] == ["succeeded"] * 3
        assert [each["input"]["prompt"] for each in ends] == ["0", "1", "2"]
