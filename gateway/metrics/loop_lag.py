"""How late the event loop is: a task that sleeps, and measures how much longer that took."""

import asyncio
from collections.abc import Callable
from typing import Final

EVERY_SECONDS: Final = 0.25


async def sample(observe: Callable[[float], None]) -> None:
    """Measure for ever, by the loop's own time: it is the loop that is measured, whatever clock the services go by."""
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + EVERY_SECONDS
        await asyncio.sleep(EVERY_SECONDS)
        observe(max(0.0, loop.time() - due))
