"""Recording: a run that upstream has created goes on disk, then everything that follows from it is done.

See docs/architecture.md, Create.

The two halves fail differently. Until `record` has returned, the create is uncertain. After that nothing can make it
uncertain: each step that follows is isolated, so one that fails is logged and counted, and the others run.
"""

from collections.abc import Callable
from functools import partial

from cachetools import LRUCache
from msgspec.structs import replace

from gateway.domain import documents, tickets
from gateway.domain.create_request import CreateContext
from gateway.domain.documents import Snapshot
from gateway.domain.ledger import Settlement
from gateway.domain.ports.clock import Clock
from gateway.domain.ports.observers import PredictionObserver
from gateway.domain.records import Prediction, PredictionView, Run, RunState, Status
from gateway.domain.upstream_response import Answer
from gateway.errors import Conflict, StoreUnavailable
from gateway.money.rules.usage import Doubt
from gateway.nodes.news import News, NoNews, Topic, of_run
from gateway.predictions import in_flight
from gateway.predictions.deadlines import Deadlines
from gateway.predictions.events import Listener, PredictionEvents
from gateway.predictions.in_flight import PendingCreates
from gateway.predictions.ports.predictions import Recorded
from gateway.predictions.ports.sharing import CreateStore
from gateway.predictions.rules import run_times
from gateway.predictions.run_identity import RunIdentities
from gateway.predictions.tracker import Tracker
from gateway.runtime.pauses import off_the_loop
from gateway.runtime.tasks import Tasks

_ATTEMPTS = 5
_PAUSE = 0.2
_REMEMBERED = 1000


class RunRecorder:
    """Records created runs, follows them, and announces their predictions."""

    def __init__(
        self,
        store: CreateStore,
        tracker: Tracker,
        identities: RunIdentities,
        deadlines: Deadlines,
        pending_creates: PendingCreates,
        clock: Clock,
        events: PredictionEvents,
        observer: PredictionObserver,
        *,
        ticket_secret: bytes,
        keep_until: Callable[[Run, bytes, float], float | None],
        settlement_of: Callable[[Run, Status, bytes, float], Settlement],
        news: News | None = None,
    ) -> None:
        self._news = news or NoNews()
        self._store = store
        self._tracker = tracker
        self._identities = identities
        self._deadlines = deadlines
        self._pending_creates = pending_creates
        self._clock = clock
        self._events = events
        self._observer = observer
        self._ticket_secret = ticket_secret
        self._keep_until = keep_until
        self._settlement_of = settlement_of
        self._followed_up: LRUCache[str, None] = LRUCache(_REMEMBERED)
        """Runs after `follow_up`: a search that began with an old view of an intent must not repeat it."""
        self._tasks = Tasks()

    async def record(self, intent: Run, snapshot: Snapshot, placeholder: Prediction) -> Recorded:
        """Put a created run and its starter on disk, and return both as they are recorded, with the run's end if any.

        `placeholder` is the starter as the intent has it; its id becomes upstream's. The run exists whether or not the
        store answers, so the step is retried. Raise `StoreUnavailable` if the store stays unavailable, and
        `Conflict` if upstream's id belongs to another run.
        """
        now = self._clock.now()
        run, settlement = self._run_of(intent, snapshot, now), None
        starter = self._starter_of(placeholder, snapshot, now)
        if run.status.is_terminal:
            at_end = partial(self._at_end, run, snapshot, now)
            run, settlement = await off_the_loop(snapshot.document, at_end)
        attempt = 1
        while True:
            try:
                recorded = await self._store.record_created(run, starter, settlement)
            except StoreUnavailable:
                if attempt == _ATTEMPTS:
                    raise
            else:
                view = recorded.view
                view = PredictionView(view.prediction, documents.with_same(view.run, run.document))
                return replace(recorded, view=view)
            await self._clock.sleep(_PAUSE * attempt)
            attempt += 1

    def _run_of(self, intent: Run, snapshot: Snapshot, now: float) -> Run:
        ended_at = (snapshot.completed_at or now) if snapshot.status.is_terminal else None
        return replace(
            intent,
            state=RunState.ENDED if snapshot.status.is_terminal else RunState.LIVE,
            upstream_id=snapshot.upstream_id,
            status=snapshot.status,
            document=snapshot.document,
            stream_url=snapshot.stream_url,
            live_at=now,
            ended_at=ended_at,
            leader_id=snapshot.upstream_id,
            uncertain_at=None,
            # It was kept to recognise the run, which is recorded now.
            request=b"",
        )

    def _at_end(self, run: Run, snapshot: Snapshot, now: float) -> tuple[Run, Settlement]:
        """Return a run that has ended already with the time until which it can be cached, and its charge."""
        settlement = self._settlement_of(run, run.status, run.document, now)
        if snapshot.is_status_unknown:
            settlement = settlement.with_doubt(Doubt.STATUS_UNKNOWN)
        if run.status is Status.SUCCEEDED and run.ended_at is not None:
            run = replace(run, cache_until=self._keep_until(run, snapshot.document, run.ended_at))
        return run, settlement

    def _starter_of(self, placeholder: Prediction, snapshot: Snapshot, now: float) -> Prediction:
        created_at = snapshot.created_at if snapshot.created_at is not None else now
        deadline_at = placeholder.deadline_at
        if deadline_at is not None:
            # It counts from the creation upstream.
            deadline_at = created_at + deadline_at - placeholder.created_at
        return replace(
            placeholder,
            id=snapshot.upstream_id,
            created_at=created_at,
            ticket=tickets.stored(self._ticket_secret, snapshot.upstream_id),
            deadline_at=deadline_at,
        )

    async def follow_up(
        self, recorded: Recorded, snapshot: Snapshot, answer: Answer | None, context: CreateContext | None
    ) -> None:
        """Do what follows from a record: follow the run, announce its starter, give the outcome to those who wait.

        Call it once, after `record`. It raises nothing. `answer` is upstream's answer to the create, if there was one.
        `context` is the request of the starter; without it a provisional identity is left for those who joined.
        """
        view, run = recorded.view, recorded.view.run
        self._followed_up[run.id] = None
        self._events.call(Listener.TRACKER, run.id, self._tracker.follow, run)
        self.announce(view)
        if snapshot.status.is_terminal:
            with self._events.isolated(Listener.TRACKER, run.id):
                await self._tracker.report_end(run, recorded.ended)
        if context is not None and run.provisional is not None and run.fingerprint is None:
            self._tasks.spawn(self._settle_identity(view, answer, context), "settle identity")
        else:
            if self._identities.teaches_version(run, snapshot):
                self._tasks.spawn(self._learn(run, snapshot), "learn version")
            self._pending_creates.resolve(run.id, in_flight.Created(view, answer))

    def announce(self, view: PredictionView) -> None:
        """Count a prediction that was recorded, whatever its source, and tell the listeners. Raises nothing."""
        prediction, run = view.prediction, view.run
        count = self._observer.prediction_created
        self._events.call(
            Listener.METRICS, run.id, count, prediction.team, run_times.name_of(run.target), prediction.source
        )
        if not run.status.is_terminal:
            if prediction.deadline_at is not None:
                add = self._deadlines.add
                self._events.call(Listener.DEADLINES, run.id, add, prediction.deadline_at, prediction.id)
            if (prediction.deadline_at or prediction.webhook) is not None and not self._tracker.owns(run):
                # Its owner keeps the deadline too, if this node ends, and sends webhooks about progress.
                self._news.tell(Topic.JOINED, of_run(run.id, prediction.id))
        self._events.on_prediction_created(view)

    async def adopt(self, intent: Run, snapshot: Snapshot) -> None:
        """Record a run that was found upstream, as if its create had been answered.

        Raise `Conflict` if the intent is gone, or if upstream's id belongs to another run; and `StoreUnavailable`.
        """
        known = await self._store.predictions_of(intent.id)
        placeholder = next((prediction for prediction in known if prediction.id == intent.leader_id), None)
        if placeholder is None:
            raise Conflict("Another process has already recorded the outcome of this create.")
        recorded = await self.record(intent, snapshot, placeholder)
        await self.follow_up(recorded, snapshot, None, None)
        for prediction in known:
            # Those that had joined before a crash have deadlines of their own.
            if prediction.deadline_at is not None and prediction.id != placeholder.id:
                self._deadlines.add(prediction.deadline_at, prediction.id)

    async def take_up(self, run: Run) -> None:
        """Go on with a run that is recorded although the store's answer was lost."""
        view = await self._store.prediction(run.leader_id)
        if view is None:
            raise StoreUnavailable("The prediction was recorded, but the store does not find it.")
        if run.id in self._followed_up:
            self._pending_creates.resolve(run.id, in_flight.Created(view, None))
            return
        await self.follow_up(Recorded(view), documents.stored_snapshot(view.run.document), None, None)

    async def _learn(self, run: Run, snapshot: Snapshot) -> None:
        with self._events.isolated(Listener.VERSION_MAP, run.id):
            await self._identities.learn(run, snapshot)

    async def _settle_identity(self, view: PredictionView, answer: Answer | None, context: CreateContext) -> None:
        """Give the run its final identity, then give the outcome to those who joined."""
        run = view.run
        try:
            with self._events.isolated(Listener.RUN_IDENTITIES, run.id):
                run, _ = await self._identities.settle(run, context)
        finally:
            self._pending_creates.resolve(run.id, in_flight.Created(PredictionView(view.prediction, run), answer))

    async def close(self, grace_seconds: float) -> None:
        """Wait for what is in progress, for so long; the next start continues the rest."""
        await self._tasks.close(grace_seconds)
