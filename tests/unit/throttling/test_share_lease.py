"""Whether a node may use its shares."""

import asyncio

from gateway.throttling.share_lease import ShareLease
from tests.support.clock import ManualClock, settle
from tests.support.divided_rates import TestMembership


async def test_shares_are_used_as_long_as_a_read_has_confirmed(clock: ManualClock) -> None:
    lease = ShareLease(TestMembership(1), clock.monotonic)
    assert not lease.is_valid()
    sent_at = lease.now()
    await clock.advance(1)
    lease.confirm(sent_at, 10.0)
    await clock.advance(8.9)
    assert lease.is_valid()
    await clock.advance(0.2)
    assert not lease.is_valid()
    lease.confirm(lease.now(), 10.0)
    lease.end()
    assert not lease.is_valid()


async def test_confirmation_is_waited_for_unless_the_lease_is_lost(clock: ManualClock) -> None:
    membership = TestMembership(1)
    lease = ShareLease(membership, clock.monotonic)
    waiting = [asyncio.create_task(lease.wait(clock, seconds)) for seconds in (1.0, 2.0)]
    await clock.advance(1.5)
    lease.confirm(lease.now(), 10.0)
    await settle()
    assert [await each for each in waiting] == [False, True]
    lease.end()
    membership.lose()
    assert not await lease.wait(clock, 1.0)


async def test_node_that_has_left_uses_none_although_they_are_confirmed(clock: ManualClock) -> None:
    membership = TestMembership(1)
    lease = ShareLease(membership, clock.monotonic)
    lease.confirm(lease.now(), 10.0)
    membership.has_left = True
    assert not lease.is_valid()
