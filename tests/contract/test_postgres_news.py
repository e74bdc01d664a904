"""News between nodes on PostgreSQL: told once, soon, and never lost without a word."""

import os
import signal
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import psycopg
import pytest

from gateway.errors import Conflict
from gateway.nodes.news import Topic
from gateway.store.postgres import PostgresStore
from gateway.store.postgres.connection import Address
from gateway.store.postgres.news import CHANNEL, PostgresNews
from gateway.streams.ports import LogPart
from tests.support.audit import BY_TEST
from tests.support.observer import RecordingObserver
from tests.support.polling import attempts, holds, until
from tests.support.postgres import database, emptied_database
from tests.support.records import NOW, go, key

Heard = list[Sequence[str] | None]
NOBODY = "postgresql://gateway@/nowhere?host=/nowhere"


@pytest.fixture(autouse=True)
def a_database() -> None:
    """Make the database before there is an event loop to hold up."""
    emptied_database()


class OpenedAddress(Address):
    """An address whose newest connection a test can end."""

    opened: psycopg.AsyncConnection[tuple[object, ...]]

    async def connect_async(self) -> psycopg.AsyncConnection[tuple[object, ...]]:
        self.opened = await super().connect_async()
        return self.opened

    def end(self) -> None:
        """End the connection without a word of the server."""
        with socket.socket(fileno=os.dup(self.opened.fileno())) as end:
            end.shutdown(socket.SHUT_RDWR)


class Node:
    """News as a node has them, and what it has heard by topic."""

    def __init__(self, url: str | None = None, name: str = "one", **settings: float) -> None:
        self.observer = RecordingObserver()
        chosen = {"heartbeat_seconds": 600.0, "deadline_seconds": 600.0} | settings
        self.address = OpenedAddress(url or f"{database()}&application_name={name}")
        self.news = PostgresNews(self.address, self.observer, **chosen)  # type: ignore[arg-type]
        self.heard: dict[Topic, Heard] = {topic: [] for topic in Topic}
        for topic in Topic:
            self.news.add_listener(topic, self.heard[topic].append)

    def names(self, topic: Topic) -> list[str]:
        """Return the names of a topic that it has heard, one by one."""
        return [name for names in self.heard[topic] if names is not None for name in names]

    def alarms(self, topic: Topic = Topic.RUN) -> int:
        """Return how often it was told that anything may have changed."""
        return self.heard[topic].count(None)


@asynccontextmanager
async def nodes(*made: Node) -> AsyncIterator[tuple[Node, ...]]:
    for each in made:
        each.news.start()
    try:
        for each in made:
            await until(lambda each=each: each.news.is_listening)  # type: ignore[misc]
        yield made
    finally:
        for each in made:
            await each.news.close()


async def server_process() -> int:
    """Return the process of the server that serves the node called two."""
    async with await psycopg.AsyncConnection.connect(database(), autocommit=True) as connection:
        found = await connection.execute("SELECT pid FROM pg_stat_activity WHERE application_name = 'two'")
        row = await found.fetchone()
        assert row is not None
        return int(row[0])


async def test_names_reach_other_nodes_and_not_the_one_that_told():
    async with nodes(Node(), Node(), Node()) as (one, two, three):
        one.news.tell(Topic.RUN, "r1")
        one.news.tell(Topic.RUN, "r2")
        one.news.tell(Topic.RUN, "r1")
        one.news.tell(Topic.KEY, "k1")
        await until(lambda: two.names(Topic.KEY) and three.names(Topic.KEY))
        assert two.names(Topic.RUN) == three.names(Topic.RUN) == ["r1", "r2"]
        assert two.names(Topic.KEY) == ["k1"]
        await until(lambda: one.observer.count("news_took"))
        assert one.names(Topic.RUN) == one.names(Topic.KEY) == []
        # In one message.
        assert [names for names in two.heard[Topic.RUN] if names] == [["r1", "r2"]]


async def test_thousands_of_names_arrive_in_order():
    ids = [f"{number:026}" for number in range(3000)]
    async with nodes(Node(), Node()) as (one, two):
        for each in ids:
            one.news.tell(Topic.RUN, each)
        await until(lambda: len(two.names(Topic.RUN)) == len(ids))
        assert two.names(Topic.RUN) == ids


async def test_too_many_names_stand_for_all():
    async with nodes(Node(most_waiting=10), Node()) as (one, two):
        before = two.alarms()
        for number in range(30):
            one.news.tell(Topic.RUN, str(number))
        one.news.tell(Topic.KEY, "k1")
        await until(lambda: two.names(Topic.KEY))
        assert two.names(Topic.RUN) == []
        assert two.alarms() == before + 1
        assert one.observer.of("news_overflowed") == [Topic.RUN]


async def test_killed_connection_is_opened_again_and_nothing_waiting_is_lost():
    """What others said meanwhile is unknown, so everything may have changed."""
    async with nodes(Node(), Node(name="two")) as (one, two):
        before = two.alarms()
        killed = await server_process()
        async with await psycopg.AsyncConnection.connect(database(), autocommit=True) as connection:
            await connection.execute("SELECT pg_terminate_backend(%s)", [killed])
            two.news.tell(Topic.RUN, "r1")
            await until(lambda: two.alarms() > before and two.news.is_listening)
        await until(lambda: one.names(Topic.RUN))
        one.news.tell(Topic.RUN, "r2")
        await until(lambda: two.names(Topic.RUN) == ["r2"])
        assert set(one.names(Topic.RUN)) == {"r1"}
        assert two.observer.count("news_reconnected") == 1


async def test_names_that_become_due_as_the_connection_ends_are_sent_on_the_next_one():
    """Both are noticed at once. The names do not wait for a heartbeat."""
    async with nodes(Node(), Node(name="two")) as (one, two):
        two.news.tell(Topic.RUN, "r1")
        two.address.end()
        # The event loop stands still until the names are due.
        with psycopg.connect(database(), autocommit=True) as connection:
            connection.execute("SELECT pg_sleep(0.05)")
        await until(lambda: one.names(Topic.RUN) == ["r1"])


async def test_silent_connection_is_given_up():
    """A server that is gone without a word answers no heartbeat."""
    hasty = Node(name="two", heartbeat_seconds=0.2, deadline_seconds=0.5)
    async with nodes(Node(), hasty) as (one, two):
        before = two.alarms()
        stopped = await server_process()
        os.kill(stopped, signal.SIGSTOP)
        try:
            await until(lambda: two.alarms() > before and two.news.is_listening)
            # A slow machine may seem silent once more, and what is said meanwhile is lost.
            async for _ in attempts(pause=0.1):
                one.news.tell(Topic.RUN, "r1")
                if "r1" in two.names(Topic.RUN):
                    break
        finally:
            os.kill(stopped, signal.SIGCONT)


async def test_without_a_connection_anything_may_have_changed_again_and_again():
    away = Node(NOBODY, away_seconds=0.1)
    away.news.start()
    await until(lambda: away.alarms() >= 2)
    away.news.tell(Topic.RUN, "r1")
    assert away.news.waiting == 1
    assert not away.news.is_listening
    await away.news.close()


async def test_names_that_wait_at_the_end_are_sent():
    async with nodes(Node()) as (two,):
        one = Node()
        async with nodes(one):
            one.news.tell(Topic.RUN, "r1")
        await until(lambda: two.names(Topic.RUN) == ["r1"])


async def test_message_of_something_else_may_mean_anything():
    async with nodes(Node()) as (one,):
        before = one.alarms(Topic.PURGE)
        async with await psycopg.AsyncConnection.connect(database(), autocommit=True) as connection:
            await connection.execute("SELECT pg_notify(%s, 'hello')", [CHANNEL])
        await until(lambda: one.alarms(Topic.PURGE) > before)


async def test_listener_that_fails_keeps_no_other_from_hearing():
    def broken(names: Sequence[str] | None) -> None:
        raise RuntimeError

    one, two = Node(), Node()
    two.news.add_listener(Topic.RUN, broken)
    two.news.add_listener(Topic.RUN, (later := list[Sequence[str] | None]()).append)
    async with nodes(one, two):
        one.news.tell(Topic.RUN, "r1")
        await until(lambda: ["r1"] in later)


async def test_idle_connection_is_kept():
    async with nodes(Node(heartbeat_seconds=0.05)) as (one,):
        before = one.alarms()
        await holds(lambda: one.news.is_listening and one.alarms() == before, 0.3)


async def test_step_tells_of_a_key_when_it_is_committed():
    """By whatever process: the command line too."""
    store = PostgresStore(database())
    await store.open()
    try:
        async with nodes(Node()) as (one,):
            await store.add_key(key("k9"), actor=BY_TEST)
            await until(lambda: one.names(Topic.KEY) == ["k9"])
            with pytest.raises(Conflict):
                await store.add_key(key("k9"), actor=BY_TEST)
            await store.rotate_key("k9", key("k10", name="name-k9"), NOW + 9, actor=BY_TEST)
            await store.revoke_key("k10", NOW, actor=BY_TEST)
            await until(lambda: one.names(Topic.KEY) == ["k9", "k10", "k9", "k10"])
    finally:
        await store.close()


async def test_step_tells_of_stored_events_that_nodes_watch():
    """Not of those that were not stored, nor of those that nobody watches."""
    store = PostgresStore(database())
    await store.open()
    try:
        for name in "123":
            await go(store, name)
        async with nodes(Node()) as (one,):
            given = [LogPart(f"run{number}", 0, b"part", 0, is_told=number != 2) for number in range(1, 5)]
            assert await store.append_events(given) == {"run1", "run2", "run3"}
            await until(lambda: one.names(Topic.EVENTS) == ["run1", "run3"])
    finally:
        await store.close()
