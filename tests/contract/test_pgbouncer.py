"""The store behind PgBouncer in transaction mode: each transaction can be on another connection of the server.

The main parts of the contract run here, and all of it in `make test-long`.
"""

import inspect
from pathlib import Path
from types import ModuleType
from typing import Any

import psycopg
import pytest

from gateway.errors import StoreUnavailable
from gateway.store.postgres import PostgresStore
from tests.contract import test_hits, test_money, test_share_and_start, test_sharing_races
from tests.support.pgbouncer import pooled
from tests.support.polling import attempts
from tests.support.postgres import emptied_database
from tests.support.records import go
from tests.support.stores import StoreMaker, pooled_maker

MAIN = [test_hits, test_money, test_share_and_start, test_sharing_races]
SLOW = {"test_users_beyond_the_daily_bound_are_counted_as_other"}


def of_store(module: ModuleType) -> dict[str, Any]:
    """Return the tests that need a store and nothing else."""
    return {
        f"{name}__{module.__name__.rpartition('.')[2]}": value
        for name, value in vars(module).items()
        if name.startswith("test_")
        and name not in SLOW
        and set(inspect.signature(value).parameters) in ({"store"}, {"another"})
    }


for main in MAIN:
    globals().update(of_store(main))


@pytest.fixture
def another(tmp_path: Path) -> StoreMaker:
    return pooled_maker(tmp_path)


@pytest.fixture
def url() -> str:
    return emptied_database()


async def test_every_transaction_has_its_deadlines(another: StoreMaker) -> None:
    """Settings of a session would be lost, or be those of another client. Reads have deadlines too."""
    store: Any = another()
    await store.open()
    settings = {
        "statement_timeout": "5s",
        "lock_timeout": "2s",
        "idle_in_transaction_session_timeout": "10s",
        "jit": "off",
        "transaction_isolation": "read committed",
    }

    def shown(db: Any) -> dict[str, str]:
        return {name: db.connection.execute(f"SHOW {name}").fetchone()[0] for name in settings}

    for _ in range(5):
        assert await store._write(shown) == settings
        assert await store._read(shown) == settings | {"transaction_isolation": "repeatable read"}
    await store.close()


async def test_pooler_without_the_address_of_the_database_is_reported(url: str) -> None:
    """The message says which setting is missing."""
    store = PostgresStore(pooled(url))
    with pytest.raises(StoreUnavailable, match="listen_url"):
        await store.open()


async def test_outage_of_the_pool_heals_by_itself(another: StoreMaker, url: str) -> None:
    """PgBouncer's connections to the server end, and it opens others."""
    store: Any = another()
    await store.open()
    await go(store)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    for work in (lambda: store.prediction("up1"), lambda: store.learn_version("v", "acme/toy")):
        async for _ in attempts():
            try:
                await work()
            except StoreUnavailable:
                continue
            break
    assert await store.model_of("v") == "acme/toy"
    await store.close()
