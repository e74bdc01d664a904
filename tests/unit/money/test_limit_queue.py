"""Creates that wait for a rate or for a place: first come, first served, and none waits forever."""

import asyncio
import itertools
from typing import Any

import pytest
from msgspec.structs import replace

from gateway.domain.limits import SubjectKind
from gateway.domain.quota import Counters, LimitKind, Refused, ReservationRequest, RunLimits
from gateway.domain.rates import Rate
from gateway.errors import BudgetExceeded, CallerLeft, RateLimited, UpstreamUnavailable
from gateway.money.limit_queue import MAX_WAITING, LimitQueue, QueueEntry, WaitForLimit
from tests.support.callers import caller
from tests.support.clock import ManualClock, settle
from tests.support.limit_callers import Callers, refused


class Heard:
    """Remembers refusals."""

    def __init__(self) -> None:
        self.refused: list[tuple[str, str]] = []

    def quota_refused(self, team: str, reason: str) -> None:
        self.refused.append((team, reason))


class Meters:
    """What the store says of counters."""

    def __init__(self) -> None:
        self.known: dict[str, Counters] = {}

    async def meters(self, scopes: Any, now: float) -> dict[str, Counters]:
        return {scope: self.known.get(scope, Counters()) for scope in scopes}


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def meters() -> Meters:
    return Meters()


@pytest.fixture
def limit_queue(clock: ManualClock, heard: Heard, meters: Meters) -> LimitQueue:
    observer: Any = heard
    store: Any = meters
    return LimitQueue(store, clock, observer)


@pytest.fixture
def callers(limit_queue: LimitQueue, clock: ManualClock) -> Callers:
    return Callers(limit_queue, clock)


async def test_longest_waiting_create_is_next(callers: Callers, clock: ManualClock):
    """Ten wait for one place; each end admits the first of them, also before later arrivals."""
    callers.free["team/a"] = 0
    tasks = [callers.ask(f"n{n}", "team/a") for n in range(10)]
    await settle()
    assert callers.limit_queue.waiting == 10
    for n in range(10):
        late = callers.ask(f"late{n}", "team/a", patience=0.5)
        callers.release("team/a")
        await settle()
        assert callers.led[-1] == f"n{n}"
        await clock.advance(0.6)
        with pytest.raises(RateLimited):
            await late
    await asyncio.gather(*tasks)
    assert callers.limit_queue.waiting == 0


async def test_create_that_a_rate_cannot_admit_in_time_is_refused_at_once(callers: Callers, clock: ManualClock):
    """One a minute: the first waits 30 seconds, the next a minute longer, and who cannot wait so long knows at once."""
    callers.free["team/a"] = 0
    first = callers.ask("first", "team/a", patience=40, wait=30, kind=LimitKind.RATE)
    await settle()
    second = callers.ask("second", "team/a", patience=91, wait=30, kind=LimitKind.RATE)
    third = callers.ask("third", "team/a", patience=140, wait=30, kind=LimitKind.RATE)
    hasty = callers.ask("hasty", "team/a", patience=29, wait=30, kind=LimitKind.RATE)
    await settle()
    assert [task.done() for task in (first, second, third, hasty)] == [False, False, True, True]
    for task, retry_after in ((third, 150), (hasty, 150)):
        with pytest.raises(RateLimited) as error:
            await task
        assert error.value.retry_after == retry_after
    assert callers.limit_queue.waiting == 2
    assert callers.orders["hasty"].hold.seconds == 0
    callers.free["team/a"] = 1
    await clock.advance(30)
    await first
    assert callers.orders["first"].hold.seconds == pytest.approx(30)
    second.cancel()
    await asyncio.gather(second, return_exceptions=True)


async def test_creates_that_the_store_refused_in_another_order_are_refused_at_once(
    limit_queue: LimitQueue, clock: ManualClock
):
    """Six a minute, 15 seconds at most: of four that arrive together one can wait, whichever answer comes first."""
    demand = ReservationRequest(1, 1, (RunLimits(of=SubjectKind.TEAM, scope="team/a", concurrent=1),))
    status = replace(refused("team/a", kind=LimitKind.RATE).status, limit=6)
    orders = Callers(limit_queue, clock)

    async def wait(place: QueueEntry) -> None:
        try:
            held: WaitForLimit | None = WaitForLimit(Refused(status, 10.0))
            while held is not None:
                await place.wait(held.refused)
                held = place.check_turn()
        finally:
            place.leave()

    for order in itertools.permutations(range(4)):
        places = [QueueEntry(limit_queue, caller(), orders.order(str(n), 15.0)) for n in range(4)]
        for place in places:
            place.price(demand)
        tasks = {n: asyncio.create_task(wait(places[n])) for n in order}
        await settle()
        assert {n for n, task in tasks.items() if not task.done()} == {0}, order
        assert {type(tasks[n].exception()) for n in (1, 2, 3)} == {RateLimited}
        tasks[0].cancel()
        await asyncio.gather(tasks[0], return_exceptions=True)


async def test_only_the_first_in_line_asks_the_store(callers: Callers, clock: ManualClock):
    """A hundred waiting creates cost no more than one."""
    callers.free["team/a"] = 0
    tasks = [callers.ask(f"n{n}", "team/a") for n in range(100)]
    await settle()
    await clock.advance(5)
    assert callers.tries <= 7
    callers.release("team/a", 100)
    await settle()
    await asyncio.gather(*tasks)
    assert callers.led == [f"n{n}" for n in range(100)]


async def test_place_freed_elsewhere_is_found(callers: Callers, clock: ManualClock):
    """Another process's run has ended: the first in line checks once a second."""
    callers.free["team/a"] = 0
    task = callers.ask("n", "team/a")
    await settle()
    callers.free["team/a"] = 1
    await clock.advance(1.1)
    await task


async def test_users_have_separate_lines(callers: Callers):
    """Ann has too many in progress; Bob, of the same team, does not wait behind her."""
    callers.free |= {"user/ann": 0}
    waiting = callers.ask("ann", "team/a", "user/ann")
    await settle()
    await callers.ask("bob", "team/a", "user/bob")
    callers.release("user/ann")
    await waiting
    assert callers.led == ["bob", "ann"]


async def test_waiting_for_two_limits_keeps_the_arrival_order(callers: Callers, clock: ManualClock):
    """Ann's own limit blocks, so others of the team go first; then she is ahead of all who came after her."""
    callers.free |= {"team/a": 0, "user/ann": 0}
    early = callers.ask("early", "team/a", "user/ann")
    await settle()
    late = [callers.ask(f"late{n}", "team/a") for n in range(3)]
    await settle()
    callers.release("team/a")
    await settle()
    assert callers.led == ["late0"]
    callers.release("user/ann")
    await settle()
    callers.release("team/a")
    await settle()
    assert callers.led == ["late0", "early"]
    callers.release("team/a", 2)
    await settle()
    await asyncio.gather(early, *late)
    assert callers.led == ["late0", "early", "late1", "late2"]


async def test_maximum_wait_ends_with_the_limits_name(callers: Callers, clock: ManualClock, heard: Heard):
    callers.free["team/a"] = 0
    first, behind = callers.ask("n", "team/a", patience=5), callers.ask("m", "team/a", patience=7)
    await clock.advance(5)
    with pytest.raises(RateLimited) as caught:
        await first
    assert caught.value.limit is not None
    assert caught.value.limit["name"] == "concurrent_predictions"
    assert caught.value.retry_after == 1
    assert not behind.done()
    await clock.advance(2)
    with pytest.raises(RateLimited):
        await behind
    assert heard.refused == [("red", "concurrency")] * 2
    assert callers.limit_queue.waiting == 0


async def test_without_a_maximum_wait_nothing_is_held(callers: Callers):
    callers.free["team/a"] = 0
    with pytest.raises(RateLimited):
        await callers.ask("n", "team/a", patience=0)


async def test_disconnected_caller_leaves_the_line(callers: Callers, clock: ManualClock):
    """The first in line has left: it does not take the place that comes free."""
    callers.free["team/a"] = 0
    gone, next_ = callers.ask("gone", "team/a"), callers.ask("next", "team/a")
    await settle()
    callers.has_left.add("gone")
    callers.release("team/a")
    await settle()
    with pytest.raises(CallerLeft):
        await gone
    await next_
    assert callers.led == ["next"]


async def test_disconnected_caller_leaves_at_once(callers: Callers, clock: ManualClock):
    """Not when its turn comes: its place is free, and the log says so when it happens."""
    callers.free["team/a"] = 0
    first, second, third = (callers.ask(name, "team/a") for name in ("first", "second", "third"))
    await settle()
    for name, task in (("second", second), ("first", first)):
        callers.leave(name)
        with pytest.raises(CallerLeft):
            await task
    assert callers.limit_queue.waiting == 1
    callers.release("team/a")
    await third
    assert (callers.led, callers.listeners) == (["third"], {})


async def test_disconnected_callers_do_not_count_as_ahead(callers: Callers, clock: ManualClock):
    """One a minute, 91 seconds at most: two who have left do not get the next create refused."""
    callers.free["team/a"] = 0

    def ask(name: str) -> asyncio.Task[None]:
        return callers.ask(name, "team/a", patience=91, wait=30, kind=LimitKind.RATE)

    gone = [ask("gone"), ask("gone too")]
    await settle()
    with pytest.raises(RateLimited):
        await ask("too many")
    callers.has_left |= {"gone", "gone too"}
    next_ = ask("next")
    await settle()
    callers.free["team/a"] = 1
    await clock.advance(30)
    await next_
    assert [type(each) for each in await asyncio.gather(*gone, return_exceptions=True)] == [CallerLeft, CallerLeft]
    assert callers.led == ["next"]


async def test_cancelled_create_leaves_the_line(callers: Callers):
    callers.free["team/a"] = 0
    gone, next_ = callers.ask("gone", "team/a"), callers.ask("next", "team/a")
    await settle()
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    callers.release("team/a")
    await next_
    assert callers.limit_queue.waiting == 0


async def test_line_has_a_maximum_length(callers: Callers):
    """Each waiting create is a connection: beyond the limit the response is immediate."""
    callers.free["team/a"] = 0
    tasks = [callers.ask(f"n{n}", "team/a") for n in range(MAX_WAITING)]
    await settle()
    with pytest.raises(RateLimited):
        await callers.ask("one more", "team/a")
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert callers.limit_queue.waiting == 0


async def test_shutdown_keeps_no_create_waiting(callers: Callers):
    callers.free["team/a"] = 0
    tasks = [callers.ask(f"n{n}", "team/a") for n in range(3)]
    await settle()
    callers.limit_queue.close()
    for task in tasks:
        with pytest.raises(UpstreamUnavailable):
            await task


async def test_refusing_budget_is_reported_with_its_limits(limit_queue: LimitQueue, heard: Heard):
    """Of a team, a key or a user: those have alerts. An address has none."""
    reported: list[tuple[str, str, str]] = []
    limit_queue.add_budget_exhausted_listener(lambda team, limits, name: reported.append((team, limits.scope, name)))
    kinds = (SubjectKind.TEAM, SubjectKind.USER, SubjectKind.ADDRESS)
    demand = ReservationRequest(5, 5, tuple(RunLimits(of=kind, scope=f"{kind}/a") for kind in kinds))
    for kind in kinds:
        exceeded = limit_queue.refusal(refused(f"{kind}/a", 9.5, LimitKind.DOLLARS), demand, "a")
        assert isinstance(exceeded, BudgetExceeded)
    limit_queue.refusal(refused("team/a", 9.5, LimitKind.RATE), demand, "a")
    name = "concurrent_predictions"
    assert reported == [("a", "team/a", name), ("a", "user/a", name)]
    assert heard.refused == [("a", "dollars")] * 3 + [("a", "rate")]


async def test_estimate_of_a_held_create_is_not_refused(limit_queue: LimitQueue, meters: Meters, clock: ManualClock):
    """An estimate says `refused` only where waiting would not help in time."""
    scope = "team/a"
    demand = ReservationRequest(10, 10, (RunLimits(of=SubjectKind.TEAM, scope=scope, predictions=Rate.of(6, 1)),))
    assert await limit_queue.predict_refusal(demand, 20.0) is None
    meters.known[scope] = Counters(full_at=clock.now() + 10)
    assert await limit_queue.predict_refusal(demand, 20.0) is None
    found = await limit_queue.predict_refusal(demand, 5.0)
    assert found is not None
    assert found.status.name == "predictions_per_minute"
