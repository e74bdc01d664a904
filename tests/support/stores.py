"""The stores that the contract tests run on: every backend in turn. A backend is added to `BACKENDS`."""

import atexit
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, Protocol

from gateway.errors import StoreUnavailable
from gateway.store.interface import Store
from gateway.store.postgres import PostgresStore
from gateway.store.sqlite import SQLiteStore
from tests.support.empty_store import put_empty_store
from tests.support.pgbouncer import pooled
from tests.support.polling import attempts
from tests.support.postgres import emptied_database, server
from tests.support.postgres_proxy import Cut, Proxy, every

StoreMaker = Callable[[], Store]
"""Makes one more store on the same data each time it is called, as another process would."""

_PATIENT = 600.0
"""How long steps may take: connecting for each commit takes time, thousands may wait, and machines are slow."""


class Backend(Protocol):
    """A kind of store."""

    def __call__(self, folder: Path, *, in_order: bool = False) -> StoreMaker:
        """Return a maker of stores on the same data, which are empty at first.

        With `in_order`, a store does its writes in the order in which they were asked for.
        """
        ...


def sqlite_maker(folder: Path, *, in_order: bool = False) -> StoreMaker:
    """Return a maker of SQLite stores on one file. Their writes are always in order."""
    path = folder / "gateway.sqlite"
    put_empty_store(path)
    return lambda: SQLiteStore(path)


def postgres_maker(folder: Path, *, in_order: bool = False) -> StoreMaker:
    """Return a maker of PostgreSQL stores on one database."""
    url = emptied_database()
    return lambda: PostgresStore(url, timeout_seconds=_PATIENT, decide=1 if in_order else 3, read=1)


def cut_maker(folder: Path, *, in_order: bool = False) -> StoreMaker:
    """Return a maker of PostgreSQL stores whose connections are lost with the answer to each commit."""
    url = cutting_proxy().url(emptied_database())
    return lambda: PostgresStore(url, timeout_seconds=_PATIENT, decide=1 if in_order else 3, read=1)


@cache
def cutting_proxy() -> Proxy:
    """Return a proxy of this process that cuts every commit."""
    made = Proxy(server().folder, every(Cut.AFTER))
    atexit.register(made.stop)
    return made


def pooled_maker(folder: Path, *, in_order: bool = False) -> StoreMaker:
    """Return a maker of PostgreSQL stores on one database, behind PgBouncer in transaction mode."""
    url = emptied_database()
    return lambda: PostgresStore(
        pooled(url), listen_url=url, timeout_seconds=_PATIENT, decide=1 if in_order else 3, read=1
    )


BACKENDS: dict[str, Backend] = {"sqlite": sqlite_maker, "postgres": postgres_maker}
ALL_BACKENDS: dict[str, Backend] = {**BACKENDS, "postgres-cut": cut_maker, "pgbouncer": pooled_maker}
"""With those that take long. Some tests always run on the last one."""


async def edit(store: Any, statement: str) -> int:
    """Change the data of a store by a statement of SQL, as a defect would. Return the number of rows changed."""
    return int(await store._write(lambda db: db.connection.execute(statement).rowcount))


async def answered(store: Store) -> None:
    """Wait until the store answers."""
    async for _ in attempts():
        try:
            await store.ping()
        except StoreUnavailable:
            continue
        break
