"""Event logs on their way to the store."""

import asyncio

import pytest

from gateway.runtime.live import LiveSettings
from gateway.streams.channel import Channel
from gateway.streams.log_writer import LogWriter
from gateway.streams.rules.event_log import EventLog
from gateway.streams.settings import StreamSettings
from tests.support.clock import ManualClock, settle
from tests.support.fake_streams import FakeEventLogs, output

MIB = 1024 * 1024
SETTINGS = StreamSettings(max_log_bytes=MIB, kept_log_bytes=MIB, heartbeat_seconds=15.0, max_total=1, max_per_team=1)


class HeldLogs(FakeEventLogs):
    """Writes wait until `released` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.released = asyncio.Event()

    async def append_events(self, run_id: str, first: int, part: bytes, *, kept_from: int) -> bool:
        """Keep a part, later."""
        await self.released.wait()
        return await super().append_events(run_id, first, part, kept_from=kept_from)


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

    async def append_events(self, run_id: str, first: int, part: bytes, *, kept_from: int) -> bool:
        """Keep a part, or crash."""
        if not self.has_crashed:
            self.has_crashed = True
            raise RuntimeError("a defect")
        return await super().append_events(run_id, first, part, kept_from=kept_from)


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
