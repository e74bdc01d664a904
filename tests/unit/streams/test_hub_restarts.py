"""A stream that is begun again: after a restart, by an upstream that repeats itself, and without its end."""

import pytest

from gateway.domain.records import Status
from gateway.errors import UpstreamUnavailable
from gateway.streams.rules.replay import frame
from tests.support.clock import ManualClock, settle
from tests.support.fake_streams import (
    BROKEN,
    Listening,
    ids,
    output,
)
from tests.support.hub import DONE, MIB, HubStack, raws


@pytest.fixture
def stack(clock: ManualClock) -> HubStack:
    return HubStack(clock)


@pytest.mark.parametrize("is_killed", [False, True])
async def test_restart_continues_after_the_last_stored_event(stack: HubStack, is_killed: bool):
    """A crash loses the last batch; upstream sends it once more, under the same ids."""
    async with stack.hub(is_killed=is_killed) as hub:
        await hub.open(stack.view)
        await stack.streams.say(output(0), output(1))
        await settle()
        await stack.streams.say(output(2))
        await settle()
    async with stack.hub() as hub:
        channel = await hub.open(stack.view)
        heard = Listening(channel)
        await stack.streams.say(output(3), DONE)
        await settle()
        assert stack.streams.asked == [None, "10:1" if is_killed else "10:2"]
        await heard.pump()
        assert heard.heard == raws(*map(output, range(4)), DONE)


async def test_upstream_that_repeats_everything_adds_nothing(stack: HubStack):
    """It may not know `Last-Event-ID`, or have lost the place: no id comes twice, however it is cut."""
    stack.streams.listens = False
    stack.streams.piece = 7
    async with stack.hub() as hub:
        heard = Listening(await hub.open(stack.view))
        await stack.streams.say(output(0), output(1))
        await stack.streams.stop(BROKEN)
        await stack.clock.advance(10)
        await stack.streams.say(output(2), DONE)
        await settle()
        assert heard.heard == raws(output(0), output(1), output(2), DONE)
        assert len(stack.streams.asked) == 2


async def test_repeated_ids_of_another_form_are_dropped(stack: HubStack):
    """They cannot be compared, but they can be found."""
    events = [frame("output", name, "a") for name in ("x", "b", "y", "a")]
    stack.streams.listens = False
    async with stack.hub() as hub:
        heard = Listening(await hub.open(stack.view))
        await stack.streams.say(*events[:2])
        await stack.streams.stop(BROKEN)
        await stack.clock.advance(10)
        await stack.streams.say(*events[2:], DONE)
        await settle()
        assert heard.heard == raws(*events, DONE)


async def test_events_with_an_equal_id_are_all_relayed(stack: HubStack):
    """Nothing is left out of an unbroken stream: byte for byte."""
    twins = [frame("output", "10:1", data) for data in "ab"]
    async with stack.hub() as hub:
        heard = Listening(await hub.open(stack.view))
        await stack.streams.say(output(0), *twins, DONE)
        await settle()
        assert heard.heard == raws(output(0), *twins, DONE)


async def test_stream_cut_at_its_end_is_resumed_after_a_restart(stack: HubStack):
    """The gateway was down when the run ended: upstream still has its stream, with the ids that readers know."""
    async with stack.hub() as hub:
        await hub.open(stack.view)
        await stack.streams.say(output(0), output(1))
        await settle()
    await stack.streams.say(output(2), DONE)
    stack.ended(Status.SUCCEEDED, output=["a", "a", "a"])
    async with stack.hub() as hub:
        heard = Listening(await hub.open(stack.view))
        await settle()
        await heard.pump()
        assert heard.heard == raws(*map(output, range(3)), DONE)


async def test_lost_rest_of_a_stream_comes_from_the_result(stack: HubStack):
    """Each piece once, ids that go on, `done`; and the same after the next restart."""
    async with stack.hub() as hub:
        await hub.open(stack.view)
        await stack.streams.say(output(0, "one "), output(1, "two "))
        await settle()
    stack.ended(Status.SUCCEEDED, output=["one ", "two ", "three"])
    stack.streams.refusals = [UpstreamUnavailable("gone")] * 9
    async with stack.hub() as hub:
        heard = Listening(await hub.open(stack.view))
        await stack.clock.advance(30)
        await heard.pump()
        assert heard.heard.startswith(raws(output(0, "one "), output(1, "two ")))
        assert b"data: three\n" in heard.heard
        assert heard.heard.count(b"data: two") == 1
        assert ids(heard.heard) == sorted(set(ids(heard.heard)))
        assert heard.is_over
        assert len(stack.streams.asked) == 2
        assert stack.observer.breaks == ["finished"]
    async with stack.hub() as hub:
        assert (await hub.open(stack.view)).log.read(0, MIB)[0] == heard.heard
