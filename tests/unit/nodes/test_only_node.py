"""The process that alone serves from a store."""

from gateway.nodes.membership import OnlyNode
from gateway.nodes.news import NoNews, Topic


def test_the_only_node_is_alive_and_may_send() -> None:
    node = OnlyNode()
    calls: list[str] = []
    node.add_lost_listener(lambda: calls.append("lost"))
    node.add_joined_listener(lambda: calls.append("joined"))
    assert (node.number, node.is_alive(), node.may_send(), calls) == (0, True, True, [])


def test_news_to_nobody_is_dropped() -> None:
    news, names = NoNews(), list[object]()
    news.add_listener(Topic.RUN, names.append)
    news.tell(Topic.RUN, "run1")
    assert names == []
