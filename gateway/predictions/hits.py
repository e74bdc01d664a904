"""Hits: creates that a finished run answers, recorded many at a time.

See docs/architecture.md, Create. A hit that comes while no step is in progress is recorded at once. The others are
gathered meanwhile, and one step of the store records all of them.

Which creates are likely hits is known from the fingerprints of runs that ended lately or have answered a request. That
is a hint only: the store decides, in the step. A fingerprint whose cache entry is gone costs one failed try, so nothing
has to be removed here when entries are purged, evicted or deleted, whichever process does it. Nothing else of a run is
kept, neither its input nor its output.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from threading import Lock

import msgspec

from gateway.domain.ports.observers import LimitObserver, PredictionObserver
from gateway.domain.records import LARGE_DOCUMENT, Run, Source
from gateway.domain.run_end import RunEnded
from gateway.errors import StoreUnavailable
from gateway.predictions.events import Listener, PredictionEvents
from gateway.predictions.ports.sharing import Hit, ShareRequest, Sharing
from gateway.predictions.rules import run_times

_MOST_KNOWN = 10_000
"""Fingerprints to remember: about 300 bytes each."""
_MOST_WAITING = 10_000
"""Hits that wait for the store. More are refused, as the store refuses more steps than that."""


class _Gathered(msgspec.Struct, eq=False):
    """The requests of one step, which the store takes in its own thread when the step begins."""

    requests: list[ShareRequest]
    """Grows until they are taken."""
    waited: int
    """How many of them were there when the step was queued."""
    lock: Lock = msgspec.field(default_factory=Lock)
    taken: int = 0
    is_closed: bool = False

    def __getitem__(self, chosen: slice) -> Sequence[ShareRequest]:
        """Take requests: none once the step has failed for those who wait for it."""
        with self.lock:
            taken = [] if self.is_closed else self.requests[chosen]
            self.taken = max(self.taken, len(taken))
            return taken

    def close(self) -> int:
        """Let no more be taken. Return how many fail with the step: they were taken, or have waited all its time."""
        with self.lock:
            self.is_closed = True
            return max(self.taken, self.waited)


class HitRecorder:
    """Records hits in batches, and announces each."""

    def __init__(
        self, store: Sharing, events: PredictionEvents, observer: PredictionObserver, money: LimitObserver
    ) -> None:
        self._store = store
        self._events = events
        self._observer = observer
        self._money = money
        self._known: OrderedDict[str, tuple[float, float]] = OrderedDict()
        """When the newest run of a fingerprint ended, and until when it answers requests; the newest last."""
        self._requests: list[ShareRequest] = []
        """Of the step in progress, then those that wait for the next one. The store reads it when the step begins."""
        self._futures: list[asyncio.Future[Hit | None]] = []
        """One for each request."""
        self._step: asyncio.Future[list[Hit | None]] | None = None
        self._gathered: _Gathered | None = None
        """The requests of the step in progress."""

    @property
    def waiting(self) -> int:
        """Number of hits that are being recorded, or wait for it."""
        return len(self._futures)

    def remember(self, run: Run, *, is_large: bool = False) -> None:
        """Expect that a run answers the next requests of its fingerprint, if its result is kept and not large."""
        if run.fingerprint is None or run.ended_at is None or run.cache_until is None:
            return
        if is_large or len(run.document) > LARGE_DOCUMENT:
            # It answers in place of a smaller one that was known.
            self._known.pop(run.fingerprint, None)
            return
        self._known[run.fingerprint] = (run.ended_at, run.cache_until)
        self._known.move_to_end(run.fingerprint)
        if len(self._known) > _MOST_KNOWN:
            self._known.popitem(last=False)

    def on_run_ended(self, ended: RunEnded) -> None:
        """Expect requests that the run answers, if its result is kept."""
        self.remember(ended.run)

    def expects(self, request: ShareRequest) -> bool:
        """Return whether a request is probably a hit that `record` can record.

        A key or a webhook must be recorded with the prediction, which only the single step does.
        """
        wanted = request.may_hit
        if wanted is None or request.idempotency is not None or request.webhook_place is not None:
            return False
        known = self._known.get(wanted.fingerprint)
        return known is not None and known[0] >= wanted.ended_since and request.now < known[1]

    def record(self, request: ShareRequest) -> asyncio.Future[Hit | None]:
        """Record a hit with others. `None`: nothing was recorded, because no finished run fits any more.

        The hit is counted and announced before its future is done, and also if the future is cancelled. The future
        raises `StoreUnavailable`, and this method does if too many hits wait.
        """
        if len(self._futures) >= _MOST_WAITING:
            raise StoreUnavailable("The store is overloaded.", retry_after=1)
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Hit | None] = loop.create_future()
        if self._step is None and not self._futures:
            # Requests that are ready in this turn of the loop come first: the store's thread could not work meanwhile.
            loop.call_soon(self._begin)
        self._requests.append(request)
        self._futures.append(future)
        return future

    def _begin(self) -> None:
        """Let the store record what has been gathered, and what is added until it begins."""
        self._gathered = _Gathered(self._requests, len(self._requests))
        try:
            self._step = self._store.record_hits(self._gathered)
        except Exception as exc:  # noqa: BLE001  the callers get the error
            futures = self._futures
            self._requests, self._futures = [], []
            _fail(futures, exc)
        else:
            self._step.add_done_callback(self._finish)

    def _finish(self, step: asyncio.Future[list[Hit | None]]) -> None:
        self._step = None
        requests, futures = self._requests, self._futures
        error = StoreUnavailable("The store was closed.") if step.cancelled() else step.exception()
        if error is None:
            outcomes = step.result()
        else:
            assert self._gathered is not None
            # Those that came later have time left: they go on with the next step.
            lost = self._gathered.close()
            if isinstance(error, StoreUnavailable):
                self._requests, self._futures = requests[lost:], futures[lost:]
                if self._requests:
                    self._begin()
                _fail(futures[:lost], error)
                return
            # Nothing was recorded. It is the fault of one, such as an id that exists: its single step finds that out.
            outcomes = [None] * lost
        taken = len(outcomes)
        self._requests, self._futures = requests[taken:], futures[taken:]
        if self._requests:
            # Before the callers of this step go on: the store works meanwhile.
            self._begin()
        self._announce(list(filter(None, outcomes)))
        for request, future, outcome in zip(requests, futures, outcomes, strict=False):
            if outcome is None and request.may_hit is not None:
                self._known.pop(request.may_hit.fingerprint, None)
            if not future.done():
                future.set_result(outcome)

    def _announce(self, hits: list[Hit]) -> None:
        """Count hits, and call the listeners of new predictions for each."""
        if hits:
            self._events.call(Listener.METRICS, hits[0].view.run.id, self._count, hits)
        for hit in hits:
            self._events.on_prediction_created(hit.view)

    def _count(self, hits: list[Hit]) -> None:
        """Count those of one team on one run at once."""
        groups: dict[tuple[str, str], tuple[Run, int, int]] = {}
        for hit in hits:
            run, group = hit.view.run, (hit.view.prediction.team, hit.view.run.id)
            _, count, saved = groups.get(group, (run, 0, 0))
            groups[group] = (run, count + 1, saved + hit.saved_microusd)
        for (team, _), (run, count, saved) in groups.items():
            self._observer.prediction_created(team, run_times.name_of(run.target), Source.HIT, count)
            self._observer.prediction_finished(team, run.status, count)
            self._money.saved(team, "hit", saved)

    async def close(self, grace_seconds: float) -> None:
        """Wait for the hits in progress, for so long."""
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + grace_seconds
        while self._futures:
            if self._step is None:
                # It begins in this turn of the loop.
                await asyncio.sleep(0)
                continue
            done, _ = await asyncio.wait({self._step}, timeout=max(0.0, ends_at - loop.time()))
            if not done:
                return


def _fail(futures: Iterable[asyncio.Future[Hit | None]], error: BaseException) -> None:
    for future in futures:
        if not future.done():
            future.set_exception(error)
            # Its waiter may be cancelled before it gets the error.
            future.exception()
