"""Threads for file I/O, apart from the event loop's common ones: a disk that hangs must not hold up name lookups."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from gateway.errors import OutputLost, StoreUnavailable

T = TypeVar("T")

_THREADS = 8
_RETRY_SECONDS = 5


class Threads:
    """A few threads, and what their failures mean."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="outputs")

    async def do(self, work: Callable[[], T], undo: Callable[[T], object] | None = None) -> T:
        """Do work on a thread. Whoever is cancelled waits for it first: files are not closed under a writer's hands.

        `undo` is done then with what the work gave, which nobody will take: an open file.
        Raise `StoreUnavailable` for an `OSError`.
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
                f"The output store's disk cannot be used: {exc.strerror}.", retry_after=_RETRY_SECONDS
            ) from exc

    def close(self) -> None:
        """Let the threads go."""
        self._pool.shutdown(wait=False, cancel_futures=True)
