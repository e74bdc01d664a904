"""The PostgreSQL store while the server has no connection, no disk or no answer for it, and afterwards."""

import asyncio
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import psycopg
import pytest

from gateway.errors import StoreAway, StoreUnavailable
from gateway.store.postgres import PostgresStore
from tests.support.polling import attempts
from tests.support.postgres import emptied_database, server
from tests.support.stores import answered


@pytest.fixture
def url() -> str:
    return emptied_database()


def do(url: str, *statements: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        for each in statements:
            connection.execute(each)


@pytest.fixture
def limited(url: str) -> Iterator[str]:
    """The address for a user that may have three connections."""
    do(url, "CREATE ROLE few LOGIN CONNECTION LIMIT 3", "GRANT ALL ON ALL TABLES IN SCHEMA public TO few")
    yield url.replace("gateway@", "few@")
    do(url, "DROP OWNED BY few", "DROP ROLE few")


async def test_threads_that_get_no_connection_leave_the_work_to_others(limited: str) -> None:
    """The server is full of connections: what is connected does all, and nothing fails."""
    store = PostgresStore(limited, decide=4, read=2)
    await store.open()
    await store.ping()
    await asyncio.gather(*(store.learn_version(f"v{n}", "acme/toy") for n in range(50)))
    assert await store.model_of("v49") == "acme/toy"
    await store.close()
    assert store.pending == 0


async def test_server_without_a_free_connection_is_told(limited: str) -> None:
    """When one is free again, everything goes on."""
    store = PostgresStore(limited, decide=1, read=1, timeout_seconds=1.0)
    await store.open()
    taken = [await connected(limited) for _ in range(3)]
    with pytest.raises(StoreAway, match="has too many connections"):
        await refused(store)
    for each in taken:
        each.close()
    await answered(store)
    await store.close()


async def connected(url: str) -> psycopg.Connection[Any]:
    """Connect as soon as the server has ended what another has closed."""
    async for _ in attempts():
        with suppress(psycopg.OperationalError):
            return psycopg.connect(url)
    raise AssertionError("no connection became free")


async def refused(store: PostgresStore) -> None:
    """Ask until the store says more than that it is late."""
    async for _ in attempts():
        try:
            await store.learn_version("v", "acme/toy")
        except StoreUnavailable as exc:
            if "in time" not in exc.detail:
                raise


async def test_server_that_stands_still_loses_its_connections(url: str) -> None:
    """Its process says nothing and does not end, as after the failure of a disk. The next connection works."""
    store = PostgresStore(url, decide=1, read=1, timeout_seconds=1.0)
    await store.open()
    process: int = await store._write(lambda db: db.connection.info.backend_pid)  # type: ignore[attr-defined]
    os.kill(process, signal.SIGSTOP)
    try:
        with pytest.raises(StoreUnavailable, match="in time"):
            await store.learn_version("v", "acme/toy")
        async for _ in attempts():
            try:
                await store.learn_version("v", "acme/toy")
            except StoreUnavailable:
                continue
            break
        assert await store.model_of("v") == "acme/toy"
    finally:
        os.kill(process, signal.SIGCONT)
    await store.close()


@pytest.fixture
def small_disk(url: str) -> Iterator[Path]:
    """A disk of a few megabytes that has a table on it."""
    folder = server().folder / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "none", folder], capture_output=True, check=False
    )
    if mounted.returncode:
        folder.rmdir()
        pytest.skip("no tmpfs can be mounted here")
    owner = server().folder.stat()
    os.chown(folder, owner.st_uid, owner.st_gid)
    try:
        do(url, f"CREATE TABLESPACE small LOCATION '{folder}'", "ALTER TABLE versions SET TABLESPACE small")
        yield folder
        do(url, "ALTER TABLE versions SET TABLESPACE pg_default", "DROP TABLESPACE small")
    finally:
        subprocess.run(["umount", "-l", folder], check=True)
        folder.rmdir()


async def test_full_disk_fails_writes_and_heals_when_there_is_room(url: str, small_disk: Path) -> None:
    """Small writes may still succeed, so the store says so until a large one has succeeded."""
    large = "".join(sha256(bytes([n])).hexdigest() for n in range(256)) * 40
    store = PostgresStore(url, decide=1, read=1)
    await store.open()
    filler = small_disk / "filler"
    with suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(b"x" * 4096)
    with pytest.raises(StoreUnavailable) as reported:
        await store.learn_version("v", large)
    assert (reported.value.detail, reported.value.retry_after) == ("The store's disk is full.", 30)
    assert store.recent_failure == "The store's disk is full."
    with pytest.raises(StoreUnavailable, match="disk is full"):
        await store.ping()
    filler.unlink()
    await store.ping()
    await store.learn_version("v", large)
    await store.close()


async def test_database_that_takes_no_writes_is_told(url: str) -> None:
    """As a service does it whose disk is nearly full."""
    store = PostgresStore(url, decide=1, read=1)
    await store.open()
    name = psycopg.conninfo.conninfo_to_dict(url)["dbname"]
    do(server().url("postgres"), f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    try:
        with pytest.raises(StoreUnavailable, match="is read-only"):
            await store.learn_version("v", "acme/toy")
        assert store.recent_failure == "The store's database is read-only."
    finally:
        do(server().url("postgres"), f"ALTER DATABASE {name} RESET default_transaction_read_only")
    await store.close()


async def test_connection_to_a_server_that_has_become_read_only_is_not_kept(url: str) -> None:
    """Another server is the primary now, and the address leads to it. The step is done there."""
    store = PostgresStore(url, decide=1, read=1)
    await store.open()
    await store._write(lambda db: db.connection.execute("SET default_transaction_read_only = on"))  # type: ignore[attr-defined]
    await store.learn_version("v", "acme/toy")
    assert await store.model_of("v") == "acme/toy"
    await store.close()
