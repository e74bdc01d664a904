"""Work that goes on for as long as the gateway runs."""

import asyncio
from collections.abc import Coroutine
from contextlib import AsyncExitStack, suppress


def background(stack: AsyncExitStack, work: Coroutine[None, None, None], name: str) -> None:
    """Do work for as long as the gateway runs."""
    task = asyncio.create_task(work, name=name)

    async def end() -> None:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    stack.push_async_callback(end)
