"""Predictions and trainings: created upstream once, recorded as a run and a prediction, shown from our own records.

The order of a create is the promise (design 2.8, 2.9): the intent is on disk before upstream is asked, the run and the
prediction are on disk before the caller sees an id.
"""

import asyncio
import logging
import secrets
from collections.abc import Coroutine
from typing import TypeVar

import msgspec
from cachetools import LRUCache

from gateway.core import documents, ids, tickets
from gateway.core.answers import Answer
from gateway.core.bodies import CreateBody
from gateway.core.cursors import Cursor
from gateway.core.records import Kind, Page, Prediction, Run, RunState, Sight, Source, Status
from gateway.core.targets import Target
from gateway.core.teams import Caller
from gateway.errors import (
    NotFound,
    StoreUnavailable,
    UpstreamTokenRefused,
    UpstreamUnavailable,
    UpstreamUncertain,
)
from gateway.ports import Clock, PredictionObserver, Predictions, Upstream
from gateway.service.policy import Policy
from gateway.service.tracker import Tracker
from gateway.service.versions import VersionMap

logger = logging.getLogger(__name__)
T = TypeVar("T")

PAGE_SIZE = 100
_RECORD_ATTEMPTS = 5
_RECORD_PAUSE = 0.2


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """A create as the caller gave it, its form checked."""

    kind: Kind
    operation: str
    path: str
    """The upstream route below `/v1`."""
    target: Target
    body: CreateBody
    cancel_after: float | None = None
    cancel_after_header: str | None = None
    user: str | None = None
    own_origins: frozenset[str] = frozenset()


class Created(msgspec.Struct, frozen=True):
    """A prediction that was created, and what upstream's answer said beside its body."""

    sight: Sight
    answer: Answer
    upstream_seconds: float


class PredictionService:
    """Creates, shows, lists, awaits and cancels predictions."""

    def __init__(
        self,
        store: Predictions,
        upstream: Upstream,
        tracker: Tracker,
        policy: Policy,
        versions: VersionMap,
        clock: Clock,
        observer: PredictionObserver,
        *,
        ticket_secret: bytes,
        ticket_ttl_seconds: float,
        max_recent: int = 10_000,
    ) -> None:
        self._store = store
        self._upstream = upstream
        self._tracker = tracker
        self._policy = policy
        self._versions = versions
        self._clock = clock
        self._observer = observer
        self._ticket_secret = ticket_secret
        self._ticket_ttl_seconds = ticket_ttl_seconds
        self._recent: LRUCache[str, Sight] = LRUCache(max_recent)
        self._waiting: dict[str, int] = {}
        self._canceled: set[str] = set()
        self._tasks: set[asyncio.Task[object]] = set()
        self._closing = False

    async def create(self, caller: Caller, order: Order) -> Created | Answer:
        """Create a prediction upstream and record it. What upstream refuses is returned as upstream's answer.

        The work goes on when the caller leaves. Raise `Forbidden`, `Unprocessable`, `StoreUnavailable`, and the
        upstream errors; after `UpstreamUncertain` the run may exist.
        """
        await self._policy.check_target(caller, order.target)
        if order.body.destination is not None:
            self._policy.check_model(caller, order.body.destination)
        body = await self._policy.translate_files(caller, order.body, order.own_origins)
        return await self._to_the_end(self._create(caller, msgspec.structs.replace(order, body=body)))

    async def _to_the_end(self, work: Coroutine[object, object, T]) -> T:
        """Do work that must not be torn when its caller goes away."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return await asyncio.shield(task)

    async def _create(self, caller: Caller, order: Order) -> Created | Answer:
        now = self._clock.now()
        intent = Run(
            id=ids.run_id(secrets.token_bytes(10), now),
            kind=order.kind,
            team=caller.team.name,
            key_id=caller.key_id,
            target=order.target.name,
            path=order.path,
            request=order.body.for_upstream(),
            intended_at=now,
        )
        await self._store.record_intent(intent)
        began = self._clock.monotonic()
        answer = await self._send(intent, order)
        upstream_seconds = self._clock.monotonic() - began
        if not answer.is_ok:
            await self._store.discard_intent(intent.id)
            return answer
        try:
            news = documents.read_news(answer.body)
        except ValueError as exc:
            raise UpstreamUncertain("Replicate's answer to the create could not be understood.") from exc
        sight = self._sight(caller, order, intent, news)
        await self._record(sight)
        self._recent[sight.prediction.id] = sight
        self._tracker.follow(sight.run)
        self._observer.prediction_created(caller.team.name, order.target.model or "unknown", sight.prediction.source)
        if sight.run.status.is_terminal:
            self._observer.prediction_finished(caller.team.name, sight.run.status)
        if news.version == order.target.version:
            # An answer for another version than was asked for is an override of upstream's (ref 2) and teaches nothing.
            await self._versions.learn(news.version, news.model)
        return Created(sight, answer, upstream_seconds)

    async def _send(self, intent: Run, order: Order) -> Answer:
        """Send the create, once. The intent is forgotten where it is certain that nothing came of it."""
        headers = {"Cancel-After": order.cancel_after_header} if order.cancel_after_header else None
        try:
            answer = await self._upstream.send(order.operation, "POST", order.path, intent.request, headers=headers)
        except (UpstreamUnavailable, UpstreamTokenRefused):
            await self._store.discard_intent(intent.id)
            raise
        if answer.status >= 500:
            logger.warning("a create's outcome is unknown", extra={"run": intent.id, "status": answer.status})
            raise UpstreamUncertain(
                f"Replicate answered {answer.status}; the prediction may be running all the same. "
                "A retry should carry an Idempotency-Key."
            )
        return answer

    def _sight(self, caller: Caller, order: Order, intent: Run, news: documents.News) -> Sight:
        now = self._clock.now()
        created_at = news.created_at if news.created_at is not None else now
        run = msgspec.structs.replace(
            intent,
            state=RunState.ENDED if news.status.is_terminal else RunState.LIVE,
            upstream_id=news.upstream_id,
            status=news.status,
            document=news.document,
            stream_url=news.stream_url,
            live_at=now,
            ended_at=(news.completed_at or now) if news.status.is_terminal else None,
        )
        prediction = Prediction(
            id=news.upstream_id,
            run_id=run.id,
            kind=order.kind,
            team=caller.team.name,
            key_id=caller.key_id,
            user=caller.user or order.user,
            source=Source.BYPASS,
            created_at=created_at,
            ticket=tickets.fingerprint(self._ticket(news.upstream_id)),
            ticket_expires_at=now + self._ticket_ttl_seconds,
            webhook=order.body.webhook,
            webhook_events_filter=order.body.webhook_events_filter,
            deadline_at=created_at + order.cancel_after if order.cancel_after is not None else None,
        )
        return Sight(prediction, run)

    async def _record(self, sight: Sight) -> None:
        """Record what upstream has created, with patience: the run exists whether or not the store answers."""
        for attempt in range(1, _RECORD_ATTEMPTS + 1):
            try:
                return await self._store.record_created(sight.run, sight.prediction)
            except StoreUnavailable:
                if attempt == _RECORD_ATTEMPTS:
                    logger.exception("a created run could not be recorded", extra={"upstream_id": sight.prediction.id})
                    raise
                await self._clock.sleep(_RECORD_PAUSE * attempt)
        return None

    def _ticket(self, prediction_id: str) -> str:
        return tickets.ticket(self._ticket_secret, prediction_id)

    def stream_path(self, sight: Sight) -> str:
        """Return the path, below the base URL, of the prediction's stream; file streams keep their prefix (ref 8)."""
        ticket = self._ticket(sight.prediction.id)
        is_files = "/v1/files/" in (sight.run.stream_url or "")
        return f"files/{tickets.FILE_PREFIX}{ticket}" if is_files else f"streams/{ticket}"

    async def get(self, caller: Caller, prediction_id: str, kind: Kind | None = None) -> Sight:
        """Return a prediction of the caller's. Raise `NotFound` for what is unknown and what is somebody else's."""
        sight = await self._find(prediction_id)
        if sight is None or not caller.owns(sight.prediction.team) or kind not in (None, sight.prediction.kind):
            raise NotFound
        self._observer.polled("gateway")
        return sight

    async def _find(self, prediction_id: str) -> Sight | None:
        sight = self._recent.get(prediction_id)
        if sight is not None and (newest := self._newest(sight)) is not None:
            return newest
        sight = await self._store.prediction(prediction_id)
        if sight is None:
            return None
        self._recent[prediction_id] = sight
        return self._newest(sight) or sight

    def _newest(self, sight: Sight) -> Sight | None:
        """Put the newest state of the run beside the prediction; `None` if only the store knows it."""
        if sight.run.status.is_terminal:
            return sight
        watch = self._tracker.watch(sight.run.id)
        if watch is None:
            return None
        if watch.run is sight.run:
            return sight
        newest = self._recent[sight.prediction.id] = Sight(sight.prediction, watch.run)
        return newest

    async def list(
        self,
        caller: Caller,
        kind: Kind,
        *,
        position: Cursor | None = None,
        created_after: float | None = None,
        created_before: float | None = None,
    ) -> Page:
        """List the caller's predictions of a kind, newest first, `PAGE_SIZE` a page."""
        page = await self._store.predictions(
            team=caller.team.name,
            kind=kind,
            limit=PAGE_SIZE,
            position=position,
            created_after=created_after,
            created_before=created_before,
        )
        newest: list[Sight] = [self._newest(s) or s for s in page.items if isinstance(s, Sight)]
        return Page(newest, page.has_newer, page.has_older)

    async def cancel(self, caller: Caller, prediction_id: str, kind: Kind | None = None) -> Sight:
        """End a prediction for its caller at once; upstream is asked when nobody else waits for the run.

        One that has ended stays as it is. Raise `NotFound` as `get` does.
        """
        await self.get(caller, prediction_id, kind)
        return await self._to_the_end(self._cancel(prediction_id))

    async def _cancel(self, prediction_id: str) -> Sight:
        cancellation = await self._store.cancel(prediction_id, self._clock.now())
        if cancellation is None:
            raise NotFound
        sight = self._recent[prediction_id] = cancellation.sight
        if prediction_id in self._waiting:
            self._canceled.add(prediction_id)
        if cancellation.changed:
            self._observer.prediction_finished(sight.prediction.team, Status.CANCELED)
        if cancellation.is_last:
            self._tracker.cancel_asked(sight.run)
        else:
            self._tracker.wake(sight.run.id)
        return sight

    async def wait(self, sight: Sight, seconds: float) -> Sight:
        """Wait for a prediction to end for its caller, or for the time to be over; return it as it is then."""
        prediction_id = sight.prediction.id
        watch = self._tracker.watch(sight.run.id)
        if watch is not None:
            self._waiting[prediction_id] = self._waiting.get(prediction_id, 0) + 1
            try:
                await watch.wait_until(
                    lambda run: run.status.is_terminal or self._closing or prediction_id in self._canceled, seconds
                )
            finally:
                self._waiting[prediction_id] -= 1
                if not self._waiting[prediction_id]:
                    del self._waiting[prediction_id]
                    self._canceled.discard(prediction_id)
            # Asked for before the store can have been slow: the watch is newer than what was recorded.
            if not self._is_canceled(prediction_id):
                return Sight(sight.prediction, watch.run)
        return await self._find(prediction_id) or sight

    def _is_canceled(self, prediction_id: str) -> bool:
        sight = self._recent.get(prediction_id)
        return sight is None or sight.prediction.canceled_at is not None

    async def by_ticket(self, ticket: str) -> Sight:
        """Return the prediction whose stream a ticket opens. Raise `NotFound` if it opens none, or no longer."""
        sight = await self._store.prediction_by_ticket(tickets.fingerprint(ticket))
        if sight is None or self._clock.now() >= sight.prediction.ticket_expires_at:
            raise NotFound
        return self._newest(sight) or sight

    def forget(self, prediction_id: str) -> None:
        """Drop a prediction from memory: its record has changed or gone."""
        self._recent.pop(prediction_id, None)

    def forget_ended(self) -> None:
        """Drop every ended prediction from memory: the janitor has been at work."""
        for prediction_id in [key for key, sight in self._recent.items() if sight.run.status.is_terminal]:
            del self._recent[prediction_id]

    async def drain(self) -> None:
        """Answer everybody who waits, with what is known: their predictions run on."""
        self._closing = True
        self._tracker.wake_all()

    async def close(self) -> None:
        """Finish the creates and cancels that are under way."""
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)
