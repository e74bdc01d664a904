"""Holding: creates over a rate of their own, in line, on a clock that is moved by hand."""

import asyncio
from collections import Counter
from collections.abc import Callable
from functools import partial

import pytest

from gateway.domain.limits import Allowance, Limits
from gateway.domain.teams import Caller, Team
from gateway.errors import CallerLeft, UpstreamUnavailable
from gateway.throttling.hold_queue import MAX_HELD, HoldQueue
from gateway.throttling.rules.request_rates import Bucket, RateExceeded, RequestRates, admit
from tests.support.clock import ManualClock, settle
from tests.support.observer import RecordingObserver


@pytest.fixture
def notes() -> RecordingObserver:
    return RecordingObserver()


def emptied(clock: ManualClock, per_minute: int = 60) -> tuple[Bucket, ...]:
    """Return the bucket of a team that has used its burst."""
    allowance = Allowance(own=Limits(requests_per_minute=per_minute))
    team = Team(name="red", scopes=frozenset(), allowance=allowance)
    buckets = RequestRates().buckets(Caller(team=team, key_id="k", scopes=frozenset(), models=()))
    while admit(buckets, clock.monotonic()) is None:
        pass
    return buckets


async def test_held_creates_go_one_by_one_in_order(clock: ManualClock, notes: RecordingObserver):
    """A burst's half is refilled first, for what cannot be held; then one a second, in order of arrival."""
    buckets, hold_queue, order = emptied(clock), HoldQueue(clock, notes), []

    async def make(number: int) -> None:
        assert await hold_queue.enqueue("red", buckets, clock.monotonic() + 100) is None
        order.append(number)

    making = [asyncio.create_task(make(number)) for number in range(5)]
    await clock.advance(5.9)
    assert (order, len(hold_queue)) == ([], 5)
    assert admit(buckets, clock.monotonic()) is None
    await clock.advance(1.1)
    assert order == [0]
    await clock.advance(10)
    await asyncio.gather(*making)
    assert order == [0, 1, 2, 3, 4]
    assert (len(hold_queue), Counter(result for result, _ in notes.held)) == (0, {"admitted": 5})


async def test_create_that_would_wait_too_long_is_refused_at_once(clock: ManualClock, notes: RecordingObserver):
    """It is not held, because it cannot succeed in time, and gets `Retry-After`."""
    buckets, hold_queue = emptied(clock, 6), HoldQueue(clock, notes)
    over = await hold_queue.enqueue("red", buckets, clock.monotonic() + 5)
    assert isinstance(over, RateExceeded)
    assert over.bucket is buckets[0]
    assert over.seconds == pytest.approx(10.0)
    assert (notes.held, len(hold_queue)) == ([("too_long", 0.0)], 0)


async def test_each_create_in_the_line_adds_to_the_wait(clock: ManualClock, notes: RecordingObserver):
    """Six a minute: of four at once, two fit into 25 seconds. After one has left, another fits."""
    buckets, hold_queue = emptied(clock, 6), HoldQueue(clock, notes)
    until = clock.monotonic() + 25
    waiting = [asyncio.create_task(hold_queue.enqueue("red", buckets, until)) for _ in range(2)]
    await settle()
    for _ in range(2):
        over = await hold_queue.enqueue("red", buckets, until)
        assert over is not None
        assert over.seconds == pytest.approx(30.0)
    waiting.pop().cancel()
    await settle()
    waiting.append(asyncio.create_task(hold_queue.enqueue("red", buckets, until)))
    await clock.advance(20.1)
    assert [await each for each in waiting] == [None, None]


async def test_creates_whose_callers_have_left_do_not_count_as_ahead(clock: ManualClock, notes: RecordingObserver):
    """Six a minute, 25 seconds at most: after two have hung up, another two are held."""
    buckets, hold_queue = emptied(clock, 6), HoldQueue(clock, notes)
    until, listeners = clock.monotonic() + 25, list[Callable[[], None]]()

    def add_listener(callback: Callable[[], None]) -> Callable[[], None]:
        listeners.append(callback)
        return partial(listeners.remove, callback)

    def make() -> asyncio.Task[RateExceeded | None]:
        return asyncio.create_task(hold_queue.enqueue("red", buckets, until, add_listener))

    gone = [make(), make()]
    await settle()
    for callback in tuple(listeners):
        callback()
    assert [type(each) for each in await asyncio.gather(*gone, return_exceptions=True)] == [CallerLeft] * 2
    assert (len(hold_queue), notes.held) == (0, [("left", 0.0)] * 2)
    stayed = [make(), make()]
    await clock.advance(20.1)
    assert [await each for each in stayed] == [None, None]
    assert listeners == []


async def test_creates_of_another_user_do_not_count_as_ahead(clock: ManualClock, notes: RecordingObserver):
    """Thirty creates of one user wait for that user's rate; another's create passes them by."""
    allowance = Allowance(own=Limits(requests_per_minute=60), per_user=Limits(requests_per_minute=6, burst=30))
    team = Team(name="red", scopes=frozenset(), allowance=allowance)
    rates, who = RequestRates(), Caller(team=team, key_id="k", scopes=frozenset(), models=())
    hold_queue, anns = HoldQueue(clock, notes), rates.buckets(who, "ann")
    anns[1].full_at = clock.monotonic() + 400
    waiting = [asyncio.create_task(hold_queue.enqueue("red", anns, clock.monotonic() + 1000)) for _ in range(30)]
    await settle()
    assert await hold_queue.enqueue("red", rates.buckets(who, "bob"), clock.monotonic() + 5) is None
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)


async def test_create_that_others_overtake_is_refused_at_its_deadline(clock: ManualClock, notes: RecordingObserver):
    """Requests that are not held take the rate in the meantime."""
    buckets, hold_queue = emptied(clock, 6), HoldQueue(clock, notes)
    late = asyncio.create_task(hold_queue.enqueue("red", buckets, clock.monotonic() + 15))
    await settle()
    buckets[0].full_at += 10
    await clock.advance(14.9)
    assert not late.done()
    await clock.advance(0.2)
    assert await late is not None
    assert notes.held == [("refused", pytest.approx(15.0))]


async def test_without_a_hold_time_nothing_is_held(clock: ManualClock, notes: RecordingObserver):
    """`max_wait_seconds = 0`: an immediate refusal with a time to retry."""
    buckets, hold_queue = emptied(clock), HoldQueue(clock, notes)
    over = await hold_queue.enqueue("red", buckets, clock.monotonic())
    assert over is not None
    assert over.seconds == pytest.approx(1.0)
    assert notes.held == []


async def test_number_of_held_creates_per_team_is_limited(clock: ManualClock, notes: RecordingObserver):
    """The thousand-and-first of a team is refused at once and counted; another team's is not."""
    buckets, hold_queue = emptied(clock, 1), HoldQueue(clock, notes)
    crowd = [
        asyncio.create_task(hold_queue.enqueue("red", buckets, clock.monotonic() + 1e6)) for _ in range(MAX_HELD)
    ]  # fmt: skip
    await settle()
    assert isinstance(await hold_queue.enqueue("red", buckets, clock.monotonic() + 1e6), RateExceeded)
    assert notes.held == [("full", 0.0)]
    other = asyncio.create_task(hold_queue.enqueue("blue", emptied(clock), clock.monotonic() + 20))
    await clock.advance(7)
    assert await other is None
    for task in crowd:
        task.cancel()
    await asyncio.gather(*crowd, return_exceptions=True)
    assert len(hold_queue) == 0


async def test_shutdown_releases_held_creates(clock: ManualClock, notes: RecordingObserver):
    """A shutdown takes moments."""
    buckets, hold_queue = emptied(clock), HoldQueue(clock, notes)
    held = asyncio.create_task(hold_queue.enqueue("red", buckets, clock.monotonic() + 20))
    await settle()
    await hold_queue.close()
    with pytest.raises(UpstreamUnavailable):
        await held
    assert not hold_queue.has_line("red")
    assert isinstance(await hold_queue.enqueue("red", buckets, clock.monotonic() + 20), RateExceeded)


async def test_create_held_by_its_own_rate_blocks_no_other(clock: ManualClock, notes: RecordingObserver):
    """Ann's creates wait for Ann's rate; Ben's, which came later, go; and both belong to the team."""
    team = Team(
        name="red",
        scopes=frozenset(),
        allowance=Allowance(own=Limits(requests_per_minute=60), per_user=Limits(requests_per_minute=6, burst=1)),
    )
    table, who = RequestRates(), Caller(team=team, key_id="k", scopes=frozenset(), models=())
    ann, ben = table.buckets(who, "ann"), table.buckets(who, "ben")
    assert admit(ann, clock.monotonic()) is None
    hold_queue = HoldQueue(clock, notes)
    making = [
        asyncio.create_task(hold_queue.enqueue("red", buckets, clock.monotonic() + 20)) for buckets in (ann, ann, ben)
    ]
    await settle()
    assert [task.done() for task in making] == [False, False, True]
    await clock.advance(10)
    assert [task.done() for task in making] == [True, False, True]
    await clock.advance(10)
    assert [await task for task in making] == [None] * 3


async def test_cancelled_create_gives_its_place_back(clock: ManualClock, notes: RecordingObserver):
    """The next one has the turn, and nothing was charged."""
    buckets, hold_queue = emptied(clock), HoldQueue(clock, notes)
    first, second = (asyncio.create_task(hold_queue.enqueue("red", buckets, clock.monotonic() + 50)) for _ in range(2))
    await settle()
    first.cancel()
    await clock.advance(6)
    assert second.done()
    assert not hold_queue.has_line("red")
    await settle()
    assert clock.sleeping == 0


async def test_polls_in_between_delay_the_line_and_keep_its_order(clock: ManualClock, notes: RecordingObserver):
    """Each second a poll takes what the next create waited for: the first stays the first."""
    buckets, hold_queue, order = emptied(clock), HoldQueue(clock, notes), []

    async def make(number: int) -> None:
        assert await hold_queue.enqueue("red", buckets, clock.monotonic() + 100) is None
        order.append(number)

    making = [asyncio.create_task(make(number)) for number in range(8)]
    for _ in range(30):
        await clock.advance(0.5)
        if len(order) < 3:
            admit(buckets, clock.monotonic())
    await clock.advance(60)
    await asyncio.gather(*making)
    assert order == list(range(8))


class BrokenClock(ManualClock):
    """A clock that cannot sleep."""

    async def sleep(self, seconds: float) -> None:
        raise RuntimeError("a defect")


async def test_crash_answers_the_held_creates_and_the_next_starts_a_new_line(notes: RecordingObserver):
    """None waits for an answer that never comes."""
    clock = BrokenClock()
    buckets, hold_queue = emptied(clock), HoldQueue(clock, notes)
    for _ in range(2):
        with pytest.raises(RuntimeError):
            await hold_queue.enqueue("red", buckets, clock.monotonic() + 20)
        await settle()
        assert not hold_queue.has_line("red")
