"""Creates: one request's way to a prediction, on a run of its own or on one that it shares.

See docs/architecture.md, Create.

The order is the promise. What the caller may do is checked first. Then one atomic step of the store either answers from
a finished run, joins an open one, or records the intent to create a run, on disk, before upstream is asked
(`leading.py`). Nobody sees an id that is not on disk.
"""

import hashlib
import math
from collections.abc import Callable
from typing import Literal

import msgspec

from gateway.access.policy import Policy
from gateway.domain import admission_record, ids, tickets
from gateway.domain.cache_directives import Directives
from gateway.domain.create_request import CreateCommand, CreateContext, Created, Estimate, RetryCreate
from gateway.domain.ports.clock import Clock
from gateway.domain.ports.observers import PredictionObserver
from gateway.domain.quota import ReservationRequest
from gateway.domain.records import Begin, Begun, Idempotency, Outcome, Prediction, PredictionView, Run, RunState, Source
from gateway.domain.teams import Caller
from gateway.domain.upstream_response import Answer
from gateway.errors import (
    Conflict,
    Forbidden,
    GatewayError,
    NotCached,
    PriceUnknown,
    StoreUnavailable,
    Unprocessable,
    UpstreamUnavailable,
)
from gateway.money.limit_queue import LimitQueue, QueueEntry, WaitForLimit, allowances_of
from gateway.money.ports import MoneyObserver
from gateway.money.pricing import Pricing
from gateway.predictions import in_flight, upstream_webhooks
from gateway.predictions.deadlines import Deadlines
from gateway.predictions.ports.sharing import CreateStore
from gateway.predictions.run_creator import RunCreator
from gateway.predictions.tracker import Tracker
from gateway.runtime.random_bytes import RandomPool
from gateway.runtime.tasks import Tasks
from gateway.sharing.identity import Identity, IdentityService
from gateway.sharing.rules import caching

IDEMPOTENCY_SECONDS = 24 * 3600.0
# The first attempt, one more where nothing was sent, and one after parting from a run that was not the same after all.
_ATTEMPTS = 3
_ID_BYTES = 17
_RUN_ID_BYTES = 10


class CreateService:
    """Brings predictions about."""

    def __init__(
        self,
        store: CreateStore,
        run_creator: RunCreator,
        tracker: Tracker,
        policy: Policy,
        identities: IdentityService,
        deadlines: Deadlines,
        clock: Clock,
        observer: PredictionObserver,
        *,
        ticket_secret: bytes,
        ticket_ttl_seconds: float,
        adopt_wait_seconds: float,
        pricing: Pricing,
        limit_queue: LimitQueue,
        money: MoneyObserver,
        webhook_of: Callable[[str], str | None] = lambda _: None,
    ) -> None:
        self._store = store
        self._run_creator = run_creator
        self._tracker = tracker
        self._policy = policy
        self._identities = identities
        self._deadlines = deadlines
        self._clock = clock
        self._observer = observer
        self._ticket_secret = ticket_secret
        self._ticket_ttl_seconds = ticket_ttl_seconds
        self._adopt_wait_seconds = adopt_wait_seconds
        self._pricing = pricing
        self._admission = limit_queue
        self._money = money
        self._webhook_of = webhook_of
        self._randomness = RandomPool()
        self._tasks = Tasks()

    def reconfigure(self, *, ticket_ttl_seconds: float, adopt_wait_seconds: float) -> None:
        """Go by other times, for what comes from now on."""
        self._ticket_ttl_seconds = ticket_ttl_seconds
        self._adopt_wait_seconds = adopt_wait_seconds

    async def create(self, caller: Caller, command: CreateCommand) -> Created | Answer:
        """Bring a prediction about. What upstream refuses is returned as upstream's answer.

        The work goes on when the caller leaves. While a rate is in the way, a create waits for a time. Raise
        `Forbidden`, `Unprocessable`, `Conflict` (an idempotency key whose first request is under way), `NotCached`,
        `BudgetExceeded`, `RateLimited`, `StoreUnavailable` and the upstream errors; after `UpstreamUncertain` the run
        may exist, and is being looked for.
        """
        await self._policy.check_target(caller, command.target)
        if command.body.destination is not None:
            self._policy.check_model(caller, command.body.destination)
        body, files = await self._policy.translate_files(caller, command.body, command.own_origins)
        target = await self._identities.named(command.target)
        command = msgspec.structs.replace(command, body=body, target=target)
        context = CreateContext(caller, command, files, self._price(caller, command))
        demand = context.price if isinstance(context.price, ReservationRequest) else None
        with self._admission.place(caller, command, demand) as place:
            return await self._in_place(context, place)

    async def _in_place(self, context: CreateContext, place: QueueEntry) -> Created | Answer:
        command, tried, has_parted = context.command, 0, False
        while True:
            tried += 1
            identity = await self._identities.of_request(context)
            if has_parted:
                # Upstream's answer may not name the model (docs/replicate-api.md, Prediction object: `hidden`, an
                # override): to wait for another's would be to part again, until the attempts are used up.
                identity = msgspec.structs.replace(identity, provisional=None)
            if command.directives.only_if_cached and not identity.is_shared:
                raise NotCached(f"Only a shared result was wanted, and this request has none: {identity.reason}.")
            try:
                return await self._tasks.to_the_end(self._attempt(context, identity, place))
            except WaitForLimit as held:
                # Nothing is recorded, so a caller who leaves meanwhile leaves nothing behind.
                await place.wait(held.refused)
                tried -= 1
            except RetryCreate as again:
                if tried == _ATTEMPTS or (again.error is not None and tried > 1):
                    raise again.error or UpstreamUnavailable("The prediction could not be created.") from None
                has_parted = has_parted or again.error is None

    async def estimate(self, caller: Caller, command: CreateCommand) -> Estimate:
        """Say what a create would come to now, and why. Nothing is recorded, nothing sent but reads of metadata."""
        try:
            await self._policy.check_target(caller, command.target)
        except Forbidden as exc:
            return Estimate(result="refused", reason=exc.detail, refused_by="models")
        body, files = await self._policy.translate_files(caller, command.body, command.own_origins)
        target = await self._identities.named(command.target)
        command = msgspec.structs.replace(command, body=body, target=target)
        identity = await self._identities.of(caller, command.kind, target, body, command.directives, files)
        run = await self._shared_run(identity, command.directives)
        result: Literal["hit", "join", "run", "refused"] = "run"
        refused_by, price = None, self._price(caller, command)
        microusd = price.microusd if isinstance(price, ReservationRequest) else None
        if run is not None:
            result, microusd = "hit" if run.state is RunState.ENDED else "join", 0
        elif (refused_by := await self._refused_by(caller, command, price)) is not None:
            result = "refused"
        return Estimate(
            result=result,
            deterministic=identity.fingerprint is not None,
            reason=identity.reason,
            fingerprint=identity.fingerprint,
            refused_by=refused_by,
            microusd=microusd,
        )

    def _price(self, caller: Caller, command: CreateCommand) -> ReservationRequest | PriceUnknown:
        """Say what leading asks for: the run's estimate, within everybody's limits under whom it is counted."""
        try:
            amounts = self._pricing.estimate(command.target.name, command.body.input)
        except PriceUnknown as exc:
            return exc
        return ReservationRequest(
            amounts.microusd, amounts.milliseconds, allowances_of(caller, _user(caller, command), command.address)
        )

    async def _refused_by(
        self, caller: Caller, command: CreateCommand, price: ReservationRequest | PriceUnknown
    ) -> str | None:
        if command.directives.only_if_cached:
            return "only-if-cached"
        if isinstance(price, PriceUnknown):
            return "prices.unknown"
        refused = await self._admission.foresee(price, caller.team.max_wait_seconds)
        return None if refused is None else refused.standing.name

    async def _shared_run(self, identity: Identity, wishes: Directives) -> Run | None:
        if identity.fingerprint is None:
            return None
        now = self._clock.now()
        # Nothing has ended after the end of time: a run in flight alone is wanted.
        since = math.inf if wishes.no_cache else _oldest_end(identity, wishes, now)
        return await self._store.shared_run(identity.fingerprint, identity.provisional, now, since)

    async def _attempt(self, context: CreateContext, identity: Identity, place: QueueEntry) -> Created | Answer:
        begin = self._begin(context.caller, context.command, identity)
        begun = await self._share_or_lead(begin, context, place)
        if begun.outcome is not Outcome.REFUSED:
            # What its limits allow next need not wait for what becomes of it upstream.
            place.leave()
        match begun.outcome:
            case Outcome.STARTED:
                return await self._lead(context, identity, _sight(begun))
            case Outcome.HIT:
                self._money.saved(context.caller.team.name, "hit", begun.saved_microusd)
                return self._hit(_sight(begun))
            case Outcome.JOINED:
                return await self._join(context, identity, _sight(begun))
            case Outcome.REPLAYED:
                return await self._replay(context, identity, _sight(begun))
            case Outcome.PENDING:
                raise Conflict("The first request with this Idempotency-Key is still under way.", retry_after=1)
            case Outcome.MISMATCHED:
                text = "this key was used for another request"
                raise Unprocessable.field("Idempotency-Key", text, "idempotency_key_reused")
            case Outcome.NOTHING:
                raise NotCached("Only a shared result was wanted, and there is none.")
            case Outcome.REFUSED:
                assert begun.refusal is not None
                assert isinstance(context.price, ReservationRequest)
                if begun.refusal.standing.sort.is_budget:
                    raise self._admission.refusal(begun.refusal, context.price, context.caller.team.name)
                raise WaitForLimit(begun.refusal)

    async def _lead(self, context: CreateContext, identity: Identity, begun: PredictionView) -> Created | Answer:
        created: Created | Answer | None = None
        try:
            created = await self._run_creator.create_run(context, identity, begun)
            return created
        finally:
            if not isinstance(created, Created):
                # It came to nothing, and what was reserved for it is free again.
                self._admission.freed(context.caller.team.name)

    def _begin(self, caller: Caller, command: CreateCommand, identity: Identity) -> Begin:
        now = self._clock.now()
        run_id = ids.run_id(self._randomness.bytes(_RUN_ID_BYTES), now)
        run = Run(
            id=run_id,
            kind=command.kind,
            team=caller.team.name,
            key_id=caller.key_id,
            target=command.target.name,
            path=command.path,
            request=command.body.for_upstream(self._webhook_of(run_id), upstream_webhooks.EVENTS),
            intended_at=now,
            fingerprint=identity.fingerprint,
            provisional=identity.provisional,
        )
        prediction_id = ids.prediction_id(self._randomness.bytes(_ID_BYTES))
        prediction = Prediction(
            id=prediction_id,
            run_id=run.id,
            kind=command.kind,
            team=caller.team.name,
            key_id=caller.key_id,
            user=_user(caller, command),
            source=Source.MISS if identity.is_shared else Source.BYPASS,
            created_at=now,
            ticket=tickets.fingerprint(tickets.ticket(self._ticket_secret, prediction_id)),
            ticket_expires_at=now + self._ticket_ttl_seconds,
            ticket_origins=caller.origins,
            webhook=command.body.webhook,
            webhook_events_filter=command.body.webhook_events_filter,
            deadline_at=now + command.cancel_after if command.cancel_after is not None else None,
            reason=str(identity.reason),
        )
        wishes = command.directives
        return Begin(
            run=run,
            prediction=prediction,
            now=now,
            may_hit=identity.fingerprint is not None and not wishes.no_cache,
            ended_since=_oldest_end(identity, wishes, now),
            may_join=identity.is_shared,
            idempotency=self._idempotency(command, now),
        )

    def _idempotency(self, command: CreateCommand, now: float) -> Idempotency | None:
        if command.idempotency_key is None:
            return None
        parts = (command.path.encode(), command.body.for_upstream(), (command.body.webhook or "").encode())
        digest = hashlib.sha256(b"\0".join(parts)).hexdigest()
        return Idempotency(command.idempotency_key, digest, now + IDEMPOTENCY_SECONDS)

    async def _share_or_lead(self, begin: Begin, context: CreateContext, place: QueueEntry) -> Begun:
        """Share if that can be; else lead, if nobody waits who came before.

        Sharing alone needs no place and need not wait for the disk, so it is tried by itself first.
        """
        may_lead = not context.command.directives.only_if_cached
        if begin.may_join or begin.idempotency is not None:
            begun = await self._store.begin(msgspec.structs.replace(begin, may_lead=False))
            if begun.outcome is not Outcome.NOTHING or not may_lead:
                return begun
        if isinstance(context.price, PriceUnknown):
            raise context.price
        place.check_turn()
        let_in = admission_record.admitted(context.price, place.waited_seconds, place.waited_for)
        begin = msgspec.structs.replace(begin, demand=context.price, admitted=let_in)
        # The flight stands before the intent does: whoever joins the intent finds it.
        self._run_creator.pending_creates.start(begin.run)
        try:
            begun = await self._store.begin(begin)
        except BaseException as exc:
            self._run_creator.pending_creates.resolve(begin.run.id, in_flight.NotSent(_as_gateway_error(exc)))
            # It may be recorded although nobody heard of it. Nothing was sent.
            self._run_creator.forget(begin.run.id)
            raise
        if begun.outcome is not Outcome.STARTED:
            self._run_creator.pending_creates.resolve(
                begin.run.id, in_flight.NotSent(UpstreamUnavailable("Another request leads."))
            )
        return begun

    def _hit(self, view: PredictionView) -> Created:
        self._run_creator.note_created(view)
        self._observer.prediction_finished(view.prediction.team, view.run.status)
        left = (view.run.cache_until or 0.0) - self._clock.now()
        return Created(view=view, cache_status=caching.cache_status(caching.Hit(max(0, int(left)))))

    async def _replay(self, context: CreateContext, identity: Identity, view: PredictionView) -> Created | Answer:
        """Answer with the first request's prediction."""
        if view.prediction.source is Source.JOINED and view.run.fingerprint is None:
            # The first request has not been told yet whether it may stay, or a crash came before that.
            joined = await self._join(context, identity, view)
            if not isinstance(joined, Created):
                return joined
            view = joined.view
        status = f"{caching.CACHE_NAME}; hit; detail=idempotency-key"
        return Created(view=view, cache_status=status, is_replay=True)

    async def _join(self, context: CreateContext, identity: Identity, view: PredictionView) -> Created | Answer:
        """Stand beside the run's leader and wait for what becomes of its create."""
        run = view.run
        pending = self._run_creator.pending_creates.get(run.id)
        if pending is None and run.state is RunState.INTENDED:
            # Left behind by a step whose outcome was not heard. Upstream's list tells.
            self._run_creator.adopter.search(run)
            pending = self._run_creator.pending_creates.start(run)
        if pending is not None:
            match await pending.wait(self._adopt_wait_seconds):
                case in_flight.Created(resolved):
                    run = resolved
                case in_flight.Refused(answer):
                    return answer
                case in_flight.NotSent(error):
                    raise RetryCreate(error)
        if run.fingerprint is None or run.fingerprint != identity.fingerprint:
            # Joined before its model was known; now the schema decides (docs/architecture.md, Create). A run that
            # outlived the process which began it may have taught nothing yet and be without its identity: an equal
            # request gives it.
            run = await self._run_creator.settled(run, context)
            identity = await self._identities.of_request(context)
            if run.fingerprint is None or run.fingerprint != identity.fingerprint:
                await self._leave(view.prediction.id)
                raise RetryCreate
        view = PredictionView(view.prediction, run)
        self._run_creator.note_created(view)
        if view.prediction.deadline_at is not None:
            self._deadlines.add(view.prediction.deadline_at, view.prediction.id)
        return Created(view=view, cache_status=caching.cache_status(caching.Join()))

    async def _leave(self, prediction_id: str) -> None:
        """Take a prediction out of a run that was not the same after all; nobody else may be left in it."""
        cancellation = await self._store.cancel(prediction_id, self._clock.now())
        await self._store.detach(prediction_id)
        if cancellation is not None and cancellation.is_last:
            self._tracker.cancel_asked(cancellation.view.run)

    async def close(self, grace_seconds: float) -> None:
        """Finish the creates that are under way, within reason; what is left is taken up by the next start."""
        await self._tasks.close(grace_seconds)


def _oldest_end(identity: Identity, wishes: Directives, now: float) -> float:
    """Return when a finished run must have ended to answer: as the caller wishes, and as the config has it by now."""
    ages = (identity.ttl_seconds, wishes.max_age)
    return now - min(age for age in ages if age is not None)


def _user(caller: Caller, command: CreateCommand) -> str | None:
    """Say for whom a create is: what a page says of itself does not count."""
    return caller.user if caller.is_public else caller.user or command.user


def _sight(begun: Begun) -> PredictionView:
    assert begun.prediction is not None
    assert begun.run is not None
    return PredictionView(begun.prediction, begun.run)


def _as_gateway_error(exc: BaseException) -> GatewayError:
    return exc if isinstance(exc, GatewayError) else StoreUnavailable("The store did not answer.", retry_after=1)
