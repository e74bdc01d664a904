"""A damaged SQLite file: no write that needs a damaged page is acknowledged, and pings fail after any damage."""

import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.errors import StoreUnavailable
from gateway.store.sqlite import SQLiteStore
from tests.support.observer import RecordingObserver

KNOWN = "0" * 64


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "gateway.sqlite"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SQLiteStore]:
    made = SQLiteStore(path, max_pending=20)
    await made.open()
    for n in range(200):
        await made.learn_version(f"{n:064}", "m" * 300)
    yield made
    await made.close()


def damage(path: Path, *tables: str) -> None:
    """Overwrite the first page of tables in the file, whatever processes have it open."""
    db = sqlite3.connect(path)
    # A passive checkpoint leaves the caches of other connections valid.
    db.execute("PRAGMA wal_checkpoint(PASSIVE)")
    pages = [db.execute("SELECT rootpage FROM sqlite_schema WHERE name = ?", (name,)).fetchone()[0] for name in tables]
    db.close()
    with path.open("r+b") as file:
        for page in pages:
            file.seek((page - 1) * 4096)
            file.write(b"\xff" * 4096)


async def test_file_that_is_no_database_is_a_clear_error(path: Path) -> None:
    path.write_bytes(b"this is no database, but it is long enough to be mistaken for one" * 100)
    with pytest.raises(StoreUnavailable, match="not a database"):
        await SQLiteStore(path).open()


async def test_damage_before_the_start_is_a_clear_error(store: SQLiteStore, path: Path) -> None:
    await store.close()
    damage(path, "versions", "pings")
    await store.open()
    with pytest.raises(StoreUnavailable, match="damaged"):
        await store.model_of(KNOWN)
    with pytest.raises(StoreUnavailable):
        await store.ping()


async def test_a_write_that_met_damage_fails_pings(store: SQLiteStore, path: Path) -> None:
    """The page that a ping writes is whole, and creates fail all the same."""
    await store.close()
    damage(path, "versions")
    await store.open()
    await store.ping()
    with pytest.raises(StoreUnavailable, match="damaged"):
        await store.learn_version(KNOWN, "acme/toy")
    with pytest.raises(StoreUnavailable, match="damaged"):
        await store.ping()


async def test_a_read_that_met_damage_fails_pings_and_writes_of_the_same_pages(store: SQLiteStore, path: Path) -> None:
    """The writer has the pages in its cache. A write beside the damage would be lost with a restart."""
    observer = RecordingObserver()
    store.set_observer(observer)
    damage(path, "versions")
    await store.ping()
    with pytest.raises(StoreUnavailable, match="damaged"):
        await store.model_of(KNOWN)
    assert store.recent_failure == "The store's file is damaged."
    with pytest.raises(StoreUnavailable, match="damaged"):
        await store.learn_version("f" * 64, "acme/toy")
    with pytest.raises(StoreUnavailable, match="damaged"):
        await store.ping()
    assert set(observer.of("store_failed")) == {("read", "damaged"), ("write", "damaged")}


async def test_damage_that_only_a_read_met_fails_pings(store: SQLiteStore, path: Path) -> None:
    damage(path, "versions")
    with pytest.raises(StoreUnavailable, match="damaged"):
        await store.model_of(KNOWN)
    for _ in range(2):
        with pytest.raises(StoreUnavailable, match="damaged"):
            await store.ping()
