"""The end of the process: asked for once it is bounded, asked for twice it is at once."""

import asyncio
import signal

import pytest

from gateway.assembly.shutdown import ShutdownDeadline, SignalHandler
from tests.support.clock import ManualClock


async def test_an_end_that_takes_too_long_is_cut():
    """A disk that hangs does not keep a process for ever; its exit code says that something was wrong."""
    left: list[int] = []
    gone = asyncio.Event()

    def leave(status: int) -> None:
        left.append(status)
        gone.set()

    stop = SignalHandler(-4.99, leave=leave)
    stop.signalled(signal.SIGTERM)
    await stop.wait()
    await gone.wait()
    assert left == [1]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_the_second_signal_says_which_it_was(number: signal.Signals):
    """As a shell has it: 128 and the signal's number."""
    left: list[int] = []
    stop = SignalHandler(60, leave=left.append)
    stop.signalled(signal.SIGTERM)
    assert left == []
    stop.signalled(number)
    assert left == [128 + number]


async def test_the_grace_is_shared():
    """What one part has used up of it, the next has not; it begins with the signal, once."""
    clock = ManualClock()
    ending = ShutdownDeadline(clock, 10)
    await clock.advance(100)
    assert ending.left() == 10
    ending.begin()
    await clock.advance(4)
    ending.begin()
    assert ending.left() == 6
    await clock.advance(60)
    assert ending.left() == 0
