"""Cache size, purge and eviction."""

import asyncio
import itertools

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.domain.records import CacheStats, RunState
from gateway.predictions.ports.sharing import FinishedRuns, Hit, OpenRuns
from gateway.store.interface import Store
from tests.support.audit import PURGE
from tests.support.records import NOW, ended, finish, go, prediction, start
from tests.support.stores import StoreMaker

_fresh = itertools.count()


async def keep(
    store: Store, name: str, size: int = 10, *, at: float = NOW, until: float = NOW + 1000, **fields: object
) -> None:
    """Record a run that may answer later requests: fingerprint `F<name>`."""
    run = ended(f"run{name}", at, fingerprint=f"F{name}", cache_until=until, document=b"x" * size, **fields)
    await store.record_created(run, prediction(f"up{name}", f"run{name}"))


async def answers(store: Store, name: str, now: float = NOW) -> bool:
    """Say whether a run would answer, without using it."""
    run = await store.shared_run(FinishedRuns(f"F{name}"), OpenRuns(f"F{name}"), now)
    return run is not None and run.state is RunState.ENDED


async def use(store: Store, name: str, now: float) -> None:
    outcome = await start(store, f"{name}u{now}", fingerprint=f"F{name}", now=now)
    assert isinstance(outcome, Hit)


async def test_cache_stats_count_entries_bytes_and_age(store: Store) -> None:
    """Entries that can still be hit, the bytes of their documents, and the age of the oldest; by team too."""
    assert await store.cache_stats(NOW) == CacheStats(0, 0, None)
    await keep(store, "1", 100, at=NOW + 2)
    await keep(store, "2", 20, at=NOW + 1, team="blue")
    await keep(store, "3", 3, at=NOW + 3, until=NOW + 50)
    await go(store, "4", fingerprint="F4")
    assert await store.cache_stats(NOW) == CacheStats(3, 123, NOW + 1)
    assert await store.cache_stats(NOW, "red") == CacheStats(2, 103, NOW + 2)
    assert await store.cache_stats(NOW + 50, "red") == CacheStats(1, 100, NOW + 2)
    assert await store.cache_stats(NOW, "green") == CacheStats(0, 0, None)
    await use(store, "1", NOW)
    await store.clear_data("run2", b"removed")
    assert await store.cache_stats(NOW) == CacheStats(2, 103, NOW + 2)


async def test_cache_size_counts_the_last_document(store: Store) -> None:
    await go(store, "1", fingerprint="F")
    await finish(store, "1", document=b"\x00" * 4321)
    assert (await store.cache_stats(NOW)).bytes == 4321


async def test_purge_of_everything_works_in_batches(store: Store) -> None:
    for n in range(5):
        await keep(store, str(n))
    purged = []
    while step := await store.purge_cache(PURGE, limit=2):
        purged.append(step)
    assert purged == [2, 2, 1]
    assert [await answers(store, str(n)) for n in range(5)] == [False] * 5
    run = await store.run("run1")
    assert run is not None
    assert run.cache_until is None
    assert await store.prediction("up1") is not None
    assert await store.cache_stats(NOW) == CacheStats(0, 0, None)


@pytest.mark.parametrize(
    ("scope", "gone"),
    [
        ({"team": "blue"}, "3"),
        ({"target": "acme/*"}, "1234"),
        ({"target": "acme/toy"}, "1"),
        ({"target": "acme/toy*"}, "124"),
        ({"target": "*/t?y"}, "15"),
        ({"target": "ACME/*"}, ""),
        ({"team": "red", "target": "acme/*"}, "124"),
        ({"team": "green"}, ""),
        ({}, "12345"),
    ],
)
async def test_purge_can_be_limited_to_a_team_or_model(store: Store, scope: dict[str, str], gone: str) -> None:
    """A model is broken: its results are removed, all others stay."""
    await keep(store, "1", target="acme/toy")
    await keep(store, "2", target="acme/toys")
    await keep(store, "3", target="acme/other", team="blue")
    await keep(store, "4", target="acme/toy:5c7d")
    await keep(store, "5", target="else/toy")
    assert await store.purge_cache(PURGE, **scope) == len(gone)
    assert "".join([n for n in "12345" if not await answers(store, n)]) == gone


async def test_purge_does_not_affect_runs_in_progress(store: Store) -> None:
    """A purge removes what is cached now; a run that ends later is cached as usual."""
    await go(store, "1", fingerprint="F1")
    assert await store.purge_cache(PURGE) == 0
    await finish(store, "1")
    assert await answers(store, "1")


async def test_concurrent_purges_count_each_run_once(store: Store, another: StoreMaker) -> None:
    second = another()
    await second.open()
    try:
        for n in range(40):
            await keep(store, str(n))
        counts = await asyncio.gather(*(each.purge_cache(PURGE, limit=10) for each in (store, second) * 8))
    finally:
        await second.close()
    assert sum(counts) == 40 - (await store.cache_stats(NOW)).entries


async def test_eviction_removes_the_least_recently_used_entries(store: Store) -> None:
    """A result that was requested recently stays, however old it is."""
    for n in range(5):
        await keep(store, str(n), 10, at=NOW + n)
    await use(store, "0", NOW + 100)
    await use(store, "2", NOW + 99)
    assert await store.evict_cache(30, NOW + 100) == 2
    assert [await answers(store, str(n)) for n in range(5)] == [True, False, True, False, True]
    assert await store.evict_cache(30, NOW + 100) == 0
    assert await store.evict_cache(29, NOW + 100) == 1
    assert not await answers(store, "4")
    run = await store.run("run4")
    assert run is not None
    assert run.cache_until is None


async def test_use_with_an_earlier_clock_does_not_age_an_entry(store: Store) -> None:
    """Two processes' clocks differ slightly: the later use counts."""
    await keep(store, "1")
    await keep(store, "2")
    await use(store, "1", NOW + 20)
    await use(store, "2", NOW + 10)
    await use(store, "1", NOW + 5)
    await store.evict_cache(10, NOW)
    assert await answers(store, "1")


async def test_estimates_and_joins_do_not_count_as_use(store: Store) -> None:
    await keep(store, "1", at=NOW)
    await keep(store, "2", at=NOW + 1)
    await store.shared_run(FinishedRuns("F1"), OpenRuns("F1"), NOW + 50)
    await start(store, "3", fingerprint="F1", now=NOW + 50, may_hit=False)
    await store.evict_cache(10, NOW)
    assert not await answers(store, "1")
    assert await answers(store, "2")


async def test_entry_larger_than_the_limit_is_evicted(store: Store) -> None:
    await keep(store, "1", 1000)
    assert await store.evict_cache(999, NOW) == 1
    assert not await answers(store, "1")


async def test_eviction_works_in_batches(store: Store) -> None:
    for n in range(7):
        await keep(store, str(n), 10, at=NOW + n)
    assert [await store.evict_cache(0, NOW, limit=3) for _ in range(4)] == [3, 3, 1, 0]


async def test_expired_entries_do_not_count_towards_the_limit(store: Store) -> None:
    """They evict no other entry, and the janitor removes them."""
    await keep(store, "1", 1000, until=NOW + 10)
    await keep(store, "2", 10)
    assert await store.evict_cache(10, NOW + 10) == 0
    assert await answers(store, "1", NOW)
    assert await store.evict_cache(9, NOW + 10) == 1
    assert await answers(store, "1", NOW)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True)
@given(
    sizes=st.lists(st.integers(0, 40), max_size=8),
    uses=st.lists(st.integers(0, 7), max_size=10),
    room=st.integers(0, 150),
)
async def test_eviction_matches_a_plain_lru_list(store: Store, sizes: list[int], uses: list[int], room: int) -> None:
    """Every entry that stays was used later than every entry that was evicted, and the rest fits the limit."""
    while await store.purge_cache(PURGE):
        pass
    example = next(_fresh)
    order = [f"{example}-{n}" for n in range(len(sizes))]
    size_of = dict(zip(order, sizes, strict=True))
    for n, name in enumerate(order):
        await keep(store, name, size_of[name], at=NOW + n)
    for n, index in enumerate(uses):
        if index < len(sizes):
            name = f"{example}-{index}"
            await use(store, name, NOW + 100 + n)
            order.remove(name)
            order.append(name)
    went = 0
    while sum(size_of[each] for each in order[went:]) > room:
        went += 1
    assert await store.evict_cache(room, NOW) == went
    assert [each for each in order if not await answers(store, each)] == order[:went]
