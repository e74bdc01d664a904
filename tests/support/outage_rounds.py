"""One round of an outage: a mixed load, a database that goes away and comes back, and the questions afterwards."""

import asyncio
import random
from collections.abc import Callable

from tests.support.crash_play import Found, ask_afterwards, orders_of
from tests.support.crash_rounds import Matrix

_LATEST = 1.2
"""Seconds into the load at which the database goes away at the latest."""


async def play_outage(matrix: Matrix, mark: str, outage: Callable[[], None], *, seed: int) -> Found:
    """Play one round in which the database goes away and comes back, and the gateway lives."""
    chaos = random.Random(seed)
    upstream = matrix.upstream
    orders = orders_of(upstream, mark, chaos)
    matrix.asked += orders
    before = len(upstream.predictions)
    child = await matrix.start()

    async def go_away() -> None:
        await asyncio.sleep(chaos.random() * _LATEST)
        await asyncio.to_thread(outage)

    try:
        matrix.is_away = True
        async with matrix.session() as session:
            callers = [matrix.call(session, asked) for asked in orders]
            await asyncio.gather(go_away(), matrix.browse(session, chaos), *callers)
        matrix.is_away = False
        await matrix.retry(orders)
        await matrix.quiet()
        return await ask_afterwards(matrix, upstream.predictions[before:], orders, killed=False)
    except Exception as exc:
        exc.add_note(child.log.read_text()[-6000:])
        raise
    finally:
        await child.kill()
