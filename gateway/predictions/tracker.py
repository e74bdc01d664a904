"""The tracker: follows each run of upstream to its end, once, however many callers wait for it.

See docs/architecture.md, Following a run and End of a run.

One task for each run polls upstream, at intervals that grow with the run's age. Every snapshot of a run, from a poll, a
webhook or the answer to a cancel, passes `SnapshotMerger`. Nothing that fails in a poll or a cancel ends its task. A
run survives a crash: `resume` follows every run that the store knows to be open.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Coroutine
from functools import partial
from http import HTTPStatus
from typing import Any, Literal

import msgspec

from gateway.domain import documents
from gateway.domain.ledger import Settlement
from gateway.domain.ports.clock import Clock
from gateway.domain.ports.observers import PredictionObserver
from gateway.domain.ports.upstream import Upstream
from gateway.domain.records import Run, RunState, Status
from gateway.domain.run_end import RunEnded
from gateway.errors import GatewayError, UpstreamUnreadable
from gateway.predictions.document_memory import DocumentMemory
from gateway.predictions.events import PredictionEvents
from gateway.predictions.merging import SnapshotMerger
from gateway.predictions.ports.sharing import CreateStore
from gateway.predictions.rules import answers, polling
from gateway.predictions.secret_values import SecretValues
from gateway.predictions.settings import DEFAULT_FOLLOWED_BYTES, DEFAULT_UNREADABLE_SECONDS
from gateway.predictions.tracked_run import TrackedRun
from gateway.runtime.large_work import LargeWork
from gateway.runtime.tasks import Tasks

logger = logging.getLogger(__name__)

_FIRST_PAUSE = 1.0
_LONGEST_PAUSE = 30.0
_PAGE = 20
"""Runs that are read from the store at a time at the start: each has a document."""
_LARGE_DOCUMENT = 256 * 1024
_LARGE_POLLS = 2
"""Polls in progress of runs with large documents; one of each team."""

_Job = Literal["poll", "cancel", "report"]
"""What a task of the tracker does for a run."""


class Tracker:
    """Follows runs."""

    def __init__(
        self,
        store: CreateStore,
        upstream: Upstream,
        clock: Clock,
        events: PredictionEvents,
        observer: PredictionObserver,
        *,
        requests_per_minute: Callable[[], float],
        keep_until: Callable[[Run, bytes, float], float | None],
        settlement_of: Callable[[Run, Status, bytes, float], Settlement],
        unreadable_seconds: Callable[[], float] = lambda: DEFAULT_UNREADABLE_SECONDS,
        max_document_bytes: Callable[[], int] = lambda: DEFAULT_FOLLOWED_BYTES,
        secret_values: SecretValues | None = None,
    ) -> None:
        self._documents = DocumentMemory(max_document_bytes)
        self._large_polls = LargeWork(_LARGE_POLLS)
        self._secrets = SecretValues() if secret_values is None else secret_values
        self._merger = SnapshotMerger(
            store,
            clock,
            events,
            observer,
            report=self._report,
            keep_until=keep_until,
            settlement_of=settlement_of,
            unreadable_seconds=unreadable_seconds,
            secret_values=self._secrets,
        )
        self._store = store
        self._upstream = upstream
        self._clock = clock
        self._events = events
        self._observer = observer
        self._requests_per_minute = requests_per_minute
        self._tracked: dict[str, TrackedRun] = {}
        self._tasks = Tasks()
        self._by_job: dict[tuple[_Job, str], asyncio.Task[None]] = {}
        """Every task, by what it does and its run's id: one of each at a time."""
        self._is_closing = False

    @property
    def active(self) -> int:
        """How many runs are followed."""
        return len(self._tracked)

    @property
    def document_bytes(self) -> int:
        """Bytes of documents of followed runs in memory."""
        return self._documents.held_bytes

    def active_by_team(self) -> dict[str, int]:
        """Count the followed runs by the team that started them."""
        return Counter(tracked.run.team for tracked in self._tracked.values())

    @property
    def followed(self) -> list[Run]:
        """The followed runs, as they are now."""
        return [tracked.run for tracked in self._tracked.values()]

    async def resume(self) -> int:
        """Follow every run that the store knows to be live. Return how many there are."""
        after, resumed = "", 0
        while runs := await self._store.open_runs(after=after, limit=_PAGE):
            after = runs[-1].id
            for run in runs:
                if run.state is RunState.LIVE:
                    self.follow(run)
                    resumed += 1
        return resumed

    def follow(self, run: Run) -> TrackedRun:
        """Follow a live run to its end, unless it is followed already."""
        tracked = self._tracked.get(run.id)
        if tracked is None:
            tracked = TrackedRun(run, self._documents)
            if run.state is RunState.LIVE and not self._is_closing:
                self._tracked[run.id] = tracked
                task = self._start("poll", run.id, partial(self._follow, tracked))
                # Not with the run: it would keep the document in memory for as long as the task lasts.
                task.add_done_callback(partial(self._leave, run.id))
            else:
                tracked.leave_memory()
        return tracked

    def _leave(self, run_id: str, _: asyncio.Task[None]) -> None:
        if tracked := self._tracked.pop(run_id, None):
            tracked.leave_memory()

    def tracked(self, run_id: str) -> TrackedRun | None:
        """Return a run that is followed."""
        return self._tracked.get(run_id)

    def cancel_asked(self, run: Run) -> None:
        """Ask upstream to cancel a run whose last caller has cancelled, and wake its waiters."""
        # The caller may have learned of the run before it is followed.
        is_new = run.id not in self._tracked
        tracked = self.follow(run)
        if is_new and not run.document:
            # It was large, and left in the store.
            tracked.drop_document()
        if run.id in self._tracked and not tracked.run.status.is_terminal:
            tracked.set_run(run if run.document else msgspec.structs.replace(run, document=tracked.run.document))
            self._start_cancel(tracked)
        tracked.wake()

    async def on_snapshot(self, run_id: str, body: bytes) -> None:
        """Merge a body that upstream sent by itself. Do nothing if the run is not followed.

        Upstream's messages come late, more than once and out of order (docs/replicate-api.md, Webhooks). Only one that
        moves the status forward is merged: what it says of a known status may be older than the last poll.
        """
        tracked = self._tracked.get(run_id)
        if tracked is not None and answers.is_ahead(body, tracked.run):
            await self._merger.merge_body(tracked, body)

    async def newest(self, run: Run) -> Run:
        """Return a run as it is now, followed or not."""
        tracked = self._tracked.get(run.id)
        if tracked is not None and tracked.is_whole:
            return tracked.run
        return await self._store.run(run.id) or run

    def poll_now(self, run_id: str) -> None:
        """Poll a run at once: an event stream or a webhook says that it has changed."""
        if tracked := self._tracked.get(run_id):
            tracked.poll_now()

    def refresh(self, run: Run) -> None:
        """Take over the identity that a run was given in the store; everything else may be newer here."""
        if tracked := self._tracked.get(run.id):
            tracked.set_run(
                msgspec.structs.replace(tracked.run, fingerprint=run.fingerprint, provisional=run.provisional)
            )

    def wake(self, run_id: str) -> None:
        """Let the waiters of a run check their condition: one of its predictions has changed."""
        if tracked := self._tracked.get(run_id):
            tracked.wake()

    def wake_all(self) -> None:
        """Let every waiter check its condition."""
        for tracked in self._tracked.values():
            tracked.wake()

    async def close(self) -> None:
        """Stop following; the next start resumes."""
        self._is_closing = True
        self.wake_all()
        await self._tasks.close(0.0)

    # Tasks

    def _start(self, job: _Job, run_id: str, work: Callable[[], Coroutine[Any, Any, None]]) -> asyncio.Task[None]:
        """Start a task for a run, or return the one that does this job for it already."""
        key = (job, run_id)
        task = self._by_job.get(key)
        if task is None:
            task = self._by_job[key] = self._tasks.spawn(work(), f"{job} {run_id}")
            task.add_done_callback(lambda _: self._by_job.pop(key, None))
        return task

    def _surviving(self, job: _Job, run: Run) -> "_Attempt":
        """Log a failure instead of raising it, and count one that is a defect. The caller tries again."""
        return _Attempt(job, run, self._observer)

    async def _follow(self, tracked: TrackedRun) -> None:
        """Poll a run until it has ended. Only its end, or the tracker's closing, ends this."""
        crashes = 0
        if tracked.run.cancel_asked_at is not None:
            self._start_cancel(tracked)
        try:
            while not tracked.run.status.is_terminal:
                seconds = self._poll_interval(tracked)
                await tracked.pause(self._clock, max(seconds, _backoff(crashes)) if crashes else seconds)
                with self._surviving("poll", tracked.run) as attempt:
                    if tracked.document_size > _LARGE_DOCUMENT:
                        async with self._large_polls.turn(tracked.run.team):
                            await self._poll(tracked)
                    else:
                        await self._poll(tracked)
                crashes = crashes + 1 if attempt.has_crashed else 0
        finally:
            if cancel := self._by_job.get(("cancel", tracked.run.id)):
                cancel.cancel()
            tracked.wake()

    def _poll_interval(self, tracked: TrackedRun) -> float:
        run, now = tracked.run, self._clock.now()
        began = run.live_at if run.live_at is not None else run.intended_at
        seconds = polling.next_poll_seconds(max(0.0, now - began), len(self._tracked), self._requests_per_minute())
        return max(seconds, answers.unreadable_pause(run.unreadable_since, now)) if tracked.is_unreadable else seconds

    async def _poll(self, tracked: TrackedRun) -> None:
        run = tracked.run
        family = documents.family_of(run.kind)
        self._observer.polled("upstream")
        try:
            answer = await self._upstream.read(f"{family}.get", f"/{family}/{run.upstream_id}")
        except UpstreamUnreadable as exc:
            await self._note_unreadable(tracked, exc.detail)
            return
        if answer.status == HTTPStatus.NOT_FOUND:
            await self._merger.merge_unknown(tracked)
        elif answer.is_ok and await self._merger.merge_body(tracked, answer.body):
            if tracked.is_unreadable or tracked.run.unreadable_since is not None:
                await self._merger.note_readable(tracked)
        elif answer.is_ok:
            await self._merger.note_unreadable(tracked, delays=True)
        elif answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            # Upstream's trouble: it counts towards the end of the run, and delays no poll.
            await self._merger.note_unreadable(tracked, delays=False)
        elif answer.status != HTTPStatus.TOO_MANY_REQUESTS:
            await self._note_unreadable(tracked, f"Replicate answered {answer.status}.")

    async def _note_unreadable(self, tracked: TrackedRun, reason: str) -> None:
        """Note an answer that cannot be read, and log the first of several."""
        if not tracked.is_unreadable:
            extra = {"run": tracked.run.id, "upstream_id": tracked.run.upstream_id, "reason": reason}
            logger.warning("upstream's answer cannot be used", extra=extra)
        await self._merger.note_unreadable(tracked, delays=True)

    def _start_cancel(self, tracked: TrackedRun) -> None:
        if not tracked.is_cancel_asked and not self._is_closing:
            tracked.is_cancel_asked = True
            self._start("cancel", tracked.run.id, partial(self._cancel, tracked))

    async def _cancel(self, tracked: TrackedRun) -> None:
        """Ask upstream to cancel a run until it answers. `_follow` ends this when the run has ended."""
        tries, is_answered = 0, False
        while not is_answered:
            await self._clock.sleep(_backoff(tries))
            tries += 1
            with self._surviving("cancel", tracked.run):
                is_answered = await self._ask_to_cancel(tracked)

    async def _ask_to_cancel(self, tracked: TrackedRun) -> bool:
        """Ask upstream once to cancel a run, and merge the answer: the run may yet succeed. Return if it answered."""
        family = documents.family_of(tracked.run.kind)
        answer = await self._upstream.send(f"{family}.cancel", "POST", f"/{family}/{tracked.run.upstream_id}/cancel")
        if answer.is_ok:
            # An answer that cannot be recorded is not asked for again: the next poll brings the same.
            with self._surviving("cancel", tracked.run):
                await self._merger.merge_body(tracked, answer.body)
        # 404: not there yet (docs/replicate-api.md, States), or gone; the polls find out which.
        return answer.is_ok or (answer.status < 500 and answer.status not in (404, 429))

    # Ends

    def _report(self, ended: RunEnded) -> None:
        run = ended.run
        logger.info("run ended", extra={"run": run.id, "upstream_id": run.upstream_id, "status": run.status})
        self._events.on_run_ended(ended)
        self._secrets.forget(run.id)

    async def report_end(self, run: Run, ended: RunEnded | None) -> None:
        """Call the end-of-run listeners for a run whose end another step than `advance` has recorded.

        `ended` is what that step returned; if its answer was lost, the end is read. If the store cannot be read now,
        this returns, and the listeners are called when it can be.
        """
        if ended is not None:
            self._report(ended)
        elif not await self._read_and_report(run) and not self._is_closing:
            self._start("report", run.id, partial(self._keep_reporting, run))

    async def _keep_reporting(self, run: Run) -> None:
        tries, is_done = 0, False
        while not is_done:
            tries += 1
            await self._clock.sleep(_backoff(tries))
            is_done = await self._read_and_report(run)

    async def _read_and_report(self, run: Run) -> bool:
        """Return whether nothing is left to report."""
        with self._surviving("report", run) as attempt:
            if (ended := await self._store.ended_run(run.id)) is not None:
                self._report(ended)
        return not attempt.has_failed


class _Attempt:
    """One try of a job for a run."""

    __slots__ = ("_job", "_observer", "_run", "has_crashed", "has_failed")

    def __init__(self, job: _Job, run: Run, observer: PredictionObserver) -> None:
        self._job = job
        self._run = run
        self._observer = observer
        self.has_failed = False
        self.has_crashed = False
        """It failed by a defect."""

    def __enter__(self) -> "_Attempt":
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> bool:
        if error is None or not isinstance(error, Exception):
            return False
        self.has_failed = True
        extra = {"run": self._run.id, "step": self._job}
        if isinstance(error, GatewayError):
            logger.warning("following a run failed", extra=extra | {"reason": error.detail})
        else:
            logger.error("following a run crashed", extra=extra, exc_info=error)
            self._observer.tracking_crashed(self._job)
            self.has_crashed = True
        return True


def _backoff(failures: int) -> float:
    """Return the seconds to wait after that many failures in a row."""
    return min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0 ** min(failures - 1, 10)) if failures else 0.0
