"""The lease of a node, on the node's own clock."""

import asyncio
import logging
from collections.abc import AsyncIterator

import pytest

from gateway.nodes.membership import LeasedNode
from tests.support.clock import ManualClock, settle
from tests.support.fake_nodes import FakeNodes


class Lease:
    """A node whose lease is renewed, and the calls of its listeners."""

    def __init__(self, nodes: FakeNodes, clock: ManualClock) -> None:
        self.node = LeasedNode(nodes, clock, name="host")
        self.node.report = lambda: '{"runs": 7}'
        self.reported: list[str] = []
        self.node.add_lost_listener(lambda: self.reported.append("lost"))
        self.node.add_joined_listener(lambda: self.reported.append(f"joined as {self.node.number}"))
        self.task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        await self.node.start()
        self.task = asyncio.create_task(self.node.run())
        await settle()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def nodes(clock: ManualClock) -> FakeNodes:
    return FakeNodes(clock)


@pytest.fixture
async def lease(nodes: FakeNodes, clock: ManualClock) -> AsyncIterator[Lease]:
    made = Lease(nodes, clock)
    await made.start()
    yield made
    assert made.task is not None
    made.task.cancel()
    await asyncio.gather(made.task, return_exceptions=True)


async def test_lease_is_renewed_while_the_store_answers(nodes: FakeNodes, clock: ManualClock, lease: Lease) -> None:
    await clock.advance(120)
    assert lease.node.is_alive()
    assert lease.node.may_send()
    assert lease.node.lease_age <= 2
    assert nodes.members[1].report == '{"runs": 7}'
    assert lease.reported == []


async def test_lease_counts_from_when_the_renewal_was_sent(nodes: FakeNodes, clock: ManualClock, lease: Lease) -> None:
    """The store's clock counts it from a later time: no other node sees it expired before this one does."""
    nodes.delay = 3.0
    await clock.advance(5)
    assert lease.node.lease_age == 3
    nodes.is_away = True
    await clock.advance(6.9)
    assert lease.node.is_alive()
    await clock.advance(0.2)
    assert not lease.node.is_alive()
    assert nodes.members[1].expires_at > clock.now()


async def test_nothing_is_sent_shortly_before_the_lease_expires(
    nodes: FakeNodes, clock: ManualClock, lease: Lease
) -> None:
    nodes.is_away = True
    await clock.advance(7.9)
    assert lease.node.may_send()
    await clock.advance(0.2)
    assert (lease.node.is_alive(), lease.node.may_send()) == (True, False)


async def test_lost_lease_is_told_once_and_the_node_joins_again_under_a_new_number(
    nodes: FakeNodes, clock: ManualClock, lease: Lease
) -> None:
    nodes.is_away = True
    await clock.advance(30)
    assert lease.reported == ["lost"]
    assert not lease.node.is_leader()
    nodes.is_away = False
    await clock.advance(4)
    assert lease.reported == ["lost", "joined as 2"]
    assert lease.node.is_alive()


@pytest.mark.parametrize("is_answered", [True, False])
async def test_node_that_joins_again_ends_its_former_number(
    nodes: FakeNodes, clock: ManualClock, lease: Lease, is_answered: bool
) -> None:
    """Its runs and shares of rates are free at once. Others end it after ten seconds, if the store does not answer."""
    nodes.is_away = True
    await clock.advance(30)
    nodes.on_call = lambda name: setattr(nodes, "is_away", name == "leave" and not is_answered)
    nodes.is_away = False
    await clock.advance(4)
    assert lease.reported == ["lost", "joined as 2"]
    assert nodes.lives(1) is not is_answered
    assert nodes.lives(2)
    assert lease.node.is_alive()


async def test_node_is_shut_out_only_where_others_may_not_be(
    nodes: FakeNodes, clock: ManualClock, lease: Lease
) -> None:
    """While the store is away, no node has a lease: callers gain nothing by going elsewhere."""
    nodes.is_away = True
    await clock.advance(30)
    assert (lease.node.is_alive(), lease.node.is_shut_out()) == (False, False)
    nodes.is_away = False
    await clock.advance(4)
    clock._passed += 60
    assert lease.node.is_shut_out()
    await clock.advance(1)
    assert not lease.node.is_shut_out()


async def test_node_that_another_has_ended_is_shut_out_until_it_has_joined(
    nodes: FakeNodes, clock: ManualClock, lease: Lease
) -> None:
    nodes.end_now(1)
    nodes.on_call = lambda name: setattr(nodes, "is_away", name == "join")
    await clock.advance(20)
    assert lease.node.is_shut_out()
    nodes.on_call = lambda _: None
    nodes.is_away = False
    await clock.advance(3)
    assert not lease.node.is_shut_out()


async def test_end_of_the_lease_is_noticed_while_the_store_does_not_answer(
    nodes: FakeNodes, clock: ManualClock, lease: Lease
) -> None:
    nodes.delay = 1000.0
    await clock.advance(9.9)
    assert lease.reported == []
    await clock.advance(0.2)
    assert lease.reported == ["lost"]


async def test_node_that_another_has_ended_does_not_renew(nodes: FakeNodes, clock: ManualClock, lease: Lease) -> None:
    nodes.end_now(1)
    await clock.advance(2.1)
    assert lease.reported == ["lost", "joined as 2"]


async def test_node_that_was_paused_knows_it_before_it_does_anything(
    nodes: FakeNodes, clock: ManualClock, lease: Lease
) -> None:
    """Nothing runs during the pause, and the first look at the clock tells."""
    clock._passed += 60
    assert not lease.node.is_alive()
    assert not lease.node.may_send()
    assert not lease.node.is_leader()


async def test_no_node_is_ended_before_a_lease_has_passed_since_the_start(
    nodes: FakeNodes, clock: ManualClock, lease: Lease
) -> None:
    await clock.advance(9.9)
    assert not lease.node.may_take_over()
    await clock.advance(0.2)
    assert lease.node.may_take_over()


async def test_no_node_is_ended_before_a_lease_has_passed_since_an_outage(
    nodes: FakeNodes, clock: ManualClock, lease: Lease
) -> None:
    """While the store was away, no other node could renew its lease either."""
    await clock.advance(20)
    nodes.is_away = True
    await clock.advance(6)
    assert not lease.node.may_take_over()
    nodes.is_away = False
    await clock.advance(11.9)
    assert not lease.node.may_take_over()
    assert lease.reported == []
    await clock.advance(2)
    assert lease.node.may_take_over()


async def test_one_of_two_nodes_leads_and_the_other_follows_it(
    nodes: FakeNodes, clock: ManualClock, lease: Lease
) -> None:
    other = LeasedNode(nodes, clock, name="other")
    await other.start()
    assert (lease.node.is_leader(), other.is_leader()) == (True, False)
    await lease.node.leave()
    assert not lease.node.is_leader()
    task = asyncio.create_task(other.run())
    await clock.advance(2.1)
    assert other.is_leader()
    task.cancel()


async def test_node_that_leaves_is_ended_at_once(nodes: FakeNodes, clock: ManualClock, lease: Lease) -> None:
    assert lease.task is not None
    lease.task.cancel()
    await lease.node.leave()
    assert not lease.node.is_alive()
    assert not nodes.lives(1)
    assert lease.reported == []


async def test_node_leaves_although_the_store_is_away(nodes: FakeNodes, clock: ManualClock, lease: Lease) -> None:
    nodes.is_away = True
    await lease.node.leave()
    assert not lease.node.is_alive()


@pytest.mark.parametrize(("skew", "is_told"), [(0.0, False), (-0.9, False), (1.5, True), (-30.0, True)])
async def test_clock_that_differs_from_the_stores_is_told(
    nodes: FakeNodes, clock: ManualClock, caplog: pytest.LogCaptureFixture, skew: float, is_told: bool
) -> None:
    nodes.skew = skew
    node = LeasedNode(nodes, clock, name="host")
    with caplog.at_level(logging.WARNING):
        await node.start()
    assert node.clock_skew_seconds == pytest.approx(skew)
    assert ("this machine's clock differs from the store's" in caplog.messages) == is_told
    assert node.is_alive()


async def test_node_that_has_joined_again_tells_it_although_the_clock_could_not_be_read(
    nodes: FakeNodes, clock: ManualClock, lease: Lease
) -> None:
    def away_at_clock(name: str) -> None:
        nodes.is_away = name == "clock"

    nodes.end_now(1)
    nodes.on_call = away_at_clock
    await clock.advance(3)
    assert lease.node.is_alive()
    assert lease.reported == ["lost", "joined as 2"]


async def test_listener_that_fails_keeps_no_other_from_being_told(
    nodes: FakeNodes, clock: ManualClock, lease: Lease
) -> None:
    def fail() -> None:
        raise RuntimeError

    lease.node._lost.insert(0, fail)
    nodes.end_now(1)
    await clock.advance(2.1)
    assert lease.reported == ["lost", "joined as 2"]


async def test_nobody_is_ended_for_a_lease_after_a_jump_of_the_stores_clock(
    nodes: FakeNodes, clock: ManualClock, lease: Lease
) -> None:
    """Leases look expired then, or valid for longer than they are, until the living nodes have renewed theirs."""
    for skew in (30.0, -3600.0):
        await clock.advance(20)
        await lease.node.living()
        assert lease.node.may_take_over()
        nodes.skew = skew
        assert lease.node.may_take_over(), "it is not known yet"
        await lease.node.living()
        assert not lease.node.may_take_over()
        assert lease.node.clock_skew_seconds == skew
        await clock.advance(9)
        await lease.node.living()
        assert not lease.node.may_take_over()
        await clock.advance(2)
        assert lease.node.may_take_over()
