"""What runs' streams have said: kept in parts, found after any end, and gone with the data."""

import sqlite3
from contextlib import closing

import pytest

from gateway.store.interface import Store
from tests.support.records import NOW, finish, go


async def test_parts_come_back_in_the_order_of_their_events(store: Store) -> None:
    await go(store)
    assert await store.event_parts("run1") == []
    for first, part in ((0, b"zero"), (2, b"two"), (10, b"ten")):
        assert await store.append_events("run1", first, part, kept_from=0)
    assert await store.event_parts("run1") == [b"zero", b"two", b"ten"]
    assert await store.event_parts("run2") == []


async def test_parts_outlive_the_store(store: Store, another) -> None:
    """A reader goes on after a restart where it was."""
    await go(store)
    await store.append_events("run1", 0, b"zero", kept_from=0)
    second = another()
    await second.open()
    try:
        assert await second.event_parts("run1") == [b"zero"]
    finally:
        await second.close()


async def test_a_part_that_is_kept_again_replaces_what_follows(store: Store) -> None:
    """A write that seemed to fail and did not is repeated with more in it: nothing is there twice."""
    await go(store)
    await store.append_events("run1", 0, b"zero", kept_from=0)
    await store.append_events("run1", 2, b"two", kept_from=0)
    await store.append_events("run1", 2, b"two and more", kept_from=0)
    assert await store.event_parts("run1") == [b"zero", b"two and more"]
    await store.append_events("run1", 0, b"whole", kept_from=0)
    assert await store.event_parts("run1") == [b"whole"]


async def test_parts_that_are_no_longer_needed_go(store: Store) -> None:
    """A log is bounded on disk as it is in memory; a part of which an event is still needed stays."""
    await go(store)
    for first in (0, 5, 10):
        await store.append_events("run1", first, b"%d" % first, kept_from=0)
    await store.append_events("run1", 15, b"15", kept_from=9)
    assert await store.event_parts("run1") == [b"5", b"10", b"15"]
    await store.append_events("run1", 20, b"20", kept_from=10)
    assert await store.event_parts("run1") == [b"10", b"15", b"20"]
    await store.append_events("run1", 40, b"40", kept_from=40)
    assert await store.event_parts("run1") == [b"40"]


async def test_logs_are_each_their_runs_own(store: Store) -> None:
    await go(store, "1")
    await go(store, "2")
    await store.append_events("run1", 0, b"one", kept_from=0)
    await store.append_events("run2", 0, b"two", kept_from=7)
    assert (await store.event_parts("run1"), await store.event_parts("run2")) == ([b"one"], [b"two"])


async def test_nothing_is_kept_of_what_is_unknown_or_was_removed(store: Store) -> None:
    """A batch that comes after the janitor brings nothing back."""
    assert not await store.append_events("run1", 0, b"early", kept_from=0)
    await go(store)
    await finish(store)
    assert await store.append_events("run1", 0, b"said", kept_from=0)
    await store.clear_data("run1", b"cleared")
    assert await store.event_parts("run1") == []
    assert not await store.append_events("run1", 5, b"late", kept_from=0)
    assert await store.event_parts("run1") == []


async def test_a_log_goes_with_the_record_of_its_run(store: Store) -> None:
    await go(store)
    await finish(store)
    await store.append_events("run1", 0, b"said", kept_from=0)
    assert await store.delete_records(NOW - 10, 10) == 0
    assert await store.event_parts("run1") == [b"said"]
    assert await store.delete_records(NOW + 100, 10) == 1
    assert await store.event_parts("run1") == []


@pytest.mark.parametrize("how", ["cleared", "deleted"])
async def test_what_was_said_is_not_left_on_the_disk(store: Store, how: str) -> None:
    """Deleting really deletes."""
    await go(store)
    await finish(store)
    await store.append_events("run1", 0, b"a secret that was told", kept_from=0)
    if how == "cleared":
        await store.clear_data("run1", b"cleared")
    else:
        await store.delete_records(NOW + 100, 10)
    await store.close()
    path = getattr(store, "path")  # noqa: B009 - of the one backend that has files
    assert b"a secret that was told" not in path.read_bytes()
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT count(*) FROM event_logs").fetchone() == (0,)
    await store.open()
