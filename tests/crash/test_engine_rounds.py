"""PostgreSQL ends at any time under load and comes back, or its standby takes over. The gateway goes on by itself.

Afterwards no id is lost, nothing has run twice, and the ledger is that of upstream to the micro-dollar.
"""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.crash_rounds import Matrix, crash_upstream
from tests.support.outage_rounds import play_outage
from tests.support.postgres_pair import Pair, pair
from tests.support.rounds import seeds


@pytest.fixture
def servers() -> Iterator[Pair]:
    with pair() as made:
        made.require_standby(is_required=True)
        yield made


@pytest.mark.parametrize("seed", seeds(1, 30))
@pytest.mark.timeout(240)
async def test_immediate_restart_under_load_loses_nothing(tmp_path: Path, servers: Pair, seed: int) -> None:
    async with crash_upstream() as upstream:
        matrix = Matrix(upstream, tmp_path, servers.url)
        found = await play_outage(matrix, "round", servers.restart, seed=seed)
        found.assert_sound()


@pytest.mark.parametrize("failovers", [1, pytest.param(5, marks=pytest.mark.long)])
@pytest.mark.timeout(240)
async def test_failover_to_the_standby_under_load_loses_nothing(tmp_path: Path, servers: Pair, failovers: int) -> None:
    """A new standby replaces the server that has failed, and takes over in its turn."""
    async with crash_upstream() as upstream:
        for number in range(failovers):
            if number:
                await asyncio.to_thread(servers.renew_standby)
            # The address names the hosts of the new pair.
            matrix = Matrix(upstream, tmp_path, servers.url)
            found = await play_outage(matrix, f"round{number}", servers.fail_over, seed=number)
            found.assert_sound()
