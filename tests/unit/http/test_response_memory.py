"""Room for large responses: bounds for all and for one team, and turns in order."""

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import Overloaded, RateLimited
from gateway.http.response_memory import ResponseMemory, Room
from tests.support.clock import settle

LONG = 60.0


@pytest.fixture
def memory() -> ResponseMemory:
    return ResponseMemory(lambda: 100)


@pytest.fixture
def rooms() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def waiting(memory: ResponseMemory, team: str, size: int, order: list[str], rooms: ExitStack) -> asyncio.Task[Room]:
    async def one() -> Room:
        room = rooms.enter_context(memory.room(team))
        await room.wait(size, LONG)
        order.append(f"{team}{size}")
        return room

    return asyncio.create_task(one())


def test_half_of_the_room_is_for_one_team(memory, rooms):
    """The team gets a 429, and others still have room; when all of it is used, everybody gets a 503."""
    red, more, blue, green = (rooms.enter_context(memory.room(team)) for team in ("red", "red", "blue", "green"))
    red.need(50)
    with pytest.raises(RateLimited) as over:
        more.need(1)
    assert over.value.retry_after == 1
    blue.need(45)
    with pytest.raises(Overloaded):
        green.need(6)
    green.need(5)
    assert memory.used == 100


def test_response_larger_than_the_bound_has_room_alone(memory, rooms):
    first, second = (rooms.enter_context(memory.room(team)) for team in ("red", "blue"))
    assert first.take(500)
    assert not second.take(1)
    first.resize(20)
    assert second.take(1)


def test_creates_of_a_team_take_no_room_of_others(memory, rooms):
    """They are always answered; past the team's half its next ones are refused, and others have their half."""
    red = rooms.enter_context(memory.room("red"))
    memory.check_creates("red")
    red.force(500)
    with pytest.raises(RateLimited):
        memory.check_creates("red")
    memory.check_creates("blue")
    assert not rooms.enter_context(memory.room("red")).take(1)
    with memory.room("blue") as blue:
        assert blue.take(50)
        with pytest.raises(Overloaded):
            memory.room("green").need(1)
    with memory.room("red") as other:
        other.force(10)
    assert memory.used == 500
    rooms.close()
    memory.check_creates("red")
    assert memory.used == 0


def test_room_is_given_back_whatever_happens(memory):
    def fail() -> None:
        with memory.room("red") as room:
            room.need(30)
            room.resize(60)
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        fail()
    assert memory.used == 0


async def test_turns_are_in_order_within_a_team(memory, rooms):
    """A small response does not overtake a large one of its team; another team's does."""
    order: list[str] = []
    held = memory.room("red")
    held.need(40)
    tasks = [waiting(memory, "red", size, order, rooms) for size in (30, 5)]
    await settle()
    assert not rooms.enter_context(memory.room("red")).take(5)
    assert rooms.enter_context(memory.room("blue")).take(40)
    assert (order, memory.waiting) == ([], 2)
    held.resize(0)
    await asyncio.gather(*tasks)
    assert (order, memory.used) == (["red30", "red5"], 75)


async def test_team_without_room_holds_up_no_other_team(memory, rooms):
    order: list[str] = []
    red, blue = memory.room("red"), memory.room("blue")
    red.need(50)
    blue.need(50)
    tasks = [waiting(memory, team, 10, order, rooms) for team in ("red", "green")]
    await settle()
    blue.resize(0)
    await tasks[1]
    assert order == ["green10"]
    red.resize(0)
    await tasks[0]


async def test_wait_ends_with_a_refusal(memory, rooms):
    rooms.enter_context(memory.room("red")).need(50)
    with pytest.raises(RateLimited):
        await memory.room("red").wait(10, 0.01)
    assert (memory.used, memory.waiting) == (50, 0)


@pytest.mark.parametrize("has_room", [False, True])
async def test_cancelled_request_keeps_no_room(memory, rooms, has_room):
    """Also one that is cancelled in the moment in which it gets its room; the next gets it then."""
    order: list[str] = []
    held = memory.room("red")
    held.need(50)
    leaving = waiting(memory, "red", 40, order, rooms)
    staying = waiting(memory, "red", 45, order, rooms)
    await settle()
    if has_room:
        held.resize(0)
    leaving.cancel()
    await settle()
    held.resize(0)
    await staying
    assert (order, memory.used) == (["red45"], 45)


async def test_waiting_requests_are_bounded(memory, rooms):
    rooms.enter_context(memory.room("red")).need(50)
    tasks = [waiting(memory, "red", 10, [], rooms) for _ in range(1000)]
    await settle()
    with pytest.raises(RateLimited):
        await memory.room("red").wait(10, LONG)
    # Those of a team refuse no other team's.
    held, order = memory.room("blue"), []
    held.need(50)
    tasks.append(waiting(memory, "blue", 10, order, rooms))
    await settle()
    held.resize(0)
    await tasks[-1]
    assert order == ["blue10"]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert (memory.used, memory.waiting) == (60, 0)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 120), st.booleans()), max_size=40))
def test_bounds_hold_in_any_order(steps):
    """No response is counted beyond a bound, unless it is alone there; everything is given back."""
    memory, open_rooms = ResponseMemory(lambda: 100), []
    by_team = dict.fromkeys("abc", 0)
    for team, size, leaves in steps:
        room = memory.room(team)
        fits = (by_team[team] == 0 or by_team[team] + size <= 50) and (memory.used == 0 or memory.used + size <= 100)
        assert room.take(size) == fits
        if fits:
            by_team[team] += size
            open_rooms.append((team, room))
        if leaves and open_rooms:
            of_team, oldest = open_rooms.pop(0)
            by_team[of_team] -= oldest.size
            oldest.resize(0)
        assert memory.used == sum(by_team.values())
    for _, room in open_rooms:
        room.resize(0)
    assert memory.used == 0
