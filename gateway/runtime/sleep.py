"""Sleep that an event can end early."""

import asyncio

from gateway.domain.ports.clock import Clock


async def sleep_until_event(clock: Clock, seconds: float, event: asyncio.Event) -> None:
    """Sleep for `seconds`, or until `event` is set."""
    sleep = asyncio.ensure_future(clock.sleep(seconds))
    event_set = asyncio.ensure_future(event.wait())
    try:
        await asyncio.wait({sleep, event_set}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for future in (sleep, event_set):
            future.cancel()
        await asyncio.gather(sleep, event_set, return_exceptions=True)
