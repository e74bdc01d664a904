"""Streams on two nodes: the owner reads upstream and stores; the other reads what is stored, as it grows."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import cast

import pytest
from msgspec.structs import replace

from gateway.domain.records import PredictionView, RunState, Status
from gateway.nodes.news import Topic
from gateway.predictions.events import PredictionEvents
from gateway.predictions.ports.sharing import CreateStore
from gateway.predictions.tracker import Tracker
from gateway.runtime.live import LiveSettings
from gateway.streams.channel import Channel
from gateway.streams.hub import StreamHub
from gateway.streams.log_writer import GATHER_SECONDS, PAUSE_SECONDS, WATCHED_SECONDS, LogWriter
from gateway.streams.rules.event_log import EventLog
from gateway.streams.rules.log_chunk import LogChunk
from gateway.streams.rules.sse import EventSplitter
from gateway.streams.settings import StreamSettings
from gateway.streams.watchers import WATCH_SECONDS, Watchers
from tests.support.clock import START, ManualClock, settle
from tests.support.fake_news import FakeNews, NumberedNode
from tests.support.fake_streams import FakeEventLogs, FakeStreams, Listening, output
from tests.support.fakes import FakeObserver, FakeStore, FakeUpstream, answer, free
from tests.support.hub import DONE
from tests.support.observer import RecordingObserver
from tests.support.records import live, prediction

MIB = 1024 * 1024
SETTINGS = StreamSettings(max_log_bytes=MIB, kept_log_bytes=MIB, heartbeat_seconds=15.0, max_total=10, max_per_team=10)
OWNER, READER, TAKER = 1, 2, 3


class Wire:
    """Carries the news of nodes to the others, when a test does not cut it."""

    def __init__(self) -> None:
        self.ends: list[FakeNews] = []
        self.is_cut = False

    def connect(self) -> FakeNews:
        """Connect a node."""
        made, wire = FakeNews(), self
        tell = made.tell

        def passed_on(topic: Topic, name: str) -> None:
            tell(topic, name)
            for other in wire.ends:
                if other is not made and not wire.is_cut:
                    asyncio.get_running_loop().call_soon(other.hear, topic, name)

        made.tell = passed_on  # type: ignore[method-assign]
        self.ends.append(made)
        return made

    def tell_of_events(self, run_id: str) -> None:
        """Tell every node of stored events, as the step that stores them does."""
        for each in () if self.is_cut else self.ends:
            asyncio.get_running_loop().call_soon(each.hear, Topic.EVENTS, run_id)


class Pair:
    """A run in progress, and nodes with one store."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.store = FakeStore()
        self.logs = FakeEventLogs()
        self.streams = FakeStreams()
        self.wire = Wire()
        self.logs.tell = self.wire.tell_of_events
        self.body = b'{"id":"uprun1","status":"processing"}'
        self.run = live(
            owner=OWNER, intended_at=START, live_at=START, status=Status.PROCESSING, stream_url="https://stream/1"
        )
        self.store.runs[self.run.id] = self.run
        self.trackers: dict[int, Tracker] = {}

    @property
    def view(self) -> PredictionView:
        return PredictionView(prediction("p1", self.run.id), self.store.runs[self.run.id])

    def end(self, **fields: object) -> None:
        """Let the owner have recorded the end."""
        body = {"id": "uprun1", "status": "succeeded", "output": ["a", "a"], "completed_at": "2025-11-24T16:00:02Z"}
        document = json.dumps(body | fields).encode()
        self.store.runs[self.run.id] = replace(
            self.store.runs[self.run.id],
            state=RunState.ENDED, status=Status.SUCCEEDED, document=document, ended_at=self.clock.now(),
        )  # fmt: skip

    @asynccontextmanager
    async def hub(self, number: int) -> AsyncIterator[StreamHub]:
        """Open a node's hub."""
        observer, news = FakeObserver(), self.wire.connect()
        tracker = self.trackers[number] = Tracker(
            cast(CreateStore, self.store), FakeUpstream(lambda _: answer(200, self.body)), self.clock,
            PredictionEvents(self.clock, observer), observer,
            requests_per_minute=lambda: 3000.0, keep_until=lambda *_: None, settlement_of=free,
            membership=NumberedNode(number), news=news,
        )  # fmt: skip
        if self.run.owner == number:
            tracker.follow(self.run)
        made = StreamHub(
            self.streams, tracker, self.logs, self.clock, RecordingObserver(), LiveSettings(SETTINGS), news=news
        )
        tasks = [asyncio.create_task(made.log_writer.run()), asyncio.create_task(made.log_reader.run())]
        await settle()
        try:
            yield made
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await made.close()
            await tracker.close()

    @asynccontextmanager
    async def both(self) -> AsyncIterator[tuple[StreamHub, StreamHub]]:
        """Open the hubs of the owner and of a node that reads."""
        async with AsyncExitStack() as stack:
            owner = await stack.enter_async_context(self.hub(OWNER))
            reader = await stack.enter_async_context(self.hub(READER))
            yield owner, reader


@pytest.fixture
def pair(clock: ManualClock) -> Pair:
    return Pair(clock)


def raws(*events) -> bytes:
    return b"".join(event.raw for event in events)


def said_in(channel: Channel) -> bytes:
    return channel.log.read(channel.log.start(), MIB)[0]


async def test_reader_elsewhere_makes_the_owner_read_upstream_once(pair: Pair):
    """Nobody reads the stream on the node that follows the run."""
    async with pair.both() as (owner, reader):
        heard = Listening(await reader.open(pair.view))
        await pair.streams.say(output(0))
        await settle()
        await pair.clock.advance(WATCHED_SECONDS + GATHER_SECONDS)
        assert heard.heard == output(0).raw
        assert pair.streams.asked == [None]
        assert (owner.live, reader.live) == (1, 0)
        await pair.streams.say(output(1), DONE)
        await pair.clock.advance(2 * (WATCHED_SECONDS + GATHER_SECONDS))
        assert heard.heard == raws(output(0), output(1), DONE)
        assert heard.is_over
        assert pair.streams.asked == [None]


async def test_events_are_stored_soon_only_while_somebody_watches(pair: Pair):
    async with pair.both() as (owner, reader):
        await owner.open(pair.view)
        await pair.streams.say(output(0))
        await settle()
        before = pair.logs.appends
        for number in range(1, 101):
            await pair.streams.say(output(number))
            await pair.clock.advance(0.02)
        assert pair.logs.appends - before <= 2.0 / PAUSE_SECONDS + 1
        heard = Listening(await reader.open(pair.view))
        await settle()
        before = pair.logs.appends
        for number in range(101, 201):
            await pair.streams.say(output(number))
            await pair.clock.advance(0.02)
        assert pair.logs.appends - before >= 2.0 / 0.06
        await pair.clock.advance(0.1)
        assert heard.heard == raws(*map(output, range(201)))


async def test_reader_keeps_saying_that_it_watches(pair: Pair):
    async with pair.both() as (_, reader):
        await reader.open(pair.view)
        await pair.clock.advance(5 * WATCH_SECONDS)
        told = pair.wire.ends[1].of(Topic.WATCH)
        assert 5 <= len(told) <= 7
        assert set(told) == {"run1"}


async def test_small_parts_are_replaced_by_larger_ones(pair: Pair):
    """A stream of an hour is read from some thousand parts, not from a hundred thousand."""
    async with pair.both() as (owner, reader):
        await owner.open(pair.view)
        heard = Listening(await reader.open(pair.view))
        await settle()
        for number in range(400):
            await pair.streams.say(output(number))
            await pair.clock.advance(0.05)
        assert pair.logs.appends > 300
        assert len(pair.logs.parts["run1"]) <= 400 / 25 + 26
        assert heard.heard == raws(*map(output, range(400)))
        assert EventLog.from_chunks(await pair.logs.event_parts("run1"), MIB).end == 400


async def test_lost_news_cost_a_second(pair: Pair):
    async with pair.both() as (owner, reader):
        await owner.open(pair.view)
        heard = Listening(await reader.open(pair.view))
        await settle()
        pair.wire.is_cut = True
        await pair.streams.say(output(0))
        await pair.clock.advance(1.5)
        assert heard.heard == output(0).raw


async def test_stream_ends_with_the_result_if_the_owner_stores_no_end(pair: Pair):
    """It has died, and what it had stored is all that there is."""
    async with pair.both() as (owner, reader):
        await owner.open(pair.view)
        heard = Listening(await reader.open(pair.view))
        await pair.streams.say(output(0))
        await pair.clock.advance(1.0)
        pair.wire.is_cut = True
        owner.drop()
        pair.end()
        await pair.clock.advance(30.0)
        assert heard.heard.startswith(output(0).raw)
        assert heard.heard.count(b"event: output") == 2
        assert heard.is_over


async def test_stream_whose_owner_dies_as_the_run_ends_is_over_within_seconds(pair: Pair):
    """It has said that it has events, and now nobody says so."""
    async with pair.both() as (owner, reader):
        await owner.open(pair.view)
        heard = Listening(await reader.open(pair.view))
        await pair.streams.say(output(0))
        await pair.clock.advance(5.0)
        assert reader.log_reader.is_answered("run1")
        owner.drop()
        del pair.wire.ends[0]
        pair.end()
        await pair.clock.advance(7.5)
        assert heard.is_over
        assert heard.heard.startswith(output(0).raw)
        assert heard.heard.count(b"event: output") == 2


async def test_stream_that_nobody_read_is_made_from_the_result_everywhere(pair: Pair):
    pair.end()
    async with pair.both() as (owner, reader):
        first, second = await owner.open(pair.view), await reader.open(pair.view)
        await pair.clock.advance(2.0)
        assert first.is_complete
        assert second.is_complete
        assert first.log.read(0, MIB) == second.log.read(0, MIB)
        assert pair.streams.asked == []


async def test_reader_reads_upstream_when_its_node_takes_the_run_over(pair: Pair):
    """It goes on after the last event that was stored."""
    async with pair.hub(READER) as reader:
        async with pair.hub(OWNER) as owner:
            await owner.open(pair.view)
            heard = Listening(await reader.open(pair.view))
            await pair.streams.say(output(0), output(1))
            await pair.clock.advance(1.0)
            assert heard.heard == raws(output(0), output(1))
            owner.drop()
        pair.store.runs["run1"] = taken = replace(pair.run, owner=READER)
        pair.trackers[READER].follow(taken)
        await settle()
        assert pair.streams.asked == [None, "10:1"]
        await pair.streams.say(output(2), DONE)
        await settle()
        assert heard.heard == raws(output(0), output(1), output(2), DONE)
        assert reader.live == 0


@pytest.mark.parametrize("was_read", [True, False])
async def test_stream_of_a_run_that_was_taken_over_is_read_on(pair: Pair, was_read: bool):
    """Its readers come back when the run has ended: the rest is stored by then. What nobody has read is left alone."""
    async with pair.hub(OWNER) as owner:
        if was_read:
            await owner.open(pair.view)
            await pair.streams.say(output(0))
            await settle()
    asked = len(pair.streams.asked)
    pair.store.runs["run1"] = taken = replace(pair.run, owner=TAKER)
    async with pair.hub(TAKER) as taker, pair.hub(READER) as reader:
        pair.trackers[TAKER].follow(taken)
        taker.take_over(taken)
        await settle()
        assert pair.streams.asked[asked:] == (["10:0"] if was_read else [])
        if was_read:
            await pair.streams.say(output(1), DONE)
            await settle()
            pair.end()
            await pair.clock.advance(PAUSE_SECONDS)
            rest = await reader.open(pair.view)
            assert rest.is_complete
            assert rest.log.read(rest.log.start(), MIB)[0] == raws(output(0), output(1), DONE)


async def test_gap_in_what_is_stored_ends_the_stream(pair: Pair):
    async with pair.hub(READER) as reader:
        heard = Listening(await reader.open(pair.view))
        later = EventLog(MIB)
        for number in range(5):
            later.append(output(number))
        pair.logs.parts["run1"] = {3: later.chunk_from(3).dump()}
        await pair.clock.advance(1.0)
        assert b"event: error" in heard.heard
        assert heard.is_over


async def test_gap_is_not_kept_for_later_readers(pair: Pair):
    """The log of one reader has a gap, because the owner had dropped what was not read here; others may have none."""
    async with pair.hub(READER) as reader:
        await reader.open(pair.view)
        whole = EventLog(MIB)
        for event in (*map(output, range(5)), DONE):
            whole.append(event)
        pair.logs.parts["run1"] = {3: whole.chunk_from(3).dump()}
        await pair.clock.advance(1.0)
        pair.logs.parts["run1"] = {0: whole.chunk_from(0).dump()}
        again = await reader.open(pair.view)
        assert said_in(again) == raws(*map(output, range(5)), DONE)


async def test_reader_who_comes_while_streams_are_dropped_gets_a_new_one(pair: Pair):
    """And one who has just got the old one is told that it ends."""
    async with pair.hub(OWNER) as owner:
        old = await owner.open(pair.view)
        await pair.streams.say(output(0))
        await pair.clock.advance(PAUSE_SECONDS)
        owner.drop()
        assert old.is_dropped
        again = Listening(await owner.open(pair.view))
        await pair.streams.say(output(1), DONE)
        await settle()
        assert again.heard == raws(output(0), output(1), DONE)
        assert owner.live == 0


async def test_reader_of_an_empty_log_waits_for_a_node_that_is_about_to_store_its_first_events(pair: Pair):
    """Otherwise it would get the stream as it is made from the result, without logs."""
    async with pair.both() as (owner, reader):
        await owner.open(pair.view)
        pair.end()
        late = asyncio.create_task(reader.open(pair.view))
        await pair.clock.advance(3.0)
        await pair.streams.say(output(0), DONE)
        await pair.clock.advance(1.0)
        assert said_in(await late) == raws(output(0), DONE)


@pytest.mark.parametrize("reads_on", [OWNER, READER])
async def test_stream_whose_owner_stops_before_it_has_read_anything_has_the_logs_of_the_result(
    pair: Pair, reads_on: int
):
    """The run ends meanwhile. Nobody has read upstream's stream, and nobody can."""
    async with pair.hub(OWNER) as owner, pair.hub(READER) as reader:
        reading = asyncio.create_task((owner if reads_on == OWNER else reader).open(pair.view))
        await settle()
        await owner.close()
        pair.end(logs="Using seed: 1")
        await pair.clock.advance(10.0)
        late = await reader.open(pair.view)
        await pair.clock.advance(10.0)
        assert late.is_complete
        assert said_in(late).startswith(b"event: logs\nid: ")
        assert [event.name for event in EventSplitter(MIB).feed(said_in(late))] == ["logs", "output", "output", "done"]
        reading.cancel()


async def test_node_that_shuts_down_begins_no_stream_that_another_watches(pair: Pair):
    """Its connection for news is closed after those to upstream."""
    async with pair.hub(OWNER) as owner, pair.hub(READER) as reader:
        await owner.close()
        await reader.open(pair.view)
        await settle()
        assert pair.streams.asked == []
        assert owner.live == 0


async def test_late_reader_of_a_log_without_an_end_waits_only_while_a_node_has_more(pair: Pair):
    async with pair.hub(READER) as reader:
        async with pair.hub(OWNER) as owner:
            await owner.open(pair.view)
            await pair.streams.say(output(0))
            await pair.clock.advance(PAUSE_SECONDS)
            pair.end()
            await pair.clock.advance(1.0)
            late = await reader.open(pair.view)
            await pair.clock.advance(8.0)
            assert said_in(late) == output(0).raw, "the owner waits for the end of the stream"
            await pair.streams.say(output(1), DONE)
            await pair.clock.advance(1.0)
            assert said_in(late) == raws(output(0), output(1), DONE)
        reader.forget()
        whole = EventLog(MIB)
        whole.append(output(0))
        pair.logs.parts["run1"] = {0: whole.chunk_from(0).dump()}
        pair.end()
        late = await reader.open(pair.view)
        await pair.clock.advance(4.0)
        assert late.is_complete
        assert said_in(late).startswith(output(0).raw)
        assert said_in(late).count(b"event: output") == 2


async def test_damaged_log_ends_the_stream(pair: Pair):
    async with pair.hub(READER) as reader:
        heard = Listening(await reader.open(pair.view))
        pair.logs.parts["run1"] = {0: b"damaged"}
        await pair.clock.advance(1.0)
        assert b"event: error" in heard.heard
        assert heard.is_over


async def test_store_that_is_away_ends_no_stream(pair: Pair):
    async with pair.both() as (owner, reader):
        await owner.open(pair.view)
        heard = Listening(await reader.open(pair.view))
        await settle()
        pair.logs.is_away = True
        await pair.streams.say(output(0))
        await pair.clock.advance(3.0)
        pair.logs.is_away = False
        await pair.clock.advance(6.0)
        assert heard.heard == output(0).raw


def test_run_is_watched_for_a_while(clock: ManualClock):
    watchers = Watchers(clock)
    assert not watchers.any_of(["run1"])
    watchers.add("run1")
    assert watchers.has("run1")
    assert watchers.any_of(["run2", "run1"])
    assert not watchers.any_of(["run2"])


async def test_watched_log_does_not_wait_for_the_others(clock: ManualClock):
    """Another log was written a moment ago, which nobody watches."""
    logs, watchers = FakeEventLogs(), Watchers(clock)
    writer = LogWriter(logs, clock, LiveSettings(SETTINGS), watchers)
    writing = asyncio.create_task(writer.run())
    quiet, watched = Channel("quiet", EventLog(MIB)), Channel("watched", EventLog(MIB))
    await quiet.publish([output(0)])
    writer.mark_dirty(quiet)
    await settle()
    watchers.add("watched")
    await watched.publish([output(0)])
    writer.mark_dirty(watched)
    await quiet.publish([output(1)])
    writer.mark_dirty(quiet)
    await clock.advance(GATHER_SECONDS)
    assert logs.told == ["watched"]
    assert writer.dirty_channel("quiet") is quiet
    await clock.advance(2 * PAUSE_SECONDS)
    assert writer.dirty == 0
    writing.cancel()


def test_events_of_a_chunk_are_those_of_the_log():
    log = EventLog(MIB)
    events = [output(number, "x" * number) for number in range(10)]
    for event in events:
        log.append(event)
    chunk = LogChunk.load(log.chunk_from(4).dump())
    assert [each.raw for each in chunk.events_from(4)] == [each.raw for each in events[4:]]
    assert [each.id for each in chunk.events_from(7)] == [each.id for each in events[7:]]
    assert list(chunk.events_from(10)) == []
