"""Creates that wait for a permit of the account: sent once, dropped if their callers leave."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from gateway.domain.hold import Hold
from gateway.domain.records import RunState
from gateway.domain.upstream_response import Answer
from gateway.errors import CallerLeft, GatewayError, RateLimited
from tests.support.clock import settle
from tests.support.create_core import CreateCore
from tests.support.fakes import answer


class Limiter:
    """Gives permits when the test says so."""

    def __init__(self) -> None:
        self.free = asyncio.Event()
        self.free.set()
        self.asked: list[bool] = []
        self.returned = 0
        self.error: GatewayError | None = None

    def take_create(self, operation: str) -> bool:
        """Let every create ask for its permit."""
        return False

    async def create_permit(
        self, operation: str, team: str, until: float, *, returned: bool = False, hold: Hold | None = None
    ) -> bool:
        """Wait for a permit."""
        self.asked.append(returned)
        has_waited = not self.free.is_set()
        await self.free.wait()
        if self.error is not None:
            raise self.error
        return has_waited

    def give_back(self, operation: str) -> None:
        """Take a permit back."""
        self.returned += 1


@pytest.fixture
def limiter() -> Limiter:
    return Limiter()


@pytest.fixture
async def limited(limiter: Limiter) -> AsyncIterator[CreateCore]:
    made = CreateCore(create_limiter=limiter)
    yield made
    await made.close()


async def test_create_is_sent_again_only_after_a_429(limited: CreateCore, limiter: Limiter) -> None:
    limited.replicate.script = [answer(429), answer(429)]
    assert (await limited.create()).view.run.state is RunState.LIVE
    assert (limited.replicate.sent, limiter.asked) == (3, [False, True, True])


async def test_disconnect_before_the_permit_creates_nothing(limited: CreateCore, limiter: Limiter) -> None:
    limiter.free.clear()
    left: list[bool] = []
    task = limited.ask(has_left=lambda: bool(left))
    await settle()
    left.append(True)
    limiter.free.set()
    with pytest.raises(CallerLeft):
        await task
    assert (limited.replicate.sent, limiter.returned, limited.store.runs) == (0, 1, {})


async def test_permit_is_not_awaited_after_the_disconnect(limited: CreateCore, limiter: Limiter) -> None:
    """The reservation and the place in the queue are free at once, not when the permit would have come."""
    limiter.free.clear()
    listeners: list[Callable[[], None]] = []
    left: list[bool] = []

    def add_listener(callback: Callable[[], None]) -> Callable[[], None]:
        listeners.append(callback)
        return listeners.clear

    task = limited.ask(has_left=lambda: bool(left), add_departure_listener=add_listener)
    await settle()
    left.append(True)
    for callback in tuple(listeners):
        callback()
    with pytest.raises(CallerLeft):
        await task
    assert (limited.replicate.sent, limiter.returned, limited.store.runs, listeners) == (0, 0, {}, [])


async def test_joined_create_continues_without_its_first_caller(limited: CreateCore, limiter: Limiter) -> None:
    limiter.free.clear()
    left: list[bool] = []
    first = limited.ask(has_left=lambda: bool(left))
    await settle()
    second = limited.ask()
    await settle()
    left.append(True)
    limiter.free.set()
    assert not isinstance(await first, Answer)
    assert not isinstance(await second, Answer)
    assert (limited.replicate.sent, limiter.returned) == (1, 0)


async def test_permit_timeout_refuses_the_create(limited: CreateCore, limiter: Limiter) -> None:
    limiter.error = RateLimited("too long")
    with pytest.raises(RateLimited):
        await limited.create()
    assert (limited.replicate.sent, limited.store.runs) == (0, {})
