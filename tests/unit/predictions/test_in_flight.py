"""Pending creates: one outcome for all callers who wait."""

import asyncio

import pytest

from gateway.domain.records import PredictionView
from gateway.errors import UpstreamUnavailable, UpstreamUncertain
from gateway.predictions.in_flight import Created, NotSent, PendingCreates, Refused
from tests.support.clock import settle
from tests.support.fakes import answer
from tests.support.records import intent, live, prediction

CREATED = Created(PredictionView(prediction("up1"), live()), answer(201))
NOT_SENT = NotSent(UpstreamUnavailable("down"))


@pytest.fixture
def pending_creates() -> PendingCreates:
    return PendingCreates()


async def test_all_waiters_get_the_outcome(pending_creates: PendingCreates) -> None:
    pending = pending_creates.start(intent())
    tasks = [asyncio.create_task(pending.wait(0.0)) for _ in range(3)]
    await settle()
    assert (pending.waiters, pending_creates.waiting, len(pending_creates)) == (3, 3, 1)
    pending_creates.resolve("run1", CREATED)
    assert await asyncio.gather(*tasks) == [CREATED] * 3
    assert (pending.waiters, pending_creates.waiting, len(pending_creates)) == (0, 0, 0)


async def test_first_outcome_counts(pending_creates: PendingCreates) -> None:
    pending = pending_creates.start(intent())
    pending.resolve(NOT_SENT)
    pending.resolve(CREATED)
    assert await pending.wait(0.0) == NOT_SENT


async def test_run_has_one_pending_create_until_it_is_resolved(pending_creates: PendingCreates) -> None:
    first = pending_creates.start(intent())
    assert pending_creates.start(intent()) is first
    assert pending_creates.get("run1") is first
    pending_creates.resolve("run1", Refused(answer(422)))
    assert pending_creates.get("run1") is None
    assert pending_creates.start(intent()) is not first
    pending_creates.resolve("unknown", CREATED)


async def test_wait_for_an_uncertain_create_ends_at_its_timeout(pending_creates: PendingCreates) -> None:
    pending = pending_creates.start(intent())
    task = asyncio.create_task(pending.wait(0.0))
    await settle()
    assert (task.done(), pending.is_uncertain) == (False, False)
    pending.turn_uncertain()
    pending.turn_uncertain()
    with pytest.raises(UpstreamUncertain):
        await task
    assert (pending.is_uncertain, pending.waiters) == (True, 0)
    # The search continues, and the next caller gets its result.
    pending_creates.resolve("run1", CREATED)
    assert await pending.wait(0.0) == CREATED


async def test_uncertain_create_resolved_in_time_returns_its_outcome(
    pending_creates: PendingCreates,
) -> None:
    pending = pending_creates.start(intent())
    pending.turn_uncertain()
    task = asyncio.create_task(pending.wait(5.0))
    await settle()
    pending_creates.resolve("run1", CREATED)
    assert await task == CREATED


async def test_cancelled_waiter_is_not_counted(pending_creates: PendingCreates) -> None:
    pending = pending_creates.start(intent())
    task = asyncio.create_task(pending.wait(5.0))
    await settle()
    task.cancel()
    await settle()
    assert (task.cancelled(), pending.waiters) == (True, 0)


async def test_equal_create_is_being_sent_until_uncertain_or_resolved(pending_creates: PendingCreates) -> None:
    """A run that is found upstream meanwhile may belong to that create."""
    run = intent(request=b"body")
    pending = pending_creates.start(run)
    assert pending_creates.is_sending(b"body", "/predictions")
    assert not pending_creates.is_sending(b"other", "/predictions")
    assert not pending_creates.is_sending(b"body", "/models/a/b/predictions")
    pending.turn_uncertain()
    assert not pending_creates.is_sending(b"body", "/predictions")
    pending_creates.start(intent("run2", request=b"body"))
    assert pending_creates.is_sending(b"body", "/predictions")
    pending_creates.resolve("run2", CREATED)
    assert not pending_creates.is_sending(b"body", "/predictions")
