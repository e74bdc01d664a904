"""SQLite in trouble: a full disk, a locked file, too much load. Also how the file is created and queried."""

import asyncio
import gc
import re
import sqlite3
import subprocess
import sys
import time
import weakref
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.errors import StoreUnavailable
from gateway.store.sqlite import SQLiteStore
from gateway.store.sqlite.dialect import SQL
from tests.support.observer import RecordingObserver
from tests.support.records import NOW, ended, live, prediction, wish

ROOT = Path(__file__).parents[2]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "gateway.sqlite"


@pytest.fixture
def seconds() -> float:
    """How long a step may take."""
    return 60.0


LATE = pytest.mark.parametrize("seconds", [1.0])
"""For tests in which a step takes longer than it may."""


@pytest.fixture
async def store(path: Path, seconds: float) -> AsyncIterator[SQLiteStore]:
    made = SQLiteStore(path, timeout_seconds=seconds, max_pending=20)
    await made.open()
    yield made
    await made.close()


def lock(path: Path) -> sqlite3.Connection:
    """Hold the file's write lock, as a process that hangs in a transaction would."""
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("BEGIN IMMEDIATE")
    return db


@LATE
async def test_locked_file_fails_writes_in_time_and_reads_continue(store: SQLiteStore, path: Path) -> None:
    """Another process holds the lock: writers get an error soon, readers notice nothing, and it recovers by itself."""
    await store.record_created(live(), prediction())
    other = lock(path)
    begun = time.monotonic()
    with pytest.raises(StoreUnavailable) as reported:
        await store.cancel("p1", NOW)
    assert time.monotonic() - begun > 0.2
    assert reported.value.retry_after == 1
    view = await store.prediction("p1")
    assert view is not None
    other.execute("ROLLBACK")
    other.close()
    await store.ping()
    view = await store.prediction("p1")
    assert view is not None
    assert view.prediction.canceled_at is None


@LATE
async def test_timed_out_write_is_not_done_later(store: SQLiteStore, path: Path) -> None:
    """A caller who got "unavailable" does not find afterwards that the write was done."""
    other = lock(path)
    first = asyncio.ensure_future(store.learn_version("a", "acme/toy"))
    # Deadlines use real time: the second waits behind the first, and its deadline passes while the lock is held.
    await asyncio.sleep(0.2)
    second = asyncio.ensure_future(store.learn_version("b", "acme/toy"))
    outcomes = await asyncio.gather(first, second, return_exceptions=True)
    other.execute("ROLLBACK")
    other.close()
    await store.ping()
    assert all(isinstance(each, StoreUnavailable) for each in outcomes)
    assert [await store.model_of(each) for each in ("a", "b")] == [None, None]


@LATE
async def test_hits_that_timed_out_are_not_recorded_later(store: SQLiteStore, path: Path) -> None:
    """Neither those that began the set nor those that were added while it waited for the lock."""
    await store.record_created(ended(fingerprint="F", cache_until=NOW + 99), prediction())
    other = lock(path)
    requests = [wish("a", fingerprint="F", now=NOW + 10).request]
    written = store.record_hits(requests)
    requests.append(wish("b", fingerprint="F", now=NOW + 10).request)
    with pytest.raises(StoreUnavailable):
        await written
    other.execute("ROLLBACK")
    other.close()
    await store.ping()
    assert [await store.prediction(each) for each in ("pa", "pb")] == [None, None]


async def test_write_queue_is_bounded(store: SQLiteStore, path: Path) -> None:
    """With more callers than the limit, those above it are refused at once and the others are served."""
    other = lock(path)
    writes = [asyncio.ensure_future(store.learn_version(f"v{n}", "acme/toy")) for n in range(20)]
    await asyncio.sleep(0)
    assert store.pending == 20
    with pytest.raises(StoreUnavailable) as reported:
        await store.learn_version("v20", "acme/toy")
    assert not any(each.done() for each in writes)
    assert reported.value.retry_after == 1
    assert await store.model_of("v20") is None
    other.execute("ROLLBACK")
    other.close()
    await asyncio.gather(*writes)
    assert store.pending == 0
    assert await store.model_of("v19") == "acme/toy"


@LATE
async def test_slow_step_fails_at_its_deadline(store: SQLiteStore) -> None:
    slow = asyncio.ensure_future(store._write(lambda _: time.sleep(1.5)))
    read = asyncio.ensure_future(store._read(lambda _: time.sleep(1.5)))
    for each in (slow, read):
        with pytest.raises(StoreUnavailable, match="in time"):
            await each
    assert store.pending == 2, "both are still at work"


async def test_results_are_released_once_they_are_returned(store: SQLiteStore) -> None:
    """Documents are large: a returned one must not stay in memory until its deadline."""

    class Document:
        pass

    answers = weakref.WeakSet([await store._read(lambda _: Document()) for _ in range(10)])
    await store.model_of("x")
    gc.collect()
    assert not answers


async def test_full_disk_refuses_writes_and_recovers(store: SQLiteStore) -> None:
    """While the disk is full creates are refused and nothing is half written; afterwards all works."""
    (pages,) = await store._write(lambda db: db.connection.execute("PRAGMA page_count").fetchone())
    await store._write(lambda db: db.connection.execute(f"PRAGMA max_page_count = {pages + 2}"))
    small = asyncio.ensure_future(store.learn_version("v", "acme/toy"))
    big = asyncio.ensure_future(store.record_created(live(document=b"x" * 100_000), prediction()))
    outcomes = await asyncio.gather(small, big, return_exceptions=True)
    assert isinstance(outcomes[1], StoreUnavailable)
    assert outcomes[1].detail == "The store's disk is full."
    assert outcomes[1].retry_after
    assert (await store.model_of("v") is not None) == (outcomes[0] is None)
    assert await store.prediction("p1") is None
    assert await store.open_runs() == []
    await store._write(lambda db: db.connection.execute("PRAGMA max_page_count = 1000000"))
    await store.record_created(live(document=b"x" * 100_000), prediction())
    assert await store.prediction("p1") is not None


async def test_refused_write_of_the_system_is_a_clear_error(tmp_path: Path) -> None:
    """A write that the operating system refuses (here: a limit on file sizes) is a sentence, not a traceback."""
    script = """
import asyncio, resource, sys
from gateway.errors import StoreUnavailable
from gateway.store.sqlite import SQLiteStore
from tests.support.records import live, prediction

async def main():
    store = SQLiteStore(sys.argv[1])
    await store.open()
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
    try:
        await store.record_created(live(document=b"x" * 1_000_000), prediction())
    except StoreUnavailable as exc:
        print(exc.detail)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    await store.record_created(live(), prediction())
    print(await store.prediction("p1") is not None)
    await store.close()

asyncio.run(main())
"""
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", script, str(tmp_path / "x.sqlite")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.splitlines() == ["The store's disk cannot be read or written.", "True"], done.stderr


@pytest.mark.parametrize("part", ["", "-wal", "-shm"])
@pytest.mark.parametrize("how", ["deleted", "replaced"])
async def test_a_file_that_is_lost_while_serving_refuses_writes(
    store: SQLiteStore, path: Path, part: str, how: str
) -> None:
    """Writes into a file without a name would be gone with the process. Back in its place, it is used again."""
    await store.record_created(live(), prediction())
    observer = RecordingObserver()
    store.set_observer(observer)
    lost, aside = Path(f"{path}{part}"), path.with_name("aside")
    lost.rename(aside)
    if how == "replaced":
        lost.write_bytes(aside.read_bytes())
    for ask in (lambda: store.record_created(live("r2"), prediction("p2", "r2")), store.ping):
        with pytest.raises(StoreUnavailable, match=rf"file gateway\.sqlite{part} was {how} while the gateway runs"):
            await ask()
    assert observer.of("store_failed") == [("write", "lost")] * 2
    assert store.recent_failure is not None
    assert await store.prediction("p1") is not None
    aside.rename(lost)
    await store.ping()
    await store.record_created(live("r2"), prediction("p2", "r2"))


async def test_after_a_write_failed_on_a_full_disk_a_ping_fails_until_there_is_room(store: SQLiteStore) -> None:
    """A ping's own small write succeeds on a disk that is too full for creates."""
    observer = RecordingObserver()
    store.set_observer(observer)
    (pages,) = await store._write(lambda db: db.connection.execute("PRAGMA page_count").fetchone())
    await store._write(lambda db: db.connection.execute(f"PRAGMA max_page_count = {pages + 2}"))
    await store.ping()
    with pytest.raises(StoreUnavailable):
        await store.record_created(live(document=b"x" * 100_000), prediction())
    for _ in range(2):
        with pytest.raises(StoreUnavailable, match="The store's disk is full"):
            await store.ping()
    assert set(observer.of("store_failed")) == {("write", "full")}
    await store._write(lambda db: db.connection.execute("PRAGMA max_page_count = 1000000"))
    await store.ping()
    assert store.recent_failure == "The store's disk is full."
    assert await store.model_of("") is None


@LATE
async def test_a_locked_file_is_no_lasting_failure(store: SQLiteStore, path: Path) -> None:
    """It is gone as soon as the other process is."""
    observer = RecordingObserver()
    store.set_observer(observer)
    other = lock(path)
    with pytest.raises(StoreUnavailable):
        await store.learn_version("v", "acme/toy")
    other.execute("ROLLBACK")
    other.close()
    await store.ping()
    assert (observer.of("store_failed"), store.recent_failure) == ([], None)


async def test_second_process_reads_and_writes_beside_a_busy_gateway(store: SQLiteStore, path: Path) -> None:
    """`gateway keys create` in a shell while the gateway is under load."""
    script = (
        "import asyncio, sys\n"
        "from gateway.store.sqlite import SQLiteStore\n"
        "from tests.support.audit import BY_TEST\n"
        "from tests.support.records import key\n"
        "async def main():\n"
        "    store = SQLiteStore(sys.argv[1]); await store.open()\n"
        "    print(await store.model_of('v'))\n"
        "    for n in range(20): await store.add_key(key(f'cli{n}'), actor=BY_TEST)\n"
        "    await store.revoke_key('cli3', 5.0, actor=BY_TEST); await store.close()\n"
        "asyncio.run(main())\n"
    )
    await store.learn_version("v", "acme/toy")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, str(path), cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    ended = asyncio.ensure_future(process.communicate())
    n = 0
    while not ended.done():
        n += 1
        await store.record_created(live(f"r{n}"), prediction(f"p{n}", f"r{n}"))
    assert (await ended)[0] == b"acme/toy\n"
    assert process.returncode == 0
    revoked = await store.key("cli3")
    assert revoked is not None
    assert revoked.revoked_at == 5.0
    assert len(await store.keys()) == 20


# Tables with a row for each open run, or for each team, key and user that has one.
OF_ALL_UNDER_WAY = ("stuck_reservations", "held_by_scope", "meters_in_use", "clear_meters")


# Sums use an index and read a bounded number of rows: days, keys, models and users of a window, or lines of a batch.
SUMS = (
    *("usage_by_key", "usage_by_model", "usage_by_user", "usage_by_tag"),
    *("audited_days", "audited_users", "audited_tags", "audited_spent", "charges_of_day"),
    *("rebuild_days", "rebuild_users", "rebuild_tags", "rebuild_spent", "held_by_scope"),
)


# Tables of keys are as long as the teams' `max_issued_keys` let them be. Of a search, `p` is a bounded number of rows,
# which an index has found and which are sorted once more.
SCANS = {
    "keys_of_all": ["SCAN keys USING INDEX keys_of_team"],
    "delete_old_keys": ["SCAN keys"],
    "delete_old_key_uses": ["SCAN key_uses"],
    **{f"search_of_{each}": ["SCAN p"] for each in ("all", "team", "owner", "key")},
}


def parameters(statement: str) -> dict[str, None] | tuple[None, ...]:
    names = re.findall(r":(\w+)", statement)
    return dict.fromkeys(names) if names else (None,) * statement.count("?")


@pytest.mark.parametrize("name", SQL)
async def test_every_statement_uses_an_index(store: SQLiteStore, name: str) -> None:
    """With a million records every query is as fast as today."""
    statement = SQL[name]
    plan = await store._read(
        lambda db: [row[3] for row in db.connection.execute(f"EXPLAIN QUERY PLAN {statement}", parameters(statement))]
    )
    scans = [step for step in plan if step.startswith("SCAN") and "VIRTUAL TABLE" not in step]
    if name not in OF_ALL_UNDER_WAY:
        # A list of all items reads all of them, in the order of an index.
        assert scans == SCANS.get(name, [])
    if name not in SUMS and SCANS.get(name) != ["SCAN p"]:
        assert not [step for step in plan if "TEMP B-TREE" in step or "AUTOMATIC" in step]
    if re.search(r"_(older|newer)$", name):
        assert "(created_at,id)>(?,?) AND (created_at,id)<(?,?)" in plan[0]


@pytest.mark.parametrize(
    ("name", "index"),
    [
        ("entry_to_hit", "entries_by_fingerprint (fingerprint=? AND ended_at>?)"),
        ("run_to_join", "runs_by_fingerprint (fingerprint=?)"),
        ("run_to_join_provisionally", "runs_by_provisional (provisional=?)"),
        ("run_without_identity", "runs_unidentified (provisional=?)"),
        ("settle_identity", "runs_by_fingerprint (fingerprint=?)"),
        ("someone_waits", "predictions_waiting (run_id=?)"),
        ("deadlines", "predictions_waiting (run_id=?)"),
        ("deadlines", "runs_open (id>?)"),
        ("predictions_of_run", "predictions_by_run (run_id=?)"),
        (
            "predictions_of_owner_older",
            "predictions_of_owner (team=? AND owner=? AND kind=? AND (created_at,id)>(?,?) AND (created_at,id)<(?,?))",
        ),
        (
            "files_of_owner_any",
            "files_of_owner (team=? AND owner=? AND (created_at,id)>(?,?) AND (created_at,id)<(?,?))",
        ),
        ("sharers", "predictions_by_run (run_id=?)"),
        ("other_run_of_upstream_id", "runs_by_upstream_id (upstream_id=? AND kind=?)"),
        ("owns_upstream_id", "runs_by_upstream_id (upstream_id=?)"),
        ("runs_to_clear", "runs_to_clear (ended_at<?)"),
        ("cache_stats_of_all", "entries_of_all (cache_until>?)"),
        ("cache_stats_of_team", "entries_of_team (team=? AND cache_until>?)"),
        ("entries_of_team", "entries_of_team (team=?)"),
        ("entries_by_use", "entries_by_use (last_used_at>?)"),
        ("move_key", "idempotency_by_prediction (prediction_id=?)"),
        ("forget_key", "idempotency_by_prediction (prediction_id=?)"),
        ("delete_expired_idempotency", "idempotency_by_expiry (expires_at<?)"),
    ],
)
async def test_queries_use_the_intended_index(store: SQLiteStore, name: str, index: str) -> None:
    """Another index would work too, but grows with everything that was ever recorded."""
    plan = await store._read(
        lambda db: [row[3] for row in db.connection.execute(f"EXPLAIN QUERY PLAN {SQL[name]}", parameters(SQL[name]))]
    )
    assert [step for step in plan if step.endswith(f"INDEX {index}")], plan
