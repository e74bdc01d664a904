"""Stored copies as their callers read them: the ticket is the permission (docs/architecture.md, Files and outputs)."""

from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import msgspec
from cachetools import TTLCache

from gateway.domain import tickets
from gateway.domain.ports.clock import Clock
from gateway.domain.records import Copy, Run
from gateway.errors import NotFound, OutputLost, StoreUnavailable
from gateway.outputs.eviction import OutputEviction
from gateway.outputs.ports import Outputs, OutputStore, StoredObject
from gateway.outputs.rules import outputs
from gateway.predictions.queries import PredictionService
from gateway.runtime.tasks import Tasks

MAX_READERS = 500
"""Files that are being sent at a time: each holds a file, or half a megabyte of a bucket's."""
MAX_READERS_OF_TEAM = 200
"""A link is read by whoever has it: those of one team's must not take every place."""
_USES_KEPT = 10_000
_USE_SECONDS = 60.0
"""Uses of an object within a minute are noted once."""


class Found(msgspec.Struct, frozen=True):
    """A copy that may be read, the run whose it is, and the team whose ticket it was."""

    copy: Copy
    run: Run
    team: str


class OutputService:
    """Finds and opens copies."""

    def __init__(
        self,
        predictions: PredictionService,
        records: Outputs,
        store: OutputStore,
        keeper: OutputEviction,
        clock: Clock,
        *,
        secret: bytes,
        ttl_seconds: float,
        on_lost: Callable[[Run], None] | None,
    ) -> None:
        self._predictions = predictions
        self._records = records
        self._store = store
        self._keeper = keeper
        self._clock = clock
        self._secret = secret
        self._ttl_seconds = ttl_seconds
        self._on_lost = on_lost
        self._used: TTLCache[str, None] = TTLCache(_USES_KEPT, _USE_SECONDS, timer=clock.monotonic)
        self._tasks = Tasks()
        self._readers: Counter[str] = Counter()

    @property
    def readers(self) -> int:
        """How many files are being sent."""
        return self._readers.total()

    async def find(self, ticket: str, name: str) -> Found:
        """Return the copy that a ticket opens. Raise `NotFound` if it opens none, or no longer."""
        said = tickets.read_output_ticket(ticket)
        view = await self._predictions.find(said.prediction_id) if said is not None else None
        if said is None or view is None or view.prediction.canceled_at is not None:
            raise NotFound
        copy = next((copy for copy in view.run.copies if copy.place == said.place), None)
        if copy is None or not tickets.proves(said, self._secret, copy.sha256) or name != outputs.name_of(copy.url):
            raise NotFound
        if not outputs.is_alive(copy, self._clock.now(), self._ttl_seconds):
            raise NotFound
        return Found(copy, view.run, view.prediction.team)

    def seconds_left(self, found: Found) -> int:
        """Say how long the ticket opens the copy."""
        return max(0, int(found.copy.stored_at + self._ttl_seconds - self._clock.now()))

    @asynccontextmanager
    async def open(self, found: Found) -> AsyncIterator[StoredObject]:
        """Open the bytes of a copy.

        Raise `OutputLost`, before or while they are read: they are given up then, and fetched anew if upstream still
        has them. Raise `StoreUnavailable` when they cannot be had now.
        """
        if self.readers >= MAX_READERS or self._readers[found.team] >= MAX_READERS_OF_TEAM:
            raise StoreUnavailable("Too many files are being sent.", retry_after=1)
        self._readers[found.team] += 1
        try:
            async with self._store.read(found.copy.sha256, found.copy.size) as stored:
                self._note_use(found.copy.sha256)
                yield stored
        except OutputLost:
            await self._keeper.lost(found.copy.sha256)
            if self._on_lost is not None:
                self._on_lost(msgspec.structs.replace(found.run, copies=()))
            raise
        finally:
            self._readers[found.team] -= 1

    def _note_use(self, sha256: str) -> None:
        if sha256 not in self._used:
            self._used[sha256] = None
            self._tasks.spawn(self._use(sha256), "note use of output")

    async def _use(self, sha256: str) -> None:
        # A use that is not noted costs no more than an earlier eviction.
        with suppress(StoreUnavailable):
            await self._records.use_object(sha256, self._clock.now())

    async def close(self) -> None:
        """Finish noting."""
        await self._tasks.close()
