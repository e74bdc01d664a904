"""The account: turns by weight, through the service, on a clock that is moved by hand."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Coroutine
from typing import Any

import pytest

from gateway.domain import times
from gateway.domain.hold import Hold
from gateway.domain.teams import Team
from gateway.domain.upstream_response import Answer
from gateway.errors import RateLimited, UpstreamUnavailable
from gateway.runtime.live import LiveSettings
from gateway.throttling.fair_limiter import MAX_WAITING
from gateway.throttling.settings import ThrottlingSettings
from gateway.throttling.upstream_limiter import InternalUpstream, UpstreamLimiter, asking
from tests.support.clock import ManualClock, settle
from tests.support.fakes import Call, FakeUpstream
from tests.support.live import teams_of
from tests.support.observer import RecordingObserver

CREATE = "predictions.create"
READ = "models.get"
LOW_CREDIT = (
    b'{"detail":"Request was throttled. Your rate limit for creating predictions is reduced to 6 requests per minute '
    b'with a burst of 1 requests while you have less than $5.0 in credit. Your rate limit resets in ~5s.",'
    b'"status":429,"retry_after":5}'
)
SIXTEEN = {f"team-{number:02}": float(1 + number % 8) for number in range(16)}


@pytest.fixture
def notes() -> RecordingObserver:
    return RecordingObserver()


def teams(**weights: float) -> list[Team]:
    return [
        Team(name=name, scopes=frozenset(), weight=weight, max_wait_seconds=1000) for name, weight in weights.items()
    ]


@contextlib.asynccontextmanager
async def opened(
    clock: ManualClock, notes: RecordingObserver, members: list[Team], *, creates: float = 600, requests: float = 3000
) -> AsyncIterator[UpstreamLimiter]:
    account = UpstreamLimiter(
        teams_of(*members),
        clock,
        notes,
        LiveSettings(ThrottlingSettings(creates_per_minute=creates, requests_per_minute=requests)),
    )
    running = asyncio.create_task(account.run())
    yield account
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running


class BrokenClock(ManualClock):
    """A clock that cannot sleep."""

    async def sleep(self, seconds: float) -> None:
        raise RuntimeError("a defect")


async def test_crash_of_one_rate_ends_both_loops(notes: RecordingObserver):
    """They start again together: a loop that was left behind would run twice."""
    clock = BrokenClock()
    settings = LiveSettings(ThrottlingSettings(creates_per_minute=6, requests_per_minute=6))
    account = UpstreamLimiter(teams_of(*teams(red=1)), clock, notes, settings)
    while account.take(READ):
        pass
    others = asyncio.all_tasks()
    waiting = begin(account.permit(READ))
    await settle()
    with pytest.raises(RuntimeError):
        await account.run()
    assert asyncio.all_tasks() - others == {waiting}
    waiting.cancel()


def begin(work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    return asyncio.create_task(work)


def create_permit(account: UpstreamLimiter, team: str, *, seconds: float = 1e6, returned: bool = False) -> Any:
    until = account._clock.monotonic() + seconds
    return account.create_permit(CREATE, team, until, returned=returned)


async def empty(account: UpstreamLimiter) -> None:
    """Take what there is at once."""
    while account.creates.take():
        pass
    while account.requests.take():
        pass


async def test_free_turn_needs_no_waiting(clock: ManualClock, notes: RecordingObserver):
    """With free turns and no line there is no task, no timer and no wait."""
    async with opened(clock, notes, teams(a=1)) as account:
        await settle()
        tasks = asyncio.all_tasks()
        coroutine = create_permit(account, "a")
        with pytest.raises(StopIteration) as done:
            coroutine.send(None)
        assert done.value.value is False
        assert account.take(READ)
        assert asyncio.all_tasks() == tasks
        assert (clock.sleeping, notes.waits) == (0, [])


async def test_sixteen_teams_share_creates_by_weight(clock: ManualClock, notes: RecordingObserver):
    """All want more than there is, for three minutes: each has its share to a twentieth, and all of it is used."""
    async with opened(clock, notes, teams(**SIXTEEN)) as account:
        got: Counter[str] = Counter()

        async def want(name: str) -> None:
            while True:
                await create_permit(account, name)
                got[name] += 1

        await empty(account)
        wanting = [begin(want(name)) for name in SIXTEEN for _ in range(3)]
        await clock.advance(180)
        for task in wanting:
            task.cancel()
        await asyncio.gather(*wanting, return_exceptions=True)
        assert got.total() == pytest.approx(1800, abs=2)
        for name, weight in SIXTEEN.items():
            assert got[name] == pytest.approx(1800 * weight / sum(SIXTEEN.values()), rel=0.05)


async def test_quiet_teams_first_create_waits_less_than_a_round(clock: ManualClock, notes: RecordingObserver):
    """Fifteen teams have queued by the hundred; the sixteenth comes with one create, of the lightest weight."""
    async with opened(clock, notes, teams(**SIXTEEN)) as account:
        quiet, *busy = sorted(SIXTEEN, key=SIXTEEN.__getitem__)
        await empty(account)
        crowd = [begin(create_permit(account, name)) for name in busy for _ in range(100)]
        await clock.advance(30)
        first = begin(create_permit(account, quiet))
        await clock.advance(16 * 0.1)
        assert first.done()
        for task in crowd:
            task.cancel()
        await asyncio.gather(*crowd, return_exceptions=True)


async def test_idle_shares_are_lent(clock: ManualClock, notes: RecordingObserver):
    """With no other team active, the lightest team has all of the account."""
    async with opened(clock, notes, teams(light=1, heavy=100)) as account:
        await empty(account)
        waiting = [begin(create_permit(account, "light")) for _ in range(600)]
        await clock.advance(60)
        assert sum(task.done() for task in waiting) == 600


async def test_expired_wait_names_the_accounts_limit(clock: ManualClock, notes: RecordingObserver):
    """After its 20 seconds: 429 of the account, with the time after which another attempt makes sense."""
    async with opened(clock, notes, teams(a=1), creates=1) as account:
        await empty(account)
        await clock.advance(45)
        waiting = begin(create_permit(account, "a", seconds=20))
        await settle()
        # Upstream refuses others meanwhile.
        account.observe_response(CREATE, Answer(429, {"retry-after": "60"}, b""))
        await clock.advance(19.9)
        assert not waiting.done()
        await clock.advance(0.1)
        with pytest.raises(RateLimited) as refused:
            await waiting
        error = refused.value
        assert error.retry_after == 40
        assert error.limit is not None
        assert (error.limit["of"], error.limit["name"], error.limit["limit"]) == ("account", "creates_per_minute", 1)
        assert error.limit["resets_at"] == times.render(clock.now() + 40)
        assert "resets in ~40s" in error.detail
        assert (len(account.creates), notes.refusals) == (0, [("creates", "timeout")])


async def test_wait_that_cannot_succeed_is_refused_at_once(clock: ManualClock, notes: RecordingObserver):
    """No create is held that cannot succeed: not the first, whose permit is too late, nor one behind its team's."""
    async with opened(clock, notes, teams(a=1, b=1), creates=6) as account:
        await empty(account)
        with pytest.raises(RateLimited) as refused:
            await create_permit(account, "a", seconds=9)
        assert refused.value.retry_after == 10
        waiting = [begin(create_permit(account, "a", seconds=25)) for _ in range(2)]
        await settle()
        with pytest.raises(RateLimited):
            await create_permit(account, "a", seconds=25)
        other = begin(create_permit(account, "b", seconds=25))
        await clock.advance(25)
        assert [type(each) for each in await asyncio.gather(*waiting, other, return_exceptions=True)].count(bool) == 2
    assert notes.refusals[:2] == [("creates", "too_long")] * 2


async def test_calls_of_the_gateway_itself_wait_all_the_same(clock: ManualClock, notes: RecordingObserver):
    """They are made again at once, so an immediate refusal would repeat them without a pause."""
    async with opened(clock, notes, teams(a=1), requests=1) as account:
        await empty(account)
        call = begin(account.permit(READ))
        await clock.advance(29.9)
        assert not call.done()
        await clock.advance(0.2)
        with pytest.raises(RateLimited):
            await call


async def test_wait_for_the_account_is_added_to_the_creates_hold(clock: ManualClock, notes: RecordingObserver):
    """Its caller sees how long, and for what."""
    async with opened(clock, notes, teams(a=1), creates=6) as account:
        await empty(account)
        hold = Hold()
        waiting = begin(account.create_permit(CREATE, "a", clock.monotonic() + 20, hold=hold))
        await clock.advance(10)
        assert await waiting
        assert (hold.seconds, hold.by) == (pytest.approx(10), "account-creates-per-minute")


async def test_team_without_a_wait_time_is_refused_at_once(clock: ManualClock, notes: RecordingObserver):
    """`max_wait_seconds = 0`."""
    async with opened(clock, notes, teams(a=1)) as account:
        await empty(account)
        with pytest.raises(RateLimited):
            await create_permit(account, "a", seconds=0)


async def test_one_timer_serves_all_waiters(clock: ManualClock, notes: RecordingObserver):
    """Five hundred wait, each with its own deadline: one sleeps."""
    async with opened(clock, notes, teams(a=1, b=1), creates=6) as account:
        await empty(account)
        waiting = [
            begin(create_permit(account, "ab"[number % 2], seconds=6000 + number / 100)) for number in range(500)
        ]
        await settle()
        assert clock.sleeping == 1
        account.observe_response(CREATE, Answer(429, {"retry-after": "600"}, b""))
        for task in waiting[::2]:
            task.cancel()
        await settle()
        assert clock.sleeping == 1
        await clock.advance(6030)
        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert Counter(type(result) for result in results)[bool] > 200
        assert clock.sleeping == 0


async def test_earlier_deadline_is_kept(clock: ManualClock, notes: RecordingObserver):
    """A caller with a shorter wait comes after one with a longer wait."""
    async with opened(clock, notes, teams(a=1, b=1), creates=60) as account:
        await empty(account)
        patient, hasty = begin(create_permit(account, "a", seconds=50)), begin(create_permit(account, "b", seconds=2))
        await settle()
        account.observe_response(CREATE, Answer(429, {"retry-after": "60"}, b""))
        await clock.advance(2)
        assert (patient.done(), hasty.done()) == (False, True)
        with pytest.raises(RateLimited):
            await hasty
        patient.cancel()
        await asyncio.gather(patient, return_exceptions=True)


async def test_cancelled_waiter_gives_its_place_back(clock: ManualClock, notes: RecordingObserver):
    """The next in line moves up as if it had never been there."""
    async with opened(clock, notes, teams(a=1), creates=60) as account:
        await empty(account)
        first, second = begin(create_permit(account, "a")), begin(create_permit(account, "a"))
        await settle()
        first.cancel()
        await clock.advance(1.0)
        assert second.done()
        assert account.creates.rate.wait(clock.monotonic()) == pytest.approx(1.0)


async def test_turn_given_to_a_cancelled_waiter_goes_to_the_next(clock: ManualClock, notes: RecordingObserver):
    """Given and cancelled at one moment: it is not lost."""
    async with opened(clock, notes, teams(a=1), creates=60) as account:
        await empty(account)
        first, second = begin(create_permit(account, "a")), begin(create_permit(account, "a"))
        await settle()
        clock._passed += 1.0
        account.creates._changed.set()
        while not any(turn.done() for turn in account.creates._granted.values()):
            await asyncio.sleep(0)
        first.cancel()
        await settle()
        assert first.cancelled()
        assert second.done()


async def test_number_of_waiters_per_team_is_limited(clock: ManualClock, notes: RecordingObserver):
    """A thousand wait; the next one of that team is refused at once, another team's is not."""
    async with opened(clock, notes, teams(a=1, b=1), creates=1) as account:
        await empty(account)
        crowd = [begin(create_permit(account, "a")) for _ in range(MAX_WAITING)]
        await settle()
        with pytest.raises(RateLimited, match="1000 requests of your team are already queued"):
            await create_permit(account, "a")
        other = begin(create_permit(account, "b"))
        await settle()
        assert not other.done()
        assert notes.refusals == [("creates", "queue_full")]
        for task in [*crowd, other]:
            task.cancel()
        await asyncio.gather(*crowd, other, return_exceptions=True)
        assert len(account.creates) == 0


async def test_shutdown_releases_all_waiters(clock: ManualClock, notes: RecordingObserver):
    """A shutdown answers waiting calls, and later ones."""
    async with opened(clock, notes, teams(a=1)) as account:
        await empty(account)
        waiting = begin(create_permit(account, "a"))
        await settle()
        account.close()
        with pytest.raises(UpstreamUnavailable):
            await waiting
        with pytest.raises(UpstreamUnavailable):
            await create_permit(account, "a")
        await clock.advance(60)
        assert await create_permit(account, "a") is False


async def test_shutdown_waits_for_creates_whose_turn_comes_in_time(clock: ManualClock, notes: RecordingObserver):
    """The gateway's own calls go on for ever: nothing waits for them."""
    async with opened(clock, notes, teams(a=1)) as account:
        await empty(account)
        waiting = [begin(create_permit(account, "a")) for _ in range(3)]
        await settle()
        finishing = begin(account.finish_creates(0.25))
        await clock.advance(0.21)
        assert [each.done() for each in waiting] == [True, True, False]
        assert not finishing.done()
        await clock.advance(0.05)
        assert finishing.done()
        await clock.advance(0.1)
        await asyncio.gather(*waiting)
        await account.finish_creates(8.0)


async def test_upstreams_refusals_are_learned(clock: ManualClock, notes: RecordingObserver):
    """Low on credit: the refused create goes first when the pause is over, the others at six a minute."""
    async with opened(clock, notes, teams(a=1)) as account:
        assert await create_permit(account, "a") is False
        account.observe_response(CREATE, Answer(429, {"retry-after": "5"}, LOW_CREDIT))
        assert notes.throttles == ["creates"]
        later = [begin(create_permit(account, "a")) for _ in range(3)]
        await settle()
        again = begin(create_permit(account, "a", returned=True))
        await clock.advance(4.9)
        assert not again.done()
        await clock.advance(0.1)
        assert again.done()
        assert [task.done() for task in later] == [False] * 3
        await clock.advance(10)
        assert [task.done() for task in later] == [True, False, False]
        (creates, requests) = account.states()
        assert (creates.limit, creates.learned, creates.waiting, creates.throttled) == (600, 6, 2, 1)
        assert (requests.learned, requests.waiting) == (3000, 0)
        for task in later:
            task.cancel()
        await asyncio.gather(*later, return_exceptions=True)


async def test_polls_do_not_affect_the_create_rate(clock: ManualClock, notes: RecordingObserver):
    """Each lane learns from its own responses; a poll has 59999 left, which is no create's share."""
    async with opened(clock, notes, teams(a=1)) as account:
        account.observe_response(
            "predictions.get", Answer(200, {"ratelimit-remaining": "59999", "ratelimit-reset": "1"}, b"")
        )
        account.observe_response(READ, Answer(200, {"ratelimit-remaining": "7", "ratelimit-reset": "1"}, b""))
        assert [state.remaining for state in account.states()] == [100, 7]


async def ask_as(account: UpstreamLimiter, team: str | None, operation: str) -> None:
    """Ask for a turn as the client does, in a context of its own."""
    if team is not None:
        account.asked_by(team)
    if not account.take(operation):
        await account.permit(operation)


async def test_relayed_reads_never_starve_polls(clock: ManualClock, notes: RecordingObserver):
    """Sixteen teams read as fast as they can: half of the calls are polls of runs, if those are needed."""
    async with opened(clock, notes, teams(**SIXTEEN), requests=600) as account:
        await empty(account)
        reads = [begin(ask_as(account, name, READ)) for name in SIXTEEN for _ in range(20)]
        looks = [begin(ask_as(account, None, "predictions.get")) for _ in range(60)]
        # The first round is everybody's.
        await clock.advance(2)
        assert any(task.done() for task in looks)
        before = [sum(task.done() for task in tasks) for tasks in (looks, reads)]
        await clock.advance(4)
        after = [sum(task.done() for task in tasks) for tasks in (looks, reads)]
        assert [after[0] - before[0], after[1] - before[1]] == [pytest.approx(20, abs=4)] * 2
        for task in [*reads, *looks]:
            task.cancel()
        await asyncio.gather(*reads, *looks, return_exceptions=True)


async def test_cancel_waits_behind_no_poll(clock: ManualClock, notes: RecordingObserver):
    """A thousand runs are to be polled, and one is to be cancelled: that is the next call but one."""
    async with opened(clock, notes, teams(a=1), requests=60) as account:
        await empty(account)
        looks = [begin(ask_as(account, None, "predictions.get")) for _ in range(500)]
        reads = [begin(ask_as(account, "a", READ)) for _ in range(500)]
        await settle()
        cancel = begin(ask_as(account, None, "predictions.cancel"))
        await clock.advance(3)
        assert cancel.done()
        for task in [*reads, *looks]:
            task.cancel()
        await asyncio.gather(*reads, *looks, return_exceptions=True)


async def test_background_calls_are_the_gateways_own(clock: ManualClock, notes: RecordingObserver):
    """A tracker started by a team's create polls on its own account, and the team's context stays the team's."""
    askers = []

    def answer(call: Call) -> Answer:
        askers.append(asking.get().name)
        return Answer(200, {}, b"{}")

    async with opened(clock, notes, teams(a=1)) as account:
        upstream = FakeUpstream(answer)
        own = InternalUpstream(upstream)

        async def request() -> None:
            account.asked_by("a")
            await own.read("predictions.get", "/predictions/x")
            await own.send("predictions.cancel", "POST", "/predictions/x/cancel")
            await upstream.read(READ, "/models/x")

        await begin(request())
    assert askers == ["the gateway", "the gateway", "a"]
    assert asking.get().name == "the gateway"


async def test_trainings_count_with_all_other_calls(clock: ManualClock, notes: RecordingObserver):
    """As upstream counts them (2999 left after the first); their turn is taken where creates take theirs."""
    async with opened(clock, notes, teams(a=1)) as account:
        assert await account.create_permit("trainings.create", "a", clock.monotonic() + 20) is False
        assert account.take("trainings.create")
        assert [state.used for state in account.states()] == [0, 1]
