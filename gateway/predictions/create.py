"""Creates: one request's way to a prediction, on a run of its own or on one that it shares (design 3).

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
from gateway.domain.create_request import Again, Asked, Created, Estimate, Order
from gateway.domain.ports.clock import Clock
from gateway.domain.ports.observers import PredictionObserver
from gateway.domain.quota import Demand
from gateway.domain.records import Begin, Begun, Idempotency, Outcome, Prediction, Run, RunState, Sight, Source
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
from gateway.money.limit_queue import Admission, Held, Place, allowances_of
from gateway.money.ports import MoneyObserver
from gateway.money.pricing import Pricing
from gateway.predictions import in_flight, upstream_webhooks
from gateway.predictions.deadlines import Deadlines
from gateway.predictions.ports.sharing import CreateStore
from gateway.predictions.run_creator import Leader
from gateway.predictions.tracker import Tracker
from gateway.runtime.random_bytes import Randomness
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
        leader: Leader,
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
        admission: Admission,
        money: MoneyObserver,
        webhook_of: Callable[[str], str | None] = lambda _: None,
    ) -> None:
        self._store = store
        self._leader = leader
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
        self._admission = admission
        self._money = money
        self._webhook_of = webhook_of
        self._randomness = Randomness()
        self._tasks = Tasks()

    def reconfigure(self, *, ticket_ttl_seconds: float, adopt_wait_seconds: float) -> None:
        """Go by other times, for what comes from now on."""
        self._ticket_ttl_seconds = ticket_ttl_seconds
        self._adopt_wait_seconds = adopt_wait_seconds

    async def create(self, caller: Caller, order: Order) -> Created | Answer:
        """Bring a prediction about. What upstream refuses is returned as upstream's answer.

        The work goes on when the caller leaves. While a rate is in the way, a create waits for a time. Raise
        `Forbidden`, `Unprocessable`, `Conflict` (an idempotency key whose first request is under way), `NotCached`,
        `BudgetExceeded`, `RateLimited`, `StoreUnavailable` and the upstream errors; after `UpstreamUncertain` the run
        may exist, and is being looked for.
        """
        await self._policy.check_target(caller, order.target)
        if order.body.destination is not None:
            self._policy.check_model(caller, order.body.destination)
        body, files = await self._policy.translate_files(caller, order.body, order.own_origins)
        target = await self._identities.named(order.target)
        order = msgspec.structs.replace(order, body=body, target=target)
        asked = Asked(caller, order, files, self._price(caller, order))
        demand = asked.price if isinstance(asked.price, Demand) else None
        with self._admission.place(caller, order, demand) as place:
            return await self._in_place(asked, place)

    async def _in_place(self, asked: Asked, place: Place) -> Created | Answer:
        order, tried, has_parted = asked.order, 0, False
        while True:
            tried += 1
            identity = await self._identities.of_request(asked)
            if has_parted:
                # Upstream's answer may not name the model (`hidden`, an override, ref 2): to wait for another's would
                # be to part again, until the attempts are used up.
                identity = msgspec.structs.replace(identity, provisional=None)
            if order.directives.only_if_cached and not identity.is_shared:
                raise NotCached(f"Only a shared result was wanted, and this request has none: {identity.reason}.")
            try:
                return await self._tasks.to_the_end(self._attempt(asked, identity, place))
            except Held as held:
                # Nothing is recorded, so a caller who leaves meanwhile leaves nothing behind.
                await place.wait(held.refused)
                tried -= 1
            except Again as again:
                if tried == _ATTEMPTS or (again.error is not None and tried > 1):
                    raise again.error or UpstreamUnavailable("The prediction could not be created.") from None
                has_parted = has_parted or again.error is None

    async def estimate(self, caller: Caller, order: Order) -> Estimate:
        """Say what a create would come to now, and why. Nothing is recorded, nothing sent but reads of metadata."""
        try:
            await self._policy.check_target(caller, order.target)
        except Forbidden as exc:
            return Estimate(result="refused", reason=exc.detail, refused_by="models")
        body, files = await self._policy.translate_files(caller, order.body, order.own_origins)
        target = await self._identities.named(order.target)
        order = msgspec.structs.replace(order, body=body, target=target)
        identity = await self._identities.of(caller, order.kind, target, body, order.directives, files)
        run = await self._shared_run(identity, order.directives)
        result: Literal["hit", "join", "run", "refused"] = "run"
        refused_by, price = None, self._price(caller, order)
        microusd = price.microusd if isinstance(price, Demand) else None
        if run is not None:
            result, microusd = "hit" if run.state is RunState.ENDED else "join", 0
        elif (refused_by := await self._refused_by(caller, order, price)) is not None:
            result = "refused"
        return Estimate(
            result=result,
            deterministic=identity.fingerprint is not None,
            reason=identity.reason,
            fingerprint=identity.fingerprint,
            refused_by=refused_by,
            microusd=microusd,
        )

    def _price(self, caller: Caller, order: Order) -> Demand | PriceUnknown:
        """Say what leading asks for: the run's estimate, within everybody's limits under whom it is counted."""
        try:
            amounts = self._pricing.estimate(order.target.name, order.body.input)
        except PriceUnknown as exc:
            return exc
        return Demand(
            amounts.microusd, amounts.milliseconds, allowances_of(caller, _user(caller, order), order.address)
        )

    async def _refused_by(self, caller: Caller, order: Order, price: Demand | PriceUnknown) -> str | None:
        if order.directives.only_if_cached:
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

    async def _attempt(self, asked: Asked, identity: Identity, place: Place) -> Created | Answer:
        begin = self._begin(asked.caller, asked.order, identity)
        begun = await self._share_or_lead(begin, asked, place)
        if begun.outcome is not Outcome.REFUSED:
            # What its limits allow next need not wait for what becomes of it upstream.
            place.leave()
        match begun.outcome:
            case Outcome.LED:
                return await self._lead(asked, identity, _sight(begun))
            case Outcome.HIT:
                self._money.saved(asked.caller.team.name, "hit", begun.saved_microusd)
                return self._hit(_sight(begun))
            case Outcome.JOINED:
                return await self._join(asked, identity, _sight(begun))
            case Outcome.REPLAYED:
                return await self._replay(asked, identity, _sight(begun))
            case Outcome.PENDING:
                raise Conflict("The first request with this Idempotency-Key is still under way.", retry_after=1)
            case Outcome.MISMATCHED:
                text = "this key was used for another request"
                raise Unprocessable.field("Idempotency-Key", text, "idempotency_key_reused")
            case Outcome.NOTHING:
                raise NotCached("Only a shared result was wanted, and there is none.")
            case Outcome.REFUSED:
                assert begun.refusal is not None
                assert isinstance(asked.price, Demand)
                if begun.refusal.standing.sort.is_budget:
                    raise self._admission.refusal(begun.refusal, asked.price, asked.caller.team.name)
                raise Held(begun.refusal)

    async def _lead(self, asked: Asked, identity: Identity, begun: Sight) -> Created | Answer:
        created: Created | Answer | None = None
        try:
            created = await self._leader.lead(asked, identity, begun)
            return created
        finally:
            if not isinstance(created, Created):
                # It came to nothing, and what was reserved for it is free again.
                self._admission.freed(asked.caller.team.name)

    def _begin(self, caller: Caller, order: Order, identity: Identity) -> Begin:
        now = self._clock.now()
        run_id = ids.run_id(self._randomness.bytes(_RUN_ID_BYTES), now)
        run = Run(
            id=run_id,
            kind=order.kind,
            team=caller.team.name,
            key_id=caller.key_id,
            target=order.target.name,
            path=order.path,
            request=order.body.for_upstream(self._webhook_of(run_id), upstream_webhooks.EVENTS),
            intended_at=now,
            fingerprint=identity.fingerprint,
            provisional=identity.provisional,
        )
        prediction_id = ids.prediction_id(self._randomness.bytes(_ID_BYTES))
        prediction = Prediction(
            id=prediction_id,
            run_id=run.id,
            kind=order.kind,
            team=caller.team.name,
            key_id=caller.key_id,
            user=_user(caller, order),
            source=Source.MISS if identity.is_shared else Source.BYPASS,
            created_at=now,
            ticket=tickets.fingerprint(tickets.ticket(self._ticket_secret, prediction_id)),
            ticket_expires_at=now + self._ticket_ttl_seconds,
            ticket_origins=caller.origins,
            webhook=order.body.webhook,
            webhook_events_filter=order.body.webhook_events_filter,
            deadline_at=now + order.cancel_after if order.cancel_after is not None else None,
            reason=str(identity.reason),
        )
        wishes = order.directives
        return Begin(
            run=run,
            prediction=prediction,
            now=now,
            may_hit=identity.fingerprint is not None and not wishes.no_cache,
            ended_since=_oldest_end(identity, wishes, now),
            may_join=identity.is_shared,
            idempotency=self._idempotency(order, now),
        )

    def _idempotency(self, order: Order, now: float) -> Idempotency | None:
        if order.idempotency_key is None:
            return None
        parts = (order.path.encode(), order.body.for_upstream(), (order.body.webhook or "").encode())
        digest = hashlib.sha256(b"\0".join(parts)).hexdigest()
        return Idempotency(order.idempotency_key, digest, now + IDEMPOTENCY_SECONDS)

    async def _share_or_lead(self, begin: Begin, asked: Asked, place: Place) -> Begun:
        """Share if that can be; else lead, if nobody waits who came before.

        Sharing alone needs no place and need not wait for the disk, so it is tried by itself first.
        """
        may_lead = not asked.order.directives.only_if_cached
        if begin.may_join or begin.idempotency is not None:
            begun = await self._store.begin(msgspec.structs.replace(begin, may_lead=False))
            if begun.outcome is not Outcome.NOTHING or not may_lead:
                return begun
        if isinstance(asked.price, PriceUnknown):
            raise asked.price
        place.check_turn()
        let_in = admission_record.admitted(asked.price, place.waited_seconds, place.waited_for)
        begin = msgspec.structs.replace(begin, demand=asked.price, admitted=let_in)
        # The flight stands before the intent does: whoever joins the intent finds it.
        self._leader.flights.start(begin.run)
        try:
            begun = await self._store.begin(begin)
        except BaseException as exc:
            self._leader.flights.land(begin.run.id, in_flight.NotSent(_as_gateway_error(exc)))
            # It may be recorded although nobody heard of it. Nothing was sent.
            self._leader.forget(begin.run.id)
            raise
        if begun.outcome is not Outcome.LED:
            self._leader.flights.land(begin.run.id, in_flight.NotSent(UpstreamUnavailable("Another request leads.")))
        return begun

    def _hit(self, sight: Sight) -> Created:
        self._leader.note_created(sight)
        self._observer.prediction_finished(sight.prediction.team, sight.run.status)
        left = (sight.run.cache_until or 0.0) - self._clock.now()
        return Created(sight=sight, cache_status=caching.cache_status(caching.Hit(max(0, int(left)))))

    async def _replay(self, asked: Asked, identity: Identity, sight: Sight) -> Created | Answer:
        """Answer with the first request's prediction."""
        if sight.prediction.source is Source.JOINED and sight.run.fingerprint is None:
            # The first request has not been told yet whether it may stay, or a crash came before that.
            joined = await self._join(asked, identity, sight)
            if not isinstance(joined, Created):
                return joined
            sight = joined.sight
        status = f"{caching.CACHE_NAME}; hit; detail=idempotency-key"
        return Created(sight=sight, cache_status=status, is_replay=True)

    async def _join(self, asked: Asked, identity: Identity, sight: Sight) -> Created | Answer:
        """Stand beside the run's leader and wait for what becomes of its create."""
        run = sight.run
        flight = self._leader.flights.get(run.id)
        if flight is None and run.state is RunState.INTENDED:
            # Left behind by a step whose outcome was not heard. Upstream's list tells.
            self._leader.adopter.search(run)
            flight = self._leader.flights.start(run)
        if flight is not None:
            match await flight.landing(self._adopt_wait_seconds):
                case in_flight.Created(landed):
                    run = landed
                case in_flight.Refused(answer):
                    return answer
                case in_flight.NotSent(error):
                    raise Again(error)
        if run.fingerprint is None or run.fingerprint != identity.fingerprint:
            # Joined before its model was known; now the schema decides (design 3). A run that outlived the process
            # which began it may have taught nothing yet and be without its identity: an equal request gives it.
            run = await self._leader.settled(run, asked)
            identity = await self._identities.of_request(asked)
            if run.fingerprint is None or run.fingerprint != identity.fingerprint:
                await self._leave(sight.prediction.id)
                raise Again
        sight = Sight(sight.prediction, run)
        self._leader.note_created(sight)
        if sight.prediction.deadline_at is not None:
            self._deadlines.add(sight.prediction.deadline_at, sight.prediction.id)
        return Created(sight=sight, cache_status=caching.cache_status(caching.Join()))

    async def _leave(self, prediction_id: str) -> None:
        """Take a prediction out of a run that was not the same after all; nobody else may be left in it."""
        cancellation = await self._store.cancel(prediction_id, self._clock.now())
        await self._store.part(prediction_id)
        if cancellation is not None and cancellation.is_last:
            self._tracker.cancel_asked(cancellation.sight.run)

    async def close(self, grace_seconds: float) -> None:
        """Finish the creates that are under way, within reason; what is left is taken up by the next start."""
        await self._tasks.close(grace_seconds)


def _oldest_end(identity: Identity, wishes: Directives, now: float) -> float:
    """Return when a finished run must have ended to answer: as the caller wishes, and as the config has it by now."""
    ages = (identity.ttl_seconds, wishes.max_age)
    return now - min(age for age in ages if age is not None)


def _user(caller: Caller, order: Order) -> str | None:
    """Say for whom a create is: what a page says of itself does not count."""
    return caller.user if caller.is_public else caller.user or order.user


def _sight(begun: Begun) -> Sight:
    assert begun.prediction is not None
    assert begun.run is not None
    return Sight(begun.prediction, begun.run)


def _as_gateway_error(exc: BaseException) -> GatewayError:
    return exc if isinstance(exc, GatewayError) else StoreUnavailable("The store did not answer.", retry_after=1)
