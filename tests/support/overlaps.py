"""Two steps on PostgreSQL of which one is stopped in its middle, and goes on when the other is done or waits for it.

So a race is not a matter of luck. The stopped step is one statement long or all but committed.
"""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import psycopg

from gateway.store.postgres import PostgresStore
from gateway.store.postgres.database import PostgresDatabase
from gateway.store.postgres.dialect import READING_SQL
from gateway.store.sql.connections import Lane
from gateway.store.sql.database import Database, Parameters, Rows
from gateway.store.sql.locks import Lock
from tests.support.polling import SECONDS, attempts

T = TypeVar("T")
Work = Callable[[PostgresStore], Awaitable[Any]]
ROW_LOCKS = "row locks"
"""Those that statements take themselves."""


@dataclass
class Gate:
    """Where a step stops: after a statement, or with `at=None` after its last one."""

    at: str | None = None
    reached: threading.Event = field(default_factory=threading.Event)
    opened: threading.Event = field(default_factory=threading.Event)

    def stop(self) -> None:
        """Say that the step is here, and wait until the gate is open."""
        self.reached.set()
        assert self.opened.wait(SECONDS)


def store_of(url: str, gate: Gate | None = None, without: Iterable[Lock | str] = ()) -> PostgresStore:
    """Make a store whose steps stop at a gate, or take no locks of some kinds."""
    left_out = set(without)

    class ChangedDatabase(PostgresDatabase):
        _sql = READING_SQL if ROW_LOCKS in left_out else PostgresDatabase._sql

        def execute(self, name: str, parameters: Parameters = ()) -> Rows:
            found = super().execute(name, parameters)
            if gate is not None and gate.at == name:
                gate.stop()
            return found

        def lock(self, lock: Lock, *names: str) -> None:
            if lock not in left_out:
                super().lock(lock, *names)

    class ChangedStore(PostgresStore):
        database = ChangedDatabase

        def _run_in_lane(
            self,
            step: Callable[[Database], T],
            *,
            durable: bool = False,
            erases: bool = False,
            lane: Lane = Lane.DECIDE,
        ) -> asyncio.Future[T]:
            def stopped(db: Database) -> T:
                value = step(db)
                if gate is not None and gate.at is None:
                    gate.stop()
                return value

            return super()._run_in_lane(stopped, durable=durable, erases=erases, lane=lane)

    # A step may stand at its gate for longer than callers wait.
    return ChangedStore(url, timeout_seconds=600.0, decide=1, read=1)


async def overlapped(
    url: str, first: Work, second: Work, *, at: str | None = None, without: Iterable[Lock | str] = ()
) -> tuple[Any, Any]:
    """Do both, the first of which stops in its middle. Return their outcomes."""
    gate = Gate(at)
    stores = [store_of(url, gate, without), store_of(url, None, without)]
    for store in stores:
        await store.open()
    early = asyncio.ensure_future(first(stores[0]))
    async for _ in attempts():
        if gate.reached.is_set() or early.done():
            break
    assert gate.reached.is_set(), "the first step does not come to the gate"
    late = asyncio.ensure_future(second(stores[1]))
    async for _ in attempts():
        if late.done() or await asyncio.to_thread(_is_waiting, url):
            break
    gate.opened.set()
    try:
        return await early, await late
    finally:
        for store in stores:
            await store.close()


def _is_waiting(url: str) -> bool:
    """Say whether a step waits for a lock of another one."""
    with psycopg.connect(url, autocommit=True) as connection:
        query = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        return connection.execute(query).fetchone() is not None
