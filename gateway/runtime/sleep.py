"""Sleep that an event can end early."""

import asyncio

from gateway.domain.ports.clock import Clock
from gateway.runtime.tasks import run_until_first


async def sleep_until_event(clock: Clock, seconds: float, event: asyncio.Event) -> None:
    """Sleep for `seconds`, or until `event` is set."""
    await run_until_first(clock.sleep(seconds), event.wait())
