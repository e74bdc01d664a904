"""Runs of other nodes that somebody waits for here.

They are read from the store, on news and else every second, without large documents: whoever shows one reads it when
there is room. Their owner reads upstream, writes, and calls the end-of-run listeners.
"""

from collections.abc import Callable

from gateway.domain.ports.clock import Clock
from gateway.domain.ports.observers import PredictionObserver
from gateway.domain.records import Run, RunState
from gateway.predictions.attempt import Attempt
from gateway.predictions.document_memory import DocumentMemory
from gateway.predictions.ports.sharing import Sharing
from gateway.predictions.run_reads import RunReads
from gateway.predictions.tracked_run import TrackedRun
from gateway.runtime.tasks import Tasks

LOOK_SECONDS = 1.0
"""How often runs are read if no news of them arrive: all at the same time, in one statement."""


class ObservedRuns:
    """Reads runs of other nodes until they have ended, or nobody waits for them."""

    def __init__(
        self,
        store: Sharing,
        clock: Clock,
        documents: DocumentMemory,
        observer: PredictionObserver,
        *,
        owns: Callable[[Run], bool],
        on_owned: Callable[[Run], object],
    ) -> None:
        """Take `owns`, which says if a run is this node's, and `on_owned`, called with a run that has become so."""
        self._store = store
        self._clock = clock
        self._documents = documents
        self._observer = observer
        self._owns = owns
        self._on_owned = on_owned
        self.runs: dict[str, TrackedRun] = {}
        self._is_looking = False
        self._tasks = Tasks()
        self._reads = RunReads(store, self._tasks)

    def __len__(self) -> int:
        return len(self.runs)

    def get(self, run_id: str) -> TrackedRun | None:
        """Return a run that is observed."""
        return self.runs.get(run_id)

    def observe(self, run: Run) -> TrackedRun:
        """Observe a live run. Wait for it soon: it is not observed for nobody."""
        tracked = self.runs.get(run.id)
        if tracked is None:
            tracked = TrackedRun(run, self._documents)
            _set(tracked, run)
            if run.state is RunState.LIVE:
                self._start(tracked)
            else:
                tracked.leave_memory()
        return tracked

    def go_on(self, tracked: TrackedRun) -> None:
        """Observe a run that was followed here, and is another node's now, if anybody waits for it."""
        if tracked.interested and not tracked.run.status.is_terminal:
            self._start(tracked)
        else:
            tracked.leave_memory()

    def take(self, run_id: str) -> TrackedRun | None:
        """Observe a run no longer, because this node follows it. Return it with those who wait for it."""
        return self.runs.pop(run_id, None)

    def look_at(self, run_id: str) -> None:
        """Read a run again: it has changed."""
        if tracked := self.runs.get(run_id):
            tracked.poll_now()

    def look_at_all(self) -> None:
        """Read every run again: any may have changed."""
        for tracked in self.runs.values():
            tracked.poll_now()

    def wake_all(self) -> None:
        """Let every waiter check its condition."""
        for tracked in self.runs.values():
            tracked.wake()

    async def close(self) -> None:
        """Stop observing."""
        await self._tasks.close(0.0)

    def _start(self, tracked: TrackedRun) -> None:
        self.runs[tracked.run.id] = tracked
        self._tasks.spawn(self._read_until_end(tracked), f"observe {tracked.run.id}")
        if not self._is_looking:
            self._is_looking = True
            self._tasks.spawn(self._look(), "look at observed runs")

    async def _look(self) -> None:
        """Read every run now and then, while there are any."""
        try:
            while self.runs:
                await self._clock.sleep(LOOK_SECONDS)
                self.look_at_all()
        finally:
            self._is_looking = False

    async def _read_until_end(self, tracked: TrackedRun) -> None:
        run_id = tracked.run.id
        try:
            while self.runs.get(run_id) is tracked:
                with Attempt("observe", tracked.run, self._observer):
                    newest = await self._reads.read(run_id)
                    if self.runs.get(run_id) is not tracked or newest is None:
                        return
                    if self._owns(newest):
                        if (whole := await self._store.run(run_id)) is not None and self._owns(whole):
                            self._on_owned(whole)
                        return
                    _set(tracked, newest)
                    tracked.wake()
                if tracked.run.status.is_terminal:
                    return
                await tracked.poll_asked()
                if not tracked.interested:
                    return
        finally:
            if self.runs.get(run_id) is tracked:
                del self.runs[run_id]
                tracked.leave_memory()
                tracked.wake()


def _set(tracked: TrackedRun, run: Run) -> None:
    """Set the newest state. Every live run has a document: one without was left in the store."""
    tracked.set_run(run)
    if not run.document:
        tracked.drop_document()
