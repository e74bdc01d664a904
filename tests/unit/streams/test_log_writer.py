"""Event logs on their way to the store."""

import asyncio
from collections.abc import Sequence

import pytest

from gateway.runtime.live import LiveSettings
from gateway.streams.channel import Channel
from gateway.streams.log_writer import GATHER_SECONDS, PAUSE_SECONDS, WATCHED_SECONDS, LogWriter
from gateway.streams.ports import LogPart
from gateway.streams.rules.event_log import EventLog
from gateway.streams.rules.flushes import MOST_OTHERS
from gateway.streams.settings import StreamSettings
from gateway.streams.watchers import Watchers
from tests.support.clock import ManualClock, settle
from tests.support.fake_streams import FakeEventLogs, output

MIB = 1024 * 1024
SETTINGS = StreamSettings(max_log_bytes=MIB, kept_log_bytes=MIB, heartbeat_seconds=15.0, max_total=1, max_per_team=1)


class HeldLogs(FakeEventLogs):
    """Writes wait until `released` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.released = asyncio.Event()

    async def append_events(self, parts: Sequence[LogPart]) -> set[str]:
        """Keep parts, later."""
        await self.released.wait()
        return await super().append_events(parts)


async def channel_with(number: int) -> Channel:
    """Make a channel of the same run with one event."""
    channel = Channel("run1", EventLog(MIB))
    await channel.publish([output(number)])
    return channel


async def test_write_of_a_dropped_channel_leaves_its_successor_dirty(clock: ManualClock) -> None:
    """A channel was given up during a write, and another one of its run has events to store."""
    logs = HeldLogs()
    writer = LogWriter(logs, clock, LiveSettings(SETTINGS))
    old, new = await channel_with(1), await channel_with(2)
    writer.mark_dirty(old)
    write = asyncio.create_task(writer.flush())
    await settle()
    writer.drop(old)
    writer.mark_dirty(new)
    logs.released.set()
    await write
    assert writer.dirty_channel("run1") is new


class DefectiveLogs(FakeEventLogs):
    """The first write crashes."""

    has_crashed = False

    async def append_events(self, parts: Sequence[LogPart]) -> set[str]:
        """Keep parts, or crash."""
        if not self.has_crashed:
            self.has_crashed = True
            raise RuntimeError("a defect")
        return await super().append_events(parts)


async def test_events_of_a_crashed_write_are_stored_when_the_loop_starts_again(clock: ManualClock) -> None:
    """No later event is needed to write them."""
    writer = LogWriter(DefectiveLogs(), clock, LiveSettings(SETTINGS))
    writer.mark_dirty(await channel_with(1))
    with pytest.raises(RuntimeError):
        await writer.run()
    again = asyncio.create_task(writer.run())
    await settle()
    assert writer.dirty == 0
    again.cancel()


async def test_logs_that_nobody_watches_hold_up_the_watched_ones_by_one_bounded_step(clock: ManualClock) -> None:
    """Three hundred streams with new events, one of which another node reads as it grows."""
    logs, watchers = FakeEventLogs(), Watchers(clock)
    writer = LogWriter(logs, clock, LiveSettings(SETTINGS), watchers)
    watchers.add("run7")
    for number in range(300):
        channel = Channel(f"run{number}", EventLog(MIB))
        await channel.publish([output(0)])
        writer.mark_dirty(channel)
    writing = asyncio.create_task(writer.run())
    await clock.advance(GATHER_SECONDS)
    assert logs.steps == [["run7"]]
    await clock.advance(2 * PAUSE_SECONDS)
    assert writer.dirty == 0
    assert list(map(len, logs.steps)) == [1, MOST_OTHERS, MOST_OTHERS, 299 - 2 * MOST_OTHERS]
    assert logs.told == ["run7"]
    writing.cancel()


async def test_logs_that_nobody_watches_are_written_within_half_a_second(clock: ManualClock) -> None:
    """Also while others are watched, whatever the time at which their events come."""
    logs, watchers = FakeEventLogs(), Watchers(clock)
    writer = LogWriter(logs, clock, LiveSettings(SETTINGS), watchers)
    watchers.add("elsewhere")
    channel = Channel("run1", EventLog(MIB))
    writing = asyncio.create_task(writer.run())
    for number, pause in enumerate((0.1, 0.3, 0.45, 0.7)):
        await channel.publish([output(number)])
        writer.mark_dirty(channel)
        await clock.advance(PAUSE_SECONDS + WATCHED_SECONDS + GATHER_SECONDS)
        assert writer.dirty == 0
        watchers.add("elsewhere")
        await clock.advance(pause)
    writing.cancel()


async def test_logs_of_a_flush_are_stored_in_few_steps(clock: ManualClock) -> None:
    """The number of steps does not grow with that of the streams."""
    logs = FakeEventLogs()
    writer = LogWriter(logs, clock, LiveSettings(SETTINGS))
    for number in range(300):
        channel = Channel(f"run{number}", EventLog(MIB))
        await channel.publish([output(0)])
        writer.mark_dirty(channel)
    assert await writer.flush()
    assert list(map(len, logs.steps)) == [200, 100]


async def test_bytes_of_a_step_are_bounded(clock: ManualClock) -> None:
    logs = FakeEventLogs()
    writer = LogWriter(logs, clock, LiveSettings(SETTINGS))
    for number in range(20):
        channel = Channel(f"run{number}", EventLog(MIB))
        await channel.publish([output(0, "a" * (MIB - 100))])
        writer.mark_dirty(channel)
    assert await writer.flush()
    assert max(map(len, logs.steps)) <= 9


async def test_log_given_up_while_others_are_written_is_not_stored(clock: ManualClock) -> None:
    logs = HeldLogs()
    writer = LogWriter(logs, clock, LiveSettings(SETTINGS))
    channels = []
    for number in range(201):
        channels.append(channel := Channel(f"run{number}", EventLog(MIB)))
        await channel.publish([output(0)])
        writer.mark_dirty(channel)
    write = asyncio.create_task(writer.flush())
    await settle()
    writer.drop(channels[-1])
    logs.released.set()
    assert await write
    assert list(map(len, logs.steps)) == [200]
    assert writer.dirty == 0
