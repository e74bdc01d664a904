"""Places for transfers, and those who wait for one."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from gateway.domain.teams import Caller, Team
from gateway.errors import RateLimited
from gateway.files.rules.transfers import Direction, TransferSettings
from gateway.files.transfers import Transfers, begun
from gateway.runtime.live import LiveSettings
from tests.support.clock import settle
from tests.support.observer import RecordingObserver


def caller(team: str = "red", *, seconds: float = 60.0, user: str | None = None) -> Caller:
    return Caller(
        team=Team(name=team, scopes=frozenset(), max_wait_seconds=seconds),
        key_id="k",
        scopes=frozenset(),
        models=(),
        user=user,
        is_public=user is not None,
    )


@pytest.fixture
def observer() -> RecordingObserver:
    return RecordingObserver()


@pytest.fixture
def uploads(observer: RecordingObserver) -> Transfers:
    settings = TransferSettings(max_uploads=2, max_per_team=1, max_per_public_key=1)
    return Transfers(Direction.UPLOADS, LiveSettings(settings), observer)


async def hold(uploads: Transfers, who: Caller, until: asyncio.Event) -> None:
    async with uploads.admit(who):
        await until.wait()


async def test_a_free_place_goes_to_the_one_who_waits_longest(uploads: Transfers) -> None:
    first, second = asyncio.Event(), asyncio.Event()
    tasks = [asyncio.ensure_future(hold(uploads, caller(), each)) for each in (first, second)]
    await settle()
    assert (uploads.in_progress, uploads.waiting) == (1, 1)
    first.set()
    await settle()
    assert (uploads.in_progress, uploads.waiting) == (1, 0)
    second.set()
    await asyncio.gather(*tasks)
    assert (uploads.in_progress, uploads.waiting) == (0, 0)


async def test_a_free_place_is_not_given_to_a_team_at_its_bound(uploads: Transfers) -> None:
    """The next one in the queue gets it."""
    ends = {name: asyncio.Event() for name in ("red", "blue", "red again", "green")}
    tasks = [asyncio.ensure_future(hold(uploads, caller(name.split()[0]), end)) for name, end in ends.items()]
    await settle()
    assert (uploads.in_progress, uploads.waiting) == (2, 2)
    ends["blue"].set()
    await settle()
    assert (uploads.in_progress, uploads.waiting) == (2, 1)
    ends["green"].set()
    await settle()
    assert (uploads.in_progress, uploads.waiting) == (1, 1)
    for end in ends.values():
        end.set()
    await asyncio.gather(*tasks)


async def test_a_waiter_that_leaves_as_its_turn_comes_returns_the_place(uploads: Transfers) -> None:
    first, other = asyncio.Event(), asyncio.Event()
    holding = asyncio.ensure_future(hold(uploads, caller(), first))
    await settle()
    leaving, next_one = (asyncio.ensure_future(hold(uploads, caller(), other)) for _ in range(2))
    await settle()
    first.set()
    await holding
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    await settle()
    assert (uploads.in_progress, uploads.waiting) == (1, 0)
    other.set()
    await next_one
    assert uploads.in_progress == 0


async def test_too_many_waiters_and_too_long_waits_are_refused(uploads: Transfers, observer: RecordingObserver) -> None:
    end = asyncio.Event()
    tasks = [asyncio.ensure_future(hold(uploads, caller(), end)) for _ in range(5)]
    await settle()
    with pytest.raises(RateLimited, match="Your team can have 1 uploads"):
        await hold(uploads, caller(), end)
    with pytest.raises(RateLimited):
        await hold(uploads, caller(seconds=0.0), end)
    assert observer.of("transfer_refused") == [("uploads", "team")] * 2
    end.set()
    await asyncio.gather(*tasks)


async def test_the_tokens_of_one_user_share_a_bound(uploads: Transfers) -> None:
    end = asyncio.Event()
    task = asyncio.ensure_future(hold(uploads, caller(user="ann", seconds=0.0), end))
    await settle()
    with pytest.raises(RateLimited, match="Your key or token"):
        await hold(uploads, caller(user="ann", seconds=0.0), end)
    end.set()
    await task


async def chunks(*sizes: int) -> AsyncIterator[bytes]:
    for size in sizes:
        yield b"x" * size


async def test_a_body_is_whole_after_its_beginning_was_read() -> None:
    body = await begun(chunks(40_000, 40_000, 5))
    assert [len(chunk) async for chunk in body] == [80_000, 5]
    assert [chunk async for chunk in await begun(chunks())] == []
