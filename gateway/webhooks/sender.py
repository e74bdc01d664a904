"""Make, sign and send one webhook, and record the outcome.

See docs/architecture.md, Webhooks; docs/replicate-api.md, Webhooks.

The webhook of an end is attempted until the receiver accepts it or the attempts are used up, always with the same id
and, after the first failed attempt, with the same body. Progress webhooks are attempted once.
"""

import logging
from collections.abc import Callable
from typing import Protocol

import msgspec

from gateway.domain import documents, ids, signing
from gateway.domain.documents import Family
from gateway.domain.ports.clock import Clock
from gateway.domain.ports.observers import DeliveryObserver
from gateway.domain.records import LARGE_DOCUMENT, PredictionView, Source
from gateway.runtime.large_work import LargeWork
from gateway.runtime.live import LiveSettings
from gateway.webhooks.ports import Deliveries, LargeBody, WebhookTransport
from gateway.webhooks.progress import Ending, ProgressQueue
from gateway.webhooks.rules import deliveries
from gateway.webhooks.rules import events as webhook_events
from gateway.webhooks.rules.deliveries import Delivery, DeliveryKind, Receipt, Result
from gateway.webhooks.rules.events import Event, Sent
from gateway.webhooks.secrets import WebhookSecrets
from gateway.webhooks.settings import WebhookSettings

logger = logging.getLogger(__name__)

_LARGE_BODIES = 2
"""Large bodies that are in memory at a time; one of each team."""
PROGRESS_KEPT_SECONDS = 3600.0
"""How long the progress state of a prediction is kept after its end, until the end's first attempt."""
_ANNOUNCEMENT = "announcement"


class DeliveryStore(Deliveries, Protocol):
    """The operations of the store that the sender needs."""

    async def prediction(self, prediction_id: str, *, most_bytes: int | None = None) -> PredictionView | None:
        """Return a prediction by its id. A document of more than `most_bytes` is left out."""
        ...


class DeliverySender:
    """Sends single webhooks. The dispatcher decides when."""

    def __init__(
        self,
        store: DeliveryStore,
        progress: ProgressQueue,
        secrets: WebhookSecrets,
        transport: WebhookTransport,
        clock: Clock,
        observer: DeliveryObserver,
        settings: LiveSettings[WebhookSettings],
        *,
        show: Callable[[PredictionView, str, Family], bytes],
        random_bytes: Callable[[int], bytes],
    ) -> None:
        self._store = store
        self._progress = progress
        self._secrets = secrets
        self._transport = transport
        self._clock = clock
        self._observer = observer
        self._settings = settings
        self._show = show
        self._random_bytes = random_bytes
        self._large = LargeWork(_LARGE_BODIES)
        self._began = clock.now()
        self.origin = ""
        """What links in bodies begin with where no public URL is set."""

    def _base(self) -> str:
        return (self._settings.value.public_url or self.origin) + "/v1"

    def fresh_id(self) -> str:
        """Return a new random message id."""
        return deliveries.message_id(ids.random_id(self._random_bytes(deliveries.MESSAGE_ID_BYTES)))

    async def send_progress(self, prediction_id: str) -> PredictionView | None:
        """Send a prediction's next progress event; return the prediction if more events are due."""
        taken = self._progress.take(prediction_id)
        if taken is None:
            return None
        event, view = taken
        if view.run.document:
            return await self._send_one(event, view)
        newest = await self._store.prediction(prediction_id, most_bytes=LARGE_DOCUMENT)
        if newest is not None and newest.left_out:
            async with self._large.turn(newest.prediction.team):
                whole = await self._store.prediction(prediction_id)
                return None if whole is None else await self._send_one(event, whole)
        return None if newest is None else await self._send_one(event, newest)

    async def _send_one(self, event: Event, view: PredictionView) -> PredictionView | None:
        """Send a progress event; return the prediction if more events are due."""
        body = self._body(view)
        if event is Event.START or view.run.status.is_terminal:
            # `completed` reports its end.
            body = documents.as_running(body, at_start=event is Event.START)
        # The body has it; a receiver can take long to take that.
        view = view.without_document()
        await self._send_once(event, view, body)
        return view if self._progress.has_more(view.prediction.id) else None

    async def deliver(self, message: Delivery) -> None:
        """Attempt a delivery; then delete it, schedule the next attempt, or make it a dead letter."""
        body = await self._store.delivery_body(message.id, most_bytes=LARGE_DOCUMENT)
        view = None if body is not None else await self._prediction_of(message, LARGE_DOCUMENT)
        if not isinstance(body, LargeBody) and (view is None or not view.left_out):
            return await self._deliver(message, body, view)
        async with self._large.turn(message.team):
            body = await self._store.delivery_body(message.id)
            view = None if body is not None else await self._prediction_of(message)
            assert not isinstance(body, LargeBody)
            return await self._deliver(message, body, view)

    async def _prediction_of(self, message: Delivery, most_bytes: int | None = None) -> PredictionView | None:
        return await self._store.prediction(message.prediction_id or "", most_bytes=most_bytes)

    async def _deliver(self, message: Delivery, body: bytes | None, view: PredictionView | None) -> None:
        event = _ANNOUNCEMENT if message.kind is DeliveryKind.ANNOUNCEMENT else str(Event.COMPLETED)
        if body is None:
            try:
                body = await self._send_before_end(message, view)
                del view
            except (ValueError, msgspec.MsgspecError):
                logger.exception("webhook body cannot be made", extra={"delivery": message.id})
                self._observer.delivery_dropped("gave_up")
                error = "the prediction's record is damaged"
                return await self._store.mark_dead(message.id, self._clock.now(), error, b"")
            if body is None:
                return await self._store.delivered(message.id)
        receipt = await self._send(message.team, message.url, message.id, body)
        self._observer.delivery_attempted(event, receipt.result)
        if receipt.result is Result.DELIVERED:
            return await self._store.delivered(message.id)
        jitter = self._random_bytes(1)[0] / 256
        pause = deliveries.next_attempt(receipt, message.attempts, self._settings.value.max_attempts, jitter)
        fields: dict[str, object] = {"delivery": message.id, "attempt": message.attempts, "reason": receipt.detail}
        now = self._clock.now()
        if pause is not None:
            logger.info("webhook delivery failed, will be retried", extra=fields)
            return await self._store.postpone_delivery(message.id, now + pause, receipt.detail, body)
        logger.warning("webhook delivery given up", extra=fields)
        self._observer.delivery_dropped("gave_up")
        return await self._store.mark_dead(message.id, now, receipt.detail, body)

    async def _send_before_end(self, message: Delivery, view: PredictionView | None) -> bytes | None:
        """Send the events that are due before `completed`; return the body of `completed`, or `None` if not wanted."""
        if view is None:
            self._progress.end(message.prediction_id or "")
            self._observer.delivery_dropped("gone")
            return None
        body = self._body(view)
        events = self._events_of_end(message, view)
        for event in events:
            if event is not Event.COMPLETED:
                await self._send_once(event, view, documents.as_running(body, at_start=event is Event.START))
        return body if Event.COMPLETED in events else None

    def _events_of_end(self, message: Delivery, view: PredictionView) -> tuple[Event, ...]:
        """Return the events that are due at the end of a prediction, including unsent earlier ones."""
        ending = self._progress.end(view.prediction.id)
        wanted = webhook_events.wanted(view.prediction.webhook_events_filter)
        completed = (Event.COMPLETED,) if Event.COMPLETED in wanted else ()
        if message.attempts > 1:
            return completed
        try:
            snapshot = webhook_events.snapshot_of(view)
        except ValueError:
            return completed
        if ending is None:
            # It was not followed: either it ended at once, or an earlier process has sent its progress.
            followed_since = max(self._began, self._clock.now() - PROGRESS_KEPT_SECONDS)
            is_new = view.prediction.source is Source.HIT or message.created_at >= followed_since
            ending = Ending(Sent() if is_new else webhook_events.caught_up(snapshot))
        due = webhook_events.due(ending.sent, snapshot, wanted, self._clock.monotonic()).events
        return (*ending.unsent, *(event for event in due if event not in ending.unsent))

    def _body(self, view: PredictionView) -> bytes:
        return self._show(view, self._base(), documents.family_of(view.prediction.kind))

    async def _send_once(self, event: Event, view: PredictionView, body: bytes) -> None:
        prediction = view.prediction
        receipt = await self._send(prediction.team, prediction.webhook or "", self.fresh_id(), body)
        self._observer.delivery_attempted(str(event), receipt.result)

    async def _send(self, team: str, url: str, message_id: str, body: bytes) -> Receipt:
        keys = await self._secrets.in_use(team)
        headers = signing.headers(keys, message_id, int(self._clock.now()), body)
        return await self._transport.send(url, headers, body)
