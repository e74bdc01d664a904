"""Background loops: they end with the gateway, and a crash does not end them before."""

import asyncio
from contextlib import AsyncExitStack

import pytest

from gateway.runtime.loops import BackgroundLoop, keep_running, run_while_open
from tests.support.clock import ManualClock, settle


class CrashingLoop:
    """A loop that crashes at each start, after a time."""

    def __init__(self, clock: ManualClock, seconds: float = 0.0) -> None:
        self.clock = clock
        self.seconds = seconds
        self.starts: list[float] = []
        self.crashes: list[str] = []

    async def run(self) -> None:
        self.starts.append(self.clock.monotonic() - 1000.0)
        await self.clock.sleep(self.seconds)
        raise ValueError("a defect")


async def test_loop_runs_until_its_stack_closes(clock: ManualClock) -> None:
    ends: list[str] = []

    async def loop() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ends.append("cancelled")

    async with AsyncExitStack() as stack:
        run_while_open(stack, loop, BackgroundLoop.JANITOR, clock, ends.append)
        await settle()
    assert ends == ["cancelled"]


async def test_crashed_loop_is_logged_and_counted_and_starts_again(
    clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Pauses between crashes double up to a minute."""
    loop = CrashingLoop(clock)
    async with AsyncExitStack() as stack:
        run_while_open(stack, loop.run, BackgroundLoop.JANITOR, clock, loop.crashes.append)
        await clock.advance(3600)
    assert loop.starts[:8] == [0, 1, 3, 7, 15, 31, 63, 123]
    assert loop.crashes == ["janitor"] * len(loop.starts)
    assert {record.__dict__["loop"] for record in caplog.records} == {"janitor"}
    assert all(record.exc_info for record in caplog.records)


async def test_loop_that_ran_well_starts_again_soon(clock: ManualClock) -> None:
    loop = CrashingLoop(clock, seconds=100.0)
    async with AsyncExitStack() as stack:
        run_while_open(stack, loop.run, BackgroundLoop.JANITOR, clock, loop.crashes.append)
        await clock.advance(310)
    assert loop.starts == [0, 101, 202, 303]


async def test_pause_after_a_crash_does_not_delay_the_shutdown(clock: ManualClock) -> None:
    loop, stopping = CrashingLoop(clock), asyncio.Event()

    async def run() -> None:
        if not stopping.is_set():
            await loop.run()

    running = asyncio.create_task(keep_running(run, BackgroundLoop.WEBHOOKS, clock, loop.crashes.append, stopping))
    await settle()
    stopping.set()
    await running
    assert loop.starts == [0]
