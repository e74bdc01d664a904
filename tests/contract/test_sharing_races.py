"""Creates, cancels, ends and settlements that come at the same moment, through one store and through two.

Each race is run many times with its parts in changing order. What counts is that every outcome tells one story.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Iterable
from typing import Any

import pytest

from gateway.domain.records import Source, Status
from gateway.predictions.ports.sharing import Hit, Joined, Mismatched, Pending, Replayed, Started, StartOutcome
from gateway.store.interface import Store
from tests.support.records import NOW, go, idempotency, lead, live, prediction, start, view_of, wish
from tests.support.stores import StoreMaker

ROUNDS = 30


@pytest.fixture
async def stores(store: Store, another: StoreMaker) -> AsyncIterator[tuple[Store, Store]]:
    """Two gateways on the same data."""
    second = another()
    await second.open()
    yield store, second
    await second.close()


async def in_turn(round_: int, first: Awaitable[Any], second: Awaitable[Any]) -> tuple[Any, Any]:
    """Do both at once, asked for in an order that changes from round to round."""
    if round_ % 2:
        return tuple(await asyncio.gather(first, second))  # type: ignore[return-value]
    late, early = await asyncio.gather(second, first)
    return early, late


def kinds(outcomes: Iterable[StartOutcome]) -> Counter[type[StartOutcome]]:
    """Count the outcomes by their class."""
    return Counter(type(outcome) for outcome in outcomes)


async def test_of_five_hundred_who_ask_for_one_thing_one_leads(stores: tuple[Store, Store]) -> None:
    """A burst of equal requests at two processes: one run, five hundred predictions, one leader."""
    outcomes = await asyncio.gather(*(start(stores[n % 2], str(n), fingerprint="F") for n in range(500)))
    assert kinds(outcomes) == {Started: 1, Joined: 499}
    (run,) = await stores[0].open_runs()
    assert {view_of(each).run.id for each in outcomes} == {run.id}
    known = await stores[1].predictions_of(run.id)
    assert {each.id for each in known} == {f"p{n}" for n in range(500)}
    assert [each.id for each in known if each.source is Source.MISS] == [run.leader_id]


async def test_of_many_on_a_cold_gateway_one_leads(stores: tuple[Store, Store]) -> None:
    """Some know the model already and some do not: they still find each other."""
    outcomes = await asyncio.gather(
        *(start(stores[n % 2], str(n), fingerprint="F" if n % 3 else None, provisional="P") for n in range(100))
    )
    assert kinds(outcomes) == {Started: 1, Joined: 99}


async def test_many_things_at_once_have_a_leader_each(stores: tuple[Store, Store]) -> None:
    outcomes = await asyncio.gather(*(start(stores[n % 2], str(n), fingerprint=f"F{n % 7}") for n in range(140)))
    assert kinds(outcomes) == {Started: 7, Joined: 133}
    runs = await stores[0].open_runs()
    assert sorted(str(run.fingerprint) for run in runs) == [f"F{n}" for n in range(7)]


async def test_nobody_joins_a_run_that_is_being_cancelled(stores: tuple[Store, Store]) -> None:
    """The last caller leaves as another comes: either the newcomer keeps the run alive, or it gets one of its own."""
    stories = set()
    for n in range(ROUNDS):
        await go(stores[0], f"{n}a", fingerprint=f"F{n}")
        cancellation, outcome = await in_turn(
            n, stores[0].cancel(f"up{n}a", NOW + 1), start(stores[n % 4 // 2], f"{n}b", fingerprint=f"F{n}")
        )
        if isinstance(outcome, Joined):
            assert not cancellation.is_last
            run = await stores[0].run(f"run{n}a")
            assert run is not None
            assert run.cancel_asked_at is None
        else:
            assert isinstance(outcome, Started)
            assert cancellation.is_last
            assert view_of(outcome).run.id == f"run{n}b"
        stories.add(type(outcome))
    assert stories == {Joined, Started}


async def test_whoever_comes_at_the_end_is_not_lost(stores: tuple[Store, Store]) -> None:
    """A run ends as another caller comes: it joined before the end or hits after it, and sees the result either way."""
    stories = set()
    for n in range(ROUNDS):
        await go(stores[0], f"{n}a", fingerprint=f"F{n}")
        end = stores[0].advance(
            f"run{n}a", status=Status.SUCCEEDED, document=b"x", stream_url=None, at=NOW, cache_until=NOW + 9
        )
        _, outcome = await in_turn(n, end, start(stores[n % 4 // 2], f"{n}b", fingerprint=f"F{n}"))
        assert isinstance(outcome, Hit | Joined)
        view = await stores[0].prediction(f"p{n}b")
        assert view is not None
        assert (view.run.id, view.run.status) == (f"run{n}a", Status.SUCCEEDED)
        stories.add(type(outcome))
    assert stories == {Hit, Joined}


async def test_whoever_comes_as_a_run_fails_is_not_lost(store: Store) -> None:
    """It joined and shares the failure, or it tries anew."""
    for n in range(ROUNDS):
        await go(store, f"{n}a", fingerprint=f"F{n}")
        end = store.advance(f"run{n}a", status=Status.FAILED, document=b"x", stream_url=None, at=NOW)
        _, outcome = await in_turn(n, end, start(store, f"{n}b", fingerprint=f"F{n}"))
        assert isinstance(outcome, Joined | Started)
        assert await store.run(view_of(outcome).run.id) is not None


async def test_whoever_comes_as_a_create_is_refused_goes_with_it_or_leads(stores: tuple[Store, Store]) -> None:
    """The newcomer joined and was removed with the intent, or leads anew: nothing hangs in the air."""
    stories = set()
    for n in range(ROUNDS):
        await lead(stores[0], f"{n}a", fingerprint=f"F{n}")
        newcomer = wish(f"{n}b", fingerprint=f"F{n}", idempotency=idempotency(f"k{n}"))
        _, outcome = await in_turn(n, stores[0].discard_intent(f"run{n}a"), newcomer.start(stores[n % 4 // 2]))
        assert await stores[0].run(f"run{n}a") is None
        assert await stores[0].predictions_of(f"run{n}a") == []
        known = await stores[0].predictions_of(f"run{n}b")
        assert [each.id for each in known] == ([f"p{n}b"] if isinstance(outcome, Started) else [])
        again = await start(stores[0], f"{n}c", idempotency=idempotency(f"k{n}"))
        assert isinstance(again, Pending if isinstance(outcome, Started) else Started)
        stories.add(type(outcome))
    assert stories == {Joined, Started}


async def test_whoever_comes_as_a_create_is_recorded_joins_it(stores: tuple[Store, Store]) -> None:
    for n in range(ROUNDS):
        await lead(stores[0], f"{n}a", fingerprint=f"F{n}")
        created = stores[0].record_created(live(f"run{n}a"), prediction(f"up{n}a", f"run{n}a"))
        _, outcome = await in_turn(n, created, start(stores[n % 4 // 2], f"{n}b", fingerprint=f"F{n}"))
        assert isinstance(outcome, Joined)
        known = await stores[0].predictions_of(f"run{n}a")
        assert {each.id for each in known} == {f"up{n}a", f"p{n}b"}


async def test_a_create_that_is_answered_and_given_up_at_once_is_one_of_both(store: Store) -> None:
    """The search for an orphan gives up as its answer comes: what upstream has is recorded in any case."""
    for n in range(ROUNDS):
        await lead(store, str(n), fingerprint=f"F{n}")
        created = store.record_created(live(f"run{n}", fingerprint=f"F{n}"), prediction(f"up{n}", f"run{n}"))
        await in_turn(n, created, store.discard_intent(f"run{n}"))
        view = await store.prediction(f"up{n}")
        assert view is not None
        assert (view.run.leader_id, view.run.fingerprint) == (f"up{n}", f"F{n}")
        assert len(await store.predictions_of(f"run{n}")) == 1


async def test_of_a_hundred_with_one_key_one_leads(stores: tuple[Store, Store]) -> None:
    """An impatient client repeats itself: the first request counts, the others hear that it is under way."""

    def asking() -> list[Awaitable[StartOutcome]]:
        return [start(stores[n % 2], f"{n}x{len(outcomes)}", idempotency=idempotency()) for n in range(100)]

    outcomes: list[StartOutcome] = []
    outcomes = await asyncio.gather(*asking())
    assert kinds(outcomes) == {Started: 1, Pending: 99}
    (run,) = await stores[0].open_runs()
    await stores[0].record_created(live(run.id), prediction("up", run.id))
    outcomes = await asyncio.gather(*asking())
    assert kinds(outcomes) == {Replayed: 100}
    assert {view_of(each).prediction.id for each in outcomes} == {"up"}
    others = [start(stores[n % 2], f"{n}y", idempotency=idempotency(body=f"b{n}")) for n in range(20)]
    assert kinds(await asyncio.gather(*others)) == {Mismatched: 20}
    late = [start(stores[n % 2], f"{n}z", now=NOW + 86400, idempotency=idempotency()) for n in range(20)]
    # Their own keys end before they begin, so that each is fresh.
    assert kinds(await asyncio.gather(*late)) == {Started: 20}


async def test_of_many_expired_keys_one_is_taken(store: Store) -> None:
    await start(store, "first", idempotency=idempotency())
    fresh = idempotency(expires_at=NOW + 3 * 86400)
    outcomes = await asyncio.gather(*(start(store, str(n), now=NOW + 2 * 86400, idempotency=fresh) for n in range(50)))
    assert kinds(outcomes) == {Started: 1, Pending: 49}


async def test_of_many_who_settle_on_one_identity_one_has_it(stores: tuple[Store, Store]) -> None:
    """Runs that began under different provisional identities turn out to be the same: one can be joined from now on."""
    for n in range(20):
        await go(stores[0], str(n), provisional=f"P{n}")
    settled = await asyncio.gather(*(stores[n % 2].settle_identity(f"run{n}", "F", None) for n in range(20)))
    assert sum(settled) == 1
    outcome = await start(stores[0], "x", fingerprint="F")
    assert view_of(outcome).run.id == f"run{settled.index(True)}"


async def test_an_identity_is_settled_or_led_but_not_both(stores: tuple[Store, Store]) -> None:
    """A run learns its fingerprint as somebody asks for just that: they share, or the newcomer has it."""
    stories = set()
    for n in range(ROUNDS):
        await go(stores[0], f"{n}a", provisional=f"P{n}")
        settled, outcome = await in_turn(
            n,
            stores[0].settle_identity(f"run{n}a", f"F{n}", None),
            start(stores[n % 4 // 2], f"{n}b", fingerprint=f"F{n}"),
        )
        assert settled == isinstance(outcome, Joined)
        assert isinstance(outcome, Joined | Started)
        stories.add(type(outcome))
    assert stories == {Joined, Started}


async def test_a_settlement_and_an_end_at_once_lose_no_time(store: Store) -> None:
    """Whichever comes first, a second settling after both finds the run ended and keeps it for later."""
    for n in range(ROUNDS):
        await go(store, str(n), provisional=f"P{n}")
        end = store.advance(
            f"run{n}", status=Status.SUCCEEDED, document=b"x", stream_url=None, at=NOW, cache_until=None
        )
        await in_turn(n, store.settle_identity(f"run{n}", f"F{n}", NOW + 9), end)
        assert await store.settle_identity(f"run{n}", f"F{n}", NOW + 9)
        assert isinstance(await start(store, f"{n}b", fingerprint=f"F{n}"), Hit)


async def test_the_last_to_part_and_the_last_to_cancel_ask_at_most_once(store: Store) -> None:
    """One parts as the other cancels: upstream is asked if the cancel came second, and never twice."""
    stories = set()
    for n in range(ROUNDS):
        await go(store, f"{n}a", fingerprint=f"F{n}")
        await start(store, f"{n}b", fingerprint=f"F{n}")
        _, cancellation = await in_turn(n, store.detach(f"p{n}b"), store.cancel(f"up{n}a", NOW))
        assert cancellation.changed
        assert [each.id for each in await store.predictions_of(f"run{n}a")] == [f"up{n}a"]
        stories.add(cancellation.is_last)
    assert stories == {True, False}


async def test_a_hit_is_recorded_even_as_its_run_is_purged(stores: tuple[Store, Store]) -> None:
    for n in range(ROUNDS):
        await go(stores[0], f"{n}a", fingerprint=f"F{n}")
        await stores[0].advance(
            f"run{n}a", status=Status.SUCCEEDED, document=b"x", stream_url=None, at=NOW, cache_until=NOW + 9
        )
        _, outcome = await in_turn(n, stores[0].purge_cache(), start(stores[n % 4 // 2], f"{n}b", fingerprint=f"F{n}"))
        if isinstance(outcome, Hit):
            assert await stores[0].prediction(f"p{n}b") is not None
        else:
            assert isinstance(outcome, Started)
        assert await stores[0].cache_stats(NOW) == await stores[1].cache_stats(NOW)
        assert (await stores[0].cache_stats(NOW)).entries == 0
