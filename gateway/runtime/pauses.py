"""Pauses between the steps of long work, in which others are served."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

LARGE = 1024 * 1024
"""Work on fewer bytes takes a few milliseconds, and is not interrupted."""


async def pause_after(data: bytes | memoryview) -> None:
    """Let others run once, if a step has just worked on much data."""
    if len(data) > LARGE:
        await asyncio.sleep(0)


async def off_the_loop(data: bytes, work: Callable[[], T]) -> T:
    """Do work on `data`: in a thread if it is large.

    A thread keeps the loop from blocking only if no step of the work holds the interpreter for long, so the work
    must go through large data in few passes, or piece by piece.
    """
    return await asyncio.to_thread(work) if len(data) > LARGE else work()
