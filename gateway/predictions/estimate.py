"""Estimates: what a create would cost and whether it would be a hit, a join or a run. Nothing is recorded or sent."""

from typing import Literal

from gateway.access.policy import Policy
from gateway.domain.create_request import CreateCommand, CreateContext, Estimate
from gateway.domain.ports.clock import Clock
from gateway.domain.quota import ReservationRequest
from gateway.domain.records import Run, RunState
from gateway.domain.teams import Caller
from gateway.errors import Forbidden, PriceUnknown
from gateway.money.limit_queue import LimitQueue
from gateway.money.pricing import Pricing
from gateway.predictions.new_records import context_of, may_hit, reservation_of, user_of
from gateway.predictions.ports.outputs import OutputInputs
from gateway.predictions.ports.sharing import OpenRuns, Sharing
from gateway.sharing.identity import Identity, IdentityService


class EstimateService:
    """Estimates creates. Upstream is only asked for metadata."""

    def __init__(
        self,
        store: Sharing,
        policy: Policy,
        identities: IdentityService,
        clock: Clock,
        *,
        outputs: OutputInputs,
        pricing: Pricing,
        limit_queue: LimitQueue,
    ) -> None:
        self._store = store
        self._policy = policy
        self._identities = identities
        self._clock = clock
        self._outputs = outputs
        self._pricing = pricing
        self._limit_queue = limit_queue

    async def estimate(self, caller: Caller, command: CreateCommand) -> Estimate:
        """Return what a create would do now, what it would cost, and why. Raise `Unprocessable` and upstream errors."""
        try:
            await self._policy.check_target(caller, command.target)
        except Forbidden as exc:
            return Estimate(result="refused", reason=exc.detail, refused_by="models")
        context = await self._identities.named(await context_of(caller, command, self._policy, self._outputs))
        identity = await self._identities.of(context)
        run = await self._shared_run(context, identity)
        if run is not None:
            return _estimate(identity, "hit" if run.state is RunState.ENDED else "join", microusd=0)
        try:
            reservation = reservation_of(context, user_of(context.caller, context.command), self._pricing)
        except PriceUnknown:
            reservation = None
        refused_by = await self._refused_by(context, reservation)
        return _estimate(
            identity,
            "run" if refused_by is None else "refused",
            refused_by=refused_by,
            microusd=None if reservation is None else reservation.microusd,
        )

    async def _shared_run(self, context: CreateContext, identity: Identity) -> Run | None:
        if identity.fingerprint is None:
            return None
        now = self._clock.now()
        wanted = may_hit(identity, context.command, now)
        return await self._store.shared_run(wanted, OpenRuns(identity.fingerprint, identity.provisional), now)

    async def _refused_by(self, context: CreateContext, reservation: ReservationRequest | None) -> str | None:
        """Name the limit or the setting that would refuse a run."""
        if context.command.directives.only_if_cached:
            return "only-if-cached"
        if reservation is None:
            return "prices.unknown"
        refused = await self._limit_queue.predict_refusal(reservation, context.caller.team.max_wait_seconds)
        return None if refused is None else refused.status.name


def _estimate(
    identity: Identity,
    result: Literal["hit", "join", "run", "refused"],
    *,
    refused_by: str | None = None,
    microusd: int | None = None,
) -> Estimate:
    return Estimate(
        result=result,
        deterministic=identity.fingerprint is not None,
        reason=identity.reason,
        fingerprint=identity.fingerprint,
        refused_by=refused_by,
        microusd=microusd,
    )
