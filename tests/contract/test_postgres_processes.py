"""Four processes race on one database: budgets are exact, an identity has one run, sums are those of their lines."""

import asyncio
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from gateway.domain.windows import day_of
from gateway.money.rules.audit import Tally
from gateway.store.postgres import PostgresStore
from tests.support.money import TEAM
from tests.support.postgres import emptied_database, server
from tests.support.race_load import BUDGET, CREATES, IDENTITIES, OF_TAG, PRICE
from tests.support.records import NOW

ROOT = Path(__file__).parents[2]
PROCESSES = 4


@pytest.fixture
def url() -> str:
    return emptied_database()


async def race(url: str, name: str) -> list[Any]:
    command = (sys.executable, "-m", "tests.support.race_load", url, name)
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=asyncio.subprocess.PIPE)
    said, _ = await process.communicate()
    assert process.returncode == 0
    return list(json.loads(said))


def deadlocks() -> int:
    """Count the deadlocks that the server has ended, each of which costs a second."""
    return (server().folder / "log").read_text().count("deadlock detected")


async def test_four_processes_spend_exactly_the_budget_and_lose_no_sum(url: str) -> None:
    before = deadlocks()
    found = await asyncio.gather(*(race(url, f"process{n}") for n in range(PROCESSES)))
    spent, shared = (sum((Counter(each[part]) for each in found), Counter()) for part in (0, 1))
    assert spent == {"Started": 2 * BUDGET // PRICE, "Refused": PROCESSES * CREATES - 2 * BUDGET // PRICE}
    assert shared == {"Started": IDENTITIES, "Joined": (PROCESSES * 20 - 1) * IDENTITIES}
    store = PostgresStore(url)
    await store.open()
    for meter in (await store.meters([TEAM, OF_TAG], NOW)).values():
        assert (meter.open, meter.held_microusd) == (BUDGET // PRICE, BUDGET)
    audited = await store.audit_day(day_of(NOW), 0, 10**6)
    tally = Tally()
    tally.add(audited)
    assert audited.lines > 0
    assert audited.stored is not None
    assert tally.drift(audited.stored) == []
    assert await store.recount_meters() == 0
    assert await store.stuck_reservations(10) == []
    await store.close()
    assert deadlocks() == before, "steps take locks in one order"
