"""A sleep that something else can end."""

import asyncio

from gateway.domain.ports.clock import Clock
from gateway.runtime.tasks import run_until_first


async def sleep_until_event(clock: Clock, seconds: float, event: asyncio.Event) -> None:
    """Let `seconds` pass, or less if `event` is set meanwhile."""
    await run_until_first(clock.sleep(seconds), event.wait())
