"""Reads event logs as other nodes store them: one log that cannot be read on ends no other."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from gateway.nodes.news import Topic
from gateway.streams.channel import Channel
from gateway.streams.log_reader import LOOK_SECONDS, LogReader
from gateway.streams.rules.event_log import EventLog
from tests.support.clock import ManualClock, settle
from tests.support.fake_news import FakeNews
from tests.support.fake_streams import FakeEventLogs, Listening, output
from tests.support.hub import DONE

MIB = 1024 * 1024


class Reading:
    """A reader of two logs, `run1` and `run2`."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.logs = FakeEventLogs()
        self.news = FakeNews()
        self.reader = LogReader(self.logs, clock, self.news)
        self.channels = {run_id: Channel(run_id, EventLog(MIB)) for run_id in ("run1", "run2")}
        self.heard = {run_id: Listening(channel) for run_id, channel in self.channels.items()}
        self.running = asyncio.create_task(self.reader.run())
        self.following = {
            run_id: asyncio.create_task(self.reader.follow(channel)) for run_id, channel in self.channels.items()
        }

    def store(self, run_id: str, *firsts: int, end: int) -> None:
        """Store the events up to `end` in parts that begin at `firsts`."""
        parts, log = {}, EventLog(MIB)
        bounds = [*firsts, end]
        for number in range(end):
            log.append(output(number))
            if number + 1 in bounds:
                first = max((each for each in firsts if each <= number), default=None)
                if first is not None:
                    parts[first] = log.chunk_from(first).dump()
        self.logs.parts[run_id] = parts

    async def tell(self, *run_ids: str) -> None:
        """Let the owner tell that it has stored events."""
        self.news.hear(Topic.EVENTS, *run_ids)
        await settle()

    async def close(self) -> None:
        """Stop."""
        for task in (self.running, *self.following.values()):
            task.cancel()
        await asyncio.gather(self.running, *self.following.values(), return_exceptions=True)


@pytest.fixture
async def reading(clock: ManualClock) -> AsyncIterator[Reading]:
    made = Reading(clock)
    await settle()
    yield made
    await made.close()


async def test_log_with_a_gap_before_several_parts_ends_no_other(reading: Reading):
    """The owner's log had dropped its beginning before anything was read here."""
    reading.store("run1", 3, 5, 7, end=9)
    reading.store("run2", 0, end=2)
    await reading.tell("run1", "run2")
    assert reading.heard["run1"].is_over
    assert reading.heard["run1"].heard.count(b"event: error") == 1
    assert reading.following["run1"].done()
    assert reading.heard["run2"].heard == output(0).raw + output(1).raw
    assert not reading.running.done()
    reading.store("run2", 0, 2, end=4)
    await reading.clock.advance(LOOK_SECONDS)
    assert reading.heard["run2"].heard == b"".join(output(number).raw for number in range(4))


async def test_log_that_was_completed_meanwhile_gets_no_more_events(reading: Reading):
    """The run has ended, and the end was made from its result while events were read from the store."""
    await reading.channels["run1"].publish([output(0), DONE])
    reading.store("run1", 0, 2, end=6)
    reading.store("run2", 0, end=1)
    await reading.tell("run1", "run2")
    assert reading.heard["run1"].heard == output(0).raw + DONE.raw
    assert reading.heard["run2"].heard == output(0).raw
    assert not reading.running.done()
