"""The steps before serving (resume what an earlier process left) and after it (drain)."""

import asyncio
import logging

from gateway.assembly.build import Parts
from gateway.assembly.listeners import OpenListeners

logger = logging.getLogger(__name__)

# A webhook that is cut off is sent again by the next start; callers who wait for answers come first.
_WEBHOOK_GRACE_SECONDS = 2.0
# How long a connection stays open after a stream was ended, for a request of the same client that waited for it.
_AFTER_STREAMS_SECONDS = 0.25

# Of the time for the shutdown, what is left for a request whose body was long in arriving.
_HANDLED_SECONDS = 2.0


async def resume(parts: Parts) -> None:
    """Continue what an earlier process left: runs to follow, creates to look for, deadlines, webhooks."""
    webhooks = await parts.webhooks.dispatcher.resume()
    orphans = await parts.predictions.run_creator.adopter.resume()
    runs = await parts.predictions.tracker.resume()
    await parts.predictions.deadlines.resume()
    logger.info("resumed", extra={"runs": runs, "uncertain_creates": orphans, "webhooks": webhooks})


def start_webhooks(parts: Parts, origin: str) -> None:
    """Send webhooks until the stack closes. `origin` is the public listener's own address."""
    dispatcher, deadline = parts.webhooks.dispatcher, parts.base.shutdown_deadline
    dispatcher.start(origin)
    parts.base.stack.push_async_callback(lambda: dispatcher.close(min(deadline.left(), _WEBHOOK_GRACE_SECONDS)))


def retire(parts: Parts) -> None:
    """Report not ready, so that no more requests come. Those that come are answered. Open streams end.

    Their readers resume elsewhere. The responses of these streams did not say that the connection closes, so it stays
    open while the process drains, for the requests that clients send on it.
    """
    parts.base.shutdown_deadline.begin()
    parts.operations.health.draining = True
    parts.streams.open_streams.end_all()


async def drain(parts: Parts, listeners: OpenListeners) -> None:
    """End streams and answer callers who wait, before the listeners close. Requests that are arriving are received.

    The client of a caller who is answered sends its next request at once, and must not find a connection that is about
    to close. So idle ones close first.
    """
    retire(parts)
    if await parts.streams.open_streams.end():
        await asyncio.sleep(_AFTER_STREAMS_SECONDS)
    await listeners.close_idle()
    parts.money.limit_queue.close()
    await parts.rates.hold_queue.close()
    await parts.predictions.service.drain()
    deadline, limiter = parts.base.shutdown_deadline, parts.upstream.limiter
    await listeners.receive(max(0.0, deadline.left() - _HANDLED_SECONDS))
    # Creates that were admitted get the account's turn, if it comes in time.
    await limiter.finish_creates(max(0.0, deadline.left() - _HANDLED_SECONDS))
    limiter.close()
