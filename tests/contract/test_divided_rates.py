"""Rates that three nodes share on one PostgreSQL; on SQLite the one process has them for itself."""

import asyncio
import math
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import psycopg
import pytest

from gateway.domain.rates import Rate
from gateway.store.postgres import PostgresStore
from gateway.throttling.rules.divided_rate import Exchange, Granted, Seen, Want
from tests.support.postgres import emptied_database
from tests.support.stores import sqlite_maker

RATE = Rate(60.0, 12)
SLOW = Rate(0.001, 12)
"""A rate at which no token comes while a test runs."""


class Cluster:
    """Three stores on one database, each of a node."""

    def __init__(self, url: str, stores: list[PostgresStore], nodes: list[int]) -> None:
        self.url, self.stores, self.nodes = url, stores, nodes

    def execute(self, text: str, *values: object) -> list[tuple[object, ...]]:
        with psycopg.connect(self.url, autocommit=True) as connection:
            cursor = connection.execute(text.encode(), values)
            return cursor.fetchall() if cursor.description else []

    def expire(self, index: int) -> None:
        """Let the lease of a node expire by the server's clock."""
        self.execute("UPDATE nodes SET expires_at = 1 WHERE number = %s", self.nodes[index])

    def end(self, index: int) -> None:
        """End a node, as another one does whose look has found its lease expired."""
        self.execute("UPDATE nodes SET expires_at = 1, ended_at = 1 WHERE number = %s", self.nodes[index])

    def revive(self, index: int) -> None:
        """Renew the lease of a node that nobody has ended."""
        self.execute("UPDATE nodes SET expires_at = 1e12 WHERE number = %s", self.nodes[index])

    async def exchange(self, index: int, asked: Exchange) -> Granted:
        (granted,) = await self.stores[index].exchange_shares(self.nodes[index], [asked])
        return granted

    async def take(self, index: int, *names: str, rate: Rate = SLOW, spare: float = 0.0) -> float | None:
        """Take one token of each; return the seconds to wait if there is none."""
        wanted = [Want(name, rate, spare) for name in names]
        (taken,) = await self.stores[index].take_permits(self.nodes[index], [wanted])
        return None if taken.refused is None else taken.seconds


def ask(number: int, wanted: float, *, kept: float = 0.0, returned: float = 0.0, rate: Rate = SLOW) -> Exchange:
    return Exchange(
        name="team:red", rate=rate, number=number, kept=kept, returned=returned, wanted=wanted, demand={"": wanted}
    )


@pytest.fixture
def url() -> str:
    return emptied_database()


@pytest.fixture
async def cluster(url: str) -> AsyncIterator[Cluster]:
    async with AsyncExitStack() as stack:
        stores = []
        for _ in range(3):
            store = PostgresStore(url, decide=2, read=1)
            await store.open()
            stack.push_async_callback(store.close)
            stores.append(store)
        made = Cluster(url, stores, [])
        for name in "abc":
            ((number,),) = made.execute(
                "INSERT INTO nodes (name, started_at, renewed_at, expires_at) VALUES (%s, 0, 0, 1e12) RETURNING number",
                name,
            )
            made.nodes.append(int(str(number)))
        yield made


async def test_nodes_that_ask_at_once_get_the_rate_once(cluster: Cluster) -> None:
    """Each wants all of it, on each of several rates, many times."""
    names = [f"rate{number}" for number in range(5)]

    async def grab(index: int) -> dict[str, float]:
        held = dict.fromkeys(names, 0.0)
        dice = random.Random(index)
        for number in range(1, 11):
            asked = [
                Exchange(name=name, rate=SLOW, number=number, kept=held[name], wanted=1.0)
                for name in dice.sample(names, 4)
            ]
            for each, granted in zip(
                asked, await cluster.stores[index].exchange_shares(cluster.nodes[index], asked), strict=True
            ):
                held[each.name] = granted.share
        return held

    held = await asyncio.gather(*(grab(index) for index in range(3)))
    assert {name: sum(each[name] for each in held) for name in names} == pytest.approx(dict.fromkeys(names, 1.0))


async def test_rates_in_whole_numbers_and_others_are_used_in_one_step(cluster: Cluster) -> None:
    """Limits of the config are whole numbers, what upstream allows is not."""
    rates = {"team:red": Rate(60, 12), "account:creates": Rate(37.5, 12)}
    asked = [Exchange(name=name, rate=rate, number=1, kept=0.0, wanted=1.0) for name, rate in rates.items()]
    granted = await cluster.stores[0].exchange_shares(cluster.nodes[0], asked)
    assert [each.share for each in granted] == [1.0, 1.0]
    wanted = [Want(f"{name} too", rate, 0.0) for name, rate in rates.items()]
    (taken,) = await cluster.stores[0].take_permits(cluster.nodes[0], [wanted])
    assert taken.refused is None


async def test_nodes_that_take_tokens_at_once_get_each_once(cluster: Cluster) -> None:
    """A request of two rates takes of both or of none."""
    names = ["team:red", "user:ann", "user:bob"]
    taken = await asyncio.gather(
        *(cluster.take(index, "team:red", name) for index in range(3) for name in names[1:] for _ in range(8))
    )
    assert [wait for wait in taken if wait is None] == [None] * 12
    known = (await cluster.stores[0].read_rates(cluster.nodes[0], names)).rates
    assert known["team:red"].rate.tokens == pytest.approx(0.0, abs=0.01)
    assert known["user:ann"].rate.tokens + known["user:bob"].rate.tokens == pytest.approx(12.0, abs=0.01)


async def test_share_is_given_back_before_another_node_gets_it(cluster: Cluster) -> None:
    assert await cluster.exchange(0, ask(1, 1.0)) == Granted(1.0, pytest.approx(12.0))
    assert await cluster.exchange(1, ask(1, 0.5)) == Granted(0.0)
    assert await cluster.take(1, "team:red") == math.inf
    assert await cluster.exchange(0, ask(2, 0.5, kept=0.5, returned=6.0)) == Granted(0.5)
    assert await cluster.exchange(1, ask(2, 0.5)) == Granted(0.5, pytest.approx(6.0, abs=0.01))
    known = await cluster.stores[2].read_rates(cluster.nodes[2], ["team:red", "team:blue"])
    assert (known.nodes, list(known.rates)) == (3, ["team:red"])
    assert {each.node: (each.share, each.demand) for each in known.rates["team:red"].holdings} == {
        cluster.nodes[0]: (0.5, {"": 0.5}),
        cluster.nodes[1]: (0.5, {"": 0.5}),
    }


async def test_share_of_a_dead_node_is_free_when_it_was_ended_and_not_before(cluster: Cluster) -> None:
    await cluster.exchange(0, ask(1, 1.0))
    assert await cluster.exchange(1, ask(1, 1.0)) == Granted(0.0)
    cluster.end(0)
    known = await cluster.stores[1].read_rates(cluster.nodes[1], ["team:red"])
    assert (known.nodes, known.rates["team:red"].ended) == (2, 1.0)
    assert await cluster.exchange(1, ask(2, 1.0)) == Granted(1.0, pytest.approx(0.0, abs=0.01))
    known = await cluster.stores[0].read_rates(cluster.nodes[0], ["team:red"])
    assert [each.node for each in known.rates["team:red"].holdings] == [cluster.nodes[1]]


async def test_node_whose_lease_looks_expired_keeps_its_share_until_it_is_ended(cluster: Cluster) -> None:
    """The server's clock has jumped: the node counts its lease on its own, and uses the share."""
    await cluster.exchange(0, ask(1, 0.7))
    cluster.expire(0)
    assert await cluster.exchange(1, ask(1, 1.0)) == Granted(pytest.approx(0.3), pytest.approx(3.6, abs=0.01))
    assert await cluster.take(1, "team:red") == math.inf
    assert await cluster.exchange(0, ask(2, 1.0, kept=0.7)) == Granted(0.0)
    cluster.revive(0)
    known = await cluster.stores[0].read_rates(cluster.nodes[0], ["team:red"])
    assert {each.node: each.share for each in known.rates["team:red"].holdings} == {
        cluster.nodes[0]: pytest.approx(0.7),
        cluster.nodes[1]: pytest.approx(0.3),
    }
    assert await cluster.exchange(0, ask(3, 1.0, kept=0.7)) == Granted(pytest.approx(0.7))


async def test_step_frees_the_shares_of_dead_nodes_before_it_takes_a_token(cluster: Cluster) -> None:
    await cluster.exchange(0, ask(1, 1.0, rate=Rate(6000.0, 12)))
    cluster.end(0)
    while await cluster.take(1, "team:red", rate=Rate(6000.0, 12)) is not None:
        await asyncio.sleep(0)
    assert (await cluster.stores[1].read_rates(cluster.nodes[1], ["team:red"])).rates["team:red"].rate.free == 1.0


async def test_node_without_a_valid_lease_gets_nothing(cluster: Cluster) -> None:
    """Neither when its lease has run out, nor when another node has ended it."""
    for how in ("expires_at = 1", "expires_at = 1e12, ended_at = 1"):
        cluster.execute(f"UPDATE nodes SET {how} WHERE number = %s", cluster.nodes[0])
        assert (await cluster.stores[0].read_rates(cluster.nodes[0], [])).lease_seconds <= 0
        assert await cluster.exchange(0, ask(1, 1.0)) == Granted(0.0)
        assert await cluster.take(0, "team:red") is not None
        assert await cluster.stores[0].take_turns(cluster.nodes[0], "account:creates", RATE, {}, 3) == 0
    assert await cluster.exchange(1, ask(1, 1.0)) == Granted(1.0, pytest.approx(12.0))


async def test_repeated_exchange_changes_nothing(cluster: Cluster) -> None:
    """The answer of the first was lost."""
    await cluster.exchange(0, ask(5, 0.5))
    assert await cluster.exchange(0, ask(5, 1.0)) == Granted(0.5)
    assert await cluster.exchange(0, ask(4, 0.0, returned=9.0)) == Granted(0.5)


async def test_tokens_that_are_put_back_can_be_taken(cluster: Cluster) -> None:
    while await cluster.take(0, "team:red") is None:
        pass
    await cluster.stores[0].take_permits(cluster.nodes[0], [[Want("team:red", SLOW, count=-1)]])
    assert await cluster.take(1, "team:red") is None
    assert await cluster.take(1, "team:red") is not None


async def test_queued_creates_leave_half_of_the_burst(cluster: Cluster) -> None:
    for _ in range(6):
        assert await cluster.take(0, "team:red", spare=6.0) is None
    assert await cluster.take(1, "team:red", spare=6.0) is not None
    assert await cluster.take(1, "team:red") is None


async def test_nodes_take_turns_and_all_of_them_pause(cluster: Cluster) -> None:
    rate, name = Rate(60_000.0, 1), "account:creates"
    for index, store in enumerate(cluster.stores):
        asked = Exchange(name=name, rate=rate, number=1, kept=0.0, wanted=0.0, demand={"red": 1.0})
        await store.exchange_shares(cluster.nodes[index], [asked])

    async def turn(index: int) -> int:
        return await cluster.stores[index].take_turns(cluster.nodes[index], name, rate, {}, 1)

    got = dict.fromkeys(range(3), 0)
    for _ in range(200):
        for index in range(3):
            got[index] += await turn(index)
    assert max(got.values()) - min(got.values()) <= 1
    await cluster.stores[0].record_throttle(cluster.nodes[0], name, rate, 60.0)
    assert [await turn(index) for index in range(3)] == [0, 0, 0]
    known = await cluster.stores[1].read_rates(cluster.nodes[1], [name])
    told = known.rates[name].rate
    assert (told.throttles, told.throttled_by, told.allowed) == (1, cluster.nodes[0], rate)
    assert told.paused_until - known.at == pytest.approx(60.0, abs=5)


async def test_idle_rates_are_forgotten_and_held_ones_are_not(cluster: Cluster) -> None:
    fast = Rate(60_000.0, 12)
    for name in ("user:ann", "user:bob"):
        await cluster.take(0, name, rate=fast)
    await cluster.exchange(0, ask(1, 0.5, rate=fast))
    cluster.execute("UPDATE rates SET at = 1")
    assert await cluster.stores[0].forget_rates(600, 1) == 1
    assert await cluster.stores[0].forget_rates(600, 10) == 1
    cluster.expire(0)
    assert await cluster.stores[1].forget_rates(600, 10) == 0
    cluster.end(0)
    assert await cluster.stores[1].forget_rates(600, 10) == 1
    assert cluster.execute("SELECT count(*) FROM rate_shares") == [(0,)]
    await cluster.take(1, "user:ann", rate=fast)
    assert await cluster.stores[1].forget_rates(600, 10) == 0


@pytest.mark.parametrize("rounds", [20])
async def test_rate_that_is_forgotten_while_it_is_used_is_not_given_twice(cluster: Cluster, rounds: int) -> None:
    for _ in range(rounds):
        cluster.execute("UPDATE rates SET at = 1, per_minute = 1e9")
        taken = await asyncio.gather(
            cluster.stores[0].forget_rates(600, 10),
            *(cluster.exchange(index, ask(1, 1.0)) for index in (1, 2)),
        )
        assert sum(each.share for each in taken[1:]) == pytest.approx(1.0)
        cluster.execute("DELETE FROM rate_shares")
        cluster.execute("UPDATE rates SET free = 1")


async def test_one_process_on_sqlite_has_every_rate_without_a_statement(tmp_path: Path) -> None:
    """The store is not even open."""
    store = sqlite_maker(tmp_path)()
    known = await store.read_rates(0, ["team:red"])
    assert (known.lease_seconds, known.nodes) == (math.inf, 1)
    assert await store.exchange_shares(0, [ask(1, 0.5)]) == [Granted(1.0, 12.0)]
    (taken,) = await store.take_permits(0, [[Want("team:red", RATE)]])
    assert (taken.refused, taken.seen) == (None, [Seen(1.0, 12.0)])
    assert await store.take_turns(0, "account:creates", RATE, {}, 3) == 3
    await store.record_throttle(0, "account:creates", RATE, 5.0)
    assert await store.forget_rates(1.0, 1) == 0
