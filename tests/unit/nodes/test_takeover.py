"""Which node takes over the runs of those that have ended, and when."""

import asyncio
from collections.abc import Mapping, Sequence

import pytest

from gateway.domain.records import Run
from gateway.errors import StoreUnavailable
from gateway.nodes.membership import LeasedNode
from gateway.nodes.takeover import PAGE, Takeover
from tests.support.clock import ManualClock
from tests.support.fake_nodes import FakeNodes
from tests.support.observer import RecordingObserver
from tests.support.records import intent, live


class Survivor:
    """A node that takes over, and what it was given."""

    def __init__(self, nodes: FakeNodes, clock: ManualClock, place: str = "") -> None:
        self.gone: list[str] = []
        """The places of processes that have ended."""
        self.node = LeasedNode(nodes, clock, name="survivor", place=place)
        self.taken: list[str] = []
        self.notes = RecordingObserver()
        self.calls = 0
        self.fails = False
        self.dropped: list[Run] = []
        self.takeover = Takeover(
            nodes,
            self.node,
            clock,
            look_seconds=1.0,
            on_taken=lambda runs: self.taken.extend(run.id for run in runs),
            on_nodes_ended=self._ended,
            find_dropped=self._find_dropped,
            observer=self.notes,
            find_gone=self._find_gone,
        )

    async def _find_dropped(self, owned: Sequence[str]) -> list[Run]:
        return [run for run in self.dropped if run.id in owned]

    async def _find_gone(self, places: Mapping[int, str]) -> list[int]:
        return [each for each, place in places.items() if place in self.gone]

    async def _ended(self) -> None:
        self.calls += 1
        if self.fails:
            raise StoreUnavailable("away")


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def nodes(clock: ManualClock) -> FakeNodes:
    return FakeNodes(clock)


def add(nodes: FakeNodes, *runs: Run) -> None:
    nodes.runs |= {run.id: run for run in runs}


async def test_runs_without_a_living_owner_are_taken_at_the_first_look(nodes: FakeNodes, clock: ManualClock) -> None:
    add(nodes, live("run1"), intent("run2"))
    one = Survivor(nodes, clock)
    await one.node.start()
    await one.takeover.look()
    assert one.taken == ["run1", "run2"]
    assert one.calls == 1
    await one.takeover.look()
    assert one.calls == 1


async def test_node_that_left_is_followed_by_the_others_at_their_next_look(
    nodes: FakeNodes, clock: ManualClock
) -> None:
    one, two = Survivor(nodes, clock), Survivor(nodes, clock)
    for each in (one, two):
        await each.node.start()
        await each.takeover.look()
    add(nodes, *(live(f"run{number}", owner=one.node.number) for number in range(2 * PAGE + 1)))
    await one.node.leave()
    looking = asyncio.create_task(two.takeover.look())
    await clock.advance(1)
    await looking
    assert len(two.taken) == 2 * PAGE + 1
    assert two.calls == 2
    assert {run.owner for run in nodes.runs.values()} == {two.node.number}


async def test_expired_node_is_ended_only_by_one_that_may(nodes: FakeNodes, clock: ManualClock) -> None:
    one, two = Survivor(nodes, clock), Survivor(nodes, clock)
    for each in (one, two):
        await each.node.start()
        await each.takeover.look()
    add(nodes, live("run1", owner=one.node.number))
    await clock.advance(5)
    await two.node._renew()
    await clock.advance(5.1)
    await two.node._renew()
    await two.takeover.look()
    assert two.taken == ["run1"]

    await clock.advance(5)
    three = Survivor(nodes, clock)
    await three.node.start()
    await clock.advance(6)
    await three.node._renew()
    await three.takeover.look()
    assert three.taken == [], "its own first renewal is less than a lease ago"
    await clock.advance(5)
    await three.takeover.look()
    assert three.taken == ["run1"]


async def test_node_without_a_lease_takes_nothing(nodes: FakeNodes, clock: ManualClock) -> None:
    one = Survivor(nodes, clock)
    await one.node.start()
    add(nodes, live("run1"))
    await clock.advance(11)
    await one.takeover.look()
    assert one.taken == []


async def test_leader_takes_intents_that_are_passed_on_and_others_do_not(nodes: FakeNodes, clock: ManualClock) -> None:
    one, two = Survivor(nodes, clock), Survivor(nodes, clock)
    for each in (one, two):
        await each.node.start()
        await each.takeover.look()
    add(nodes, intent("run1"))
    await two.takeover.look()
    await one.takeover.look()
    assert (one.taken, two.taken) == (["run1"], [])
    assert one.calls == 1


async def test_what_failed_is_repeated_at_the_next_look(nodes: FakeNodes, clock: ManualClock) -> None:
    """What was done before is counted, although the look failed."""
    add(nodes, live("run1"), live("run2"))
    one = Survivor(nodes, clock)
    await one.node.start()
    one.fails = True
    with pytest.raises(StoreUnavailable):
        await one.takeover.look()
    assert one.notes.of("runs_taken_over") == [2]
    one.fails = False
    await one.takeover.look()
    assert one.calls == 2
    assert one.notes.of("runs_taken_over") == [2]


async def test_looks_go_on_after_a_failure(nodes: FakeNodes, clock: ManualClock) -> None:
    one = Survivor(nodes, clock)
    await one.node.start()
    task = asyncio.create_task(one.takeover.run())
    nodes.is_away = True
    await clock.advance(2.5)
    nodes.is_away = False
    add(nodes, live("run1"))
    await clock.advance(1)
    assert one.taken == ["run1"]
    task.cancel()


async def test_live_run_that_was_locked_at_the_look_that_was_due_brings_its_deadlines_later(
    nodes: FakeNodes, clock: ManualClock
) -> None:
    one = Survivor(nodes, clock)
    await one.node.start()
    await one.takeover.look()
    assert one.calls == 1
    add(nodes, intent("run1"))
    await one.takeover.look()
    assert (one.taken, one.calls) == (["run1"], 1)
    add(nodes, live("run2"))
    await one.takeover.look()
    assert (one.taken, one.calls) == (["run1", "run2"], 2)
    await one.takeover.look()
    assert one.calls == 2


async def test_own_runs_that_the_process_does_nothing_for_are_gone_on_with(
    nodes: FakeNodes, clock: ManualClock
) -> None:
    one = Survivor(nodes, clock)
    await one.node.start()
    number = one.node.number
    add(nodes, live("run1", owner=number), live("run2", owner=number), live("run3", owner=number + 1))
    one.dropped = [live("run2", owner=number), live("run3", owner=number + 1)]
    nodes.members[number + 1] = nodes.members[number]
    for _ in range(15):
        await one.takeover.look()
    assert one.taken == ["run2"]
    assert one.calls == 2


async def test_node_that_died_before_the_clock_went_back_is_ended(nodes: FakeNodes, clock: ManualClock) -> None:
    one, two, dead = (Survivor(nodes, clock) for _ in range(3))
    for each in (one, two, dead):
        await each.node.start()
    running = [asyncio.create_task(each.node.run()) for each in (one, two)]
    await clock.advance(12)
    await dead.node.start()
    nodes.skew = -3600.0
    for _ in range(10):
        await one.takeover.look()
        assert nodes.lives(dead.node.number)
        await clock.advance(1)
    await one.takeover.look()
    assert not nodes.lives(dead.node.number)
    assert nodes.lives(one.node.number)
    assert nodes.lives(two.node.number)
    for task in running:
        task.cancel()


async def test_node_whose_process_has_ended_is_followed_at_once(nodes: FakeNodes, clock: ManualClock) -> None:
    """As after kill -9 and a restart on the same machine: there is nobody whose lease had to end."""
    dead = Survivor(nodes, clock, "machine 7")
    await dead.node.start()
    add(nodes, live("run1", owner=dead.node.number))
    one = Survivor(nodes, clock, "machine 8")
    one.gone = ["machine 7", "machine 8"]
    await one.node.start()
    await one.takeover.look()
    assert one.taken == ["run1"]
    assert not nodes.lives(dead.node.number)
    assert nodes.lives(one.node.number), "not itself"
    assert one.takeover.living == 1
    assert one.notes.count("nodes_died") == 1


async def test_next_leader_takes_the_uncertain_creates_of_a_dead_one_at_the_same_look(
    nodes: FakeNodes, clock: ManualClock
) -> None:
    """Not after its next renewal, and the look after that."""
    one, two = Survivor(nodes, clock, place="machine 1"), Survivor(nodes, clock, place="machine 2")
    for each in (one, two):
        await each.node.start()
        await each.takeover.look()
    add(nodes, intent("run1", owner=one.node.number))
    assert (one.node.is_leader(), two.node.is_leader()) == (True, False)
    two.gone = ["machine 1"]
    await two.takeover.look()
    assert two.node.is_leader()
    assert two.taken == ["run1"]
