"""A standby takes the place of the primary: what was acknowledged is there, once, and nobody has to do anything."""

import asyncio
from collections import Counter
from collections.abc import Iterator

import pytest

from gateway.errors import StoreAway, StoreUnavailable
from gateway.store.postgres import PostgresStore
from tests.support.audit import BY_TEST
from tests.support.polling import attempts, until
from tests.support.postgres_pair import Pair, pair
from tests.support.records import NOW


@pytest.fixture(scope="module")
def servers() -> Iterator[Pair]:
    with pair() as made:
        made.require_standby(is_required=True)
        yield made


class Writers:
    """Corrections that are made one after the other by several tasks, each with a reason of its own."""

    def __init__(self, store: PostgresStore) -> None:
        self.acknowledged: list[str] = []
        self.refused = 0
        self._store = store
        self._stopped = False

    async def write(self, name: str) -> None:
        number = 0
        while not self._stopped:
            number += 1
            reason = f"{name} {number}"
            try:
                await self._store.adjust("red", 1, reason, NOW, actor=BY_TEST)
            except StoreUnavailable:
                self.refused += 1
                await asyncio.sleep(0.02)
            else:
                self.acknowledged.append(reason)

    async def more(self, count: int) -> None:
        """Wait until so many more were acknowledged."""
        end = len(self.acknowledged) + count
        await until(lambda: len(self.acknowledged) >= end)

    def stop(self) -> None:
        self._stopped = True


async def check(servers: Pair, writers: Writers) -> None:
    """Every correction is there at most once, and all that were acknowledged are."""
    rows = await asyncio.to_thread(servers.do, "SELECT reason FROM ledger WHERE kind = 'adjustment'")
    found = Counter(str(reason) for (reason,) in rows)
    assert set(found.values()) == {1}
    assert set(writers.acknowledged) <= set(found)


async def test_commit_that_waits_for_a_standby_is_decided_when_it_may_end(servers: Pair) -> None:
    """The standby is away. The caller gets an error in time; the step is done once, whatever comes of it."""
    await asyncio.to_thread(servers.stop_standby)
    store = PostgresStore(servers.url, decide=1, read=1, timeout_seconds=1.0)
    await store.open()
    with pytest.raises(StoreUnavailable, match="in time"):
        await store.adjust("red", 1, "waits", NOW, actor=BY_TEST)
    await asyncio.to_thread(servers.require_standby, is_required=False)
    async for _ in attempts():
        if store.pending == 0:
            break
    rows = servers.do("SELECT count(*) FROM ledger WHERE reason = 'waits'")
    assert rows == [(1,)]
    await store.close()
    await asyncio.to_thread(servers.start_standby)
    await asyncio.to_thread(servers.require_standby, is_required=True)


async def test_standby_is_not_served_from(servers: Pair) -> None:
    """Its rows may be older than what was acknowledged."""
    store = PostgresStore(servers.standby.url("gateway"))
    for ask in (store.open, store.inspect):
        with pytest.raises(StoreAway, match="is a standby"):
            await ask()


async def test_immediate_restarts_and_a_failover_lose_nothing_and_repeat_nothing(servers: Pair) -> None:
    store = PostgresStore(servers.url, decide=4, read=1)
    await store.open()
    writers = Writers(store)
    tasks = [asyncio.ensure_future(writers.write(f"w{n}")) for n in range(8)]
    for event in (servers.restart, servers.restart, servers.fail_over):
        await writers.more(30)
        await asyncio.to_thread(event)
    await writers.more(30)
    writers.stop()
    await asyncio.gather(*tasks)
    await check(servers, writers)
    await store.ping()
    await store.close()
