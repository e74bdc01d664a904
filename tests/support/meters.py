"""Counters of scopes and sums of the ledger, as tests of the store read them."""

from typing import Any

from gateway.domain import windows
from gateway.domain.ledger import By, Usage
from gateway.money.rules.audit import Tally
from gateway.store.interface import Store
from tests.support.records import NOW

DAY = windows.day_of(NOW)


TEAM, KEY, USER = "team/red", "key/k1", "user/team red: ann"


async def held(store: Store, scope: str = TEAM, now: float = NOW) -> tuple[int, int, int]:
    meter = (await store.meters([scope], now))[scope]
    return meter.open, meter.held_microusd, meter.held_milliseconds


async def spent(store: Store, scope: str = TEAM, now: float = NOW) -> tuple[int, int, int, int]:
    meter = (await store.meters([scope], now))[scope]
    return meter.day_microusd, meter.month_microusd, meter.day_milliseconds, meter.month_milliseconds


async def used(store: Store, by: By = By.TEAM, **wanted: Any) -> list[Usage]:
    return await store.usage(by, **{"since": DAY - 400, "until": DAY + 400, **wanted})


async def total(store: Store) -> Usage:
    (row,) = await used(store)
    return row


async def drift(store: Store, day: int = DAY, step: int = 7) -> list[str]:
    tally, after = Tally(), 0
    while True:
        audited = await store.audit_day(day, after, step)
        tally.add(audited)
        if audited.stored is not None:
            return tally.drift(audited.stored)
        after = audited.last
