"""One upstream stream for each run, stored as it arrives, also if connections break."""

import asyncio

import pytest

from gateway.domain.records import Status
from gateway.errors import StoreUnavailable, UpstreamUnavailable
from gateway.models.rules.secrets import REDACTED
from gateway.streams.channel import Channel
from gateway.streams.log_writer import PAUSE_SECONDS
from gateway.streams.rules.event_log import EventLog
from gateway.streams.rules.replay import frame
from gateway.streams.rules.sse import Event
from tests.support.clock import ManualClock, settle
from tests.support.fake_streams import (
    BROKEN,
    IDLE,
    Listening,
    output,
)
from tests.support.hub import DONE, LAST_WORDS, MIB, HubStack, raws

COMMENT = Event(b": still here\n\n", None, "message", True)


@pytest.fixture
def stack(clock: ManualClock) -> HubStack:
    return HubStack(clock)


async def test_many_readers_cost_one_upstream_stream(stack: HubStack):
    """A classroom is one reader to Replicate."""
    async with stack.hub() as hub:
        channels = await asyncio.gather(*(hub.open(stack.view) for _ in range(100)))
        assert len({id(channel) for channel in channels}) == 1
        heard = Listening(channels[0])
        await stack.streams.say(output(0), output(1), DONE)
        await settle()
        assert heard.heard == raws(output(0), output(1), DONE)
        assert heard.is_over
        assert stack.streams.asked == [None]
        assert await hub.open(stack.view) is channels[0], "what has ended is at hand"
        assert hub.live == 0


async def test_events_are_stored_in_batches(stack: HubStack):
    """A hundred tokens a second are two writes a second, and the first does not wait for others."""
    async with stack.hub() as hub:
        await hub.open(stack.view)
        await stack.streams.say(output(0))
        await settle()
        assert stack.logs.appends == 1
        for number in range(1, 301):
            await stack.streams.say(output(number))
            await stack.clock.advance(0.01)
        assert 1 + 3 / PAUSE_SECONDS - 1 <= stack.logs.appends <= 1 + 3 / PAUSE_SECONDS + 1
        quiet = stack.logs.appends
        await stack.clock.advance(60)
        assert stack.logs.appends <= quiet + 1
        assert EventLog.from_chunks(await stack.logs.event_parts(stack.run.id), MIB).end == 301


async def test_complete_log_is_stored_in_one_part(stack: HubStack):
    """After a restart it is read without a request to upstream."""
    async with stack.hub() as hub:
        await hub.open(stack.view)
        for number in range(20):
            await stack.streams.say(output(number))
            await stack.clock.advance(PAUSE_SECONDS)
        assert len(stack.logs.parts[stack.run.id]) == 20
        await stack.streams.say(DONE)
        await stack.clock.advance(PAUSE_SECONDS)
        assert len(stack.logs.parts[stack.run.id]) == 1
        assert hub.log_writer.dirty == 0
    stack.ended(Status.SUCCEEDED, output=["not looked at"])
    async with stack.hub() as hub:
        channel = await hub.open(stack.view)
        assert channel.log.read(0, MIB)[0] == raws(*map(output, range(20)), DONE)
        assert stack.streams.asked == [None]


@pytest.mark.parametrize("is_forgotten", [False, True], ids=["running", "ended"])
async def test_secret_values_are_struck_from_events(stack: HubStack, is_forgotten: bool):
    """A model that quotes its token in the stream: neither readers nor the stored log get it. Names and ids stay."""
    stack.secret_values.keep(stack.run.id, ("sk-12345", "output"), {})
    error = frame("error", "10:1", '{"detail":"bad sk-12345"}')
    async with stack.hub() as hub:
        channel = await hub.open(stack.view)
        await settle()
        if is_forgotten:
            stack.secret_values.forget(stack.run.id)
        await stack.streams.say(frame("output", "10:0", "my\nsk-12345!"), error, DONE)
        await settle()
        shown = frame("output", "10:0", f"my\n{REDACTED}!"), frame("error", "10:1", f'{{"detail":"bad {REDACTED}"}}')
        assert channel.log.read(0, MIB)[0] == raws(*shown, DONE)
    assert EventLog.from_chunks(await stack.logs.event_parts(stack.run.id), MIB).read(0, MIB)[0] == raws(*shown, DONE)


async def test_error_of_an_unknown_schema_is_searched_for_what_can_be_secret(stack: HubStack):
    stack.secret_values.keep(stack.run.id, (), {"prompt": "a long prompt", "token": "sk-1234567890"})
    async with stack.hub() as hub:
        channel = await hub.open(stack.view)
        await stack.streams.say(output(0), frame("error", "10:1", '{"detail":"bad sk-1234567890"}'), DONE)
        await settle()
        assert channel.log.read(0, MIB)[0] == raws(
            output(0), frame("error", "10:1", f'{{"detail":"bad {REDACTED}"}}'), DONE
        )


async def test_failing_stream_host_costs_five_attempts(stack: HubStack):
    """Readers get the rest from the result when it is there."""
    stack.streams.refusals = [UpstreamUnavailable("down")] * 99
    async with stack.hub() as hub:
        heard = Listening(await hub.open(stack.view))
        await stack.clock.advance(60)
        assert len(stack.streams.asked) == 5
        assert not heard.is_over
        stack.end(Status.SUCCEEDED, output=["late"])
        await stack.clock.advance(30)
        assert b"data: late\n" in heard.heard
        assert heard.is_over


async def test_silent_model_is_waited_for(stack: HubStack):
    """Upstream closes every half minute while a model boots; that is no failure, however often."""
    async with stack.hub() as hub:
        heard = Listening(await hub.open(stack.view))
        for _ in range(20):
            await stack.clock.advance(30)
            await stack.streams.stop(IDLE)
            await settle()
        await stack.clock.advance(1)
        await stack.streams.say(output(0), DONE)
        await settle()
        assert heard.heard == raws(output(0), DONE)
        assert stack.observer.breaks == []


async def test_events_before_an_endless_one_are_not_lost(stack: HubStack):
    """The complete events of the chunk are relayed; what is beyond the limit comes with the result."""
    long = frame("output", "10:2", "x" * 70_000)
    async with stack.hub(max_log_bytes=64 * 1024) as hub:
        heard = Listening(await hub.open(stack.view))
        stack.streams.is_glued = True
        await stack.streams.say(output(1, "two"), long)
        await settle()
        assert heard.heard == output(1, "two").raw
        stack.end(Status.SUCCEEDED, output=["two", "x" * 70_000])
        await stack.clock.advance(60)
        assert heard.is_over
        assert heard.heard.count(b"x" * 70_000) == 1
        assert heard.heard.count(b"data: two") == 1


async def test_error_is_sent_once(stack: HubStack):
    """The stream broke between `error` and `done`."""
    async with stack.hub() as hub:
        heard = Listening(await hub.open(stack.view))
        await stack.streams.say(output(0), frame("error", "10:1", '{"detail":"no GPU"}'))
        stack.streams.refusals = [BROKEN] * 9
        await stack.streams.stop(BROKEN)
        stack.end(Status.FAILED, error="no GPU")
        await stack.clock.advance(60)
        assert heard.heard.count(b"event: error\n") == 1
        assert heard.heard.endswith(b'data: {"reason":"error"}\n\n')


async def test_readers_continue_while_the_store_is_down(stack: HubStack):
    """What could not be stored is stored when it is back."""
    async with stack.hub() as hub:
        heard = Listening(await hub.open(stack.view))
        stack.logs.is_away = True
        for number in range(10):
            await stack.streams.say(output(number))
            await stack.clock.advance(1)
        assert heard.heard == raws(*map(output, range(10)))
        assert hub.log_writer.dirty == 1
        stack.logs.is_away = False
        await stack.clock.advance(10)
        assert hub.log_writer.dirty == 0
        assert EventLog.from_chunks(await stack.logs.event_parts(stack.run.id), MIB).end == 10


async def test_stream_with_an_unreadable_beginning_is_not_begun(stack: HubStack):
    """Every reader gets the error; the next one tries again."""
    stack.logs.is_away = True
    async with stack.hub() as hub:
        asked = await asyncio.gather(*(hub.open(stack.view) for _ in range(3)), return_exceptions=True)
        assert [type(each) for each in asked] == [StoreUnavailable] * 3
        await settle()
        stack.logs.is_away = False
        await hub.open(stack.view)
        assert stack.streams.asked in ([], [None])


async def test_damaged_stored_log_is_read_again(stack: HubStack, caplog: pytest.LogCaptureFixture):
    """Upstream has it all; the damage is logged and replaced."""
    stack.logs.parts[stack.run.id] = {0: b"\x01damaged"}
    await stack.streams.say(output(0), DONE)
    async with stack.hub() as hub:
        await hub.open(stack.view)
        await stack.clock.advance(1)
        assert EventLog.from_chunks(await stack.logs.event_parts(stack.run.id), MIB).end == 2
    assert "stored event log is corrupt" in caplog.text


async def test_burst_beyond_the_limit_reaches_current_readers(stack: HubStack):
    """A chunk may hold more than the log: it is relayed before it is dropped."""
    burst = [output(number, "x" * 500) for number in range(100)]
    channel = Channel("run1", EventLog(2000))
    heard = Listening(channel)
    await channel.publish([*burst, DONE, output(5)])
    assert heard.heard == raws(*burst, DONE)
    assert heard.is_over
    assert channel.log.size <= 2000


async def test_stored_log_is_limited(stack: HubStack):
    """However long a model writes."""
    async with stack.hub(max_log_bytes=2000) as hub:
        await hub.open(stack.view)
        for number in range(400):
            await stack.streams.say(output(number, "x" * 20))
            await stack.clock.advance(0.1)
        log = EventLog.from_chunks(await stack.logs.event_parts(stack.run.id), MIB)
        assert log.end >= 390
        assert log.size < 2000 + 10 * 100


async def test_silent_stream_at_its_runs_end_is_completed_from_the_result(stack: HubStack):
    """Upstream sent nothing after the last token and does not close: the reader is not left waiting for `done`."""
    async with stack.hub() as hub:
        heard = Listening(await hub.open(stack.view))
        await stack.streams.say(output(0, "one"))
        await settle()
        stack.end(Status.SUCCEEDED, output=["one", "two"])
        for _ in range(LAST_WORDS):
            await stack.clock.advance(1)
            await stack.streams.say(COMMENT)
        await stack.clock.advance(LAST_WORDS)
        assert heard.is_over
        assert heard.heard.startswith(output(0, "one").raw)
        assert heard.heard.count(b"data: two\n") == 1
        assert heard.heard.count(b"event: done\n") == 1
        assert hub.live == 0


async def test_stream_that_continues_after_its_runs_end_is_read_on(stack: HubStack):
    """The polls were quicker than the stream: as long as it sends something new, it is the better source."""
    async with stack.hub() as hub:
        heard = Listening(await hub.open(stack.view))
        stack.end(Status.SUCCEEDED, output=["x"] * 12)
        for number in range(12):
            await stack.clock.advance(LAST_WORDS - 1)
            await stack.streams.say(output(number, "x"))
            await settle()
        await stack.streams.say(DONE)
        await settle()
        assert heard.heard == raws(*(output(number, "x") for number in range(12)), DONE)
        assert stack.observer.breaks == []


async def test_unexpected_error_ends_the_stream(stack: HubStack, caplog: pytest.LogCaptureFixture):
    """Readers learn that the rest is not available, and none waits forever."""
    async with stack.hub() as hub:
        heard = Listening(await hub.open(stack.view))
        await stack.streams.say(output(0))
        await stack.streams.stop(RuntimeError("overlooked"))
        await settle()
        assert heard.is_over
        assert b"event: error\n" in heard.heard
        assert heard.heard.endswith(b'data: {"reason":"error"}\n\n')
        assert "overlooked" in caplog.text
        stack.streams.forget_ends()
        again = await hub.open(stack.view)
        assert again.log.read(0, MIB)[0] == output(0).raw, "it is read anew, from upstream"


async def test_upstream_that_closes_repeatedly_is_not_hammered(stack: HubStack):
    """`:408:` comes after half a minute of silence; one that comes at once is a failure like any other."""
    async with stack.hub() as hub:
        heard = Listening(await hub.open(stack.view))
        for _ in range(60):
            await stack.streams.stop(IDLE)
            await stack.clock.advance(1)
        assert len(stack.streams.asked) <= 6
        stack.end(Status.SUCCEEDED, output=["late"])
        await stack.clock.advance(30)
        assert heard.is_over
        assert b"data: late\n" in heard.heard


async def test_unstored_stream_is_not_forgotten(stack: HubStack):
    """There is no room for it in memory, and its last batch is still to be stored: a reader now gets the same."""
    async with stack.hub(kept_log_bytes=1024) as hub:
        heard = Listening(await hub.open(stack.view))
        stack.logs.is_away = True
        await stack.streams.say(output(0, "x" * 2000))
        await settle()
        stack.logs.is_away = False
        stack.ended(Status.SUCCEEDED, output=["x" * 2000])
        await stack.streams.say(DONE)
        await settle()
        assert heard.is_over
        assert hub.log_writer.dirty == 1
        assert (await hub.open(stack.view)).log.read(0, MIB)[0] == heard.heard
        await stack.clock.advance(10)
        assert hub.log_writer.dirty == 0
        assert (await hub.open(stack.view)).log.read(0, MIB)[0] == heard.heard
        assert len(stack.streams.asked) == 1
