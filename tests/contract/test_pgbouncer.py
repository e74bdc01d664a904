"""What is particular to PgBouncer in transaction mode: each transaction can be on another connection of the server.

The main parts of the contract run behind it, too (`conftest.py`), and all of it in `make test-long`.
"""

from pathlib import Path
from typing import Any

import psycopg
import pytest

from gateway.errors import StoreUnavailable
from gateway.store.postgres import PostgresStore
from tests.support.pgbouncer import pooled
from tests.support.polling import attempts
from tests.support.postgres import emptied_database
from tests.support.records import go
from tests.support.stores import StoreMaker, pooled_maker


@pytest.fixture
def behind(tmp_path: Path) -> StoreMaker:
    """Makes stores behind PgBouncer."""
    return pooled_maker(tmp_path)


@pytest.fixture
def url() -> str:
    return emptied_database()


async def test_every_transaction_has_its_deadlines(behind: StoreMaker) -> None:
    """Settings of a session would be lost, or be those of another client. Reads have deadlines too."""
    store: Any = behind()
    await store.open()
    settings = {
        "statement_timeout": "10min",
        "lock_timeout": "2s",
        "idle_in_transaction_session_timeout": "20min",
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


async def test_outage_of_the_pool_heals_by_itself(behind: StoreMaker, url: str) -> None:
    """PgBouncer's connections to the server end, and it opens others."""
    store: Any = behind()
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
