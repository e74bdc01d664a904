"""Pauses between the steps of long work, in which others are served."""

import asyncio

LARGE = 1024 * 1024
"""Work on fewer bytes takes a few milliseconds, and is not interrupted."""


async def pause_after(data: bytes) -> None:
    """Let others run once, if a step has just worked on much data."""
    if len(data) > LARGE:
        await asyncio.sleep(0)
