"""What a create records before it is sent: the prediction and the runs that it can share, the intent, the reservation.

A hit or a join needs only the first.
"""

from collections.abc import Callable
from functools import partial
from hashlib import sha256

from msgspec.structs import replace

from gateway.access.policy import Policy
from gateway.domain import admission_record, ids, text_links
from gateway.domain.create_request import CreateCommand, CreateContext
from gateway.domain.keyed_digest import KeyedDigest
from gateway.domain.ports.clock import Clock
from gateway.domain.quota import ReservationRequest
from gateway.domain.records import Prediction, Run, Source
from gateway.domain.teams import Caller, owner_of_user
from gateway.domain.webhook_places import WebhookPlace
from gateway.money.limit_queue import run_limits_of
from gateway.money.pricing import Pricing
from gateway.predictions.outgoing import Outgoing
from gateway.predictions.ports.outputs import OutputInputs
from gateway.predictions.ports.sharing import FinishedRuns, Idempotency, OpenRuns, ShareRequest
from gateway.predictions.settings import PredictionSettings
from gateway.predictions.upstream_webhooks import EVENTS
from gateway.runtime.live import LiveSettings
from gateway.runtime.pauses import LARGE, off_the_loop
from gateway.runtime.random_bytes import RandomPool
from gateway.sharing.identity import Identity

IDEMPOTENCY_SECONDS = 24 * 3600.0
_ID_BYTES = 20
_RUN_ID_BYTES = 10


class NewRecords:
    """Makes records with new ids."""

    def __init__(
        self,
        clock: Clock,
        settings: LiveSettings[PredictionSettings],
        *,
        ticket_secret: bytes,
        webhook_of: Callable[[str], str | None] = lambda _: None,
    ) -> None:
        """Take `webhook_of`, which gives the gateway's own webhook address for a run's id, if upstream calls back."""
        self._clock = clock
        self._settings = settings
        self._webhook_of = webhook_of
        self._body_digest = KeyedDigest(ticket_secret, "idempotency")
        self._randomness = RandomPool()

    def share_request(self, context: CreateContext, identity: Identity) -> ShareRequest:
        """Make the prediction, and say which runs it can share."""
        caller, command, now = context.caller, context.command, self._clock.now()
        is_shared = identity.is_shared
        prediction_id = ids.prediction_id(self._randomness.bytes(_ID_BYTES), now)
        prediction = Prediction(
            id=prediction_id,
            run_id="",
            kind=command.kind,
            team=caller.team.name,
            key_id=caller.key_id,
            user=(user := user_of(caller, command)),
            owner=caller.owner if user is None else owner_of_user(user),
            source=Source.MISS if is_shared else Source.BYPASS,
            created_at=now,
            # The ticket contains this id, whose form is the usual one.
            ticket="",
            ticket_expires_at=now + self._settings.value.ticket_ttl_seconds,
            ticket_origins=caller.origins,
            webhook=command.body.webhook,
            webhook_events_filter=command.body.webhook_events_filter,
            deadline_at=now + command.cancel_after if command.cancel_after is not None else None,
            reason=str(identity.reason),
            tags=command.tags,
            admitted=None if command.hold.limit is None else admission_record.held(command.hold),
            request_id=command.request_id,
        )
        return ShareRequest(
            prediction=prediction,
            now=now,
            may_hit=may_hit(identity, command, now),
            may_join=OpenRuns(identity.fingerprint, identity.provisional) if is_shared else None,
            idempotency=None
            if command.idempotency_key is None
            else _idempotency(context, command.idempotency_key, now, self._body_digest),
            webhook_place=None
            if command.body.webhook is None
            else WebhookPlace(self._settings.value.webhook_bounds, caller.is_public),
            unnamed_version=None if identity.provisional is None or command.target.model else command.target.version,
        )

    def intent(self, context: CreateContext, identity: Identity, outgoing: Outgoing, now: float) -> tuple[Run, bytes]:
        """Make the record of a run that is about to be created upstream, and the body that is sent for it."""
        caller, command = context.caller, context.command
        run_id = ids.run_id(self._randomness.bytes(_RUN_ID_BYTES), now)
        webhook = self._webhook_of(run_id)
        if webhook is None and outgoing.sent is command.body:
            sent = context.plain_body
        else:
            sent = outgoing.sent.for_upstream(webhook, EVENTS)
        stored = sent if outgoing.stored is outgoing.sent else outgoing.stored.for_upstream(webhook, EVENTS)
        run = Run(
            id=run_id,
            kind=command.kind,
            team=caller.team.name,
            key_id=caller.key_id,
            target=command.target.name,
            path=command.path,
            request=stored,
            intended_at=now,
            fingerprint=identity.fingerprint,
            provisional=identity.provisional,
        )
        return run, sent


def reservation_of(context: CreateContext, user: str | None, pricing: Pricing) -> ReservationRequest:
    """Estimate the cost of a run, and list every limit that it counts against. Raise `PriceUnknown`.

    `user` is the user that the create counts for: see `user_of`.
    """
    caller, command = context.caller, context.command
    amounts = pricing.estimate(command.target.name, command.body.input)
    allowances = run_limits_of(caller, user, command.address, command.tags)
    return ReservationRequest(amounts.microusd, amounts.milliseconds, allowances)


def may_hit(identity: Identity, command: CreateCommand, now: float) -> FinishedRuns | None:
    """Return the finished runs that can answer a request, according to its headers and to the current config."""
    if identity.fingerprint is None or command.directives.no_cache:
        return None
    max_age = identity.ttl_seconds
    if command.directives.max_age is not None:
        max_age = min(max_age, command.directives.max_age)
    return FinishedRuns(identity.fingerprint, ended_since=now - max_age)


def user_of(caller: Caller, command: CreateCommand) -> str | None:
    """Return the user that a create counts for. A page cannot name its own user."""
    return caller.user if caller.is_public else caller.user or command.user


async def context_of(caller: Caller, command: CreateCommand, policy: Policy, outputs: OutputInputs) -> CreateContext:
    """Turn links of the gateway's files into upstream's, and find links of stored outputs.

    Those stay as they are until a run is started: a hit or a join needs their content only. Raise `Unprocessable` for
    a file that is not the caller's.
    """
    given = command.body.input
    may_link = partial(text_links.may_be_in, given)
    if not (may_link() if len(given) <= LARGE else await off_the_loop(given, may_link)):
        return CreateContext(caller, command, {}, may_link=False)
    body, files = await policy.translate_files(caller, command.body, command.own_origins)
    linked = await outputs.linked(caller, body, command.own_origins)
    if linked:
        files = files | {text: output.content for text, output in linked.items()}
    command = command if body is command.body else replace(command, body=body)
    return CreateContext(caller, command, files, outputs=linked)


def _idempotency(context: CreateContext, key: str, now: float, digest: KeyedDigest) -> Idempotency:
    if context.caller.is_public:
        # Users of a page choose keys independently of each other. No key of a server contains a line break.
        key = f"{context.caller.owner}\n{key}"
    parts = context.identifying_parts
    return Idempotency(
        key, f"hmac:{digest(*parts)}", now + IDEMPOTENCY_SECONDS, lambda: sha256(b"\0".join(parts)).hexdigest()
    )
