"""`Cancel-After` deadlines, kept by one task in order of time."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from gateway.errors import NotFound, StoreUnavailable
from gateway.predictions.deadlines import Deadlines
from tests.support.clock import START, ManualClock, settle
from tests.support.records import live, prediction
from tests.support.sharing_store import SharingStore


class Kept:
    """Deadlines that are being kept, and what they have ended."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.store = SharingStore()
        self.ended: list[tuple[str, float]] = []
        self.errors: list[Exception] = []
        self.may_act = True
        self.deadlines = Deadlines(self.store, self.clock, self._expire, lambda: self.may_act)
        self.task: asyncio.Task[None] | None = None

    async def _expire(self, prediction_id: str) -> None:
        if self.errors:
            raise self.errors.pop(0)
        self.ended.append((prediction_id, self.clock.now() - START))


@pytest.fixture
async def kept() -> AsyncIterator[Kept]:
    made = Kept()
    made.task = asyncio.create_task(made.deadlines.run())
    await settle()
    yield made
    made.task.cancel()
    await asyncio.gather(made.task, return_exceptions=True)


async def test_predictions_end_at_their_deadlines(kept: Kept) -> None:
    for name, at in (("b", 20.0), ("a", 5.0), ("c", 20.0)):
        kept.deadlines.add(START + at, name)
    await settle()
    assert kept.deadlines.pending == 3
    await kept.clock.advance(30.0)
    assert kept.ended == [("a", 5.0), ("b", 20.0), ("c", 20.0)]
    assert kept.deadlines.pending == 0


async def test_nearer_deadline_does_not_wait_for_a_later_one(kept: Kept) -> None:
    kept.deadlines.add(START + 60.0, "late")
    await kept.clock.advance(1.0)
    kept.deadlines.add(START + 3.0, "soon")
    await kept.clock.advance(4.0)
    assert kept.ended == [("soon", 3.0)]
    await kept.clock.advance(60.0)
    assert kept.ended[1:] == [("late", 60.0)]


async def test_deadline_in_the_past_ends_at_once(kept: Kept) -> None:
    kept.deadlines.add(START - 10.0, "a")
    await settle()
    assert kept.ended == [("a", 0.0)]


async def test_deleted_prediction_is_skipped(kept: Kept) -> None:
    kept.errors = [NotFound()]
    kept.deadlines.add(START + 1.0, "gone")
    kept.deadlines.add(START + 2.0, "a")
    await kept.clock.advance(10.0)
    assert kept.ended == [("a", 2.0)]


async def test_failed_deadline_is_retried(kept: Kept) -> None:
    kept.errors = [StoreUnavailable("away"), StoreUnavailable("away")]
    kept.deadlines.add(START + 1.0, "a")
    await kept.clock.advance(10.0)
    assert kept.ended == [("a", 3.0)]


async def test_defect_affects_no_other_deadline(kept: Kept) -> None:
    kept.errors = [RuntimeError("a defect")]
    kept.deadlines.add(START + 1.0, "broken")
    kept.deadlines.add(START + 2.0, "a")
    await kept.clock.advance(10.0)
    assert ("a", 2.0) in kept.ended


async def test_restart_loads_the_deadlines_from_the_store(kept: Kept) -> None:
    predictions = [prediction(f"p{n:04}", deadline_at=START + n) for n in range(1, 700)]
    kept.store.add(live(), *predictions, prediction("none"))
    await kept.deadlines.resume()
    assert kept.deadlines.pending == 699
    assert kept.store.calls.count("deadlines") == 3
    await kept.clock.advance(2.0)
    assert kept.ended == [("p0001", 1.0), ("p0002", 2.0)]


async def test_deadlines_wait_for_the_lease_of_the_node(kept: Kept) -> None:
    """Without a lease it writes nothing. The new owner of the run keeps the deadline too."""
    kept.may_act = False
    kept.deadlines.add(START + 10, "p1")
    await kept.clock.advance(20)
    assert kept.ended == []
    kept.may_act = True
    await kept.clock.advance(1)
    assert kept.ended == [("p1", 21.0)]
