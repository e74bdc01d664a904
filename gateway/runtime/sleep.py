"""A sleep that something else can end."""

import asyncio

from gateway.domain.ports.clock import Clock


async def sleep_until_event(clock: Clock, seconds: float, event: asyncio.Event) -> None:
    """Let `seconds` pass, or less if `event` is set meanwhile."""
    sleep = asyncio.ensure_future(clock.sleep(seconds))
    news = asyncio.ensure_future(event.wait())
    try:
        await asyncio.wait({sleep, news}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for future in (sleep, news):
            future.cancel()
        await asyncio.gather(sleep, news, return_exceptions=True)
