"""Measure event-loop lag: sleep, and measure by how much the wake-up is late."""

import asyncio
from collections.abc import Callable
from typing import Final

EVERY_SECONDS: Final = 0.25


async def sample(observe: Callable[[float], None]) -> None:
    """Report the lag in seconds, until cancelled. Uses the loop's own clock, not the `Clock` port."""
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + EVERY_SECONDS
        await asyncio.sleep(EVERY_SECONDS)
        observe(max(0.0, loop.time() - due))
