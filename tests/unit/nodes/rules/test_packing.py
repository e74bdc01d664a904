"""News are coalesced, bounded and packed without losing any."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.nodes.news import Topic
from gateway.nodes.rules.packing import Names, Waiting, merge, pack, unpack

topics = st.sampled_from(Topic)
names = st.text(max_size=40)
ids = st.integers(0, 16**26 - 1).map("{:026x}".format)
news = st.dictionaries(topics, st.none() | st.lists(names, unique=True, min_size=1, max_size=60))
SMALLEST = 20 + len('{"prediction":null}')


@given(news, st.integers(SMALLEST, 400))
def test_messages_say_all_of_the_news_within_their_size(news: dict[Topic, Names], max_bytes: int):
    messages = pack(news, max_bytes)
    assert all(len(message.encode()) <= max_bytes for message in messages)
    said: dict[Topic, list[str] | None] = {}
    for message in messages:
        merge(said, unpack(message))
    assert set(said) == set(news)
    for topic, names in news.items():
        if said[topic] is not None:
            assert said[topic] == names


@given(st.dictionaries(topics, st.lists(ids, unique=True, min_size=1)))
def test_names_of_usual_length_are_said_one_by_one(news: dict[Topic, Names]):
    said: dict[Topic, list[str] | None] = {}
    for message in pack(news, 7900):
        merge(said, unpack(message))
    assert said == news


def test_message_of_the_database_holds_hundreds_of_ids():
    ids = [f"{number:026}" for number in range(1000)]
    assert len(pack({Topic.RUN: ids}, 7900)) == 4


@given(st.lists(st.tuples(topics, names), max_size=80), st.integers(1, 20))
def test_each_waiting_name_is_taken_once_and_too_many_stand_for_all(told: list[tuple[Topic, str]], most: int):
    waiting = Waiting(most)
    for topic, name in told:
        waiting.add(topic, name)
    expected: dict[Topic, list[str]] = {}
    for topic, name in told:
        if name not in expected.setdefault(topic, []):
            expected[topic].append(name)
    assert len(waiting) == sum(1 if len(each) > most else len(each) for each in expected.values())
    assert waiting.take() == {topic: each if len(each) <= most else None for topic, each in expected.items()}
    assert waiting.take() == {}
    assert len(waiting) == 0


def test_only_the_name_that_is_one_too_many_is_reported():
    waiting = Waiting(2)
    assert [waiting.add(Topic.RUN, name) for name in ("a", "b", "a", "c", "d")] == [True, True, True, False, True]


@given(news, st.lists(st.tuples(topics, names), max_size=20))
def test_news_that_were_not_sent_are_not_lost(unsent: dict[Topic, Names], meanwhile: list[tuple[Topic, str]]):
    waiting = Waiting(1000)
    for topic, name in meanwhile:
        waiting.add(topic, name)
    waiting.put_back(unsent)
    taken = waiting.take()
    assert set(taken) == {*unsent, *(topic for topic, _ in meanwhile)}
    for topic, names in unsent.items():
        now = taken[topic]
        assert (now is None) == (names is None)
        assert now is None or names is None or list(now[: len(names)]) == list(names)
    for topic, name in meanwhile:
        now = taken[topic]
        assert now is None or name in now


def test_text_that_cannot_be_sent_stands_for_all_names():
    assert pack({Topic.RUN: ["a", "\ud800"]}, 7900) == ['{"run":null}']
    assert unpack(pack({Topic.RUN: ["\0"]}, 7900)[0]) == {Topic.RUN: ["\0"]}
    assert "\0" not in pack({Topic.RUN: ["\0"]}, 7900)[0]


def test_unknown_topics_are_those_of_another_version():
    assert unpack('{"weather":["x"],"run":["a"]}') == {Topic.RUN: ["a"]}


@pytest.mark.parametrize("message", ["", "run a", "[]", '{"run":"a"}', '{"run":[1]}', "\ud800"])
def test_unreadable_message_is_refused(message: str):
    with pytest.raises(ValueError, match="no news"):
        unpack(message)


def test_all_names_win_when_messages_are_merged():
    said: dict[Topic, list[str] | None] = {Topic.RUN: ["a"]}
    merge(said, {Topic.RUN: None})
    merge(said, {Topic.RUN: ["b"], Topic.KEY: ["k"]})
    assert said == {Topic.RUN: None, Topic.KEY: ["k"]}
