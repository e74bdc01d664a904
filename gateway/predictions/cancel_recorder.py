"""Records cancels. One that may be recorded although the store did not answer is repeated until it does."""

from contextlib import suppress
from typing import Final, Protocol

from gateway.domain.ports.clock import Clock
from gateway.domain.records import Cancellation
from gateway.errors import StoreUnavailable
from gateway.predictions.ports.predictions import Predictions
from gateway.runtime.tasks import Tasks

_REPEAT_SECONDS: Final = 1.0
_MOST_REPEATED: Final = 10_000
"""Cancels that are repeated at a time."""


class OnRecorded(Protocol):
    """Called with a cancel that was found to be recorded after its caller had got an error."""

    def __call__(self, cancellation: Cancellation, /, *, by_deadline: bool) -> object:
        """Ask upstream if nobody waits any more, and end the prediction for those who do."""
        ...


class CancelRecorder:
    """Records cancels in the store."""

    def __init__(self, store: Predictions, clock: Clock, tasks: Tasks, on_recorded: OnRecorded) -> None:
        self._store = store
        self._clock = clock
        self._tasks = tasks
        self._on_recorded = on_recorded
        self._in_doubt: set[str] = set()
        """Cancels that may be recorded although the store did not answer."""
        self._is_stopped = False

    async def record(self, prediction_id: str, *, by_deadline: bool) -> Cancellation | None:
        """Record a cancel now: see `Predictions.cancel`. If the store does not answer, raise and go on trying."""
        at = self._clock.now()
        try:
            return await self._store.cancel(prediction_id, at, by_deadline=by_deadline)
        except StoreUnavailable:
            if prediction_id not in self._in_doubt and len(self._in_doubt) < _MOST_REPEATED:
                self._in_doubt.add(prediction_id)
                self._tasks.spawn(self._repeat(prediction_id, at, by_deadline=by_deadline), "cancel")
            raise

    def stop(self) -> None:
        """Repeat no more. The next start cancels what was recorded."""
        self._is_stopped = True

    async def _repeat(self, prediction_id: str, at: float, *, by_deadline: bool) -> None:
        """Repeat a cancel until the store answers. Else nobody would ask upstream, or tell those who wait."""
        try:
            while not self._is_stopped:
                await self._clock.sleep(_REPEAT_SECONDS)
                with suppress(StoreUnavailable):
                    found = await self._store.cancel(prediction_id, at, by_deadline=by_deadline, is_repeated=True)
                    if found is not None:
                        self._on_recorded(found, by_deadline=by_deadline)
                    return
        finally:
            self._in_doubt.discard(prediction_id)
