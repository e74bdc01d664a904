"""Leading: a run is created upstream, once, and everybody who shares it hears what became of that.

See docs/architecture.md, Invariants 8 and Create.

The intent is on disk before upstream is asked, the run and its predictions are on disk before anybody sees an id. What
upstream may or may not have taken is looked for (`adoption.py`), never sent again.
"""

import logging
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus

import msgspec

from gateway.domain import documents, tickets
from gateway.domain.bypass import BypassReason
from gateway.domain.create_request import CreateCommand, CreateContext, Created
from gateway.domain.documents import Snapshot
from gateway.domain.ledger import Settlement
from gateway.domain.ports.clock import Clock
from gateway.domain.ports.observers import AdoptionObserver, PredictionObserver
from gateway.domain.ports.upstream import Upstream
from gateway.domain.records import Prediction, PredictionView, Run, RunState, Status
from gateway.domain.upstream_response import Answer
from gateway.errors import (
    Conflict,
    GatewayError,
    RateLimited,
    StoreUnavailable,
    UpstreamTokenRefused,
    UpstreamUnavailable,
    UpstreamUncertain,
)
from gateway.models.versions import VersionMap
from gateway.predictions import in_flight
from gateway.predictions.adoption import Adopter
from gateway.predictions.deadlines import Deadlines
from gateway.predictions.events import PredictionEvents
from gateway.predictions.in_flight import PendingCreates
from gateway.predictions.ports.sharing import CreateStore
from gateway.predictions.rules import run_times
from gateway.predictions.tracker import Tracker
from gateway.runtime.tasks import Tasks
from gateway.sharing.identity import Identity, IdentityService
from gateway.sharing.rules import caching
from gateway.throttling.ports import CreateLimiter

logger = logging.getLogger(__name__)

_RECORD_ATTEMPTS = 5
_RECORD_PAUSE = 0.2
_FORGET_PAUSE = 1.0


class RunCreator:
    """Creates runs, records them, and gives them their identity."""

    def __init__(
        self,
        store: CreateStore,
        upstream: Upstream,
        tracker: Tracker,
        identities: IdentityService,
        versions: VersionMap,
        deadlines: Deadlines,
        clock: Clock,
        events: PredictionEvents,
        observer: PredictionObserver,
        adoption_observer: AdoptionObserver,
        *,
        ticket_secret: bytes,
        adopt_wait_seconds: float,
        keep_until: Callable[[Run, bytes, float], float | None],
        settlement_of: Callable[[Run, Status, bytes, float], Settlement],
        create_limiter: CreateLimiter | None = None,
        internal_upstream: Upstream | None = None,
    ) -> None:
        self._store = store
        self._upstream = upstream
        self._keep_until = keep_until
        self._settlement_of = settlement_of
        self._turns = create_limiter
        self._tracker = tracker
        self._identities = identities
        self._versions = versions
        self._deadlines = deadlines
        self._clock = clock
        self._observer = observer
        self._ticket_secret = ticket_secret
        self._adopt_wait_seconds = adopt_wait_seconds
        self.pending_creates = PendingCreates()
        """The creates under way: whoever joins one waits there."""
        self.adopter = Adopter(
            store,
            internal_upstream or upstream,
            self.pending_creates,
            clock,
            adoption_observer,
            self._adopt,
            self._take_up,
        )
        self._events = events
        self._tasks = Tasks()

    def reconfigure(self, *, adopt_wait_seconds: float) -> None:
        """Wait for uncertain creates for another time."""
        self._adopt_wait_seconds = adopt_wait_seconds

    async def create_run(self, context: CreateContext, identity: Identity, begun: PredictionView) -> Created | Answer:
        """Ask upstream, once, and tell everybody who joined what became of it."""
        intent, began = begun.run, self._clock.monotonic()
        try:
            answer, began = await self._send(intent, context.command, identity)
            if not answer.is_ok:
                await self._discard(intent)
                self.pending_creates.resolve(intent.id, in_flight.Refused(answer))
                return answer
            news = documents.read_news(answer.body)
            run = await self._record(intent, news, begun.prediction, answer, context)
        except (RateLimited, UpstreamUnavailable, UpstreamTokenRefused) as exc:
            await self._discard(intent)
            self.pending_creates.resolve(intent.id, in_flight.NotSent(exc))
            raise
        except (UpstreamUncertain, StoreUnavailable, Conflict, ValueError) as exc:
            logger.warning("a create's outcome is unknown", extra={"run": intent.id, "reason": str(exc)})
            run = await self._found(intent)
            if run.fingerprint is None and run.provisional is not None:
                run = await self.settled(run, context)
            answer = Answer(201, {}, b"")
        view = PredictionView(await self._starter(run), run)
        decision: caching.Decision = caching.Miss(stored=identity.ttl_seconds > 0)
        if identity.fingerprint is None:
            decision = caching.Bypass(_reason(identity))
            self._observer.cache_bypassed(decision.reason)
        return Created(
            view=view,
            cache_status=caching.cache_status(decision),
            answer=answer,
            upstream_seconds=self._clock.monotonic() - began,
        )

    async def _send(self, intent: Run, command: CreateCommand, identity: Identity) -> tuple[Answer, float]:
        """Ask upstream when it is this create's turn; return its answer, and when it was asked.

        Upstream is asked again after a 429 only, which says that it took nothing (docs/replicate-api.md, Errors).
        """
        # A run that others may join must not end by one caller's deadline; the gateway keeps it for each.
        alone = command.cancel_after_header is not None and not identity.is_shared
        headers = {"Cancel-After": command.cancel_after_header or ""} if alone else None
        is_again = False
        while True:
            await self._turn(intent, command, is_again=is_again)
            began = self._clock.monotonic()
            answer = await self._upstream.send(command.operation, "POST", command.path, intent.request, headers=headers)
            if answer.status >= 500:
                raise UpstreamUncertain(f"Replicate answered {answer.status}.")
            if answer.status != HTTPStatus.TOO_MANY_REQUESTS or self._turns is None:
                return answer, began
            is_again = True

    async def _turn(self, intent: Run, command: CreateCommand, *, is_again: bool) -> None:
        """Wait for the team's turn at the account. If nobody wants the run any more by then, it is not created."""
        if self._turns is None:
            return
        waited = await self._turns.create_turn(command.operation, intent.team, command.hold_until, returned=is_again)
        pending = self.pending_creates.get(intent.id)
        if waited and command.has_left() and (pending is None or not pending.waiters):
            self._turns.give_back(command.operation)
            raise UpstreamUnavailable("The caller had left when it was its turn.")

    async def _found(self, intent: Run) -> Run:
        """Have an uncertain create looked for, and wait for it as long as a caller can be held."""
        pending = self.pending_creates.start(intent)
        self.adopter.search(intent)
        try:
            await self._store.mark_uncertain(intent.id, self._clock.now())
        except StoreUnavailable as exc:
            # A mark for people to read; the search does without, and those who joined must hear of its end.
            logger.warning("a create could not be marked uncertain", extra={"run": intent.id, "reason": exc.detail})
        match await pending.wait(self._adopt_wait_seconds):
            case in_flight.Created(run):
                return run
            case in_flight.NotSent(error):
                raise error
            case in_flight.Refused():
                raise UpstreamUncertain("Replicate refused the prediction.")

    async def _starter(self, run: Run) -> Prediction:
        view = await self._store.prediction(run.leader_id)
        if view is None:
            raise StoreUnavailable("The prediction was recorded and cannot be found.")
        return view.prediction

    async def _adopt(self, intent: Run, news: Snapshot) -> None:
        """Record a run that was found upstream as if its create had been answered."""
        known = await self._store.predictions_of(intent.id)
        starter = next((prediction for prediction in known if prediction.id == intent.leader_id), None)
        if starter is None:
            raise Conflict("The intent has been settled already.")
        await self._record(intent, news, starter, None, None)
        for prediction in known:
            # Those who had joined before a crash have deadlines of their own.
            if prediction.deadline_at is not None and prediction.id != starter.id:
                self._deadlines.add(prediction.deadline_at, prediction.id)

    async def _record(
        self, intent: Run, news: Snapshot, placeholder: Prediction, answer: Answer | None, context: CreateContext | None
    ) -> Run:
        """Put the run and its predictions on disk, then let everybody know and follow it."""
        now = self._clock.now()
        ended_at = (news.completed_at or now) if news.status.is_terminal else None
        run = msgspec.structs.replace(
            intent,
            state=RunState.ENDED if news.status.is_terminal else RunState.LIVE,
            upstream_id=news.upstream_id,
            status=news.status,
            document=news.document,
            stream_url=news.stream_url,
            live_at=now,
            ended_at=ended_at,
            leader_id=news.upstream_id,
            uncertain_at=None,
        )
        if ended_at is not None and news.status is Status.SUCCEEDED:
            run = msgspec.structs.replace(run, cache_until=self._keep_until(run, news.document, ended_at))
        created_at = news.created_at if news.created_at is not None else now
        delay = placeholder.deadline_at - placeholder.created_at if placeholder.deadline_at is not None else None
        starter = msgspec.structs.replace(
            placeholder,
            id=news.upstream_id,
            created_at=created_at,
            ticket=tickets.fingerprint(tickets.ticket(self._ticket_secret, news.upstream_id)),
            deadline_at=created_at + delay if delay is not None else None,
        )
        settlement = self._settlement_of(run, run.status, run.document, now) if run.status.is_terminal else None
        await self._patiently(run, starter, settlement)
        await self._go_on(run, starter)
        if run.provisional is not None and run.fingerprint is None:
            self._tasks.in_background(self._settle(run, answer, context))
        else:
            try:
                await self._learn(run, news)
            finally:
                self.pending_creates.resolve(run.id, in_flight.Created(run, answer))
        return run

    async def _go_on(self, run: Run, starter: Prediction) -> None:
        """Follow a run that is on disk, and let everybody know."""
        self._tracker.follow(run)
        if starter.deadline_at is not None:
            self._deadlines.add(starter.deadline_at, starter.id)
        self.note_created(PredictionView(starter, run))
        if run.status.is_terminal:
            await self._tracker.report_end(run)

    async def _take_up(self, run: Run) -> None:
        """Go on with a run whose record was written unheard."""
        await self._go_on(run, await self._starter(run))
        self.pending_creates.resolve(run.id, in_flight.Created(run, None))

    async def _patiently(self, run: Run, starter: Prediction, settlement: Settlement | None) -> None:
        """Record what upstream has created: the run exists whether or not the store answers."""
        for attempt in range(1, _RECORD_ATTEMPTS + 1):
            try:
                return await self._store.record_created(run, starter, settlement)
            except StoreUnavailable:
                if attempt == _RECORD_ATTEMPTS:
                    raise
                await self._clock.sleep(_RECORD_PAUSE * attempt)
        return None

    async def _learn(self, run: Run, news: Snapshot) -> None:
        if news.version is not None and news.version in run.target:
            # An answer for another version than was asked for is an override of upstream's (docs/replicate-api.md,
            # Prediction object); it teaches nothing.
            await self._versions.learn(news.version, news.model)

    def note_created(self, view: PredictionView) -> None:
        """Count a prediction that has come about, and let others know of it."""
        self._observer.prediction_created(
            view.prediction.team, run_times.name_of(view.run.target), view.prediction.source
        )
        self._events.on_prediction_created(view)

    async def _settle(self, run: Run, answer: Answer | None, context: CreateContext | None) -> None:
        """Settle the run's identity, then tell those who joined; a run that was found is left for them to settle."""
        newest = run
        try:
            if context is not None:
                newest = await self.settled(run, context)
        except GatewayError as exc:
            logger.warning("a run's identity could not be settled", extra={"run": run.id, "reason": exc.detail})
        finally:
            self.pending_creates.resolve(run.id, in_flight.Created(newest, answer))

    async def settled(self, run: Run, context: CreateContext) -> Run:
        """Now that a bare version's model is known, give the run the identity of a request that is equal to its own."""
        await self._learn(run, documents.read_news(run.document))
        if run.fingerprint is not None or run.provisional is None:
            return run
        identity = await self._identities.of_request(context)
        fingerprint = identity.fingerprint
        for _ in range(2):
            newest = await self._store.run(run.id) or run
            keep_until = None
            if newest.status is Status.SUCCEEDED and newest.ended_at is not None:
                named = msgspec.structs.replace(newest, fingerprint=fingerprint)
                keep_until = self._keep_until(named, newest.document, newest.ended_at)
            await self._store.settle_identity(run.id, fingerprint, keep_until, reason=identity.reason)
            # It may have ended in between, without a word on how long it is kept.
        newest = await self._store.run(run.id) or run
        self._tracker.refresh(newest)
        return newest

    async def _discard(self, intent: Run) -> None:
        """Forget an intent of which nothing came; while the store is away, later."""
        try:
            await self._store.discard_intent(intent.id)
        except StoreUnavailable:
            self.forget(intent.id)

    def forget(self, run_id: str) -> None:
        """Forget an intent in the background: it may be recorded although nobody heard of it, and nothing was sent."""
        self._tasks.in_background(self._forget(run_id))

    async def _forget(self, run_id: str) -> None:
        """Forget an intent as soon as the store answers; otherwise equal requests would wait for it in vain."""
        while True:
            await self._clock.sleep(_FORGET_PAUSE)
            with suppress(StoreUnavailable):
                return await self._store.discard_intent(run_id)

    async def close(self, grace_seconds: float) -> None:
        """Finish what is under way, within reason; what is left is taken up by the next start."""
        await self._tasks.close(grace_seconds)
        await self.adopter.close()


def _reason(identity: Identity) -> BypassReason:
    return identity.reason if isinstance(identity.reason, BypassReason) else BypassReason.MODEL_UNKNOWN
