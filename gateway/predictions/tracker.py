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
from typing import Any

from msgspec.structs import replace

from gateway.domain import documents
from gateway.domain.ledger import Settlement
from gateway.domain.ports.clock import Clock
from gateway.domain.ports.observers import PredictionObserver
from gateway.domain.ports.upstream import Upstream
from gateway.domain.records import Run, RunState, Status
from gateway.domain.run_end import RunEnded
from gateway.errors import UpstreamUnreadable
from gateway.nodes.membership import Membership, OnlyNode
from gateway.nodes.news import News, NoNews, Topic
from gateway.predictions.attempt import Attempt, Job, backoff
from gateway.predictions.document_memory import DocumentMemory
from gateway.predictions.events import PredictionEvents
from gateway.predictions.merging import SnapshotMerger
from gateway.predictions.observed_runs import ObservedRuns
from gateway.predictions.ports.sharing import CreateStore
from gateway.predictions.rules import answers, polling
from gateway.predictions.secret_values import SecretValues
from gateway.predictions.settings import DEFAULT_FOLLOWED_BYTES, DEFAULT_UNREADABLE_SECONDS
from gateway.predictions.tracked_run import TrackedRun
from gateway.runtime.large_work import LargeWork
from gateway.runtime.tasks import Tasks

logger = logging.getLogger(__name__)

_PAGE = 20
"""Runs that are read from the store at a time at the start: each has a document."""
_LARGE_DOCUMENT = 256 * 1024
_LARGE_POLLS = 2
"""Polls in progress of runs with large documents; one of each team."""


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
        membership: Membership | None = None,
        news: News | None = None,
    ) -> None:
        """Take `membership`, which says which runs are this node's, and `news`, by which it asks their owners."""
        self._membership = membership or OnlyNode()
        self._news = news or NoNews()
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
        self._first_polls = polling.FirstPolls()
        self._tracked: dict[str, TrackedRun] = {}
        self.observed = ObservedRuns(store, clock, self._documents, observer, owns=self.owns, on_owned=self.follow)
        self._tasks = Tasks()
        self._by_job: dict[tuple[Job, str], asyncio.Task[None]] = {}
        """Every task, by what it does and its run's id: one of each at a time."""
        self._is_closing = False
        self._lost_number: int | None = None  # Whose lease was lost; the node keeps it until it has joined again.

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

    def owns(self, run: Run) -> bool:
        """Say whether this node follows a run, or is to follow it."""
        return run.owner == self._membership.number != self._lost_number

    async def resume(self) -> int:
        """Follow every run of this node that the store knows to be live. Return how many there are."""
        after, resumed = "", 0
        while runs := await self._store.open_runs(after=after, limit=_PAGE):
            after = runs[-1].id
            for run in runs:
                if run.state is RunState.LIVE and self.owns(run):
                    self.catch_up(run)
                    resumed += 1
        return resumed

    def follow(self, run: Run) -> TrackedRun:
        """Follow a live run to its end, unless it is followed already. A run of another node is only observed.

        Whoever waits for an observed run that is this node's now goes on waiting.
        """
        tracked = self._tracked.get(run.id)
        if tracked is None:
            # As in `owns`, without the call: every run comes here.
            if run.owner != self._membership.number or run.owner == self._lost_number:
                return self.observed.observe(run)
            tracked = self.observed.take(run.id) if self.observed.runs else None
            if tracked is None:
                tracked = TrackedRun(run, self._documents)
            else:
                tracked.set_run(run)
                tracked.wake()
            if run.state is RunState.LIVE and not self._is_closing:
                self._tracked[run.id] = tracked
                task = self._start("poll", run.id, partial(self._follow, tracked))
                # Not with the run: it would keep the document in memory for as long as the task lasts.
                task.add_done_callback(partial(self._leave, run.id))
            else:
                tracked.leave_memory()
        return tracked

    def catch_up(self, run: Run) -> None:
        """Follow a run that another process has followed until now. Its first poll comes in turn, whatever its age."""
        seconds = self._first_polls.next(self._clock.monotonic(), self._requests_per_minute())
        self.follow(run).poll_within(seconds)

    def _leave(self, run_id: str, _: asyncio.Task[None]) -> None:
        if ("poll", run_id) in self._by_job:
            # It was dropped, and is followed again.
            return
        if tracked := self._tracked.pop(run_id, None):
            tracked.leave_memory()

    def tracked(self, run_id: str) -> TrackedRun | None:
        """Return a run that is followed here."""
        return self._tracked.get(run_id)

    def awaited(self, run: Run) -> TrackedRun | None:
        """Return a live run to wait for: one that is followed here, or a run of another node.

        `None`: it is this node's and not followed, so only the store knows what became of it.
        """
        tracked = self._tracked.get(run.id)
        if tracked is None and not self.owns(run) and not self._is_closing:
            tracked = self.observed.observe(run)
        return tracked

    def cancel_asked(self, run: Run) -> None:
        """Ask upstream to cancel a run whose last caller has cancelled, and wake its waiters."""
        if not self.owns(run):
            self._news.tell(Topic.CANCEL, run.id)
            self.wake(run.id)
            return
        # The caller may have learned of the run before it is followed.
        is_new = run.id not in self._tracked
        tracked = self.follow(run)
        if is_new and not run.document:
            # It was large, and left in the store.
            tracked.drop_document()
        if run.id in self._tracked and not tracked.run.status.is_terminal:
            tracked.set_run(run if run.document else replace(run, document=tracked.run.document))
            self._start_cancel(tracked)
        tracked.wake()

    async def on_snapshot(self, run_id: str, body: bytes) -> None:
        """Merge a body that upstream sent by itself. Do nothing if the run is not followed.

        Upstream's messages come late, more than once and out of order (docs/replicate-api.md, Webhooks). Only one that
        moves the status forward is merged: what it says of a known status may be older than the last poll.
        """
        tracked = self._tracked.get(run_id)
        if tracked is None:
            # It may be followed by another node, which then asks upstream.
            self._news.tell(Topic.POLL, run_id)
        elif answers.is_ahead(body, tracked.run):
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
            tracked.set_run(replace(tracked.run, fingerprint=run.fingerprint, provisional=run.provisional))
        elif not self.owns(run):
            self._news.tell(Topic.RUN, run.id)

    def cancel_recorded(self, run: Run) -> None:
        """Ask upstream to cancel a followed run whose last caller has cancelled on another node."""
        tracked = self._tracked.get(run.id)
        if tracked is not None and not tracked.run.status.is_terminal:
            tracked.set_run(replace(tracked.run, cancel_asked_at=run.cancel_asked_at))
            self._start_cancel(tracked)

    def wake(self, run_id: str) -> None:
        """Let the waiters of a run check their condition: one of its predictions has changed."""
        if tracked := self._tracked.get(run_id) or self.observed.get(run_id):
            tracked.wake()

    def wake_all(self) -> None:
        """Let every waiter check its condition."""
        for tracked in self._tracked.values():
            tracked.wake()
        self.observed.wake_all()

    def drop(self) -> None:
        """Follow no run any more, and write nothing: whoever waits for one gets what its new owner records."""
        self._lost_number = self._membership.number
        for job, run_id in [key for key in self._by_job if key[0] != "report"]:
            self._by_job.pop((job, run_id)).cancel()
        dropped, self._tracked = self._tracked, {}
        for tracked in dropped.values():
            tracked.is_cancel_asked = False
            self.observed.go_on(tracked)

    async def close(self) -> None:
        """Stop following; the next start resumes."""
        self._is_closing = True
        self.wake_all()
        await self._tasks.close(0.0)
        await self.observed.close()

    def _start(self, job: Job, run_id: str, work: Callable[[], Coroutine[Any, Any, None]]) -> asyncio.Task[None]:
        """Start a task for a run, or return the one that does this job for it already."""
        key = (job, run_id)
        task = self._by_job.get(key)
        if task is None:
            task = self._by_job[key] = self._tasks.spawn(work(), f"{job} {run_id}")
            task.add_done_callback(partial(self._ended, key))
        return task

    def _ended(self, key: tuple[Job, str], task: asyncio.Task[None]) -> None:
        if self._by_job.get(key) is task:
            del self._by_job[key]

    async def _follow(self, tracked: TrackedRun) -> None:
        """Poll a run until it has ended. Only its end, or the tracker's closing, ends this."""
        crashes = 0
        if tracked.run.cancel_asked_at is not None:
            self._start_cancel(tracked)
        try:
            while not tracked.run.status.is_terminal:
                if tracked.run.owner != self._membership.number:
                    # It was recorded just when the lease was lost: it is another node's, or will be.
                    self._tracked.pop(tracked.run.id, None)
                    return self.observed.go_on(tracked)
                seconds = self._poll_interval(tracked)
                await tracked.pause(self._clock, max(seconds, backoff(crashes)) if crashes else seconds)
                with Attempt("poll", tracked.run, self._observer) as attempt:
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
        family = documents.family_of(tracked.run.kind)
        self._observer.polled("upstream")
        try:
            answer = await self._upstream.read(f"{family}.get", f"/{family}/{tracked.run.upstream_id}")
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
            await self._clock.sleep(backoff(tries))
            tries += 1
            with Attempt("cancel", tracked.run, self._observer):
                is_answered = await self._ask_to_cancel(tracked)

    async def _ask_to_cancel(self, tracked: TrackedRun) -> bool:
        """Ask upstream once to cancel a run, and merge the answer: the run may yet succeed. Return if it answered."""
        family = documents.family_of(tracked.run.kind)
        answer = await self._upstream.send(f"{family}.cancel", "POST", f"/{family}/{tracked.run.upstream_id}/cancel")
        if answer.is_ok:
            # An answer that cannot be recorded is not asked for again: the next poll brings the same.
            with Attempt("cancel", tracked.run, self._observer):
                await self._merger.merge_body(tracked, answer.body)
        # 404: not there yet (docs/replicate-api.md, States), or gone; the polls find out which.
        return answer.is_ok or (answer.status < 500 and answer.status not in (404, 429))

    def _report(self, ended: RunEnded) -> None:
        run = ended.run
        logger.info("run ended", extra=ended.log_fields)
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
            await self._clock.sleep(backoff(tries))
            is_done = await self._read_and_report(run)

    async def _read_and_report(self, run: Run) -> bool:
        """Return whether nothing is left to report."""
        with Attempt("report", run, self._observer) as attempt:
            if (ended := await self._store.ended_run(run.id)) is not None:
                self._report(ended)
        return not attempt.has_failed
