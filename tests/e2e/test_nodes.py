"""Real processes on one PostgreSQL: one is killed, or stands still for longer than its lease, while all have callers.

See docs/architecture.md, Nodes.
"""

import asyncio
import logging
import random
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import psycopg
import pytest

from gateway.simulator import Simulator
from tests.support.node_rounds import NODES, Cluster, check, play, settled
from tests.support.polling import attempts
from tests.support.postgres import emptied_database, new_database
from tests.support.rounds import amounts
from tests.support.serve_command import ServeCommand
from tests.support.simulator_models import hold_runs
from tests.support.upstream import version_of
from tests.support.webhook_receiver import Receiver, start_receiver

logger = logging.getLogger(__name__)

LEASE = 6.0
"""Long enough for a node on a crowded machine; one that stands still is waited for."""
ENDED = "SELECT count(*) FROM nodes WHERE ended_at IS NOT NULL"
CREATES = 24
STREAMS = 2
"""Runs in a round whose streams are read on every node."""


@pytest.fixture
async def cluster(upstream: Simulator, tmp_path: Path) -> AsyncIterator[Cluster]:
    url = await asyncio.to_thread(new_database)
    made = Cluster(upstream, tmp_path, url, LEASE)
    async with made.running():
        yield made


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with start_receiver() as made:
        yield made


@pytest.mark.parametrize("rounds", amounts(1, 100))
async def test_killed_node_loses_nothing(cluster: Cluster, receiver: Receiver, rounds: int):
    """No id is lost, no run is a second one, webhooks and streams arrive whole, and the ledger is upstream's record."""
    for seed in range(rounds):
        victim = random.Random(seed).randrange(NODES)

        async def kill(node: int = victim) -> None:
            await cluster.kill(node)

        await play(cluster, receiver, seed, victim, kill, creates=CREATES, streams=STREAMS)
        # The others have it all: the victim is not needed for it.
        await settled(cluster, without=victim)
        await cluster.start(victim)
        await settled(cluster)
        await check(cluster, receiver)
    assert len(cluster.asked) == rounds * (CREATES + STREAMS)
    taken_over = "SELECT count(*) FROM notes WHERE owner_before <> 0 AND owner_before <> owner"
    assert (await cluster.rows(taken_over))[0][0] >= rounds
    assert cluster.resumed >= rounds
    logger.warning("%d rounds, %d streams resumed", rounds, cluster.resumed)


@pytest.mark.parametrize("rounds", amounts(1, 50))
async def test_node_that_stood_still_writes_nothing_of_its_old_runs(cluster: Cluster, receiver: Receiver, rounds: int):
    """It is stopped for longer than its lease, and goes on when others have taken over its runs."""
    for seed in range(rounds):
        victim = random.Random(seed).randrange(NODES)

        async def stand_still(node: int = victim) -> None:
            ended = await cluster.rows(ENDED)
            cluster.signal(node, signal.SIGSTOP)
            async for _ in attempts():
                if await cluster.rows(ENDED) != ended:
                    break
            cluster.signal(node, signal.SIGCONT)

        await play(cluster, receiver, seed, victim, stand_still, creates=CREATES, streams=STREAMS)
        await settled(cluster)
        await check(cluster, receiver)
    lost = await cluster.rows(ENDED)
    assert lost[0][0] >= rounds
    logger.warning("%d rounds, %d streams resumed, %d nodes ended", rounds, cluster.resumed, lost[0][0])


async def test_restart_after_a_kill_does_not_wait_for_the_lease(upstream: Simulator, tmp_path: Path):
    """The new process sees that the old one has ended, and has its runs and its shares of the account's rates."""
    url = await asyncio.to_thread(emptied_database)
    command = ServeCommand(tmp_path, upstream.base_url, upstream.token, store_url=url)
    go_on = hold_runs(upstream, "acme/slow")
    body = {"version": version_of(upstream, "acme/slow"), "input": {"duration": 0}}
    async with command.serving() as gateway, command.caller(gateway.origin) as caller:
        async with caller.post("/v1/predictions", json=body) as response:
            prediction = (await response.json())["id"]
        gateway.signal(signal.SIGKILL)
        await gateway.ended()
    # Its lease lasts until long after the start of the next process, however slow that is.
    await asyncio.to_thread(extend_leases, url)
    async with command.serving() as gateway, command.caller(gateway.origin) as caller:
        async with caller.post("/v1/predictions", json=body) as response:
            assert response.status == 201
        go_on.set()
        async for _ in attempts():
            async with caller.get(f"/v1/predictions/{prediction}") as response:
                if (await response.json())["status"] == "succeeded":
                    break

    def ended() -> list[tuple[bool]]:
        with psycopg.connect(url) as connection:
            return connection.execute("SELECT ended_at < expires_at FROM nodes ORDER BY number LIMIT 1").fetchall()

    assert await asyncio.to_thread(ended) == [(True,)]


def extend_leases(url: str) -> None:
    with psycopg.connect(url) as connection:
        connection.execute("UPDATE nodes SET expires_at = expires_at + 1000")
