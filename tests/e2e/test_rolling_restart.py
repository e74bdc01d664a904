"""Three processes on one PostgreSQL behind a load balancer are restarted in turn, while npm `replicate` calls them.

See docs/scaling.md, Updates.
"""

import asyncio
import signal
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import psycopg
import pytest

from gateway.simulator import Simulator
from tests.support.balancer import Balancer, balancing
from tests.support.node import Outcome, run_script
from tests.support.polling import attempts, until
from tests.support.postgres import emptied_database
from tests.support.rounds import amounts
from tests.support.serve_command import ServeCommand, ServingProcess
from tests.support.simulator_models import hold_runs
from tests.support.upstream import creates, version_of

NODES = 3
TOKENS = 40
SERVER = "drain_seconds = 5"
TASKS = {"wait": 4, "poll": 4, "stream": 6}
"""How many calls of each kind go on at a time."""
SETTINGS = {
    # In the simulator's seconds, of which twenty are one.
    "duration": {"poll": 10},
    "interval": 20,
    "tokens": TOKENS,
}
MODELS = {"slow": "acme/slow", "held": "acme/analyze", "story": "acme/storyteller"}
HELD = ("wait", "stream")
"""Kinds of calls that go on until all nodes have been restarted: each loses its node once."""


class Node:
    """One of the nodes: what it is started with, and its process."""

    def __init__(self, command: ServeCommand, balancer: Balancer) -> None:
        self.command = command
        self._balancer = balancer
        self._stack = AsyncExitStack()
        self._process: ServingProcess | None = None

    async def start(self) -> None:
        """Start it, and wait until the balancer knows that it is ready."""
        process = self._process = await self._stack.enter_async_context(self.command.serving())
        self._balancer.add(process.origin)
        await until(lambda: process.origin in self._balancer.ready)

    async def restart(self) -> None:
        """Ask it to stop, and start its successor meanwhile, as Kubernetes does when a pod is deleted."""
        process = self._process
        assert process is not None
        process.signal(signal.SIGTERM)
        starting = asyncio.create_task(self.start())
        assert await process.ended() == 0
        await self._balancer.remove(process.origin)
        await starting

    async def stop(self) -> None:
        """Kill what is left of it."""
        await self._stack.aclose()


@pytest.mark.parametrize("passes", amounts(1, 20))
async def test_rolling_restart_is_not_noticed(passes: int, upstream: Simulator, tmp_path: Path, clients: Path):
    """No request fails, no event of a stream is lost or comes twice, and no run is started twice."""
    url = await asyncio.to_thread(emptied_database)
    done = tmp_path / "done"
    go_on = [hold_runs(upstream, MODELS["held"]), hold_runs(upstream, MODELS["story"], after=2)]
    async with balancing() as balancer, AsyncExitStack() as stack:
        nodes = installed(upstream, tmp_path, url, balancer)
        for node in nodes:
            stack.push_async_callback(node.stop)
        await asyncio.gather(*(node.start() for node in nodes))
        calling = asyncio.create_task(keep_calling(nodes[0].command, upstream, balancer, done))
        stack.callback(calling.cancel)
        for _ in range(passes):
            await until(lambda: calling.done() or held(upstream) == sum(TASKS[kind] for kind in HELD))
            for node in nodes:
                await node.restart()
                assert not calling.done(), calling.result().error
            for each in go_on:
                each.set()
                each.clear()
        done.touch()
        for each in go_on:
            each.set()
        called = await calling
        assert called.error is None
        assert balancer.refused == []
        check_requests(called)
        await check_runs(called, upstream, url)
        check_streams(called.result, upstream)
        logs = "".join(node.command.log for node in nodes)
        assert [line for line in logs.splitlines() if '"level":"ERROR"' in line.replace(" ", "")] == []


def installed(upstream: Simulator, folder: Path, url: str, balancer: Balancer) -> list[Node]:
    """Return the nodes, which have the same config and key."""
    commands = []
    for number in range(NODES):
        place = folder / f"node{number}"
        place.mkdir()
        command = ServeCommand(place, upstream.base_url, upstream.token, server=SERVER, store_url=url)
        command.key = commands[0].key if commands else command.key
        commands.append(command)
    return [Node(command, balancer) for command in commands]


def held(upstream: Simulator) -> int:
    """Count the runs that are held."""
    return sum(each.input["prompt"].startswith(HELD) and not each.terminal for each in upstream.predictions)


async def keep_calling(command: ServeCommand, upstream: Simulator, balancer: Balancer, done: Path) -> Outcome:
    """Run the client until the file exists."""
    refs = {name: f"{model}:{version_of(upstream, model)}" for name, model in MODELS.items()}
    return await run_script(
        "rolling.mjs",
        "keepCalling",
        base_url=f"{balancer.origin}/v1",
        key=command.key,
        until=str(done),
        tasks=TASKS,
        **refs,
        **SETTINGS,
    )


def check_requests(called: Outcome) -> None:
    """No request failed: the client repeats those that do, also creates that were lost on their way."""
    failed = [request for request in called.requests if not 200 <= request.status < 300]
    assert failed == []
    assert called.count("POST") == len(called.result)


async def check_runs(called: Outcome, upstream: Simulator, url: str) -> None:
    """Every call is one run, and all of them end."""
    assert creates(upstream) == len(called.result) == len(upstream.predictions)
    assert {call["prompt"] for call in called.result} == {each.input["prompt"] for each in upstream.predictions}
    outputs = {each.input["prompt"]: each.output for each in upstream.predictions}
    for call in called.result:
        if call["kind"] != "stream":
            assert call["output"] == outputs[call["prompt"]], call["prompt"]
    # Waits that were answered at the end of a drain: the client went on by polling.
    assert any(call["polls"] for call in called.result if call["kind"] == "wait")
    assert {each.status for each in upstream.predictions} == {"succeeded"}
    async for _ in attempts():
        if not await asyncio.to_thread(open_runs, url):
            break


def open_runs(url: str) -> list[Any]:
    with psycopg.connect(url) as connection:
        return connection.execute("SELECT id FROM runs WHERE state IN ('intended', 'live')").fetchall()


def check_streams(calls: Sequence[dict[str, Any]], upstream: Simulator) -> None:
    """Every stream had every event once, in order, and some of them came over more than one connection."""
    outputs = {each.input["prompt"]: each.output for each in upstream.predictions}
    streams = [call for call in calls if call["kind"] == "stream"]
    for call in streams:
        events = call["events"]
        said = [each["data"] for each in events if each["event"] == "output"]
        assert said == outputs[call["prompt"]], call["prompt"]
        assert [each["event"] for each in events] == ["logs"] + ["output"] * len(said) + ["done"]
        ids = [tuple(map(int, each["id"].split(":"))) for each in events]
        assert ids == sorted(set(ids))
    assert any(call["connections"] > 1 for call in streams)
