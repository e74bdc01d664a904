"""Wait for a condition by polling it, for a bounded time.

Tests wait here, and nowhere else, for what happens in another task, thread or process. Real time passes because the
other side runs on real sockets, disks or processes; where a `ManualClock` drives the code, use its `advance`.
"""

import asyncio
import os
import time
from collections.abc import Callable
from typing import Self, TypeVar

SECONDS = 45.0 if os.environ.get("CI") else 15.0
"""How long a condition may take: less than a test's timeout. It needs milliseconds, on a crowded machine seconds."""
_PAUSE = 0.01


T = TypeVar("T")


class attempts:  # noqa: N801 (reads as a verb: `async for _ in attempts()`)
    """Repeat a loop until it breaks; raise AssertionError after `seconds`.

    For conditions that need `await`: `async for _ in attempts(): if await ready(): break`.
    """

    def __init__(self, seconds: float = SECONDS, *, pause: float = _PAUSE) -> None:
        self._seconds = seconds
        self._pause = pause
        self._end = time.monotonic() + seconds
        self._number = 0

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> int:
        """Pause, except before the first attempt. Return the number of attempts before this one."""
        if self._number:
            if time.monotonic() > self._end:
                raise AssertionError(f"The condition did not hold within {self._seconds:g} seconds.")
            await asyncio.sleep(self._pause)
        self._number += 1
        return self._number - 1


async def until(condition: Callable[[], object], seconds: float = SECONDS) -> None:
    """Wait until a condition holds; raise AssertionError after `seconds`."""
    async for _ in attempts(seconds):
        if condition():
            return


async def holds(condition: Callable[[], object], seconds: float = 0.1) -> None:
    """Check that a condition keeps holding while real time passes.

    To show that something does not happen, time has to pass in which it could: there is no event to wait for.
    """
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        assert condition(), "The condition no longer holds."
        await asyncio.sleep(_PAUSE)
    assert condition(), "The condition no longer holds."


async def stable(read: Callable[[], T], seconds: float = 0.1) -> T:
    """Wait until a value stays the same for `seconds`, and return it.

    For work in the background that announces no end, such as requests to upstream that are still to come.
    """
    value, since = read(), time.monotonic()
    async for _ in attempts():
        if (now := read()) != value:
            value, since = now, time.monotonic()
        if time.monotonic() - since >= seconds:
            break
    return value
