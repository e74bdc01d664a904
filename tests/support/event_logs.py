"""Logs of a stream's events."""

from gateway.streams.ports import EventLogs, LogPart
from gateway.streams.rules.event_log import EventLog
from gateway.streams.rules.replay import frame
from gateway.streams.rules.sse import Event

PLENTY = 1_000_000


def output(number: int, data: str = "a", second: int = 1698774369) -> Event:
    return frame("output", f"{second}:{number}", data)


def filled(count: int, max_bytes: int = PLENTY) -> EventLog:
    log = EventLog(max_bytes)
    for number in range(count):
        log.append(output(number))
    return log


async def append(store: EventLogs, run_id: str, first: int, part: bytes, *, kept_from: int) -> bool:
    """Store a part of one log; return whether it was stored."""
    return run_id in await store.append_events([LogPart(run_id, first, part, kept_from)])
