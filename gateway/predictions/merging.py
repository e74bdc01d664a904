"""What upstream says of a followed run, merged into its record.

See docs/architecture.md, Following a run and End of a run. The store's compare-and-set lets a status only move forward.
"""

import logging
from collections.abc import Callable
from functools import partial
from typing import assert_never

import msgspec

from gateway.domain import documents, large_bytes
from gateway.domain.ledger import Settlement
from gateway.domain.ports.clock import Clock
from gateway.domain.ports.observers import PredictionObserver
from gateway.domain.records import Run, Status
from gateway.domain.run_end import RunEnded
from gateway.money.rules.usage import Doubt
from gateway.predictions.events import PredictionEvents
from gateway.predictions.ports.predictions import AdvanceOutcome, Progressed, Unchanged
from gateway.predictions.ports.sharing import CreateStore
from gateway.predictions.rules import answers
from gateway.predictions.secret_values import SecretValues
from gateway.predictions.settings import DEFAULT_UNREADABLE_SECONDS
from gateway.predictions.tracked_run import TrackedRun, mark_of
from gateway.runtime.pauses import off_the_loop

logger = logging.getLogger(__name__)

# GET right after a create may answer 404 (docs/replicate-api.md, States). After this many seconds upstream has lost the
# run.
_UNKNOWN_FOR = 120.0


class SnapshotMerger:
    """Merges upstream's bodies about runs into the store, and wakes and calls who waits for news."""

    def __init__(
        self,
        store: CreateStore,
        clock: Clock,
        events: PredictionEvents,
        observer: PredictionObserver,
        *,
        report: Callable[[RunEnded], None],
        keep_until: Callable[[Run, bytes, float], float | None],
        settlement_of: Callable[[Run, Status, bytes, float], Settlement],
        unreadable_seconds: Callable[[], float] = lambda: DEFAULT_UNREADABLE_SECONDS,
        secret_values: SecretValues,
    ) -> None:
        """Take `report`, which is called once for each end that a merge has recorded."""
        self._store = store
        self._clock = clock
        self._events = events
        self._observer = observer
        self._report = report
        self._keep_until = keep_until
        self._settlement_of = settlement_of
        self._unreadable_seconds = unreadable_seconds
        self._secrets = secret_values

    async def merge_body(self, tracked: TrackedRun, body: bytes) -> bool:
        """Merge a body of upstream. Return whether it could be read; log the first of several that cannot."""
        mark = await off_the_loop(body, lambda: mark_of(large_bytes.stripped(body)))
        if tracked.has_document(mark) or mark == tracked.repaired:
            return True
        try:
            news = await self._secrets.read_snapshot(tracked.run, body)
        except ValueError as exc:
            return self._refuse(tracked, str(exc))
        if news.upstream_id != tracked.run.upstream_id:
            return self._refuse(tracked, "it is about another prediction")
        if news.is_repaired:
            logger.warning("upstream's answer is not valid text", extra={"run": tracked.run.id})
            self._observer.document_repaired()
        if news.is_shortened:
            self._observer.logs_shortened()
        tracked.repaired = mark if news.is_repaired or news.is_shortened else None
        doubt = Doubt.STATUS_UNKNOWN if news.is_status_unknown else None
        await self._merge(tracked, news.status, news.document, news.stream_url, news.completed_at, doubt)
        return True

    def _refuse(self, tracked: TrackedRun, reason: str) -> bool:
        """Log the first of several bodies that cannot be merged; return `False`."""
        if not tracked.is_unreadable:
            extra = {"run": tracked.run.id, "upstream_id": tracked.run.upstream_id, "reason": reason}
            logger.warning("upstream's answer is no prediction", extra=extra)
        return False

    async def note_readable(self, tracked: TrackedRun) -> None:
        """Note an answer that could be read."""
        tracked.is_unreadable = False
        if tracked.run.unreadable_since is not None and not tracked.run.status.is_terminal:
            await self._store.mark_unreadable(tracked.run.id, None)
            tracked.set_run(msgspec.structs.replace(tracked.run, unreadable_since=None))

    async def note_unreadable(self, tracked: TrackedRun, *, delays: bool) -> None:
        """Note an answer that cannot be read. Record the run as failed when there was no other for too long.

        Nothing is known of its cost then, so the estimate is charged, with a doubt.
        """
        tracked.is_unreadable = tracked.is_unreadable or delays
        now, since = self._clock.now(), tracked.run.unreadable_since
        if since is None:
            await self._store.mark_unreadable(tracked.run.id, now)
            tracked.set_run(msgspec.structs.replace(tracked.run, unreadable_since=now))
        elif now - since > self._unreadable_seconds():
            extra = {"run": tracked.run.id, "upstream_id": tracked.run.upstream_id, "seconds": round(now - since)}
            logger.error("a run cannot be read, so it has failed", extra=extra)
            text = "Replicate's answers about this prediction cannot be read."
            document = documents.failed((await self._whole(tracked)).document, text)
            await self._merge(tracked, Status.FAILED, document, None, None, Doubt.RUN_UNREADABLE)

    async def merge_unknown(self, tracked: TrackedRun) -> None:
        """Tolerate a 404 for a while after the create; then record the run as failed."""
        began = tracked.run.live_at or tracked.run.intended_at
        if self._clock.now() - began > _UNKNOWN_FOR:
            logger.error("upstream no longer knows a run", extra={"run": tracked.run.id})
            run = await self._whole(tracked)
            document = documents.failed(run.document, "Replicate no longer knows this prediction.")
            await self._merge(tracked, Status.FAILED, document, None, None)

    async def _merge(
        self,
        tracked: TrackedRun,
        status: Status,
        document: bytes,
        stream_url: str | None,
        completed_at: float | None,
        doubt: Doubt | None = None,
    ) -> None:
        """Record a snapshot of a run if it moves the run forward, then wake its waiters and call the listeners."""
        run = tracked.run
        mark = await off_the_loop(document, partial(mark_of, document))
        if status == run.status and tracked.has_document(mark):
            return
        at = completed_at if completed_at is not None else self._clock.now()
        at_end = partial(self._at_end, run, status, document, at, doubt)
        cache_until, settlement = await off_the_loop(document, at_end)
        outcome: AdvanceOutcome | None = await self._store.advance(
            run.id,
            status=status,
            document=document,
            stream_url=stream_url,
            at=at,
            cache_until=cache_until,
            settlement=settlement,
        )
        if isinstance(outcome, Unchanged) and status.is_terminal:
            # The end is recorded already: the answer of an earlier step was lost.
            outcome = await self._store.ended_run(run.id)
        if tracked.run.status.is_terminal:
            # Another snapshot brought the same end meanwhile, and its caller has reported it.
            return
        match outcome:
            case Progressed(progressed):
                progressed = documents.with_same(progressed, document)
                tracked.update(progressed, document, mark)
                tracked.wake()
                self._events.on_run_progressed(progressed)
            case RunEnded():
                ended = documents.with_same(outcome.run, document)
                if run.fingerprint is None and ended.fingerprint is not None:
                    ended = await self._keep(ended)
                outcome = msgspec.structs.replace(outcome, run=ended)
                tracked.update(outcome.run, document, mark)
                tracked.wake()
                tracked.poll_now()
                self._report(outcome)
            case Unchanged():
                if status == tracked.run.status:
                    tracked.note_mark(mark)
            case None:
                pass
            case never:
                assert_never(never)

    async def _keep(self, run: Run) -> Run:
        """Keep the result of a run that got its final identity after the time until which it is kept was computed."""
        ended_at = run.ended_at
        if run.status is not Status.SUCCEEDED or ended_at is None or run.cache_until is not None:
            return run
        cache_until = await off_the_loop(run.document, lambda: self._keep_until(run, run.document, ended_at))
        if cache_until is not None:
            await self._store.settle_identity(run.id, run.fingerprint, cache_until)
        return msgspec.structs.replace(run, cache_until=cache_until)

    def _at_end(
        self, run: Run, status: Status, document: bytes, at: float, doubt: Doubt | None
    ) -> tuple[float | None, Settlement | None]:
        """Return until when a run can be cached, and its charge; `None` if it has not ended so."""
        cache_until = self._keep_until(run, document, at) if status is Status.SUCCEEDED else None
        # In the store's step, so that no crash comes between an end and its price. By our clock, not upstream's.
        if not status.is_terminal:
            return cache_until, None
        return cache_until, answers.settled(self._settlement_of(run, status, document, self._clock.now()), doubt)

    async def _whole(self, tracked: TrackedRun) -> Run:
        """Return a run with its document."""
        return tracked.run if tracked.is_whole else await self._store.run(tracked.run.id) or tracked.run
