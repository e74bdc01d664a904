"""What SQLite's single writer decides, PostgreSQL decides by locks. Each race is also seen to be lost without its lock.

`gateway/store/postgres/locks.py` has the table. In every race the first step stops in its middle until the second is
done or waits for it.
"""

from collections.abc import AsyncIterator

import pytest

from gateway.store.postgres import PostgresStore
from gateway.store.sql.locks import Lock
from tests.contract import races_of_records, races_of_runs
from tests.contract.races import RACES
from tests.support.overlaps import ROW_LOCKS, overlapped, store_of
from tests.support.postgres import emptied_database

assert races_of_records
assert races_of_runs


@pytest.fixture
def url() -> str:
    return emptied_database()


@pytest.fixture
async def store(url: str) -> AsyncIterator[PostgresStore]:
    made = store_of(url)
    await made.open()
    yield made
    await made.close()


@pytest.mark.parametrize("name", RACES)
async def test_race_is_decided(url: str, store: PostgresStore, name: str) -> None:
    found = RACES[name]
    await found.prepare(store)
    outcomes = await overlapped(url, found.first, found.second, at=found.at)
    await found.holds(store, *outcomes)


@pytest.mark.parametrize(
    ("name", "lock"), [(name, lock) for name, each in RACES.items() for lock in sorted(each.locks, key=str)]
)
async def test_race_is_lost_without_its_lock(url: str, store: PostgresStore, name: str, lock: Lock | str) -> None:
    """So the test above tests the lock."""
    found = RACES[name]
    await found.prepare(store)
    outcomes = await overlapped(url, found.first, found.second, at=found.at, without=[lock])
    with pytest.raises(AssertionError):
        await found.holds(store, *outcomes)


def test_every_lock_has_a_race() -> None:
    """The races of rates are in `test_divided_rates.py`, that of nodes in `test_fencing.py`."""
    assert {lock for each in RACES.values() for lock in each.locks} == {*Lock, ROW_LOCKS} - {Lock.RATES, Lock.NODES}
