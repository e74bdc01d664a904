"""Pauses between the steps of long work, in which others are served."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import TypeVar

T = TypeVar("T")

LARGE = 1024 * 1024
"""Work on fewer bytes takes a few milliseconds, and is not interrupted."""
_VERY_LARGE = 8 * 1024 * 1024
_one = ThreadPoolExecutor(1, "very-large")


async def pause_after(data: bytes | memoryview) -> None:
    """Let others run once, if a step has just worked on much data."""
    if len(data) > LARGE:
        await asyncio.sleep(0)


async def off_the_loop(data: bytes, work: Callable[[], T]) -> T:
    """Do work on `data`: in a thread if it is large.

    A thread keeps the loop from blocking only if no step of the work holds the interpreter for long, so the work
    must go through large data in few passes, or piece by piece. Of very large data one is worked on at a time: each
    thread that waits for the interpreter can get it before the loop does.
    """
    if len(data) <= LARGE:
        return work()
    if len(data) <= _VERY_LARGE:
        return await asyncio.to_thread(work)
    return await asyncio.get_running_loop().run_in_executor(_one, copy_context().run, work)
