"""Events of predictions and runs, and the listeners of each, called in the order in which they were added.

Listeners are isolated: one that fails is logged and counted, and the next one is called. A listener does no I/O: what
takes time it queues for a task of its own. So every listener has run before anything else learns of the event.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import Generic, TypeVar

import msgspec

from gateway.domain.ports.clock import Clock
from gateway.domain.ports.observers import PredictionObserver
from gateway.domain.records import PredictionView, Run
from gateway.domain.run_end import RunEnded
from gateway.runtime.tasks import Tasks

logger = logging.getLogger(__name__)

EventT = TypeVar("EventT", PredictionView, Run, RunEnded)

RETRY_SECONDS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 120.0)
"""Pauses before each retry of a listener that must not miss an end. After the last one it has missed it."""
MAX_RETRYING = 1000
"""Ends that wait for a retry at a time: each keeps a document in memory."""


class Listener(StrEnum):
    """Names of listeners, and of the steps that follow the record of a create, for logs and metrics."""

    ACCOUNTING = "accounting"
    DEADLINES = "deadlines"
    HITS = "hits"
    LIMIT_QUEUE = "limit_queue"
    METRICS = "metrics"
    NEWS = "news"
    OUTPUT_COPIES = "output_copies"
    PREDICTIONS = "predictions"
    RECENT_ERRORS = "recent_errors"
    RUN_IDENTITIES = "run_identities"
    RUN_TIMINGS = "run_timings"
    STREAMS = "streams"
    TRACKER = "tracker"
    VERSION_MAP = "version_map"
    WEBHOOKS = "webhooks"


class _Registration(msgspec.Struct, Generic[EventT], frozen=True):
    name: Listener
    callback: Callable[[EventT], None]
    is_retried: bool = False


class PredictionEvents:
    """Passes each event to its listeners."""

    def __init__(self, clock: Clock, observer: PredictionObserver) -> None:
        self._clock = clock
        self._observer = observer
        self._created: list[_Registration[PredictionView]] = []
        self._progressed: list[_Registration[Run]] = []
        self._canceled: list[_Registration[PredictionView]] = []
        self._joined: list[_Registration[PredictionView]] = []
        self._ended: list[_Registration[RunEnded]] = []
        self._retries = Tasks()
        self._retrying = 0

    def add_created_listener(self, name: Listener, callback: Callable[[PredictionView], None]) -> None:
        """Call `callback` with each prediction that was recorded, however it was answered."""
        self._created.append(_Registration(name, callback))

    def add_joined_listener(self, name: Listener, callback: Callable[[PredictionView], None]) -> None:
        """Call `callback` with each prediction that has joined a run of this node on another node."""
        self._joined.append(_Registration(name, callback))

    def add_progressed_listener(self, name: Listener, callback: Callable[[Run], None]) -> None:
        """Call `callback` with each run that has changed and goes on."""
        self._progressed.append(_Registration(name, callback))

    def add_canceled_listener(self, name: Listener, callback: Callable[[PredictionView], None]) -> None:
        """Call `callback` with each prediction that ended for its caller, by a cancel or its deadline, before its run.

        The run may go on for others.
        """
        self._canceled.append(_Registration(name, callback))

    def add_ended_listener(
        self, name: Listener, callback: Callable[[RunEnded], None], *, is_retried: bool = False
    ) -> None:
        """Call `callback` with the end of each run, once.

        One that fails is called again after each of `RETRY_SECONDS` if `is_retried`. It must then be repeatable: what
        may fail comes first, what counts comes last.
        """
        self._ended.append(_Registration(name, callback, is_retried))

    def on_prediction_created(self, view: PredictionView) -> None:
        """Call the listeners of new predictions."""
        for each in self._created:
            # As `call` does, with one call less for each hit.
            try:
                each.callback(view)
            except Exception:
                logger.exception("a listener failed", extra={"listener": each.name, "run": view.run.id})
                self._observer.listener_failed(each.name)

    def on_run_progressed(self, run: Run) -> None:
        """Call the listeners of runs in progress."""
        for each in self._progressed:
            self.call(each.name, run.id, each.callback, run)

    def on_prediction_canceled(self, view: PredictionView) -> None:
        """Call the listeners of cancelled predictions."""
        for each in self._canceled:
            self.call(each.name, view.run.id, each.callback, view)

    def on_prediction_joined(self, view: PredictionView) -> None:
        """Call the listeners of predictions that have joined a run of this node on another node."""
        for each in self._joined:
            self.call(each.name, view.run.id, each.callback, view)

    def on_run_ended(self, ended: RunEnded) -> None:
        """Call the end-of-run listeners. Call this once for each run, after its end was recorded."""
        for each in self._ended:
            if not self.call(each.name, ended.run.id, each.callback, ended) and each.is_retried:
                self._call_later(each, ended)

    @contextmanager
    def isolated(self, name: Listener, run_id: str) -> Iterator[None]:
        """Log and count an exception of the block, and go on after it."""
        try:
            yield
        except Exception:
            logger.exception("a listener failed", extra={"listener": name, "run": run_id})
            self._observer.listener_failed(name)

    def call(self, name: Listener, run_id: str, callback: Callable[..., object], *arguments: object) -> bool:
        """Call a listener, or a step that is isolated like one. Return whether it did not fail."""
        try:
            callback(*arguments)
        except Exception:
            logger.exception("a listener failed", extra={"listener": name, "run": run_id})
            self._observer.listener_failed(name)
            return False
        return True

    def _call_later(self, registered: _Registration[RunEnded], ended: RunEnded) -> None:
        if self._retrying >= MAX_RETRYING:
            logger.error("a listener missed an end", extra={"listener": registered.name, "run": ended.run.id})
            return
        self._retrying += 1
        self._retries.spawn(self._retry(registered, ended), "retry a listener")

    async def _retry(self, registered: _Registration[RunEnded], ended: RunEnded) -> None:
        try:
            for pause in RETRY_SECONDS:
                await self._clock.sleep(pause)
                if self.call(registered.name, ended.run.id, registered.callback, ended):
                    return
            logger.error("a listener missed an end", extra={"listener": registered.name, "run": ended.run.id})
        finally:
            self._retrying -= 1

    async def close(self) -> None:
        """Stop retrying."""
        await self._retries.close(0.0)
