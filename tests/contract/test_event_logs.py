"""Stored parts of runs' event streams: order, replacement, retention and deletion."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from gateway.store.interface import Store
from gateway.store.sqlite import SQLiteStore
from gateway.streams.ports import LogPart
from tests.support.event_logs import append
from tests.support.records import NOW, finish, go


async def test_parts_are_returned_in_the_order_of_their_events(store: Store) -> None:
    await go(store)
    assert await store.event_parts("run1") == []
    for first, part in ((0, b"zero"), (2, b"two"), (10, b"ten")):
        assert await append(store, "run1", first, part, kept_from=0)
    assert await store.event_parts("run1") == [b"zero", b"two", b"ten"]
    assert await store.event_parts("run2") == []


async def test_parts_survive_a_restart(store: Store, another) -> None:
    """After a restart a reader resumes at the event it had reached."""
    await go(store)
    await append(store, "run1", 0, b"zero", kept_from=0)
    second = another()
    await second.open()
    try:
        assert await second.event_parts("run1") == [b"zero"]
    finally:
        await second.close()


async def test_rewritten_part_replaces_the_parts_after_it(store: Store) -> None:
    """A write that seemed to fail is repeated with more events: no event is stored twice."""
    await go(store)
    await append(store, "run1", 0, b"zero", kept_from=0)
    await append(store, "run1", 2, b"two", kept_from=0)
    await append(store, "run1", 2, b"two and more", kept_from=0)
    assert await store.event_parts("run1") == [b"zero", b"two and more"]
    await append(store, "run1", 0, b"whole", kept_from=0)
    assert await store.event_parts("run1") == [b"whole"]


async def test_unneeded_parts_are_deleted(store: Store) -> None:
    """A log is bounded on disk as in memory; a part that contains a needed event stays."""
    await go(store)
    for first in (0, 5, 10):
        await append(store, "run1", first, b"%d" % first, kept_from=0)
    await append(store, "run1", 15, b"15", kept_from=9)
    assert await store.event_parts("run1") == [b"5", b"10", b"15"]
    await append(store, "run1", 20, b"20", kept_from=10)
    assert await store.event_parts("run1") == [b"10", b"15", b"20"]
    await append(store, "run1", 40, b"40", kept_from=40)
    assert await store.event_parts("run1") == [b"40"]


async def test_logs_of_runs_are_separate(store: Store) -> None:
    await go(store, "1")
    await go(store, "2")
    await append(store, "run1", 0, b"one", kept_from=0)
    await append(store, "run2", 0, b"two", kept_from=7)
    assert (await store.event_parts("run1"), await store.event_parts("run2")) == ([b"one"], [b"two"])


async def test_parts_of_unknown_or_deleted_runs_are_not_stored(store: Store) -> None:
    """A batch that arrives after the janitor restores nothing."""
    assert not await append(store, "run1", 0, b"early", kept_from=0)
    await go(store)
    await finish(store)
    assert await append(store, "run1", 0, b"said", kept_from=0)
    await store.clear_data("run1", b"cleared")
    assert await store.event_parts("run1") == []
    assert not await append(store, "run1", 5, b"late", kept_from=0)
    assert await store.event_parts("run1") == []


async def test_log_is_deleted_with_its_run(store: Store) -> None:
    await go(store)
    await finish(store)
    await append(store, "run1", 0, b"said", kept_from=0)
    assert await store.delete_records(NOW - 10, 10) == 0
    assert await store.event_parts("run1") == [b"said"]
    assert await store.delete_records(NOW + 100, 10) == 1
    assert await store.event_parts("run1") == []


@pytest.mark.parametrize("how", ["cleared", "deleted"])
async def test_deleted_events_leave_no_bytes_on_disk(tmp_path: Path, how: str) -> None:
    """No trace of the text is left in the files of SQLite. PostgreSQL removes it later (docs/deploy.md)."""
    path = tmp_path / "gateway.sqlite"
    store = SQLiteStore(path)
    await store.open()
    await go(store)
    await finish(store)
    await append(store, "run1", 0, b"a secret that was sent", kept_from=0)
    if how == "cleared":
        await store.clear_data("run1", b"cleared")
    else:
        await store.delete_records(NOW + 100, 10)
    await store.close()
    assert b"a secret that was sent" not in path.read_bytes()
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT count(*) FROM event_logs").fetchone() == (0,)


async def test_newest_parts_of_several_logs_are_read_at_once(store: Store) -> None:
    """Where several nodes serve: the parts that can have events after what was read before."""
    for name in "123":
        await go(store, name)
    for first in (0, 2, 10):
        await append(store, "run1", first, b"%d" % first, kept_from=0)
    await append(store, "run2", 4, b"4", kept_from=0)
    found = await store.event_parts_since({"run1": 2, "run2": 0, "run3": 0, "unknown": 0})
    if isinstance(store, SQLiteStore):
        assert found == {}
        return
    assert found == {"run1": [b"2", b"10"], "run2": [b"4"]}
    assert (await store.event_parts_since({"run1": 12}))["run1"] == [b"10"]
    assert (await store.event_parts_since({"run1": 5}))["run1"] == [b"2", b"10"]
    assert await store.event_parts_since({}) == {}


async def test_parts_of_many_logs_are_stored_in_one_step(store: Store) -> None:
    runs = [f"run{number}" for number in range(1, 31)]
    for number in range(1, 31):
        await go(store, str(number))
    await append(store, "run1", 5, b"later", kept_from=0)
    added = await store.append_events([LogPart(each, 0, each.encode(), 0) for each in (*runs, "unknown")])
    assert added == set(runs)
    assert [await store.event_parts(run_id) for run_id in runs] == [[run_id.encode()] for run_id in runs]
    assert await store.append_events([]) == set()
