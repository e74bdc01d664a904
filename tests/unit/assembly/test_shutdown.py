"""Shutdown: bounded after the first signal, immediate after the second."""

import asyncio
import signal

import pytest

from gateway.assembly.shutdown import ShutdownDeadline, SignalHandler
from tests.support.clock import ManualClock


async def test_shutdown_that_takes_too_long_is_aborted():
    """A disk that hangs does not keep a process forever; its exit code shows the failure."""
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
async def test_second_signal_exits_with_its_number(number: signal.Signals):
    """As a shell reports it: 128 and the signal's number."""
    left: list[int] = []
    stop = SignalHandler(60, leave=left.append)
    stop.signalled(signal.SIGTERM)
    assert left == []
    stop.signalled(number)
    assert left == [128 + number]


async def test_shutdown_time_is_shared_by_all_steps():
    """What one step has used is missing for the next; the time begins with the first signal."""
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
