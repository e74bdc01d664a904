"""The tracker: follows each run of upstream to its end, once, however many callers wait for it.

See docs/architecture.md, Following a run.

One task a run looks at it in a rhythm that grows with its age. All news passes `_take`, where the store's compare-and-
set lets a status only move forward. The end wakes every waiter. A run is not lost by a crash: `resume` takes up what
the store knows to be open.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable

import msgspec

from gateway.domain import documents, retry
from gateway.domain.ledger import Settlement
from gateway.domain.ports.clock import Clock
from gateway.domain.ports.observers import PredictionObserver
from gateway.domain.ports.upstream import Upstream
from gateway.domain.records import Run, RunState, Status
from gateway.errors import GatewayError
from gateway.predictions.ports.sharing import CreateStore
from gateway.runtime.sleep import sleep_until_event

logger = logging.getLogger(__name__)

# GET right after a create may answer 404 (docs/replicate-api.md, States). Past this, in seconds, upstream has really
# lost the run.
_UNKNOWN_FOR = 120.0
_CANCEL_PAUSE = 1.0
_LONGEST_CANCEL_PAUSE = 30.0
_PAGE = 500


class TrackedRun:
    """A run that is being followed: its newest state, and those who wait for news of it."""

    __slots__ = ("_news", "_waiters", "cancel_task", "run", "task")

    def __init__(self, run: Run) -> None:
        self.run = run
        self._news = asyncio.Event()
        self.task: asyncio.Task[None] | None = None
        self.cancel_task: asyncio.Task[None] | None = None
        self._waiters: set[asyncio.Future[None]] = set()

    def wake(self) -> None:
        """Let everybody who waits look again."""
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._waiters.clear()

    def poll_now(self) -> None:
        """Let the run be looked at now: something else has told that there is news."""
        self._news.set()

    async def pause(self, clock: Clock, seconds: float) -> None:
        """Sleep until the next look is due, or somebody nudges."""
        try:
            await sleep_until_event(clock, seconds, self._news)
        finally:
            self._news.clear()

    async def wait_until(self, done: Callable[[Run], bool], seconds: float) -> Run:
        """Wait until `done` is true of the run or the time is over; return the run as it is then."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(seconds):
                while not done(self.run):
                    waiter: asyncio.Future[None] = loop.create_future()
                    self._waiters.add(waiter)
                    try:
                        await waiter
                    finally:
                        self._waiters.discard(waiter)
        except TimeoutError:
            pass
        return self.run


class Tracker:
    """Follows runs."""

    def __init__(
        self,
        store: CreateStore,
        upstream: Upstream,
        clock: Clock,
        observer: PredictionObserver,
        *,
        requests_per_minute: float,
        keep_until: Callable[[Run, bytes, float], float | None],
        settlement_of: Callable[[Run, Status, bytes, float], Settlement],
    ) -> None:
        self._on_change: list[Callable[[Run], None]] = []
        self._on_end: list[Callable[[Run], Awaitable[None]]] = []
        self._keep_until = keep_until
        self._settlement_of = settlement_of
        self._store = store
        self._upstream = upstream
        self._clock = clock
        self._observer = observer
        self._requests_per_minute = requests_per_minute
        self._tracked: dict[str, TrackedRun] = {}
        self._closing = False

    def reconfigure(self, *, requests_per_minute: float) -> None:
        """Space looks by another rate of the account's, each from its next one on."""
        self._requests_per_minute = requests_per_minute

    @property
    def active(self) -> int:
        """How many runs are being followed."""
        return len(self._tracked)

    def when_changed(self, callback: Callable[[Run], None]) -> None:
        """Have something done when news of a run were taken that goes on, before its waiters are woken."""
        self._on_change.append(callback)

    def active_by_team(self) -> dict[str, int]:
        """Say how many of them each team has started."""
        return Counter(tracked.run.team for tracked in self._tracked.values())

    @property
    def followed(self) -> list[Run]:
        """The runs that are being followed, as they are now."""
        return [tracked.run for tracked in self._tracked.values()]

    def when_ended(self, callback: Callable[[Run], Awaitable[None]]) -> None:
        """Have something done at each run's end, before its waiters are woken. What is added first is done first."""
        self._on_end.append(callback)

    async def ended(self, run: Run) -> None:
        """Let everything be done that a run's end asks for: once, by whoever has recorded the end."""
        for act in self._on_end:
            await act(run)

    async def resume(self) -> int:
        """Take up every run that the store knows to be live. Return how many."""
        after, resumed = "", 0
        while runs := await self._store.open_runs(after=after, limit=_PAGE):
            after = runs[-1].id
            for run in runs:
                if run.state is RunState.LIVE:
                    self.follow(run)
                    resumed += 1
        return resumed

    def follow(self, run: Run) -> TrackedRun:
        """Follow a run to its end, unless it is followed already."""
        tracked = self._tracked.get(run.id)
        if tracked is None:
            tracked = self._tracked[run.id] = TrackedRun(run)
            if run.state is RunState.LIVE and not self._closing:
                tracked.task = asyncio.create_task(self._follow(tracked), name=f"follow {run.id}")
                tracked.task.add_done_callback(lambda _: self._tracked.pop(run.id, None))
            else:
                del self._tracked[run.id]
        return tracked

    def tracked(self, run_id: str) -> TrackedRun | None:
        """Return the watch of a run that is being followed."""
        return self._tracked.get(run_id)

    def cancel_asked(self, run: Run) -> None:
        """Take note that the last caller has left: upstream is to be asked to cancel, and waiters look again."""
        # Whoever cancels may have learned of the run before it is followed.
        tracked = self.follow(run)
        tracked.run = run
        self._start_cancel(tracked)
        tracked.wake()

    async def on_snapshot(self, run_id: str, body: bytes) -> None:
        """Take a body that upstream itself has sent; of a run that is not followed there is nothing to learn.

        Upstream's messages come late, doubled and in disorder (docs/replicate-api.md, Webhooks), so that only one which
        moves the run's status forward is news: what it says of a status that is known may be older than what a look has
        found.
        """
        tracked = self._tracked.get(run_id)
        if tracked is not None and _is_ahead(body, tracked.run):
            await self._take_body(tracked, body)

    async def newest(self, run: Run) -> Run:
        """Return a run as it is now, followed or not."""
        tracked = self._tracked.get(run.id)
        return tracked.run if tracked is not None else await self._store.run(run.id) or run

    def poll_now(self, run_id: str) -> None:
        """Take a hint that there is news of a run: an event stream that is done, a webhook."""
        if tracked := self._tracked.get(run_id):
            tracked.poll_now()

    def refresh(self, run: Run) -> None:
        """Take the identity that a run has been given in the store; all else may be newer here."""
        if tracked := self._tracked.get(run.id):
            tracked.run = msgspec.structs.replace(tracked.run, fingerprint=run.fingerprint, provisional=run.provisional)

    def wake(self, run_id: str) -> None:
        """Let the waiters of a run look again: one of its predictions has changed."""
        if tracked := self._tracked.get(run_id):
            tracked.wake()

    def wake_all(self) -> None:
        """Let everybody who waits look again."""
        for tracked in self._tracked.values():
            tracked.wake()

    async def close(self) -> None:
        """Let go of every run; the next start takes them up again."""
        self._closing = True
        tasks = [tracked.task for tracked in self._tracked.values() if tracked.task is not None]
        self.wake_all()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _follow(self, tracked: TrackedRun) -> None:
        """Look at a run until it has ended. Nothing but its end, or ours, ends this."""
        if tracked.run.cancel_asked_at is not None:
            self._start_cancel(tracked)
        try:
            while not tracked.run.status.is_terminal:
                await self._until_next_look(tracked)
                try:
                    await self._look(tracked)
                except GatewayError as exc:
                    logger.warning("a run could not be looked at", extra={"run": tracked.run.id, "reason": exc.detail})
        finally:
            if tracked.cancel_task is not None:
                tracked.cancel_task.cancel()
                await asyncio.gather(tracked.cancel_task, return_exceptions=True)
            tracked.wake()

    def _start_cancel(self, tracked: TrackedRun) -> None:
        if tracked.cancel_task is None and not self._closing:
            tracked.cancel_task = asyncio.create_task(self._ask_to_cancel(tracked), name=f"cancel {tracked.run.id}")

    async def _until_next_look(self, tracked: TrackedRun) -> None:
        began = tracked.run.live_at if tracked.run.live_at is not None else tracked.run.intended_at
        age = max(0.0, self._clock.now() - began)
        await tracked.pause(self._clock, retry.next_look(age, self.active, self._requests_per_minute))

    async def _look(self, tracked: TrackedRun) -> None:
        run = tracked.run
        family = documents.family_of(run.kind)
        self._observer.polled("upstream")
        answer = await self._upstream.read(f"{family}.get", f"/{family}/{run.upstream_id}")
        if answer.status == 404:
            await self._unknown(tracked)
        elif answer.is_ok:
            await self._take_body(tracked, answer.body)

    async def _take_body(self, tracked: TrackedRun, body: bytes) -> None:
        try:
            news = documents.read_news(body)
        except ValueError as exc:
            logger.warning("upstream's answer is no prediction", extra={"run": tracked.run.id, "reason": str(exc)})
        else:
            await self._take(tracked, news.status, news.document, news.stream_url, news.completed_at)

    async def _unknown(self, tracked: TrackedRun) -> None:
        """Tolerate a 404 for a while after the create; then the run is gone, which to its callers is a failure."""
        began = tracked.run.live_at or tracked.run.intended_at
        if self._clock.now() - began > _UNKNOWN_FOR:
            logger.error("upstream no longer knows a run", extra={"run": tracked.run.id})
            document = documents.failed(tracked.run.document, "Replicate no longer knows this prediction.")
            await self._take(tracked, Status.FAILED, document, None, None)

    async def _take(
        self, tracked: TrackedRun, status: Status, document: bytes, stream_url: str | None, completed_at: float | None
    ) -> None:
        """Merge news into the run; only what moves it forward changes anything."""
        run = tracked.run
        if status == run.status and document == run.document:
            return
        at = completed_at if completed_at is not None else self._clock.now()
        cache_until = self._keep_until(run, document, at) if status is Status.SUCCEEDED else None
        changed = await self._store.advance(
            run.id,
            status=status,
            document=document,
            stream_url=stream_url,
            at=at,
            cache_until=cache_until,
            # In the store's step, so that no crash comes between an end and its price. By our clock, not upstream's.
            settlement=self._settlement_of(run, status, document, self._clock.now()) if status.is_terminal else None,
        )
        if changed is None and status.is_terminal:
            # Known already: an earlier step that seemed to fail did not, or somebody else was first.
            changed = await self._store.run(run.id)
        if changed is None or changed == run or tracked.run.status.is_terminal:
            # Nothing new, or whoever brought the same end a moment before has told of it.
            return
        tracked.run = changed
        if changed.status.is_terminal:
            tracked.poll_now()
            await self.ended(changed)
            logger.info("run ended", extra={"run": run.id, "upstream_id": run.upstream_id, "status": changed.status})
        else:
            for act in self._on_change:
                act(changed)
        tracked.wake()

    async def _ask_to_cancel(self, tracked: TrackedRun) -> None:
        """Ask upstream to cancel until it has answered. The answer is news like any other: the run may yet succeed."""
        pause = _CANCEL_PAUSE
        family = documents.family_of(tracked.run.kind)
        while True:
            try:
                answer = await self._upstream.send(
                    f"{family}.cancel", "POST", f"/{family}/{tracked.run.upstream_id}/cancel"
                )
                # 404: not there yet (docs/replicate-api.md, States), or gone; the looks will tell which.
                if answer.is_ok or (answer.status < 500 and answer.status not in (404, 429)):
                    break
            except GatewayError as exc:
                logger.warning(
                    "upstream could not be asked to cancel", extra={"run": tracked.run.id, "reason": exc.detail}
                )
            await self._clock.sleep(pause)
            pause = min(pause * 2, _LONGEST_CANCEL_PAUSE)
        if answer.is_ok:
            try:
                await self._take_body(tracked, answer.body)
            except GatewayError as exc:
                # The next look brings the same news.
                logger.warning("an answer could not be kept", extra={"run": tracked.run.id, "reason": exc.detail})


def _is_ahead(body: bytes, run: Run) -> bool:
    """Say whether a body is about a run, and further on than what is known of it."""
    try:
        news = documents.read_news(body)
    except ValueError:
        return False
    return news.upstream_id == run.upstream_id and news.status.rank > run.status.rank
