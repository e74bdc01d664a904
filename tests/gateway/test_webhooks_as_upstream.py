"""Webhooks of one prediction from upstream and from the gateway: the same events in the same order.

What may differ is how often output and logs are sent in between (the gateway learns of them by looking), and that one
message may tell both. So neighbours of the same kind count as one.
"""

import itertools
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from gateway.domain import times
from gateway.simulator import Fault, Simulator
from tests.support.stack import Stack, start_gateway, start_upstream
from tests.support.upstream import version_of
from tests.support.webhook_receiver import Message, Receiver, start_receiver

ALL = ["start", "output", "logs", "completed"]
STORY = {"prompt": "hi", "max_tokens": 8, "token_delay": 0.05}
# By model and input.
LIVES: dict[str, tuple[str, dict[str, Any]]] = {
    "at once": ("replicate/hello-world", {"text": "x"}),
    "growing": ("acme/storyteller", STORY),
    "logs": ("acme/slow", {"duration": 0.4, "steps": 2}),
    "files": ("acme/frames", {"prompt": "x", "count": 2, "duration": 0.2}),
    "failing": ("acme/fail", {"after": 0.3}),
    "cancelled": ("acme/slow", {"duration": 60, "steps": 600}),
    "cancelled before its start": ("acme/slow", {"duration": 60}),
}
_ENDS = ("succeeded", "failed", "canceled", "aborted")


@pytest.fixture
async def upstream() -> AsyncIterator[Simulator]:
    async with start_upstream(speed=1.0, allow_http_webhooks=True) as made:
        yield made


@pytest.fixture
async def stack(upstream: Simulator, tmp_path: Path) -> AsyncIterator[Stack]:
    local = {"allow_http": True, "allow_private_addresses": True}
    async with start_gateway(upstream, tmp_path, webhooks=local) as made:
        yield made


def kinds(messages: list[Message], events: list[str] | None) -> list[str]:
    """Name what messages tell, neighbours of one kind once."""
    named = []
    for message in messages:
        reported = message.json
        has_progress = reported.get("output") or reported.get("logs")
        if reported["status"] in _ENDS:
            named.append(reported["status"])
        elif not has_progress and "start" in (events or []):
            named.append("start")
        else:
            named.append("progress")
    return [name for name, _ in itertools.groupby(named)]


async def reported(base: str, key: str, life: str, version: str, events: list[str] | None) -> list[str]:
    """Have a prediction made somewhere; return what its receiver has got by the time that all must have arrived."""
    _, given = LIVES[life]
    body: dict[str, Any] = {"version": version, "input": given}
    if events is not None:
        body["webhook_events_filter"] = events
    headers = {"Authorization": f"Bearer {key}"}
    async with start_receiver() as receiver, aiohttp.ClientSession(base + "/", headers=headers) as session:
        async with session.post("predictions", json=body | {"webhook": receiver.url}) as answer:
            made = await answer.json()
        if life == "cancelled":
            # At the same point of the run, here and upstream.
            await receiver.until(lambda: any(message.json.get("logs") for message in receiver.messages))
        if life.startswith("cancelled"):
            async with session.post(f"predictions/{made['id']}/cancel"):
                pass
        await ended(session, receiver, made["id"], events)
        return kinds(receiver.messages, events)


async def ended(
    session: aiohttp.ClientSession, receiver: Receiver, prediction_id: str, events: list[str] | None
) -> None:
    """Wait for the webhook of the end, or where it is not sent, for a later one that is."""
    if events is None or "completed" in events:
        await receiver.until(lambda: any(message.json["status"] in _ENDS for message in receiver.messages))
        return
    status = ""
    while status not in _ENDS:
        async with session.get(f"predictions/{prediction_id}") as answer:
            status = json.loads(await answer.read())["status"]
    await receiver.count(1)


@pytest.mark.parametrize("life", LIVES)
async def test_all_events_match_upstreams_own_webhooks(stack: Stack, upstream: Simulator, life: str):
    """A receiver that moves from Replicate to the gateway gets the same messages."""
    version = version_of(upstream, LIVES[life][0])
    if life == "cancelled before its start":
        upstream.faults.set(Fault("cold_boot", seconds=600))
    direct = await reported(upstream.base_url, upstream.token, life, version, ALL)
    through = await reported(stack.base_url, stack.keys["alpha"], life, version, ALL)
    assert through == direct
    expected = {"cancelled": ["start", "progress", "canceled"], "cancelled before its start": ["canceled"]}
    last = "failed" if life == "failing" else "succeeded"
    assert direct == expected.get(life, ["start", "progress", last])


@pytest.mark.parametrize("life", ["at once", "growing", "failing"])
@pytest.mark.parametrize("events", [None, ["start"], ["output"], ["completed"], ["start", "completed"]])
async def test_event_filters_match_upstreams(stack: Stack, upstream: Simulator, life: str, events: list[str] | None):
    """Whatever a receiver asked for, it gets the same."""
    version = version_of(upstream, LIVES[life][0])
    direct = await reported(upstream.base_url, upstream.token, life, version, events)
    through = await reported(stack.base_url, stack.keys["alpha"], life, version, events)
    assert through == direct


async def test_throttling_of_progress_matches_upstreams(stack: Stack, upstream: Simulator):
    """Forty pieces of output in two seconds are no more messages than upstream would send: two a second."""
    version = version_of(upstream, "acme/storyteller")
    async with start_receiver() as receiver:
        body = {"version": version, "input": STORY | {"max_tokens": 40}, "webhook": receiver.url}
        async with stack.caller() as session, session.post("/v1/predictions", json=body):
            pass
        await receiver.until(lambda: receiver.messages and receiver.messages[-1].json["status"] == "succeeded")
    last = receiver.messages[-1].json
    seconds = times.parse(last["completed_at"]) - times.parse(last["started_at"])
    assert 3 <= len(receiver.messages) <= 3 + 2 * seconds
