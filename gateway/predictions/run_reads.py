"""Reads runs of other nodes from the store, together.

A read that is asked for while no other is in progress begins at once, with all that are asked for in the same turn of
the event loop. The others wait for it and go together. So who observes many runs, whose looks come at the same moment,
reads them in one statement, and the reads of others wait for one and not for a hundred.
"""

import asyncio

from gateway.domain.records import LARGE_DOCUMENT, Run
from gateway.predictions.ports.sharing import Sharing
from gateway.runtime.tasks import Tasks

_MOST = 50
"""Runs of one statement: with their documents, a few MiB."""


class RunReads:
    """Gathers reads. Documents that are large are left in the store."""

    def __init__(self, store: Sharing, tasks: Tasks) -> None:
        self._store = store
        self._tasks = tasks
        self._waiting: dict[str, asyncio.Future[Run | None]] = {}
        self._is_reading = False

    async def read(self, run_id: str) -> Run | None:
        """Read a run as it is now or later. Raise what the store raises."""
        future = self._waiting.get(run_id)
        if future is None:
            future = self._waiting[run_id] = asyncio.get_running_loop().create_future()
            if not self._is_reading:
                self._is_reading = True
                self._tasks.spawn(self._read_waiting(), "read runs of other nodes")
        return await asyncio.shield(future)

    async def _read_waiting(self) -> None:
        try:
            while self._waiting:
                wanted = dict(list(self._waiting.items())[:_MOST])
                for run_id in wanted:
                    del self._waiting[run_id]
                try:
                    found = await self._store.runs_by_id(list(wanted), most_bytes=LARGE_DOCUMENT)
                except BaseException as exc:
                    for future in wanted.values():
                        _fail(future, exc)
                    if not isinstance(exc, Exception):
                        raise
                else:
                    for run_id, future in wanted.items():
                        future.set_result(found.get(run_id))
        finally:
            self._is_reading = False


def _fail(future: "asyncio.Future[Run | None]", error: BaseException) -> None:
    if isinstance(error, asyncio.CancelledError):
        future.cancel()
        return
    future.set_exception(error)
    # Whoever waits for it may be gone.
    future.exception()
