"""`gateway serve --workers`: several processes on one port and one PostgreSQL, as one gateway."""

import asyncio
import os
import re
import signal
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from gateway.simulator import Simulator
from tests.support.polling import attempts
from tests.support.postgres import Server, emptied_database, server
from tests.support.serve_command import ServeCommand, ServingProcess, run_serve
from tests.support.upstream import creates, version_of

pytestmark = pytest.mark.timeout(120)
STARTS_SECONDS = 40
"""How long several processes may take to start on a crowded machine."""


@pytest.fixture
def database() -> Server:
    return server()


@pytest.fixture
def installed(upstream: Simulator, tmp_path: Path) -> ServeCommand:
    return ServeCommand(
        tmp_path, upstream.base_url, upstream.token, store_url=emptied_database(), arguments=("--workers", "2")
    )


def children(process: int) -> set[int]:
    """Return the processes that a process has started."""
    return {
        int(number) for each in Path(f"/proc/{process}/task").glob("*/children") for number in each.read_text().split()
    }


def is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


async def create(gateway: ServingProcess, installed: ServeCommand, body: Any) -> tuple[int, Any]:
    """Create a prediction on a connection of its own, which any worker can get."""
    async with (
        installed.caller(gateway.origin) as alpha,
        alpha.post("/v1/predictions", json=body, headers={"Prefer": "wait"}) as answer,
    ):
        return answer.status, await answer.json()


async def metrics(gateway: ServingProcess) -> str:
    async with aiohttp.ClientSession() as session, session.get(f"{gateway.ops_url}/metrics") as answer:
        assert answer.status == 200
        return await answer.text()


def by_node(text: str, name: str) -> dict[str, float]:
    """Return the sums of a metric by node."""
    found: dict[str, float] = {}
    for node, value in re.findall(rf'^replicate_gateway_{name}{{node="(\d+)"[^}}]*}} (\S+)$', text, re.MULTILINE):
        found[node] = found.get(node, 0) + float(value)
    return found


async def served_by_both(gateway: ServingProcess) -> None:
    """Wait until both workers serve."""
    async for _ in attempts(STARTS_SECONDS):
        if by_node(await metrics(gateway), "worker_up") == {"1": 1, "2": 1}:
            return


async def test_workers_are_one_gateway(installed: ServeCommand, upstream: Simulator):
    """Equal requests are one run; one scrape shows all workers; one that is killed comes back; a signal stops all."""
    async with installed.serving() as gateway:
        await served_by_both(gateway)
        body = {
            "version": version_of(upstream, "acme/storyteller"),
            "input": {"prompt": "a llama", "seed": 7, "max_tokens": 4},
        }
        answers = await asyncio.gather(*(create(gateway, installed, body) for _ in range(30)))
        assert {(status, each["status"]) for status, each in answers} == {(201, "succeeded")}
        assert len({each["id"] for _, each in answers}) == 30
        assert creates(upstream) == 1
        requests = by_node(await metrics(gateway), "http_requests_total")
        assert set(requests) == {"1", "2"}
        assert all(requests.values())

        workers = children(gateway.process.pid)
        assert len(workers) == 2
        os.kill(min(workers), signal.SIGKILL)
        async for _ in attempts(STARTS_SECONDS):
            restarts = by_node(await metrics(gateway), "worker_restarts_total")
            if sum(restarts.values()) == 1 and len(children(gateway.process.pid) - {min(workers)}) == 2:
                break
        await served_by_both(gateway)
        for _, each in answers[:10]:
            async with installed.caller(gateway.origin) as alpha, alpha.get(f"/v1/predictions/{each['id']}") as answer:
                assert answer.status == 200

        workers = children(gateway.process.pid)
        gateway.signal(signal.SIGTERM)
        assert await gateway.ended() == 0
        assert not any(map(is_alive, workers))


async def test_workers_end_with_their_supervisor(installed: ServeCommand):
    """Nobody would restart them, or see their metrics."""
    async with installed.serving() as gateway:
        await served_by_both(gateway)
        workers = children(gateway.process.pid)
        gateway.signal(signal.SIGKILL)
        await gateway.ended()
        async for _ in attempts(STARTS_SECONDS):
            if not any(map(is_alive, workers)):
                break
        assert not any(map(is_alive, workers))


async def test_workers_need_postgresql(tmp_path: Path):
    """One process serves from a file."""
    code, _, err = await run_serve(tmp_path, "[server]\nworkers = 2\n")
    assert code == 1
    assert "server.workers: needs PostgreSQL" in err


async def test_worker_that_cannot_start_ends_the_command(tmp_path: Path, database: Server):
    """What is wrong is reported once, by the first worker."""
    config = f'[server]\nworkers = 2\nport = 0\n[ops]\nport = 0\n[store]\nurl = "{database.url("none")}"\n'
    code, _, err = await run_serve(tmp_path, config)
    assert code == 1
    assert err.count('database "none" does not exist') == 1
