"""Creates, cancels, ends and settlements that come at the same moment, through one store and through two.

Each race is run many times with its parts in changing order. What counts is that every outcome tells one story.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any

import pytest

from gateway.domain.records import Source, Status
from gateway.predictions.ports.sharing import Hit, Joined, Mismatched, Pending, Replayed, Started, StartOutcome
from gateway.store.interface import Store
from tests.support.audit import PURGE
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


async def when_awaited(step: Callable[..., Awaitable[Any]], *arguments: Any, **options: Any) -> Any:
    """Ask for a step when this is awaited: some are queued as soon as they are called."""
    return await step(*arguments, **options)


async def in_turn(round_: int, first: Awaitable[Any], second: Awaitable[Any]) -> tuple[Any, Any]:
    """Do both at once, asked for in an order that changes from round to round; now and then one after the other.

    Where steps run at the same time, one that takes longer would always come second otherwise.
    """
    if round_ % 5 == 3:
        return await first, await second
    if round_ % 5 == 4:
        late = await second
        return await first, late
    if round_ % 2:
        return tuple(await asyncio.gather(first, second))  # type: ignore[return-value]
    late, early = await asyncio.gather(second, first)
    return early, late


def kinds(outcomes: Iterable[StartOutcome]) -> Counter[type[StartOutcome]]:
    """Count the outcomes by their class."""
    return Counter(type(outcome) for outcome in outcomes)


async def test_five_hundred_equal_starts_create_one_run(stores: tuple[Store, Store]) -> None:
    """A burst of equal requests at two processes: one run, five hundred predictions, one starter."""
    outcomes = await asyncio.gather(*(start(stores[n % 2], str(n), fingerprint="F") for n in range(500)))
    assert kinds(outcomes) == {Started: 1, Joined: 499}
    (run,) = await stores[0].open_runs()
    assert {view_of(each).run.id for each in outcomes} == {run.id}
    known = await stores[1].predictions_of(run.id)
    assert {each.id for each in known} == {f"p{n}" for n in range(500)}
    assert [each.id for each in known if each.source is Source.MISS] == [run.leader_id]


async def test_concurrent_starts_with_and_without_the_model_create_one_run(stores: tuple[Store, Store]) -> None:
    """Some know the model already, some do not: all join one run."""
    outcomes = await asyncio.gather(
        *(start(stores[n % 2], str(n), fingerprint="F" if n % 3 else None, provisional="P") for n in range(100))
    )
    assert kinds(outcomes) == {Started: 1, Joined: 99}


async def test_concurrent_starts_of_many_identities_create_one_run_each(stores: tuple[Store, Store]) -> None:
    outcomes = await asyncio.gather(*(start(stores[n % 2], str(n), fingerprint=f"F{n % 7}") for n in range(140)))
    assert kinds(outcomes) == {Started: 7, Joined: 133}
    runs = await stores[0].open_runs()
    assert sorted(str(run.fingerprint) for run in runs) == [f"F{n}" for n in range(7)]


async def test_concurrent_join_and_last_cancel_are_consistent(stores: tuple[Store, Store]) -> None:
    """Either the new caller keeps the run alive, or it gets a run of its own."""
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


async def test_caller_at_the_end_of_a_run_joins_or_hits(stores: tuple[Store, Store]) -> None:
    """It joins before the end or hits after it, and gets the result either way."""
    stories = set()
    for n in range(ROUNDS):
        await go(stores[0], f"{n}a", fingerprint=f"F{n}")
        end = when_awaited(
            stores[0].advance,
            f"run{n}a",
            status=Status.SUCCEEDED,
            document=b"x",
            stream_url=None,
            at=NOW,
            cache_until=NOW + 9,
        )
        _, outcome = await in_turn(n, end, start(stores[n % 4 // 2], f"{n}b", fingerprint=f"F{n}"))
        assert isinstance(outcome, Hit | Joined)
        view = await stores[0].prediction(f"p{n}b")
        assert view is not None
        assert (view.run.id, view.run.status) == (f"run{n}a", Status.SUCCEEDED)
        stories.add(type(outcome))
    assert stories == {Hit, Joined}


async def test_caller_at_the_failure_of_a_run_joins_or_starts(store: Store) -> None:
    """It joins and shares the failure, or starts a new run."""
    for n in range(ROUNDS):
        await go(store, f"{n}a", fingerprint=f"F{n}")
        end = when_awaited(store.advance, f"run{n}a", status=Status.FAILED, document=b"x", stream_url=None, at=NOW)
        _, outcome = await in_turn(n, end, start(store, f"{n}b", fingerprint=f"F{n}"))
        assert isinstance(outcome, Joined | Started)
        assert await store.run(view_of(outcome).run.id) is not None


async def test_caller_at_a_refused_create_joins_or_starts(stores: tuple[Store, Store]) -> None:
    """It joined and was removed with the intent, or starts a new run: none waits forever."""
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


async def test_caller_at_the_record_of_a_create_joins(stores: tuple[Store, Store]) -> None:
    for n in range(ROUNDS):
        await lead(stores[0], f"{n}a", fingerprint=f"F{n}")
        created = when_awaited(stores[0].record_created, live(f"run{n}a"), prediction(f"up{n}a", f"run{n}a"))
        _, outcome = await in_turn(n, created, start(stores[n % 4 // 2], f"{n}b", fingerprint=f"F{n}"))
        assert isinstance(outcome, Joined)
        known = await stores[0].predictions_of(f"run{n}a")
        assert {each.id for each in known} == {f"up{n}a", f"p{n}b"}


async def test_concurrent_record_and_discard_of_a_create_are_consistent(store: Store) -> None:
    """The search gives up as the response arrives: a run that exists upstream is recorded either way."""
    for n in range(ROUNDS):
        await lead(store, str(n), fingerprint=f"F{n}")
        created = when_awaited(
            store.record_created, live(f"run{n}", fingerprint=f"F{n}"), prediction(f"up{n}", f"run{n}")
        )
        await in_turn(n, created, store.discard_intent(f"run{n}"))
        view = await store.prediction(f"up{n}")
        assert view is not None
        assert (view.run.leader_id, view.run.fingerprint) == (f"up{n}", f"F{n}")
        assert len(await store.predictions_of(f"run{n}")) == 1


async def test_hundred_requests_with_one_key_start_once(stores: tuple[Store, Store]) -> None:
    """A client repeats its request: the first one counts, the others are pending."""

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
    # Their own keys expire before they start, so that each is unused.
    assert kinds(await asyncio.gather(*late)) == {Started: 20}


async def test_concurrent_uses_of_an_expired_key_start_once(store: Store) -> None:
    await start(store, "first", idempotency=idempotency())
    fresh = idempotency(expires_at=NOW + 3 * 86400)
    outcomes = await asyncio.gather(*(start(store, str(n), now=NOW + 2 * 86400, idempotency=fresh) for n in range(50)))
    assert kinds(outcomes) == {Started: 1, Pending: 49}


async def test_concurrent_settlements_of_one_identity_have_one_winner(stores: tuple[Store, Store]) -> None:
    """Runs with different provisional identities turn out to be equal: later callers can join one of them."""
    for n in range(20):
        await go(stores[0], str(n), provisional=f"P{n}")
    settled = await asyncio.gather(*(stores[n % 2].settle_identity(f"run{n}", "F", None) for n in range(20)))
    assert sum(settled) == 1
    outcome = await start(stores[0], "x", fingerprint="F")
    assert view_of(outcome).run.id == f"run{settled.index(True)}"


async def test_identity_is_settled_or_started_but_not_both(stores: tuple[Store, Store]) -> None:
    """One run learns its fingerprint as another caller starts it: they share, or the new run has it."""
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


async def test_concurrent_settlement_and_end_lose_no_expiry(store: Store) -> None:
    """Whichever comes first, a second settlement after both finds the run ended and caches it."""
    for n in range(ROUNDS):
        await go(store, str(n), provisional=f"P{n}")
        end = when_awaited(
            store.advance, f"run{n}", status=Status.SUCCEEDED, document=b"x", stream_url=None, at=NOW, cache_until=None
        )
        await in_turn(n, store.settle_identity(f"run{n}", f"F{n}", NOW + 9), end)
        assert await store.settle_identity(f"run{n}", f"F{n}", NOW + 9)
        assert isinstance(await start(store, f"{n}b", fingerprint=f"F{n}"), Hit)


async def test_concurrent_detach_and_last_cancel_cancel_at_most_once(store: Store) -> None:
    """Upstream gets a cancel if the cancel came second, and never two."""
    stories = set()
    for n in range(ROUNDS):
        await go(store, f"{n}a", fingerprint=f"F{n}")
        await start(store, f"{n}b", fingerprint=f"F{n}")
        _, cancellation = await in_turn(n, store.detach(f"p{n}b"), store.cancel(f"up{n}a", NOW))
        assert cancellation.changed
        assert [each.id for each in await store.predictions_of(f"run{n}a")] == [f"up{n}a"]
        stories.add(cancellation.is_last)
    assert stories == {True, False}


async def test_hit_concurrent_with_a_purge_is_recorded(stores: tuple[Store, Store]) -> None:
    for n in range(ROUNDS):
        await go(stores[0], f"{n}a", fingerprint=f"F{n}")
        await stores[0].advance(
            f"run{n}a", status=Status.SUCCEEDED, document=b"x", stream_url=None, at=NOW, cache_until=NOW + 9
        )
        _, outcome = await in_turn(
            n, stores[0].purge_cache(PURGE), start(stores[n % 4 // 2], f"{n}b", fingerprint=f"F{n}")
        )
        if isinstance(outcome, Hit):
            assert await stores[0].prediction(f"p{n}b") is not None
        else:
            assert isinstance(outcome, Started)
        assert await stores[0].cache_stats(NOW) == await stores[1].cache_stats(NOW)
        assert (await stores[0].cache_stats(NOW)).entries == 0
