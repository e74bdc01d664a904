"""The leases of nodes, and which node takes over which run. On PostgreSQL: a file of SQLite has one process."""

import asyncio
import math
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import psycopg
import pytest

from gateway.domain.records import RunState, Status
from gateway.domain.run_end import RunEnded
from gateway.nodes.ports import LEADER
from gateway.predictions.ports.predictions import Unchanged
from gateway.store.postgres import PostgresStore
from gateway.store.sql.locks import Lock
from tests.support.postgres import emptied_database
from tests.support.records import NOW, finish, go, lead

SECONDS = 10.0


@pytest.fixture
def url() -> str:
    return emptied_database()


@pytest.fixture
async def stores(url: str) -> AsyncIterator[list[PostgresStore]]:
    made = [PostgresStore(url, decide=2, read=1) for _ in range(3)]
    for store in made:
        await store.open()
    yield made
    for store in made:
        await store.close()


@pytest.fixture
def expire(url: str) -> Callable[[int], None]:
    """Let the lease of a node expire, as if its time had passed."""

    def expire(number: int) -> None:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("UPDATE nodes SET expires_at = renewed_at - 1 WHERE number = %s", [number])

    return expire


async def end_expired(store: PostgresStore, by: int) -> list[int]:
    return await store.nodes.end_expired(by, await store.nodes.clock())


async def joined(stores: list[PostgresStore]) -> list[int]:
    return [await store.nodes.join(f"host-{place}", SECONDS) for place, store in enumerate(stores)]


async def test_each_join_gives_a_higher_number_and_ends_the_one_before(stores: list[PostgresStore]) -> None:
    first, second, _ = stores
    numbers = [await each.nodes.join("host", SECONDS) for each in (first, second, first)]
    assert numbers == sorted(set(numbers))
    listed = await second.nodes.nodes(10)
    assert [(each.number, each.ended_at is None) for each in listed] == [
        (numbers[2], True),
        (numbers[1], True),
        (numbers[0], False),
    ]
    assert listed[0].name == "host"
    assert listed[0].expires_at == pytest.approx(listed[0].renewed_at + SECONDS)


async def test_renewal_moves_the_end_of_the_lease_and_keeps_the_report(stores: list[PostgresStore]) -> None:
    one = stores[0].nodes
    number = await one.join("host", 1.0)
    assert await one.renew(number, SECONDS, '{"runs": 3}')
    (listed,) = await one.nodes(10)
    assert listed.report == '{"runs": 3}'
    assert listed.expires_at == pytest.approx(listed.renewed_at + SECONDS)
    assert listed.renewed_at >= listed.started_at


async def test_expired_nodes_are_ended_once_and_renew_no_more(
    stores: list[PostgresStore], expire: Callable[[int], None]
) -> None:
    one, two, three = await joined(stores)
    assert await end_expired(stores[0], one) == []
    expire(two)
    assert await stores[1].nodes.renew(two, SECONDS, "{}"), "nobody has ended it yet"
    expire(two)
    ended = await asyncio.gather(end_expired(stores[0], one), end_expired(stores[2], three))
    assert sorted(map(len, ended)) == [0, 1]
    assert not await stores[1].nodes.renew(two, SECONDS, "{}")
    assert await end_expired(stores[1], two) == []


async def test_node_whose_lease_was_renewed_before_the_clock_went_back_is_ended(
    stores: list[PostgresStore], url: str
) -> None:
    """Its lease would be valid for as long as the clock has gone back."""
    one, two, three = await joined(stores)
    with psycopg.connect(url, autocommit=True) as connection:
        back = "UPDATE nodes SET renewed_at = renewed_at + %s, expires_at = expires_at + %s WHERE number = %s"
        connection.execute(back, [3600, 3600, two])
        connection.execute(back, [SECONDS - 1, SECONDS - 1, three])
    assert await end_expired(stores[0], one) == [two], "the other one's lease ends soon"


async def test_living_nodes_are_those_that_have_not_ended(stores: list[PostgresStore]) -> None:
    one, two, three = await joined(stores)
    await stores[1].nodes.leave(two)
    living = await stores[0].nodes.living()
    assert set(living.places) == {one, three}
    assert living.at <= await stores[0].nodes.clock() <= living.at + 60


async def test_nodes_whose_processes_have_ended_are_ended_once(stores: list[PostgresStore]) -> None:
    one, two, _ = await joined(stores)
    three = await stores[2].nodes.join("host", SECONDS, "place")
    assert (await stores[0].nodes.living()).places == {one: "", two: "", three: "place"}
    ended = await asyncio.gather(stores[0].nodes.end(one, [three, one]), stores[1].nodes.end(two, [three]))
    assert sorted(ended) == [[], [three]]
    assert not await stores[2].nodes.renew(three, SECONDS, "{}")
    assert await stores[2].nodes.end(three, [one]) == [], "who has ended ends nobody"


async def test_nodes_are_listed_in_pages(stores: list[PostgresStore]) -> None:
    one, two, three = await joined(stores)
    nodes = stores[0].nodes
    assert [each.number for each in await nodes.nodes(2)] == [three, two]
    assert [each.number for each in await nodes.nodes(2, before=two)] == [one]


async def test_notes_of_connections_that_ended_long_ago_are_deleted(stores: list[PostgresStore], url: str) -> None:
    await joined(stores)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO commits SELECT days || ' ' || n, 1, 0, extract(epoch FROM now()) - days * 86400"
            " FROM generate_series(1, 3) AS n, unnest('{29, 31}'::int[]) AS days"
        )
        assert [await stores[0].nodes.forget_sessions(2) for _ in range(3)] == [2, 1, 0]
        assert connection.execute("SELECT count(*) FROM commits WHERE session ~ '^29'").fetchone() == (3,)


async def test_node_does_not_end_itself(stores: list[PostgresStore], expire: Callable[[int], None]) -> None:
    one, _, _ = await joined(stores)
    expire(one)
    assert await end_expired(stores[0], one) == []
    assert await stores[0].nodes.renew(one, SECONDS, "{}")


async def test_runs_belong_to_the_node_that_starts_them(stores: list[PostgresStore]) -> None:
    one, two, _ = await joined(stores)
    assert (await go(stores[0], "1")).owner == one
    assert (await go(stores[1], "2")).owner == two
    assert await stores[2].nodes.take_runs((await joined(stores[2:]))[0], 10) == []


async def test_runs_of_a_node_that_left_are_taken_at_once_and_shared(stores: list[PostgresStore]) -> None:
    one, two, three = await joined(stores)
    for number in range(20):
        await go(stores[0], str(number))
    await stores[0].nodes.leave(one)
    taken: dict[int, list[str]] = {two: [], three: []}

    async def take(store: PostgresStore, number: int) -> bool:
        runs = await store.nodes.take_runs(number, 3)
        assert {run.owner for run in runs} <= {number}
        taken[number] += [run.id for run in runs]
        return bool(runs)

    # Neither can take all before the other one begins.
    assert await asyncio.gather(take(stores[1], two), take(stores[2], three)) == [True, True]
    while any(await asyncio.gather(take(stores[1], two), take(stores[2], three))):
        pass
    assert len(taken[two]) + len(taken[three]) == 20
    assert len({*taken[two], *taken[three]}) == 20


async def test_runs_of_a_living_node_and_ended_runs_are_not_taken(stores: list[PostgresStore]) -> None:
    one, two, _ = await joined(stores)
    await go(stores[0], "1")
    await go(stores[2], "2")
    await finish(stores[2], "2")
    await stores[2].nodes.leave(stores[2].identity.number)
    assert await stores[1].nodes.take_runs(two, 10) == []
    assert await stores[0].nodes.take_runs(one, 10) == []


async def test_ended_node_takes_nothing(stores: list[PostgresStore]) -> None:
    one, two, _ = await joined(stores)
    await go(stores[0], "1")
    await stores[0].nodes.leave(one)
    await stores[1].nodes.leave(two)
    assert await stores[1].nodes.take_runs(two, 10) == []
    assert await stores[1].nodes.take_ended_runs(two, 0.0, 10) == 0
    assert not await stores[1].nodes.lead(LEADER, two, SECONDS)


async def test_runs_from_before_there_were_nodes_are_taken(stores: list[PostgresStore]) -> None:
    """As after a copy from SQLite."""
    await go(stores[0], "1")
    _, two, _ = await joined(stores)
    (run,) = await stores[1].nodes.take_runs(two, 10)
    assert (run.id, run.owner, run.state) == ("run1", two, RunState.LIVE)


async def test_intents_go_to_the_leader(stores: list[PostgresStore]) -> None:
    one, two, three = await joined(stores)
    await lead(stores[0], "1")
    assert await stores[1].nodes.lead(LEADER, two, SECONDS)
    await stores[0].nodes.leave(one)
    assert await stores[2].nodes.take_runs(three, 10) == []
    (run,) = await stores[1].nodes.take_runs(two, 10)
    assert (run.id, run.state) == ("run1", RunState.INTENDED)


async def test_ended_runs_are_taken_for_their_outputs(stores: list[PostgresStore]) -> None:
    one, two, _ = await joined(stores)
    for name in ("1", "2", "3"):
        await go(stores[0], name)
        await finish(stores[0], name)
    assert await stores[1].nodes.take_ended_runs(two, 0.0, 10) == 0
    await stores[0].nodes.leave(one)
    assert await stores[1].nodes.take_ended_runs(two, 1e12, 10) == 0
    assert [await stores[1].nodes.take_ended_runs(two, 0.0, 2) for _ in range(3)] == [2, 1, 0]


async def test_one_node_leads_until_it_ends_or_its_lease_expires(stores: list[PostgresStore], url: str) -> None:
    numbers = await joined(stores)
    asked = [store.nodes.lead(LEADER, number, SECONDS) for store, number in zip(stores, numbers, strict=True)]
    has_it = await asyncio.gather(*asked)
    assert sum(has_it) == 1
    leader = has_it.index(True)
    other = (leader + 1) % 3
    assert await stores[leader].nodes.lead(LEADER, numbers[leader], SECONDS)
    assert not await stores[other].nodes.lead(LEADER, numbers[other], SECONDS)
    assert await stores[other].nodes.lead("another task", numbers[other], SECONDS)
    await stores[leader].nodes.leave(numbers[leader])
    assert await stores[other].nodes.lead(LEADER, numbers[other], SECONDS)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("UPDATE leases SET expires_at = 0")
    third = 3 - leader - other
    assert await stores[third].nodes.lead(LEADER, numbers[third], SECONDS)
    assert not await stores[other].nodes.lead(LEADER, numbers[other], SECONDS)


async def test_clock_is_the_servers(stores: list[PostgresStore]) -> None:
    before = await stores[0].nodes.clock()
    assert before <= await stores[1].nodes.clock() <= before + 60


async def test_take_waits_for_a_node_that_joins_meanwhile(stores: list[PostgresStore]) -> None:
    """Otherwise a node could take a run, and another that does not see it yet take the run from it."""
    one, two, _ = await joined(stores)
    await go(stores[0], "1")
    await stores[0].nodes.leave(one)
    seen = await asyncio.gather(*(store.nodes.join("again", SECONDS) for store in stores[1:]), return_exceptions=True)
    assert all(isinstance(each, int) for each in seen)
    taken = await asyncio.gather(
        *(store.nodes.take_runs(store.identity.number, 10) for store in stores[1:] for _ in range(3))
    )
    assert sum(map(len, taken)) == 1
    assert two not in {run.owner for runs in taken for run in runs}


async def test_renewal_or_end_of_a_lease_comes_first_and_the_other_sees_it(
    stores: list[PostgresStore], expire: Callable[[int], None]
) -> None:
    one, _, three = await joined(stores)
    for _ in range(20):
        two = await stores[1].nodes.join("host", SECONDS)
        expire(two)
        renewed, ended, too = await asyncio.gather(
            stores[1].nodes.renew(two, SECONDS, "{}"),
            end_expired(stores[0], one),
            end_expired(stores[2], three),
        )
        assert [renewed, *(two in each for each in (ended, too))].count(True) == 1
        assert await stores[1].nodes.renew(two, SECONDS, "{}") is renewed


async def test_end_of_a_run_and_its_takeover_exclude_each_other(stores: list[PostgresStore]) -> None:
    """The node that has lost its lease learns of the end just when another one takes over. One of them settles it."""
    _, two, _ = await joined(stores)
    taken = 0
    for number in range(20):
        name = str(number)
        old = await stores[0].nodes.join("host", SECONDS)
        await go(stores[0], name)
        await stores[1].nodes.leave(old)
        given: dict[str, Any] = {"status": Status.SUCCEEDED, "document": b"done", "stream_url": None, "at": NOW + 9}
        outcome, runs = await asyncio.gather(
            stores[0].advance(f"run{name}", **given), stores[1].nodes.take_runs(two, 10)
        )
        assert isinstance(outcome, Unchanged) is bool(runs)
        taken += len(runs)
        if runs:
            assert isinstance(await stores[1].advance(f"run{name}", **given), RunEnded)
    found = await stores[1]._read(lambda db: db.execute("newest_spend", {"limit": 100}).fetchall())
    assert len(found) == 20


async def test_runs_that_another_step_has_locked_are_left_for_later(stores: list[PostgresStore]) -> None:
    """A takeover waits for nobody."""
    one, two, _ = await joined(stores)
    for name in ("1", "2"):
        await go(stores[0], name)
    await stores[0].nodes.leave(one)
    locked, done = threading.Event(), threading.Event()

    def hold(db: Any) -> None:
        db.lock(Lock.RUN, "run1")
        locked.set()
        done.wait(10)

    holding = stores[2]._write(hold)
    await asyncio.to_thread(locked.wait, 10)
    assert [run.id for run in await stores[1].nodes.take_runs(two, 10)] == ["run2"]
    done.set()
    await holding
    assert [run.id for run in await stores[1].nodes.take_runs(two, 10)] == ["run1"]


async def test_reloads_are_counted_over_nodes_with_the_time_since_the_last(stores: list[PostgresStore]) -> None:
    first, second, _ = stores
    assert await first.nodes.reloads() == (0, math.inf)
    assert [await each.nodes.note_reload() for each in (first, second)] == [1, 2]
    number, seconds_ago = await first.nodes.reloads()
    assert number == 2
    assert 0 <= seconds_ago < SECONDS
