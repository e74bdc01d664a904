"""Serve stored copies. The ticket in the URL grants access, without a key (docs/architecture.md, Files and outputs)."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import msgspec
from cachetools import TTLCache

from gateway.domain import tickets
from gateway.domain.ports.clock import Clock
from gateway.domain.records import Copy, PredictionView, Run
from gateway.errors import NotFound, OutputLost, StoreUnavailable
from gateway.outputs.eviction import OutputEviction
from gateway.outputs.ports import Outputs, OutputStore, StoredObject
from gateway.outputs.rules import outputs
from gateway.predictions.queries import PredictionService
from gateway.runtime.tasks import Tasks

_USES_KEPT = 10_000
_USE_SECONDS = 60.0
"""Uses of an object within this time are recorded once."""


class Found(msgspec.Struct, frozen=True):
    """A readable copy, and its prediction, without a large document."""

    copy: Copy
    view: PredictionView

    @property
    def team(self) -> str:
        """The team of the prediction."""
        return self.view.prediction.team


class OutputService:
    """Finds and opens copies for callers."""

    def __init__(
        self,
        predictions: PredictionService,
        records: Outputs,
        store: OutputStore,
        eviction: OutputEviction,
        clock: Clock,
        *,
        secret: bytes,
        ttl_seconds: float,
        max_readers: int,
        max_readers_per_team: int,
        on_lost: Callable[[Run], None] | None,
    ) -> None:
        """Take `max_readers`, the files that are sent at a time: each holds an open file, or half a MiB of an object.

        Anyone can read a public link, so the links of one team must not use up all of them.
        """
        self._predictions = predictions
        self._records = records
        self._store = store
        self._eviction = eviction
        self._clock = clock
        self._secret = secret
        self._ttl_seconds = ttl_seconds
        self._max_readers = max_readers
        self._max_readers_per_team = max_readers_per_team
        self._on_lost = on_lost
        self._used: TTLCache[str, None] = TTLCache(_USES_KEPT, _USE_SECONDS, timer=clock.monotonic)
        self._tasks = Tasks()
        self._readers: Counter[str] = Counter()
        self._losing = asyncio.Lock()

    @property
    def readers(self) -> int:
        """Number of files being sent."""
        return self._readers.total()

    async def find(self, ticket: str, name: str) -> Found:
        """Return the copy that a ticket grants access to. Raise `NotFound` if the ticket is invalid or expired."""
        parsed = tickets.read_output_ticket(ticket)
        view = await self._predictions.find(parsed.prediction_id) if parsed is not None else None
        if parsed is None or view is None or view.prediction.canceled_at is not None:
            raise NotFound
        copy = next((copy for copy in view.run.copies if copy.place == parsed.place), None)
        if copy is None or not tickets.proves(parsed, self._secret, copy.sha256) or name != outputs.name_of(copy.url):
            raise NotFound
        if not outputs.is_alive(copy, self._clock.now(), self._ttl_seconds):
            raise NotFound
        return Found(copy, view)

    def seconds_left(self, found: Found) -> int:
        """Return the remaining lifetime of the copy in seconds."""
        return max(0, int(found.copy.stored_at + self._ttl_seconds - self._clock.now()))

    @asynccontextmanager
    async def open(self, found: Found) -> AsyncIterator[StoredObject]:
        """Open the bytes of a copy.

        Raise `OutputLost`, here or during reading, if they are missing or damaged. The copy is then removed, and made
        again if upstream still has the file. Raise `StoreUnavailable` if the output store fails or has too many
        readers.
        """
        if self.readers >= self._max_readers or self._readers[found.team] >= self._max_readers_per_team:
            raise StoreUnavailable("Too many output files are being downloaded at the moment.", retry_after=1)
        self._readers[found.team] += 1
        try:
            async with self._store.read(found.copy.sha256, found.copy.size) as stored:
                self._record_use(found.copy.sha256)
                yield stored
        except OutputLost:
            await self._eviction.lost(found.copy.sha256)
            if self._on_lost is not None:
                # One at a time: the document may be large.
                async with self._losing:
                    run = (await self._predictions.whole(found.view)).run
                    self._on_lost(msgspec.structs.replace(run, copies=()))
            raise
        finally:
            self._readers[found.team] -= 1

    def _record_use(self, sha256: str) -> None:
        if sha256 not in self._used:
            self._used[sha256] = None
            self._tasks.spawn(self._use(sha256), "note use of output")

    async def _use(self, sha256: str) -> None:
        # If a use is not recorded, the object may be evicted earlier. That is not worth an error.
        with suppress(StoreUnavailable):
            await self._records.use_object(sha256, self._clock.now())

    async def close(self) -> None:
        """Wait for pending records of uses."""
        await self._tasks.close()
