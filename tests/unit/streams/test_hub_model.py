"""Events, broken connections, kills, restarts and resuming readers in random orders: no event is missed or repeated."""

import asyncio
from dataclasses import dataclass

from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.streams.channel import Channel
from gateway.streams.rules.event_log import EventLog
from gateway.streams.rules.resume import Complete, Gap, NotYet, ResumeAt, resume
from gateway.streams.rules.sse import EventSplitter
from tests.support.clock import ManualClock, settle
from tests.support.fake_streams import BROKEN, IDLE, output
from tests.support.hub import DONE, HubStack

_FAILURES_IN_A_ROW = 4

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("say"), st.integers(1, 5)),
        st.tuples(st.just("cut"), st.booleans()),
        st.tuples(st.just("idle"), st.none()),
        st.tuples(st.just("wait"), st.sampled_from([0.1, 0.6, 7.0])),
        st.tuples(st.just("restart"), st.booleans()),
        st.tuples(st.just("drop"), st.integers(0, 2)),
        st.tuples(st.just("deaf"), st.booleans()),
        st.tuples(st.just("pieces"), st.sampled_from([0, 1, 13])),
    ),
    max_size=25,
)


@dataclass
class Caller:
    """A reader that loses its connection and resumes after the last complete event."""

    heard: bytes = b""
    last_id: str | None = None
    cursor: int = -1

    def take(self, log: EventLog) -> None:
        """Read all new events, as `gateway.http.sse.handler` does."""
        if self.cursor < 0:
            place = resume(log, self.last_id)
            assert not isinstance(place, Gap), f"{self.last_id} is lost among {log.end} up to {log.last_id}"
            if isinstance(place, NotYet | Complete):
                return
            assert isinstance(place, ResumeAt)
            self.cursor = place.cursor
        data, self.cursor = log.read(self.cursor, 1 << 20)
        for event in EventSplitter(1 << 20).feed(data):
            self.last_id = event.id
        self.heard += data


class Crowd:
    """The readers of a channel."""

    def __init__(self, channel: Channel, callers: list[Caller]) -> None:
        self.channel = channel
        self.callers = callers
        channel.listener = self

    async def pump(self) -> None:
        """Let all readers read the new events."""
        for caller in self.callers:
            caller.take(self.channel.log)

    def check_canceled(self) -> None:
        """No reader leaves early."""


async def play(steps) -> None:
    stack, clock = None, ManualClock()
    stack = HubStack(clock)
    callers = [Caller() for _ in range(3)]
    reported = 0

    async def serve(steps: list) -> bool:
        """Run the gateway until it is killed or the steps are done; return whether it was killed."""
        nonlocal reported
        stops = 0
        async with stack.hub() as hub:
            channel = await hub.open(stack.view)
            for caller in callers:
                caller.cursor = -1
            crowd = Crowd(channel, callers)
            await crowd.pump()
            while steps:
                if stops == _FAILURES_IN_A_ROW:
                    # After one more, the reader gives up and waits for the end of the run.
                    await clock.advance(60)
                    steps.insert(0, ("say", 1))
                    stops = 0
                step, value = steps.pop(0)
                stops += step in ("cut", "idle")
                match step:
                    case "say":
                        await stack.streams.say(*(output(reported + n, "a" * (n % 3)) for n in range(value)))
                        reported += value
                    case "cut":
                        await stack.streams.stop(BROKEN if value else b"")
                    case "idle":
                        await stack.streams.stop(IDLE)
                    case "wait":
                        await clock.advance(value)
                    case "drop":
                        callers[value].cursor = -1
                        callers[value].take(channel.log)
                    case "deaf":
                        stack.streams.listens = not value
                    case "pieces":
                        stack.streams.piece = value
                    case "restart":
                        # A kill is a close that keeps nothing.
                        stack.logs.is_away = value
                        return True
                await settle()
            await stack.streams.say(DONE)
            await clock.advance(60)
        return False

    steps = list(steps)
    while await serve(steps):
        stack.logs.is_away = False
        stack.streams.forget_ends()
    whole = b"".join(event.raw for event in stack.streams.said)
    for caller in callers:
        assert caller.heard == whole


@given(STEPS)
@example([("cut", False), ("cut", False), ("idle", None), ("idle", None), ("idle", None), ("wait", 7.0)])
@settings(max_examples=100, deadline=None)
def test_random_steps_lose_and_repeat_no_event(steps) -> None:
    """Each of three readers has exactly what upstream sent."""
    asyncio.run(play(steps))
