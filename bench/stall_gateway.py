"""A gateway that measures in CPU time how long its event loop did not come round.

    python -m bench.stall_gateway serve --config FILE

A timer looks at the clocks each millisecond. Between two looks, `held_ms` is the time that has passed, without the time
for which the loop's thread was ready and waited for a processor (Linux only), but at most the CPU time of the whole
process: what the loop's own steps took, and what other threads took while they held the interpreter. `step_ms` is the
CPU time of the loop's own thread. So neither counts what other processes do. A line on the input makes it write the
worst of both, and start again.
"""

import asyncio
import json
import os
import sys
import threading
import time
from collections.abc import Callable

MARK = "steps "
_EVERY_SECONDS = 0.001


class _Clocks:
    """The worst so far."""

    def __init__(self) -> None:
        self._held = self._step = 0.0
        self._last = (0.0, 0.0, 0.0)
        self._schedule: int | None = None

    def _now(self) -> tuple[float, float, float]:
        """Return the time without waits for a processor, the CPU time of the process, and that of this thread."""
        waited = 0.0
        if self._schedule is not None:
            waited = int(os.pread(self._schedule, 100, 0).split()[1]) / 1e9
        return time.perf_counter() - waited, time.process_time(), time.thread_time()

    def beat(self, loop: asyncio.AbstractEventLoop) -> None:
        now = self._now()
        passed, process, thread = (later - before for later, before in zip(now, self._last, strict=True))
        self._held = max(self._held, min(passed, process))
        self._step = max(self._step, thread)
        self._last = now
        loop.call_later(_EVERY_SECONDS, self.beat, loop)

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        path = f"/proc/self/task/{threading.get_native_id()}/schedstat"
        if os.path.exists(path):  # noqa: PTH110
            self._schedule = os.open(path, os.O_RDONLY)
        self._last = self._now()
        self.beat(loop)

    def take(self) -> dict[str, float]:
        worst = {"held_ms": round(self._held * 1000, 1), "step_ms": round(self._step * 1000, 1)}
        self._held = self._step = 0.0
        return worst


def _measured(
    make: Callable[[], asyncio.AbstractEventLoop], clocks: _Clocks
) -> Callable[[], asyncio.AbstractEventLoop]:
    def new_event_loop() -> asyncio.AbstractEventLoop:
        loop = make()
        loop.call_soon(clocks.start, loop)
        return loop

    return new_event_loop


def _answer(clocks: _Clocks) -> None:
    for _ in sys.stdin:
        print(MARK + json.dumps(clocks.take()), flush=True)


def main() -> None:
    """Run the gateway's command line with its loop measured."""
    import uvloop

    from gateway.cli import main as gateway

    clocks = _Clocks()
    uvloop.new_event_loop = _measured(uvloop.new_event_loop, clocks)
    threading.Thread(target=_answer, args=(clocks,), daemon=True).start()
    gateway()


if __name__ == "__main__":
    main()
