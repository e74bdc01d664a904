"""Creating runs: a run that the store has started is created upstream, once.

See docs/architecture.md, Invariants 8 and Create.

The intent is on disk before upstream is asked, and the run with its starter is on disk before an id is shown. A create
that upstream may have accepted is searched for (`adoption.py`), never sent again.
"""

import asyncio
import logging
from contextlib import suppress
from http import HTTPStatus
from typing import assert_never

from msgspec.structs import replace

from gateway.domain import documents
from gateway.domain.bypass import BypassReason
from gateway.domain.create_request import CreateCommand, CreateContext, Created
from gateway.domain.documents import Snapshot
from gateway.domain.hold import Hold
from gateway.domain.keyed_digest import KeyedDigest
from gateway.domain.ports.clock import Clock
from gateway.domain.ports.observers import PredictionObserver
from gateway.domain.ports.upstream import Upstream
from gateway.domain.records import Prediction, PredictionView, Run
from gateway.domain.upstream_response import Answer
from gateway.errors import (
    CallerLeft,
    GatewayError,
    RateLimited,
    StoreUnavailable,
    UpstreamTokenRefused,
    UpstreamUnavailable,
    UpstreamUncertain,
)
from gateway.models.rules import secrets
from gateway.nodes.membership import Membership, OnlyNode
from gateway.nodes.news import News, NoNews, Topic
from gateway.predictions import in_flight
from gateway.predictions.adoption import Adopter
from gateway.predictions.in_flight import PendingCreate, PendingCreates
from gateway.predictions.other_creates import OtherCreates
from gateway.predictions.outgoing import Outgoing
from gateway.predictions.ports.sharing import CreateStore
from gateway.predictions.rules import create_outcomes
from gateway.predictions.run_identity import RunIdentities
from gateway.predictions.run_recorder import RunRecorder
from gateway.predictions.secret_values import SecretValues
from gateway.predictions.settings import PredictionSettings
from gateway.runtime.live import LiveSettings
from gateway.runtime.pauses import LARGE
from gateway.runtime.tasks import Tasks
from gateway.sharing.identity import Identity
from gateway.sharing.rules import caching
from gateway.throttling.ports import CreateLimiter

logger = logging.getLogger(__name__)

_DISCARD_PAUSE = 1.0
_LEFT_FOR_A_PERMIT = "The client disconnected while its create waited for the account's rate."
MAY_NOT_CREATE = "This node of the gateway may not create predictions now."


class RunCreator:
    """Creates runs upstream."""

    def __init__(
        self,
        store: CreateStore,
        upstream: Upstream,
        recorder: RunRecorder,
        identities: RunIdentities,
        pending_creates: PendingCreates,
        clock: Clock,
        observer: PredictionObserver,
        settings: LiveSettings[PredictionSettings],
        *,
        create_limiter: CreateLimiter | None = None,
        internal_upstream: Upstream | None = None,
        secret_values: SecretValues | None = None,
        digest: KeyedDigest | None = None,
        membership: Membership | None = None,
        other_creates: OtherCreates | None = None,
        news: News | None = None,
    ) -> None:
        """Take `digest`, by which the bodies of intents hide values of an unknown schema (`outgoing.py`).

        `other_creates` reads the outcomes of creates that another node sends, or searches for.
        """
        self._membership = membership or OnlyNode()
        self.may_start = self._membership.may_send if self._membership.number else None
        """Says whether a create could be sent, where that depends on the lease of a node."""
        self._other_creates = other_creates or OtherCreates(store, clock)
        self._store = store
        self._upstream = upstream
        self.recorder = recorder
        self._identities = identities
        self.pending_creates = pending_creates
        self._clock = clock
        self._observer = observer
        self._settings = settings
        self._secrets = SecretValues() if secret_values is None else secret_values
        self._create_limiter = create_limiter
        self._news = news or NoNews()
        self.adopter = Adopter(
            store,
            internal_upstream or upstream,
            pending_creates,
            clock,
            observer,
            self._adopt,
            recorder.take_up,
            digest,
            self._secrets.forget,
            is_shared=self._membership.number != 0,
        )
        self._tasks = Tasks()

    async def create_run(
        self, context: CreateContext, identity: Identity, started: PredictionView, body: bytes, outgoing: Outgoing
    ) -> Created | Answer:
        """Create a started run upstream, with `body`, and give the outcome to those who joined it.

        Return upstream's answer if upstream refused it. Raise what kept it from being sent: `RateLimited`,
        `UpstreamUnavailable`, `UpstreamTokenRefused`. Raise `UpstreamUncertain` if it is unknown for too long whether
        upstream created it.
        """
        intent = started.run
        sent_at = self._clock.monotonic()
        if outgoing.secrets or outgoing.suspects:
            self._secrets.keep(intent.id, outgoing.secrets, outgoing.suspects)
        try:
            answer, sent_at = await self._send(intent, context.command, identity, body)
            if not answer.is_ok:
                # What a model says of a value that it does not like can quote the value.
                said = secrets.strike_answer(
                    answer.body, (*outgoing.secrets, *secrets.suspected_texts(outgoing.suspects))
                )
                answer = replace(answer, body=said)
                await self._discard(intent.id, create_outcomes.encode_answer(answer))
                self.pending_creates.resolve(intent.id, in_flight.Refused(answer))
                return answer
            if len(answer.body) <= LARGE and not outgoing.secrets and not outgoing.suspects:
                snapshot = documents.read_snapshot(answer.body)
            else:
                snapshot = await self._secrets.read_snapshot(intent, answer.body)
            if snapshot.is_repaired:
                logger.warning("upstream's answer is not valid text", extra={"run": intent.id})
                self._observer.document_repaired()
            if snapshot.is_shortened:
                self._observer.logs_shortened()
            starter, hold = started.prediction, context.command.hold
            if hold.limit is not None:
                starter = _with_hold(starter, hold)
            recorded = await self.recorder.record(intent, snapshot, starter)
        except (CallerLeft, RateLimited, UpstreamUnavailable, UpstreamTokenRefused) as exc:
            await self._discard(intent.id, create_outcomes.encode_error(exc))
            self.pending_creates.resolve(intent.id, in_flight.NotSent(exc))
            raise
        except Exception as exc:
            # Upstream may have taken it, whatever went wrong here.
            is_expected = isinstance(exc, (GatewayError, ValueError))
            reason = str(self._secrets.strike(intent.id, str(exc).encode(errors="replace")), "utf-8")
            extra = {"run": intent.id, "reason": reason}
            logger.warning("a create's outcome is unknown", extra=extra, exc_info=None if is_expected else exc)
            view = await self._found(intent, context)
            answer = Answer(HTTPStatus.CREATED, {}, b"")
        else:
            view = recorded.view
            await self.recorder.follow_up(recorded, snapshot, answer, context)
        return self._created(view, identity, answer, self._clock.monotonic() - sent_at)

    def _created(self, view: PredictionView, identity: Identity, answer: Answer, upstream_seconds: float) -> Created:
        decision: caching.Decision = caching.Miss(stored=identity.ttl_seconds > 0)
        if identity.fingerprint is None:
            reason = identity.reason
            decision = caching.Bypass(reason if isinstance(reason, BypassReason) else BypassReason.MODEL_UNKNOWN)
            self._observer.cache_bypassed(decision.reason)
        return Created(
            view=view,
            cache_status=caching.cache_status(decision),
            answer=answer,
            upstream_seconds=upstream_seconds,
        )

    async def _send(self, intent: Run, command: CreateCommand, identity: Identity, body: bytes) -> tuple[Answer, float]:
        """Send the create when the account has a permit; return the answer, and when it was sent.

        Only a 429 is repeated: upstream has created nothing then (docs/replicate-api.md, Errors).
        """
        # A run that others can join must not end by one caller's deadline; the gateway keeps it for each prediction.
        is_alone = command.cancel_after_header is not None and not identity.is_shared
        headers = {"Cancel-After": command.cancel_after_header or ""} if is_alone else None
        is_repeated = False
        while True:
            await self._permit(intent, command, is_repeated=is_repeated)
            self._check_owner(intent, command.operation)
            sent_at = self._clock.monotonic()
            answer = await self._upstream.send(command.operation, "POST", command.path, body, headers=headers)
            if answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
                raise UpstreamUncertain(f"Replicate answered {answer.status}.")
            if answer.status != HTTPStatus.TOO_MANY_REQUESTS or self._create_limiter is None:
                return answer, sent_at
            is_repeated = True

    async def _permit(self, intent: Run, command: CreateCommand, *, is_repeated: bool) -> None:
        """Wait for the team's permit to create. Raise `CallerLeft` if all callers have left meanwhile.

        That is noticed when the one who started the run leaves, and when the permit is granted.
        """
        limiter = self._create_limiter
        if limiter is None or limiter.take_create(command.operation):
            return

        def stop_if_all_left() -> None:
            if self._has_nobody(intent, command):
                waiting.reschedule(asyncio.get_running_loop().time())

        try:
            async with asyncio.timeout(None) as waiting:
                remove_listener = command.add_departure_listener(stop_if_all_left)
                stop_if_all_left()
                try:
                    has_waited = await limiter.create_permit(
                        command.operation, intent.team, command.hold_until, returned=is_repeated, hold=command.hold
                    )
                finally:
                    remove_listener()
        except TimeoutError:
            raise CallerLeft(_LEFT_FOR_A_PERMIT) from None
        if has_waited and self._has_nobody(intent, command):
            limiter.give_back(command.operation)
            raise CallerLeft(_LEFT_FOR_A_PERMIT)

    def _has_nobody(self, intent: Run, command: CreateCommand) -> bool:
        """Return whether the caller has left, and nobody has joined its run."""
        if not command.has_left():
            return False
        pending = self.pending_creates.get(intent.id)
        return pending is None or not pending.waiters

    def _check_owner(self, intent: Run, operation: str) -> None:
        """Raise `UpstreamUnavailable` if the lease under which the intent was recorded is lost.

        The valid one of now is not enough: another node searches for the intent's run, and releases it in time.
        """
        if intent.owner != self._membership.number:
            if self._create_limiter is not None:
                self._create_limiter.give_back(operation)
            raise UpstreamUnavailable(MAY_NOT_CREATE, retry_after=1)

    async def _found(self, intent: Run, context: CreateContext) -> PredictionView:
        """Search for the run of an uncertain create, and wait for it as long as a caller can be held."""
        pending = self.search(intent)
        if self._membership.is_leader():
            await self._mark_uncertain(intent.id)
        match await pending.wait(self._settings.value.adopt_wait_seconds):
            case in_flight.Created(view):
                return await self._settled(view, context)
            case in_flight.NotSent(error):
                raise error
            case in_flight.Refused():
                raise UpstreamUncertain("Replicate refused the prediction.")
            case never:
                assert_never(never)

    def search(self, intent: Run) -> PendingCreate:
        """Search for the run of an intent whose outcome is not known: here, or on the node that leads.

        Wait for what this returns before the next await.
        """
        node = self._membership
        if intent.owner == node.number:
            if node.is_leader():
                return self.adopter.search(intent)
            self._tasks.spawn(self._pass_on(intent.id), "pass on an intent")
        return self._wait_for_others(intent)

    def search_taken(self, intent: Run, released_after_seconds: float) -> None:
        """Search for the run of an intent that this node has taken over.

        Its former owner may have sent the create until now, or a moment later.
        """
        since = intent.uncertain_at or self._clock.now()
        self.adopter.search(intent, not_released_before=since + released_after_seconds)
        if intent.uncertain_at is None:
            self._tasks.spawn(self._mark_uncertain(intent.id), "mark an intent uncertain")

    def drop(self) -> None:
        """Search no more: other nodes have taken over the intents of this one. Who waits gets what they find."""
        for intent in self.adopter.drop():
            self._wait_for_others(intent)

    def _wait_for_others(self, intent: Run) -> PendingCreate:
        elsewhere = self._other_creates.pending(intent)
        here = self.pending_creates.get(intent.id)
        if here is None:
            return elsewhere
        # Predictions that joined it on this node wait for this one.
        here.turn_uncertain()
        self._tasks.spawn(self._resolve_as_others(intent.id, elsewhere), "wait for another node")
        return here

    async def _resolve_as_others(self, run_id: str, elsewhere: PendingCreate) -> None:
        try:
            outcome = await elsewhere.wait(self._settings.value.adopt_wait_seconds)
        except UpstreamUncertain:
            self.pending_creates.forget(run_id)
        else:
            if isinstance(outcome, in_flight.Created) and outcome.view.run.owner == self._membership.number:
                # It was recorded here after all, and the store's answer was lost: nobody else follows it.
                with suppress(GatewayError):
                    return await self.recorder.take_up(outcome.view.run)
            self.pending_creates.resolve(run_id, outcome)

    async def _pass_on(self, run_id: str) -> None:
        """Leave an uncertain create to the node that leads: it searches for all of them."""
        while True:
            try:
                await self._store.mark_uncertain(run_id, self._clock.now(), is_passed_on=True)
                return self._news.tell(Topic.RUN, run_id)
            except StoreUnavailable:
                await self._clock.sleep(_DISCARD_PAUSE)

    async def _mark_uncertain(self, run_id: str) -> None:
        try:
            await self._store.mark_uncertain(run_id, self._clock.now())
            self._news.tell(Topic.RUN, run_id)
        except StoreUnavailable as exc:
            # The search does not need the mark: only people read it, and predictions that joined on other nodes.
            logger.warning("a create could not be marked uncertain", extra={"run": run_id, "reason": exc.detail})

    async def _adopt(self, intent: Run, snapshot: Snapshot) -> None:
        await self.recorder.adopt(intent, await self._secrets.strike_snapshot(intent, snapshot))

    async def _settled(self, view: PredictionView, context: CreateContext) -> PredictionView:
        """Give an adopted run its final identity. Its record is on disk, so a failure does not fail the create."""
        run = view.run
        if run.fingerprint is not None or run.provisional is None:
            return view
        try:
            run, _ = await self._identities.settle(run, context)
        except GatewayError as exc:
            logger.warning("a run's identity could not be settled", extra={"run": run.id, "reason": exc.detail})
        return PredictionView(view.prediction, run)

    async def _discard(self, run_id: str, outcome: bytes) -> None:
        """Discard an intent that upstream does not have; while the store is away, later.

        `outcome` says why, to those who have joined it on other nodes.
        """
        self._secrets.forget(run_id)
        try:
            await self._store.discard_intent(run_id, outcome)
        except StoreUnavailable:
            self._discard_later(run_id, outcome)

    def discard_later(self, run_id: str, error: GatewayError) -> None:
        """Discard an intent in the background: it may be recorded although the store did not answer.

        Nothing was sent for it, because of `error`. Until it is deleted, equal requests join it and fail.
        """
        self._discard_later(run_id, create_outcomes.encode_error(error))

    def _discard_later(self, run_id: str, outcome: bytes) -> None:
        self._tasks.spawn(self._discard_when_possible(run_id, outcome), "discard an intent")

    async def _discard_when_possible(self, run_id: str, outcome: bytes) -> None:
        while True:
            await self._clock.sleep(_DISCARD_PAUSE)
            with suppress(StoreUnavailable):
                return await self._store.discard_intent(run_id, outcome)

    async def close(self, grace_seconds: float) -> None:
        """Wait for what is in progress, for so long; the next start continues the rest."""
        # First: a run that is adopted gives the recorder more to do.
        await self.adopter.close()
        await self._other_creates.close()
        # At the same time: one after the other could take the grace twice.
        await asyncio.gather(self._tasks.close(grace_seconds), self.recorder.close(grace_seconds))


def _with_hold(starter: Prediction, hold: Hold) -> Prediction:
    """Add the wait for the account's rate, which came after the intent was recorded."""
    if starter.admitted is None or hold.seconds == starter.admitted.waited_seconds:
        return starter
    return replace(starter, admitted=starter.admitted.with_hold(hold))
