"""Creates: from one request to a prediction, on a run that it shares or on a run of its own.

See docs/architecture.md, Create.

The caller's rights are checked first. A probable hit is recorded with others (`hits.py`). Else `share` looks for a run
that exists. Only if there is none, `start` reserves the money and records the intent, on disk, before upstream is asked
(`run_creator.py`). An id is shown only after it is on disk.
"""

from typing import assert_never

from msgspec.structs import replace

from gateway.access.policy import Policy
from gateway.domain import admission_record
from gateway.domain.create_request import CreateCommand, CreateContext, Created
from gateway.domain.ports.clock import Clock
from gateway.domain.ports.observers import LimitObserver, PredictionObserver
from gateway.domain.records import PredictionView, Run, Source
from gateway.domain.teams import Caller, Teams
from gateway.domain.upstream_response import Answer
from gateway.errors import (
    CallerLeft,
    Conflict,
    GatewayError,
    NotCached,
    StoreUnavailable,
    Unprocessable,
    UpstreamUnavailable,
)
from gateway.money.limit_queue import LimitQueue, QueueEntry, WaitForLimit
from gateway.money.pricing import Pricing
from gateway.predictions import in_flight
from gateway.predictions.hits import HitRecorder
from gateway.predictions.joining import JoinService, RetryCreate
from gateway.predictions.new_records import NewRecords, context_of, reservation_of
from gateway.predictions.outgoing import OutgoingBodies
from gateway.predictions.ports.outputs import OutputInputs
from gateway.predictions.ports.sharing import (
    CreateStore,
    Hit,
    Joined,
    Mismatched,
    ModelNamed,
    Nothing,
    Pending,
    Refused,
    Replayed,
    Shared,
    ShareRequest,
    Started,
    Unidentified,
)
from gateway.predictions.run_creator import MAY_NOT_CREATE, RunCreator
from gateway.runtime.live import LiveSettings
from gateway.runtime.pauses import LARGE, off_the_loop
from gateway.runtime.tasks import Tasks
from gateway.sharing.identity import Identity, IdentityService
from gateway.sharing.rules import caching

# The first attempt, one more if nothing was sent, and one more after the prediction was detached from a run.
_ATTEMPTS = 3


class _Attempts:
    """What the attempts of one create share."""

    def __init__(self, context: CreateContext) -> None:
        self.context = context
        self.place: QueueEntry | None = None
        """Its place among the creates that wait for a limit, from its first try to start a run, or its first wait."""
        self._failed = 0
        self.has_detached = False
        """Whether the prediction was detached from another request's run."""

    def take_place(self, limit_queue: LimitQueue) -> QueueEntry:
        """Return its place in the queue of limits."""
        if self.place is None:
            self.place = QueueEntry(limit_queue, self.context.caller, self.context.command)
        return self.place

    def take_priced_place(self, limit_queue: LimitQueue, user: str | None, pricing: Pricing) -> QueueEntry:
        """Return its place in the queue of limits, with the price of its run for a user. Raise `PriceUnknown`."""
        place = self.take_place(limit_queue)
        if not place.is_priced:
            place.price(reservation_of(self.context, user, pricing))
        return place

    def use_limits_of(self, teams: Teams) -> None:
        """Try again with the limits and prices of the current config, if it was reloaded during a wait."""
        caller = self.context.caller
        team = teams.get(caller.team.name)
        if team is not None and team is not caller.team:
            self.context = replace(self.context, caller=replace(caller, team=team))
            if self.place is not None:
                self.place.is_priced = False

    def leave_queue(self) -> None:
        """Let the next create try: its limits do not depend on what this one does upstream."""
        if self.place is not None and self.place.line is not None:
            self.place.leave()

    def count_failure(self, retry: RetryCreate) -> None:
        """Raise the error of a failed attempt if there may not be another one."""
        self._failed += 1
        if self._failed == _ATTEMPTS or (retry.error is not None and self._failed > 1):
            # Another caller who left has an error of its own, which would not be true for this one.
            error = None if isinstance(retry.error, CallerLeft) else retry.error
            raise error or UpstreamUnavailable("The prediction could not be created.")
        self.has_detached = self.has_detached or retry.error is None


class CreateService:
    """Creates predictions."""

    def __init__(
        self,
        store: CreateStore,
        run_creator: RunCreator,
        joins: JoinService,
        policy: Policy,
        identities: IdentityService,
        clock: Clock,
        observer: PredictionObserver,
        *,
        hits: HitRecorder,
        records: NewRecords,
        outputs: OutputInputs,
        bodies: OutgoingBodies,
        pricing: Pricing,
        limit_queue: LimitQueue,
        money: LimitObserver,
        teams: LiveSettings[Teams],
    ) -> None:
        self._store = store
        self._run_creator = run_creator
        self._joins = joins
        self._policy = policy
        self._identities = identities
        self._clock = clock
        self._observer = observer
        self._hits = hits
        self._records = records
        self._outputs = outputs
        self._bodies = bodies
        self._pricing = pricing
        self._limit_queue = limit_queue
        self._money = money
        self._teams = teams
        self._tasks = Tasks()

    async def create(self, caller: Caller, command: CreateCommand) -> Created | Answer:
        """Create a prediction. What upstream refuses is returned as upstream's answer.

        The work goes on when the caller is cancelled, except while a rate or a concurrency limit makes it wait. An
        expected hit is recorded even then; if it turns out to be none, nothing is begun. Raise `Forbidden`,
        `Unprocessable`, `Conflict` (the first request with this idempotency key is in progress), `NotCached`,
        `PriceUnknown`, `BudgetExceeded`, `RateLimited`, `StoreUnavailable` and the upstream errors; after
        `UpstreamUncertain` the run may exist, and is searched for.
        """
        await self._policy.check_target(caller, command.target)
        if command.body.destination is not None:
            self._policy.check_model(caller, command.body.destination)
        context = await context_of(caller, command, self._policy, self._outputs)
        context, identity, request = await self._identify(context)
        if self._hits.expects(request):
            # No task: the hit is recorded whether or not this caller waits. If it is none, nothing was begun.
            hit = await self._hits.record(request)
            if hit is not None:
                return _created(hit, request.now)
        return await self._create(context, identity, request)

    async def _create(self, context: CreateContext, identity: Identity, request: ShareRequest) -> Created | Answer:
        """Create a prediction, in several attempts if need be."""
        attempts = _Attempts(context)
        try:
            while True:
                if attempts.context.command.directives.only_if_cached and not identity.is_shared:
                    raise NotCached(f"The request is only-if-cached and cannot be shared: {identity.reason}.")
                outcome = await self._tasks.run_to_completion(self._attempt(attempts, identity, request), "create")
                match outcome:
                    case WaitForLimit(refused):
                        # Nothing is recorded, so a caller who leaves meanwhile leaves nothing behind.
                        assert attempts.place is not None
                        await attempts.place.wait(refused)
                        attempts.use_limits_of(self._teams.value)
                    case ModelNamed():
                        # Known from now on, so this happens once.
                        pass
                    case RetryCreate():
                        attempts.count_failure(outcome)
                    case Created() | Answer():
                        return outcome
                    case never:
                        assert_never(never)
                attempts.context, identity, request = await self._identify(
                    attempts.context, has_detached=attempts.has_detached
                )
        finally:
            attempts.leave_queue()

    async def _identify(
        self, context: CreateContext, *, has_detached: bool = False
    ) -> tuple[CreateContext, Identity, ShareRequest]:
        """Return the request with its model if that is known, its identity, and what it asks of the store."""
        if context.command.target.model is None:
            context = await self._identities.named(context)
        identity = await self._identities.of(context)
        given = context.command.body.input
        if context.command.idempotency_key is not None and len(given) > LARGE:
            # Written now, and hashed below: each takes a while.
            await off_the_loop(given, lambda: context.plain_body)
        if has_detached:
            # Upstream's answer may not name the model (docs/replicate-api.md, Prediction object: `hidden`, an
            # override): waiting for another create's answer again would end in another detach, until the attempts are
            # used up.
            identity = replace(identity, provisional=None)
        return context, identity, self._records.share_request(context, identity)

    async def _attempt(
        self, attempts: _Attempts, identity: Identity, request: ShareRequest
    ) -> Created | Answer | WaitForLimit | RetryCreate | ModelNamed:
        is_shareable = request.may_join is not None or request.idempotency is not None
        if request.webhook_place is not None and request.idempotency is None and self._limit_queue.waiting:
            # Else a hit could overtake a create that waits for a place. A repeated request needs no place.
            behind = attempts.take_place(self._limit_queue).check_turn(for_webhook=True)
            if behind is not None:
                return behind
        match await self._store.share(request) if is_shareable else Nothing():
            case Nothing():
                if attempts.context.command.directives.only_if_cached:
                    raise NotCached("The request is only-if-cached, and no run can be shared.")
                return await self._start(attempts, identity, request)
            case Refused(refusal):
                attempts.take_place(self._limit_queue)
                return WaitForLimit(refusal)
            case shared:
                return await self._answer(attempts, identity, shared)

    async def _answer(
        self, attempts: _Attempts, identity: Identity, outcome: Shared
    ) -> Created | Answer | RetryCreate | ModelNamed:
        """Answer a request that needs no run of its own."""
        if isinstance(outcome, ModelNamed):
            return outcome
        attempts.leave_queue()
        match outcome:
            case Hit():
                return self._hit(outcome)
            case Joined(view):
                return await self._join(attempts.context, identity, view)
            case Unidentified(run):
                await self._joins.identify(attempts.context, run)
                return RetryCreate()
            case Replayed(view):
                return await self._replay(attempts.context, identity, view)
            case Pending():
                raise Conflict("The first request with this Idempotency-Key is still in progress.", retry_after=1)
            case Mismatched():
                text = "this key was used for another request"
                raise Unprocessable.field("Idempotency-Key", text, "idempotency_key_reused")
            case never:
                assert_never(never)

    def _hit(self, hit: Hit) -> Created:
        view = hit.view
        self._hits.remember(view.run, is_large=view.left_out > 0)
        self._money.saved(view.prediction.team, "hit", hit.saved_microusd)
        self._run_creator.recorder.announce(view)
        self._observer.prediction_finished(view.prediction.team, view.run.status)
        return _created(hit, self._clock.now())

    async def _join(
        self, context: CreateContext, identity: Identity, view: PredictionView
    ) -> Created | Answer | RetryCreate:
        match await self._joins.complete(context, identity, view):
            case PredictionView() as joined:
                return Created(view=joined, cache_status=caching.cache_status(caching.Join()))
            case other:
                return other

    async def _replay(
        self, context: CreateContext, identity: Identity, view: PredictionView
    ) -> Created | Answer | RetryCreate:
        """Answer with the first request's prediction."""
        if view.prediction.source is Source.JOINED:
            joined = await self._joins.complete_repeated(context, identity, view)
            if not isinstance(joined, PredictionView):
                return joined
            view = joined
        status = f"{caching.CACHE_NAME}; hit; detail=idempotency-key"
        return Created(view=view, cache_status=status, is_replay=True)

    async def _start(
        self, attempts: _Attempts, identity: Identity, request: ShareRequest
    ) -> Created | Answer | WaitForLimit | RetryCreate | ModelNamed:
        """Start a run, unless a create that came earlier waits for one of the same limits."""
        if (may_start := self._run_creator.may_start) is not None and not may_start():
            # Its intent would be another node's before it could be discarded, and hold money for minutes.
            raise UpstreamUnavailable(MAY_NOT_CREATE, retry_after=1)
        place = attempts.take_priced_place(self._limit_queue, request.prediction.user, self._pricing)
        if (behind := place.check_turn()) is not None:
            return behind
        outgoing = await self._bodies.prepare(attempts.context, identity)
        run, body = self._records.intent(attempts.context, identity, outgoing, request.now)
        admitted = admission_record.admitted(place.demand, attempts.context.command.hold)
        pending_creates = self._run_creator.pending_creates
        # The pending create exists before the intent does: whoever joins the intent finds it.
        pending_creates.start(run)
        try:
            outcome = await self._store.start(request, run, reservation=place.demand, admitted=admitted)
        except BaseException as exc:
            self._give_up(run, exc)
            raise
        if isinstance(outcome, Started):
            attempts.leave_queue()
            created: Created | Answer | None = None
            try:
                created = await self._run_creator.create_run(attempts.context, identity, outcome.view, body, outgoing)
                return created
            finally:
                if not isinstance(created, Created):
                    # There is no run, and what was reserved for it is free again.
                    self._limit_queue.freed(run.team)
        pending_creates.resolve(run.id, in_flight.NotSent(UpstreamUnavailable("Another request started the run.")))
        if isinstance(outcome, Refused):
            if outcome.refusal.status.kind.is_budget:
                raise self._limit_queue.refusal(outcome.refusal, place.demand, run.team)
            return WaitForLimit(outcome.refusal)
        return await self._answer(attempts, identity, outcome)

    def _give_up(self, run: Run, exc: BaseException) -> None:
        """Discard an intent that may be recorded although the store reported a failure."""
        error = exc if isinstance(exc, GatewayError) else StoreUnavailable("The store did not answer.", retry_after=1)
        self._run_creator.pending_creates.resolve(run.id, in_flight.NotSent(error))
        self._run_creator.discard_later(run.id, error)

    async def close(self, grace_seconds: float) -> None:
        """Wait for the creates in progress, for so long; the next start continues the rest."""
        ends_at = self._clock.monotonic() + grace_seconds
        await self._hits.close(grace_seconds)
        await self._tasks.close(max(0.0, ends_at - self._clock.monotonic()))


def _created(hit: Hit, now: float) -> Created:
    left = (hit.view.run.cache_until or 0.0) - now
    return Created(view=hit.view, cache_status=caching.cache_status(caching.Hit(max(0, int(left)))))
