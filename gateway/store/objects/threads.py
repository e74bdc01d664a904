"""Threads for file I/O, separate from the event loop's default pool: a hanging disk must not block DNS lookups."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from gateway.errors import OutputLost, StoreUnavailable

T = TypeVar("T")

_THREADS = 8
_RETRY_SECONDS = 5


class Threads:
    """A small thread pool that turns I/O errors into the gateway's errors."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="outputs")

    async def do(self, work: Callable[[], T], undo: Callable[[T], object] | None = None) -> T:
        """Run `work` on a thread and return its result. Raise `StoreUnavailable` for an `OSError`.

        When cancelled, wait for the work before raising, so that no file is closed while a thread writes it. `undo`
        then gets the result that no caller receives, such as an open file.
        """
        loop = asyncio.get_running_loop()
        future = loop.run_in_executor(self._pool, work)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            await asyncio.wait({future})
            if not future.cancelled() and future.exception() is None and undo is not None:
                await asyncio.wait({loop.run_in_executor(self._pool, undo, future.result())})
            raise
        except OutputLost:
            raise
        except OSError as exc:
            raise StoreUnavailable(
                f"The output store's disk returned an error: {exc.strerror}.", retry_after=_RETRY_SECONDS
            ) from exc

    def close(self) -> None:
        """Stop the threads; queued work is cancelled."""
        self._pool.shutdown(wait=False, cancel_futures=True)
