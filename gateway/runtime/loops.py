"""Background loops: they run until the gateway closes, and start again after a crash."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import AsyncExitStack
from enum import StrEnum

from gateway.domain.ports.clock import Clock
from gateway.runtime.sleep import sleep_until_event
from gateway.runtime.tasks import Tasks, Work

logger = logging.getLogger(__name__)

_FIRST_PAUSE = 1.0
_LONGEST_PAUSE = 60.0

Loop = Callable[[], Work[None]]
"""Starts a loop. Called again after a crash, so a loop keeps its state elsewhere."""


class BackgroundLoop(StrEnum):
    """The loops, as their metric and log name them."""

    ACCOUNT = "account"
    BUDGETS = "budgets"
    CONFIG_RECORDS = "config_records"
    COPIES = "copies"
    DEADLINES = "deadlines"
    EVENT_LOGS = "event_logs"
    HEALTH = "health"
    HEARTBEATS = "heartbeats"
    ISSUER_KEYS = "issuer_keys"
    JANITOR = "janitor"
    KEY_USES = "key_uses"
    LEASE = "lease"
    LEDGER_AUDIT = "ledger_audit"
    LOOP_LAG = "loop_lag"
    NEWS = "news"
    OUTPUTS = "outputs"
    RELOADS = "reloads"
    SHARED_RELOADS = "shared_reloads"
    SHARES = "shares"
    TAKEOVER = "takeover"
    WATCHED_LOGS = "watched_logs"
    WEBHOOKS = "webhooks"


async def keep_running(
    loop: Loop,
    name: BackgroundLoop,
    clock: Clock,
    on_crash: Callable[[str], None],
    stopping: asyncio.Event | None = None,
) -> None:
    """Run a loop until it returns. After a crash, log and count it, pause, and start the loop again.

    The pause doubles with each crash up to a minute, and is short again after the loop has run for a minute. `stopping`
    ends a pause.
    """
    pause, never = _FIRST_PAUSE, asyncio.Event()
    while True:
        began = clock.monotonic()
        try:
            return await loop()
        except Exception:
            if clock.monotonic() - began >= _LONGEST_PAUSE:
                pause = _FIRST_PAUSE
            logger.exception("a background loop crashed", extra={"loop": name, "pause_seconds": pause})
            on_crash(name)
        await sleep_until_event(clock, pause, stopping or never)
        pause = min(pause * 2, _LONGEST_PAUSE)


def run_while_open(
    stack: AsyncExitStack, loop: Loop, name: BackgroundLoop, clock: Clock, on_crash: Callable[[str], None]
) -> None:
    """Keep a loop running until the stack closes, which cancels it."""
    tasks = Tasks()
    tasks.spawn(keep_running(loop, name, clock, on_crash), name)
    stack.push_async_callback(tasks.close, 0.0)
