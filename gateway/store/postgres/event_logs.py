"""Event logs of many runs, stored in one statement: the parts that are given at the same time go together.

Three statements for each run would be thousands a second where other nodes read many streams as they grow.
"""

import asyncio
from typing import Final, NamedTuple

from gateway.store.sql.connections import Connections, Lane
from gateway.store.sql.database import Database

_MOST: Final = 200
"""Parts of one statement. Each can be large."""


class _Part(NamedTuple):
    first: int
    part: bytes
    kept_from: int


class _Set:
    """Parts of different runs, and what becomes of them."""

    def __init__(self) -> None:
        self.parts: dict[str, _Part] = {}
        self.added: asyncio.Future[set[str]] = asyncio.get_running_loop().create_future()
        """The runs whose parts were stored."""

    def step(self, db: Database) -> set[str]:
        """Store the parts."""
        given = {
            "run_ids": list(self.parts),
            "firsts": [each.first for each in self.parts.values()],
            "parts": [each.part for each in self.parts.values()],
            "kept_from": [each.kept_from for each in self.parts.values()],
            "node": db.node,
        }
        return {run_id for (run_id,) in db.execute("append_events", given)}

    def finish(self, step: "asyncio.Future[set[str]]") -> None:
        """Pass on the result of the step."""
        if step.cancelled():
            self.added.cancel()
        elif (error := step.exception()) is not None:
            self.fail(error)
        else:
            self.added.set_result(step.result())

    def fail(self, error: BaseException) -> None:
        """Pass on an error."""
        self.added.set_exception(error)
        # Whoever waits for it may be gone.
        self.added.exception()


class EventLogSets(Connections):
    """Stores the parts of several runs at once."""

    _set: _Set | None = None

    async def append_events(self, run_id: str, first: int, part: bytes, *, kept_from: int) -> bool:
        """Store a part of a run's log."""
        gathered = self._set
        if gathered is None or run_id in gathered.parts or len(gathered.parts) >= _MOST:
            gathered = self._set = _Set()
            # After everything that is ready in this turn of the loop.
            asyncio.get_running_loop().call_soon(self._submit, gathered)
        gathered.parts[run_id] = _Part(first, part, kept_from)
        return run_id in await asyncio.shield(gathered.added)

    def _submit(self, gathered: _Set) -> None:
        if self._set is gathered:
            self._set = None
        try:
            step = self._write(gathered.step, lane=Lane.PROGRESS)
        except Exception as exc:  # noqa: BLE001  whoever waits gets it
            gathered.fail(exc)
        else:
            step.add_done_callback(gathered.finish)
