"""What is past its time is removed."""

import asyncio
import contextlib

import msgspec
import pytest

from gateway.domain.audit import AuditEntry
from gateway.domain.records import RunState
from gateway.operations.janitor import Janitor
from gateway.outputs.rules.outputs import FETCH_SECONDS
from gateway.runtime.live import LiveSettings
from tests.support.audit import FakeAuditLog
from tests.support.clock import START, ManualClock, settle
from tests.support.fakes import AWAY, FakeStore
from tests.support.live import RETENTION
from tests.support.polling import until
from tests.support.records import ended, file, live, prediction

DAY = 86_400.0


@pytest.fixture
def cleared() -> list[int]:
    return []


@pytest.fixture
def janitor(store: FakeStore, clock: ManualClock, cleared: list[int]) -> Janitor:
    return Janitor(
        store,
        store,
        FakeAuditLog(),
        store,
        clock,
        LiveSettings(RETENTION),
        on_cleared=lambda: cleared.append(1),
    )


def fill(store: FakeStore, *, runs: int, ended_at: float) -> None:
    for number in range(runs):
        run = ended(
            f"r{number}", at=ended_at, document=b'{"input":{"p":1},"output":"x","logs":"y","status":"succeeded"}'
        )
        store.runs[run.id] = run
        store.kept[f"p{number}"] = prediction(f"p{number}", run.id, created_at=ended_at)


async def test_data_is_cleared_an_hour_after_the_end(janitor, store, clock, cleared):
    """Input, output and logs are deleted, as upstream's are; the record stays. Memory is cleared too."""
    fill(store, runs=3, ended_at=START)
    store.runs["live"] = live("live")
    await clock.advance(3600)
    await janitor.clean()
    assert not any(run.data_removed for run in store.runs.values())
    await clock.advance(1)
    await janitor.clean()
    for number in range(3):
        run = store.runs[f"r{number}"]
        assert run.document == b'{"input":{},"output":null,"logs":"","status":"succeeded","data_removed":true}'
        assert run.request == b""
    assert store.runs["live"].state is RunState.LIVE
    assert not store.runs["live"].data_removed
    assert (len(store.kept), cleared) == (3, [1])


async def test_recently_shared_data_is_kept_a_little_longer(janitor, store, clock):
    """A hit at the last moment can still be read, with its files, for some minutes."""
    fill(store, runs=1, ended_at=START)
    store.runs["r0"] = msgspec.structs.replace(store.runs["r0"], cache_until=START + 7200)
    await clock.advance(7201)
    await janitor.clean()
    assert not store.runs["r0"].data_removed
    await clock.advance(FETCH_SECONDS)
    await janitor.clean()
    assert store.runs["r0"].data_removed


async def test_records_are_deleted_after_their_days(janitor, store, clock):
    """A month later the id is unknown; a record whose run goes on stays."""
    fill(store, runs=2, ended_at=START)
    store.runs["live"] = live("live")
    store.kept["p-live"] = prediction("p-live", "live", created_at=START)
    await clock.advance(30 * DAY)
    await janitor.clean()
    assert len(store.kept) == 3
    await clock.advance(1)
    await janitor.clean()
    assert list(store.kept) == ["p-live"]


async def test_expired_files_are_deleted(janitor, store, clock):
    """Upstream has deleted them too."""
    store.uploaded = {name: file(name, expires_at=at) for name, at in (("old", START - 1), ("new", START + 1))}
    await janitor.clean()
    assert list(store.uploaded) == ["new"]


async def test_work_is_done_in_small_steps(janitor, store, clock):
    """Each step is short, so that requests come in between; all of it is done."""
    fill(store, runs=120, ended_at=START - 31 * DAY)
    await janitor.clean()
    assert store.calls.count("runs_to_clear") == 13
    assert store.calls.count("delete_records") == 3
    assert store.kept == {}


async def test_janitor_runs_every_minute_and_survives_a_store_failure(janitor, store, clock):
    """What could not be done now is done in the next round."""
    store.uploaded = {"old": file("old", expires_at=START - 1)}
    store.trouble = AWAY
    task = asyncio.create_task(janitor.run())
    await clock.advance(59)
    assert store.calls == []
    await clock.advance(1)
    assert store.uploaded
    store.trouble = None
    await clock.advance(60)
    await until(lambda: not store.uploaded)
    assert not task.done()
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    await settle()


async def test_old_entries_of_the_audit_log_are_deleted_in_steps(store, clock):
    """After a year. Younger ones stay."""
    ages = [366.0] * 120 + [364.0]
    entries = [
        AuditEntry(id=n, at=START - age * DAY, actor="api", action="a", subject="s", team=None, before=None, after=None)
        for n, age in enumerate(ages)
    ]
    audit = FakeAuditLog(*entries)
    await Janitor(store, store, audit, store, clock, LiveSettings(RETENTION), on_cleared=lambda: None).clean()
    assert audit.entries == entries[-1:]


async def test_one_damaged_record_does_not_stop_the_others(janitor, store, clock):
    """It keeps its own data only."""
    fill(store, runs=2, ended_at=START - 7200)
    store.runs["r0"] = ended("r0", at=START - 7200, document=b"")
    with contextlib.suppress(Exception):
        await janitor.clean()
    assert store.runs["r1"].data_removed


async def test_only_the_node_that_leads_cleans(store, clock):
    """The others would do the same work again."""
    leads = [False]
    janitor = Janitor(
        store,
        store,
        FakeAuditLog(),
        store,
        clock,
        LiveSettings(RETENTION),
        on_cleared=lambda: None,
        is_leader=lambda: leads[0],
    )
    fill(store, runs=1, ended_at=START - DAY)
    task = asyncio.create_task(janitor.run())
    await clock.advance(61)
    assert not store.runs["r0"].data_removed
    leads[0] = True
    await clock.advance(61)
    await until(lambda: store.runs["r0"].data_removed)
    task.cancel()


async def test_notes_of_old_connections_are_deleted_in_steps(store, clock):
    """Where the store keeps some; otherwise they would stay until the next start."""
    left = [120]

    async def forget(limit: int) -> int:
        deleted = min(limit, left[0])
        left[0] -= deleted
        return deleted

    janitor = Janitor(store, store, clock, LiveSettings(RETENTION), on_cleared=lambda: None, forget_sessions=forget)
    await janitor.clean()
    assert left == [0]
