"""The file of a SQLite store: where it is created, who can read it, and which addresses name one."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.errors import StoreUnavailable
from gateway.store.sqlite import SQLiteStore
from gateway.store.urls import open_store
from tests.support.audit import BY_TEST
from tests.support.records import key


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "gateway.sqlite"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SQLiteStore]:
    made = SQLiteStore(path, max_pending=20)
    await made.open()
    yield made
    await made.close()


async def test_unopenable_file_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path, tmp_path / "file" / "gateway.sqlite"):
        store = SQLiteStore(path)
        with pytest.raises(StoreUnavailable, match=r"cannot be opened"):
            await store.open()
        await store.close()
        with pytest.raises(StoreUnavailable, match="closed"):
            await store.ping()


async def test_file_of_a_newer_gateway_is_refused_and_unchanged(store: SQLiteStore, path: Path) -> None:
    """After a downgrade the gateway names the problem before it changes anything."""
    await store.add_key(key(), actor=BY_TEST)
    await store._write(lambda db: db.connection.execute("PRAGMA user_version = 99"))
    await store.close()
    before = path.read_bytes()
    with pytest.raises(StoreUnavailable, match=r"newer gateway \(schema version 99"):
        await SQLiteStore(path).open()
    assert path.read_bytes() == before


async def test_a_folder_is_never_created(tmp_path: Path) -> None:
    """A mistyped path, or a volume that is not mounted, does not become an empty ledger."""
    path = tmp_path / "not" / "there" / "gateway.sqlite"
    for ask in (SQLiteStore(path).open, SQLiteStore(path).inspect):
        with pytest.raises(StoreUnavailable, match=r"there is no folder .*/not/there\. Create it, or correct"):
            await ask()
    assert list(tmp_path.iterdir()) == []


async def test_a_store_is_created_only_where_that_is_asked_for(path: Path) -> None:
    """Commands that read find nothing and leave nothing; one that creates a store says that it is new."""
    with pytest.raises(StoreUnavailable, match="There is no store at"):
        await SQLiteStore(path).open(create=False)
    assert await SQLiteStore(path).inspect() is False
    assert list(path.parent.iterdir()) == []
    path.touch()
    with pytest.raises(StoreUnavailable, match="has no store in it"):
        await SQLiteStore(path).open(create=False)
    assert await SQLiteStore(path).inspect() is False
    assert path.stat().st_size == 0
    for create, is_new in ((True, True), (True, False), (False, False)):
        store = SQLiteStore(path)
        assert await store.open(create=create) is is_new
        await store.close()
    assert await SQLiteStore(path).inspect() is True


async def test_inspecting_says_what_is_wrong(store: SQLiteStore, path: Path) -> None:
    """What would end the start is found by `gateway check --upstream`, also beside a server."""
    assert await store.inspect() is True
    await store._write(lambda db: db.connection.execute("PRAGMA user_version = 99"))
    with pytest.raises(StoreUnavailable, match="newer gateway"):
        await store.inspect()
    damaged = path.with_name("damaged.sqlite")
    damaged.write_bytes(b"this is no database, but it is long enough to be mistaken for one" * 100)
    with pytest.raises(StoreUnavailable, match="not a database"):
        await SQLiteStore(damaged).inspect()


@pytest.mark.parametrize("round_", range(6))
async def test_several_processes_can_create_the_file_at_once(path: Path, round_: int) -> None:
    """The gateway and the command line start together in an empty folder."""
    stores = [SQLiteStore(path) for _ in range(16)]
    await asyncio.gather(*(each.open() for each in stores))
    await asyncio.gather(*(each.ping() for each in stores))
    await asyncio.gather(*(each.close() for each in stores))


async def test_file_is_readable_by_its_owner_only(tmp_path: Path) -> None:
    """It contains prompts and digests of keys; this holds for any umask."""
    path = tmp_path / "folder" / "gateway.sqlite"
    path.parent.mkdir(mode=0o750)
    mask = os.umask(0)
    try:
        store = SQLiteStore(path)
        await store.open()
        await store.ping()
        assert path.parent.stat().st_mode & 0o777 == 0o750
        assert {each.name: each.stat().st_mode & 0o777 for each in path.parent.iterdir()} == {
            "gateway.sqlite": 0o600,
            "gateway.sqlite-wal": 0o600,
            "gateway.sqlite-shm": 0o600,
        }
        await store.close()
    finally:
        os.umask(mask)


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite:///gateway.sqlite", "gateway.sqlite"),
        ("sqlite:///var/gateway.sqlite", "var/gateway.sqlite"),
        ("sqlite:////var/lib/gateway.sqlite", "/var/lib/gateway.sqlite"),
        ("sqlite:////var/my%20data/x.db", "/var/my data/x.db"),
    ],
)
def test_url_names_a_file(url: str, path: str) -> None:
    store = open_store(url)
    assert isinstance(store, SQLiteStore)
    assert store.path == Path(path)


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("redis://localhost/0", "or postgresql://user@host/database"),
        ("gateway.sqlite", "expected sqlite:///"),
        ("", "expected sqlite:///"),
        ("sqlite://gateway.sqlite", "expected sqlite:///"),
        ("sqlite:///", "has no file name"),
        ("sqlite:////var/", "has no file name"),
        ("sqlite:///:memory:", "would lose"),
        ("sqlite:///x.db?mode=ro", "expected sqlite:///"),
    ],
)
def test_other_url_is_refused_with_the_reason(url: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        open_store(url)
