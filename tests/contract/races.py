"""Races of two steps and what holds whichever comes first: `races_of_…` has them, `test_postgres_races` runs them."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from gateway.domain.quota import ReservationRequest
from gateway.domain.webhook_places import WebhookBounds, WebhookPlace
from gateway.domain.windows import day_of
from gateway.errors import Conflict
from gateway.money.rules.audit import Tally
from gateway.store.interface import Store
from gateway.store.sql.locks import Lock
from tests.support.overlaps import Work
from tests.support.records import NOW

DAY = day_of(NOW)
A, B = "a" * 64, "b" * 64
HOOK = {"webhook": "https://hooks.example.com/x"}
ONE_PLACE = WebhookPlace(WebhookBounds(per_team=1))
UNLIMITED = ReservationRequest(60, 60, ())
OF_BLUE = {"team": "blue", "key_id": "k2"}
Check = Callable[[Store, Any, Any], Awaitable[None]]


@dataclass
class Race:
    """Two steps at once, and what holds whichever comes first."""

    locks: frozenset[Lock | str]
    prepare: Callable[[Store], Awaitable[Any]]
    first: Work
    second: Work
    holds: Check
    at: str | None = None


RACES: dict[str, Race] = {}


def race(
    name: str,
    *locks: Lock | str,
    prepare: Callable[[Store], Awaitable[Any]],
    first: Work,
    second: Work,
    at: str | None = None,
) -> Callable[[Check], Check]:
    def kept(holds: Check) -> Check:
        RACES[name] = Race(frozenset(locks), prepare, first, second, holds, at)
        return holds

    return kept


async def nothing(_: Store) -> None:
    """Prepare nothing."""


async def conflicted(work: Awaitable[Any]) -> Any:
    """Return the conflict that a step ends with, or what it returns."""
    try:
        return await work
    except Conflict as exc:
        return exc


def kinds(*outcomes: Any) -> set[type]:
    return {type(each) for each in outcomes}


async def drift(store: Store) -> list[str]:
    tally = Tally()
    audited = await store.audit_day(DAY, 0, 10_000)
    tally.add(audited)
    assert audited.stored is not None
    return tally.drift(audited.stored)
