"""When a node follows the reloads of others: not because its file has changed, and not because news were lost."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from gateway.nodes.news import Topic
from gateway.nodes.reloads import SharedReloads
from tests.support.clock import ManualClock, settle
from tests.support.fake_news import FakeNews
from tests.support.fake_nodes import FakeNodes


class Node:
    """One of the nodes, and how often it has followed a reload."""

    def __init__(self, nodes: FakeNodes, clock: ManualClock) -> None:
        self.news = FakeNews()
        self.followed = 0
        self.shared = SharedReloads(nodes, self.news, clock, self._follow)

    def _follow(self) -> None:
        self.followed += 1


@asynccontextmanager
async def running(*nodes: Node) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(node.shared.run()) for node in nodes]
    await settle()
    yield
    for task in tasks:
        task.cancel()


async def test_reload_is_told_and_followed_by_others_once(clock: ManualClock):
    nodes = FakeNodes(clock)
    one, two = Node(nodes, clock), Node(nodes, clock)
    async with running(one, two):
        one.shared.reloaded()
        await settle()
        assert one.news.of(Topic.TEAMS) == [""]
        for _ in range(2):
            two.news.hear(Topic.TEAMS, "")
            await settle()
    assert (one.followed, two.followed) == (0, 1)
    assert two.news.told == []


async def test_reload_of_which_no_news_came_is_followed_when_the_connection_is_back(clock: ManualClock):
    nodes = FakeNodes(clock)
    one, two = Node(nodes, clock), Node(nodes, clock)
    async with running(one, two):
        two.news.doubt()
        await settle()
        assert two.followed == 0, "nobody has reloaded"
        one.shared.reloaded()
        await settle()
        for _ in range(3):
            two.news.doubt()
            await settle()
    assert (one.followed, two.followed) == (0, 1)


async def test_reloads_on_two_nodes_at_once_are_followed_by_both(clock: ManualClock):
    nodes = FakeNodes(clock)
    one, two = Node(nodes, clock), Node(nodes, clock)
    async with running(one, two):
        one.shared.reloaded()
        two.shared.reloaded()
        await settle()
        for node in (one, two):
            node.news.hear(Topic.TEAMS, "")
        await settle()
    assert (one.followed, two.followed) == (1, 1)


async def test_reloads_from_before_the_start_are_not_followed_and_later_ones_wait_for_the_store(clock: ManualClock):
    nodes = FakeNodes(clock)
    nodes.config_reloads = 7
    nodes.is_away = True
    node = Node(nodes, clock)
    async with running(node):
        nodes.is_away = False
        await clock.advance(1.0)
        assert node.followed == 0
        nodes.is_away = True
        node.shared.reloaded()
        await settle()
        assert node.news.told == []
        nodes.is_away = False
        await clock.advance(1.0)
        assert nodes.config_reloads == 8
        assert node.news.of(Topic.TEAMS) == [""]
