"""Tokens that many requests take in one step."""

import asyncio

import pytest

from gateway.domain.rates import Rate
from gateway.errors import StoreUnavailable
from gateway.throttling.permit_desk import PermitDesk
from gateway.throttling.rules.divided_rate import Want
from tests.support.clock import ManualClock, settle
from tests.support.divided_rates import MemoryRates

RATE = Rate(60.0, 12)
WANT = Want("team:red", RATE)


@pytest.fixture
def store(clock: ManualClock) -> MemoryRates:
    made = MemoryRates(clock)
    made.renew(1)
    return made


@pytest.fixture
def desk(store: MemoryRates) -> PermitDesk:
    return PermitDesk(store, lambda: 1)


async def test_requests_that_come_at_once_are_one_step(store: MemoryRates, desk: PermitDesk) -> None:
    taken = await asyncio.gather(*(desk.take((WANT,)) for _ in range(20)))
    assert [each.refused for each in taken] == [None] * 12 + [0] * 8
    assert store.steps == ["take"]
    assert (desk.granted, desk.refused) == (12, 8)


async def test_token_of_a_caller_who_has_left_is_put_back(store: MemoryRates, desk: PermitDesk) -> None:
    waiting = [asyncio.create_task(desk.take((WANT,))) for _ in range(12)]
    await asyncio.sleep(0)
    for each in waiting[:3]:
        each.cancel()
    await settle()
    assert store.rates["team:red"].tokens == pytest.approx(3.0)
    await asyncio.gather(*waiting, return_exceptions=True)


async def test_failure_of_the_store_fails_the_requests_of_its_step_only(store: MemoryRates, desk: PermitDesk) -> None:
    store.is_away = True
    failed = await asyncio.gather(*(desk.take((WANT,)) for _ in range(3)), return_exceptions=True)
    assert [type(each) for each in failed] == [StoreUnavailable] * 3
    store.is_away = False
    assert (await desk.take((WANT,))).refused is None


async def test_defect_fails_the_requests_of_its_step_and_no_others(store: MemoryRates, desk: PermitDesk) -> None:
    def fails() -> bool:
        raise KeyError("team:red")

    store.loses_answer = fails
    failed = await asyncio.gather(*(desk.take((WANT,)) for _ in range(2)), return_exceptions=True)
    assert [type(each) for each in failed] == [KeyError] * 2
    store.loses_answer = lambda: False
    assert (await desk.take((WANT,))).refused is None


async def test_token_that_was_not_used_can_be_put_back(store: MemoryRates, desk: PermitDesk) -> None:
    await desk.take((WANT,))
    desk.put_back(WANT)
    await settle()
    assert store.rates["team:red"].tokens == pytest.approx(12.0)
    await desk.close()
