"""How the cost of work grows with the size of its input, and how long an event loop stood still.

CPU time is measured, not wall time: another process on the machine changes it little. What looks more than linear is
measured again, and the least counts, since noise only ever adds. The garbage collector is off meanwhile, because its
passes fall where they like.
"""

import asyncio
import contextlib
import gc
import time
import urllib.parse
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

from gateway.domain import surrogates

T = TypeVar("T")
_forget_urls: Callable[[], None] = vars(urllib.parse)["clear_cache"]

TIMES = 4
LINEAR = 10.0
"""Linear work takes 4 times as long on an input 4 times as large, quadratic work 16 times. Between the two there is
room for noise: work that outgrows the processor's cache or needs new pages of memory was seen to take 8 times."""
NOISE_SECONDS = 0.002
"""What takes no longer than this on the larger input is cheap, however it grows."""
ENOUGH_SECONDS = 0.006
"""How long the work on the larger input has to take to be compared; it takes less on the largest input only."""
_REPEATS = 10
_MISTAKES = (AttributeError, NameError, TypeError)


@dataclass(frozen=True)
class Growth:
    """CPU seconds of the same work on an input of `n` and on one of `4 n`."""

    n: int
    small: float
    large: float

    @property
    def factor(self) -> float:
        """How many times as long the larger input takes."""
        return self.large / max(self.small, 1e-9)

    @property
    def is_linear(self) -> bool:
        """Whether the growth is linear, or the work is too short to say."""
        return self.large <= NOISE_SECONDS or self.factor <= LINEAR

    def __str__(self) -> str:
        """Write both measurements."""
        return (
            f"{self.small * 1000:.2f} ms for n = {self.n}, {self.large * 1000:.2f} ms for 4 n: {self.factor:.1f} times"
        )


@contextlib.contextmanager
def _without_collector() -> Iterator[None]:
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def cpu_seconds(work: Callable[[T], object], value: T) -> float:
    """Return the CPU seconds that this thread spends on the work. An error that the work raises is an answer, too.

    Errors that a wrong name or a wrong type in the test itself would raise are not suppressed.
    """
    # URLs that were split and the last large document are remembered: a second measurement would measure nothing.
    _forget_urls()
    surrogates.forget()
    began = time.thread_time()
    try:
        work(value)
    except _MISTAKES:
        raise
    except Exception:  # noqa: BLE001 (whatever else is raised is a refusal)
        pass
    return time.thread_time() - began


def growth(make: Callable[[int], T], work: Callable[[T], object], *, first: int = 256, most: int = 1_048_576) -> Growth:
    """Measure the growth of `work(make(n))`.

    `n` grows from `first` until the work takes some milliseconds, so that quadratic work is found out early and is
    never waited for. `most` is the largest input.
    """
    n = first
    with _without_collector():
        small_input = make(n)
        small = cpu_seconds(work, small_input)
        while True:
            large_input = make(TIMES * n)
            large = cpu_seconds(work, large_input)
            if large >= ENOUGH_SECONDS:
                # One slow measurement would stop the growth of n at an input that is too small to compare.
                large = min(large, cpu_seconds(work, large_input))
            if large >= ENOUGH_SECONDS or TIMES * TIMES * n > most:
                break
            n, small_input, small = TIMES * n, large_input, large
        if large > NOISE_SECONDS:
            # One slow measurement of the smaller input would hide all growth.
            small = min(small, *(cpu_seconds(work, small_input) for _ in range(5)))
        measured = Growth(n, small, large)
        for _ in range(_REPEATS):
            if measured.is_linear:
                break
            small = min(small, cpu_seconds(work, small_input))
            large = min(large, cpu_seconds(work, large_input))
            measured = Growth(n, small, large)
    return measured


def assert_linear(
    make: Callable[[int], T], work: Callable[[T], object], *, first: int = 256, most: int = 1_048_576
) -> None:
    """Fail if the work grows faster than its input."""
    measured = growth(make, work, first=first, most=most)
    assert measured.is_linear, f"more than linear: {measured}"


@dataclass
class Stalls:
    """For how long the event loop did nothing but one thing."""

    worst: float = 0.0
    """Seconds of the longest stall."""
    gaps: list[float] = field(default_factory=list)
    """Every stall of more than ten milliseconds, in seconds."""


@contextlib.asynccontextmanager
async def loop_stalls(every: float = 0.002) -> AsyncIterator[Stalls]:
    """Measure the stalls of the running loop while the block runs, as seen by a task that sleeps for a moment."""
    stalls = Stalls()
    loop = asyncio.get_running_loop()

    async def watch() -> None:
        while True:
            due = loop.time() + every
            await asyncio.sleep(every)
            late = loop.time() - due
            stalls.worst = max(stalls.worst, late)
            if late > 0.01:
                stalls.gaps.append(late)

    task = asyncio.create_task(watch())
    await asyncio.sleep(0)
    try:
        yield stalls
        # The last stall is seen when the task runs again.
        await asyncio.sleep(2 * every)
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
