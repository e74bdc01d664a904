"""The store as creates see it, in memory, with steps that a test can hold, fail, or precede with something else."""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from msgspec.structs import replace

from gateway.domain.admission_record import Admitted
from gateway.domain.audit import AuditedOperation
from gateway.domain.ledger import Settlement
from gateway.domain.quota import Counters, ReservationRequest
from gateway.domain.quota import Refused as LimitRefused
from gateway.domain.records import CacheStats, Cancellation, Prediction, PredictionView, Run, RunState, Source, Status
from gateway.errors import Conflict, GatewayError
from gateway.predictions.ports.predictions import Recorded
from gateway.predictions.ports.sharing import (
    MOST_HITS,
    CreateStore,
    FinishedRuns,
    Hit,
    HitRequests,
    Idempotency,
    Joined,
    Mismatched,
    ModelNamed,
    Nothing,
    OpenRuns,
    Pending,
    Refused,
    Replayed,
    Shared,
    ShareOutcome,
    ShareRequest,
    Started,
    StartOutcome,
    Unidentified,
)
from tests.support.fakes import FakeStore


class SharingStore(FakeStore):
    """Keeps the promises of `Sharing` in dictionaries. The contract suite holds the real store to them."""

    def __init__(self) -> None:
        super().__init__()
        self.keys_used: dict[tuple[str, str], tuple[Idempotency, str]] = {}
        self.refusals: list[LimitRefused] = []
        """What the next steps that would start a run are refused by, one each."""
        self.no_place: list[LimitRefused] = []
        """What the next steps that would add a prediction with a webhook are refused by, one each."""
        self.reserved: dict[str, ReservationRequest | None] = {}
        self.held: dict[str, asyncio.Event] = {}
        """Steps that wait, before they are done, until their event is set."""
        self.failures: dict[str, list[Exception]] = {}
        """What the next calls of a step raise in place of being done."""
        self.unheard: dict[str, list[Exception]] = {}
        """What the next calls of a step raise after they were done."""
        self.before: dict[str, Callable[[], None]] = {}
        """What happens right before the next call of a step is done."""
        self.uncertain: list[str] = []
        self.node = 0
        """The number of the node that starts runs."""
        self.outcomes: dict[str, bytes] = {}
        """Why intents were discarded."""
        self.detached: list[str] = []

    async def _step(self, name: str) -> None:
        self._note(name)
        if name in self.held:
            await self.held[name].wait()
        if self.failures.get(name):
            raise self.failures[name].pop(0)
        if name in self.before:
            self.before.pop(name)()

    def _done(self, name: str) -> None:
        if self.unheard.get(name):
            raise self.unheard[name].pop(0)

    def add(self, run: Run, *predictions: Prediction) -> None:
        """Record a run with its predictions, as an earlier create would have."""
        self.runs[run.id] = run
        for prediction in predictions:
            self.kept[prediction.id] = prediction

    async def share(self, request: ShareRequest) -> ShareOutcome:
        """Add a prediction to a run that exists."""
        await self._step("share")
        outcome: ShareOutcome | None = self._share(request)
        self._done("share")
        return outcome or Nothing()

    def record_hits(self, requests: HitRequests) -> asyncio.Future[list[Hit | None]]:
        """Add predictions to finished runs."""
        return asyncio.ensure_future(self._record_hits(requests))

    async def _record_hits(self, requests: HitRequests) -> list[Hit | None]:
        await self._step("record_hits")
        taken = requests[:MOST_HITS]
        ids = [request.prediction.id for request in taken]
        if len({*ids} - self.kept.keys()) < len(ids):
            raise Conflict("A prediction of this id exists already.")
        outcomes: list[Hit | None] = []
        for request in taken:
            run = self._finished(request.may_hit, request.now)
            outcomes.append(None if run is None else Hit(self._added(request, run, Source.HIT), 7))
        self._done("record_hits")
        return outcomes

    async def start(
        self,
        request: ShareRequest,
        run: Run,
        *,
        reservation: ReservationRequest | None = None,
        admitted: Admitted | None = None,
    ) -> StartOutcome:
        """Record an intent, unless there is a run to share."""
        await self._step("start")
        outcome: StartOutcome | None = self._share(request)
        if outcome is None and self.refusals:
            outcome = Refused(self.refusals.pop(0))
        if outcome is None:
            if request.may_join is None and self._open(OpenRuns(run.fingerprint, run.provisional)) is not None:
                run = replace(run, fingerprint=None, provisional=None)
            run = replace(run, leader_id=request.prediction.id, owner=self.node)
            self.reserved[run.id] = reservation
            outcome = Started(self._added(request, run, request.prediction.source, admitted))
        self._done("start")
        return outcome

    def _share(self, request: ShareRequest) -> Shared | Refused | None:
        if request.idempotency is not None:
            used = self.keys_used.get((request.prediction.team, request.idempotency.key))
            if used is not None and request.now < used[0].expires_at:
                return self._first(request.idempotency, *used)
        if request.webhook_place is not None and self.no_place:
            return Refused(self.no_place.pop(0))
        if (run := self._finished(request.may_hit, request.now)) is not None:
            return Hit(self._added(request, run, Source.HIT), 7)
        if (run := self._open(request.may_join)) is not None:
            return Joined(self._added(request, run, Source.JOINED))
        if (ended := self._unidentified(request.may_join)) is not None:
            return Unidentified(ended)
        if request.unnamed_version in self.versions:
            return ModelNamed()
        return None

    def _first(self, given: Idempotency, known: Idempotency, prediction_id: str) -> Replayed | Pending | Mismatched:
        if not given.is_of(known.body_digest):
            return Mismatched()
        first = self.kept[prediction_id]
        run = self.runs[first.run_id]
        return Pending() if run.state is RunState.INTENDED else Replayed(PredictionView(first, run))

    def _added(
        self, request: ShareRequest, run: Run, source: Source, admitted: Admitted | None = None
    ) -> PredictionView:
        prediction = replace(
            request.prediction, run_id=run.id, source=source, admitted=admitted or request.prediction.admitted
        )
        if prediction.id in self.kept:
            raise Conflict("A prediction of this id exists already.")
        self.add(run, prediction)
        if request.idempotency is not None:
            self.keys_used[prediction.team, request.idempotency.key] = (request.idempotency, prediction.id)
        return PredictionView(prediction, run)

    def _finished(self, wanted: FinishedRuns | None, now: float) -> Run | None:
        found = [
            run
            for run in self.runs.values()
            if wanted is not None and run.fingerprint == wanted.fingerprint and run.status is Status.SUCCEEDED
            if now < (run.cache_until or 0.0) and (run.ended_at or 0.0) >= wanted.ended_since
        ]
        return max(found, key=lambda run: run.ended_at or 0.0, default=None)

    def _open(self, wanted: OpenRuns | None) -> Run | None:
        if wanted is None:
            return None
        going = [
            run
            for run in self.runs.values()
            if run.state in (RunState.INTENDED, RunState.LIVE) and run.cancel_asked_at is None
        ]
        for run in going:
            if wanted.fingerprint is not None and run.fingerprint == wanted.fingerprint:
                return run
        for run in going:
            is_same = wanted.provisional is not None and run.provisional == wanted.provisional
            if is_same and (run.fingerprint is None or wanted.fingerprint is None):
                return run
        return None

    def _unidentified(self, wanted: OpenRuns | None) -> Run | None:
        if wanted is None or wanted.provisional is None:
            return None
        found = [
            run
            for run in self.runs.values()
            if run.provisional == wanted.provisional and run.fingerprint is None and run.status is Status.SUCCEEDED
            if run.state is RunState.ENDED and not run.data_removed
        ]
        return max(found, key=lambda run: run.ended_at or 0.0, default=None)

    async def record_created(self, run: Run, prediction: Prediction, settlement: Settlement | None = None) -> Recorded:
        """Turn an intent into a run."""
        await self._step("record_created")
        owners = [each.id for each in self.runs.values() if each.upstream_id == run.upstream_id]
        if owners and owners != [run.id]:
            raise Conflict("Another run has this id upstream.")
        known = self.runs.get(run.id)
        if known is not None and known.upstream_id is not None:
            return Recorded(PredictionView(self.kept[known.leader_id], known))
        if known is not None:
            run = replace(run, fingerprint=known.fingerprint, provisional=known.provisional)
            self.kept.pop(known.leader_id, None)
            for key, (given, prediction_id) in self.keys_used.items():
                if prediction_id == known.leader_id:
                    self.keys_used[key] = (given, prediction.id)
        run = replace(run, leader_id=prediction.id)
        self.add(run, prediction)
        if run.state is RunState.ENDED:
            self.settled[run.id] = settlement
        self._done("record_created")
        return Recorded(PredictionView(prediction, run), self._end(run.id) if run.state is RunState.ENDED else None)

    async def create_outcome(self, run_id: str) -> bytes | None:
        """Return why an intent was discarded."""
        await self._step("create_outcome")
        return self.outcomes.get(run_id)

    async def intents(self, path: str, *, after: str = "", limit: int = 50) -> list[Run]:
        """List the intents for a route."""
        found = (run for run in self.runs.values() if run.state is RunState.INTENDED and run.path == path)
        return sorted((run for run in found if run.id > after), key=lambda run: run.id)[:limit]

    async def discard_intent(self, run_id: str, outcome: bytes = b"") -> None:
        """Delete an intent with all that belongs to it."""
        await self._step("discard_intent")
        run = self.runs.get(run_id)
        if run is None or run.state is not RunState.INTENDED:
            return
        del self.runs[run_id]
        self.outcomes[run_id] = outcome
        gone = {prediction.id for prediction in self.kept.values() if prediction.run_id == run_id}
        self.kept = {name: each for name, each in self.kept.items() if name not in gone}
        self.keys_used = {key: used for key, used in self.keys_used.items() if used[1] not in gone}
        self.reserved.pop(run_id, None)

    async def mark_uncertain(self, run_id: str, at: float, *, is_passed_on: bool = False) -> None:
        """Note an uncertain create."""
        await self._step("mark_uncertain")
        self.uncertain.append(run_id)
        run = self.runs.get(run_id)
        if run is not None and run.state is RunState.INTENDED:
            self.runs[run_id] = replace(run, uncertain_at=at, owner=0 if is_passed_on else run.owner)

    async def settle_identity(
        self, run_id: str, fingerprint: str | None, cache_until: float | None, *, reason: str | None = None
    ) -> bool:
        """Give a run its final identity."""
        await self._step("settle_identity")
        run = self.runs[run_id]
        if run.fingerprint is None and run.provisional is not None:
            run = replace(run, fingerprint=fingerprint)
        self.runs[run_id] = replace(run, provisional=None, cache_until=cache_until)
        return run.fingerprint == fingerprint

    async def detach(self, prediction_id: str) -> None:
        """Remove a joined prediction."""
        await self._step("detach")
        self.detached.append(prediction_id)
        self.kept.pop(prediction_id, None)
        self.keys_used = {key: used for key, used in self.keys_used.items() if used[1] != prediction_id}

    async def cancel(
        self, prediction_id: str, at: float, *, by_deadline: bool = False, is_repeated: bool = False
    ) -> Cancellation | None:
        """End a prediction for its caller."""
        await self._step("cancel")
        return await super().cancel(prediction_id, at, by_deadline=by_deadline, is_repeated=is_repeated)

    async def shared_run(self, may_hit: FinishedRuns | None, may_join: OpenRuns | None, now: float) -> Run | None:
        """Find the run that `share` would choose."""
        self._note("shared_run")
        return self._finished(may_hit, now) or self._open(may_join)

    async def owns_upstream_id(self, upstream_id: str) -> bool:
        """Say whether a run has this id."""
        await self._step("owns_upstream_id")
        return await super().owns_upstream_id(upstream_id)

    async def learn_version(self, version: str, model: str) -> None:
        """Remember a version's model."""
        await self._step("learn_version")
        self.versions.setdefault(version, model)

    async def deadlines(self, *, after: str = "", limit: int = 500) -> list[Prediction]:
        """List predictions with a deadline."""
        self._note("deadlines")
        due = [each for each in self.kept.values() if each.deadline_at is not None and each.id > after]
        return sorted(due, key=lambda each: each.id)[:limit]

    async def meters(self, scopes: list[str], now: float) -> dict[str, Counters]:
        """Count nothing."""
        self._note("meters")
        return {scope: Counters() for scope in scopes}

    async def cache_stats(self, now: float, team: str | None = None) -> CacheStats:
        """Keep no entries."""
        self._note("cache_stats")
        return CacheStats(0, 0, None)

    async def purge_cache(
        self,
        operation: AuditedOperation,
        *,
        team: str | None = None,
        target: str | None = None,
        limit: int = 500,
        purged_before: int = 0,
    ) -> int:
        """Keep no entries."""
        self._note("purge_cache")
        return 0


def fail(store: SharingStore, step: str, *errors: GatewayError) -> None:
    """Let the next calls of a step fail without being done."""
    store.failures.setdefault(step, []).extend(errors)


if TYPE_CHECKING:
    _: type[CreateStore] = SharingStore
