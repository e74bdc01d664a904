"""The messenger: makes one message, signs it, sends it, and decides what becomes of it.

See docs/architecture.md, Webhooks; docs/replicate-api.md, Webhooks.

An end is tried until it is taken or given up, always under the same id and, once a try has failed, with the same body.
What comes before an end is tried once.
"""

import logging
from collections.abc import Callable
from typing import Protocol

import msgspec

from gateway.domain import documents, ids, signing
from gateway.domain.documents import Family
from gateway.domain.ports.clock import Clock
from gateway.domain.ports.observers import DeliveryObserver
from gateway.domain.records import PredictionView, Source
from gateway.runtime.live import LiveSettings
from gateway.webhooks.ports import Deliveries, WebhookTransport
from gateway.webhooks.progress import Ending, ProgressQueue
from gateway.webhooks.rules import deliveries
from gateway.webhooks.rules import events as webhook_events
from gateway.webhooks.rules.deliveries import Delivery, DeliveryKind, Receipt, Result
from gateway.webhooks.rules.events import Event, Sent
from gateway.webhooks.secrets import WebhookSecrets
from gateway.webhooks.settings import WebhookSettings

logger = logging.getLogger(__name__)

LINES_KEPT_SECONDS = 3600.0
"""How long it is remembered what was told of a prediction whose end waits for its first try."""
_ANNOUNCEMENT = "announcement"


class MessengerStore(Deliveries, Protocol):
    """What is asked of the store."""

    async def prediction(self, prediction_id: str) -> PredictionView | None:
        """Find a prediction by its id."""
        ...


class DeliverySender:
    """Sends messages, one at a time as it is told to."""

    def __init__(
        self,
        store: MessengerStore,
        lines: ProgressQueue,
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
        self._lines = lines
        self._secrets = secrets
        self._transport = transport
        self._clock = clock
        self._observer = observer
        self._settings = settings
        self._show = show
        self._random_bytes = random_bytes
        self._began = clock.now()
        self.origin = ""
        """What links in bodies begin with where no public URL is set."""

    def _base(self) -> str:
        return (self._settings.value.public_url or self.origin) + "/v1"

    def fresh_id(self) -> str:
        """Make the id of a message of its own."""
        return deliveries.message_id(ids.prediction_id(self._random_bytes(deliveries.MESSAGE_ID_BYTES)))

    async def tell_progress(self, prediction_id: str) -> PredictionView | None:
        """Tell what is newest of a live prediction; return it if there is more to tell by now."""
        taken = self._lines.take(prediction_id)
        if taken is None:
            return None
        event, view = taken
        body = self._body(view)
        await self._send_once(event, view, documents.as_running(body, at_start=True) if event is Event.START else body)
        return view if self._lines.has_more(prediction_id) else None

    async def deliver(self, message: Delivery) -> None:
        """Send a message that must arrive, and keep it unless it was taken."""
        event = _ANNOUNCEMENT if message.kind is DeliveryKind.ANNOUNCEMENT else str(Event.COMPLETED)
        body = await self._store.delivery_body(message.id)
        if body is None:
            try:
                body = await self._tell_end(message)
            except (ValueError, msgspec.MsgspecError):
                logger.exception("a webhook cannot be made", extra={"delivery": message.id})
                self._observer.delivery_dropped("gave_up")
                return await self._store.bury_delivery(message.id, self._clock.now(), "its record is damaged", b"")
            if body is None:
                return await self._store.delivered(message.id)
        receipt = await self._send(message.team, message.url, message.id, body)
        self._observer.delivery_attempted(event, receipt.result)
        if receipt.result is Result.DELIVERED:
            return await self._store.delivered(message.id)
        jitter = self._random_bytes(1)[0] / 256
        pause = deliveries.next_attempt(receipt, message.attempts, self._settings.value.max_attempts, jitter)
        facts: dict[str, object] = {"delivery": message.id, "attempt": message.attempts, "reason": receipt.words}
        now = self._clock.now()
        if pause is not None:
            logger.info("a webhook was not taken", extra=facts)
            return await self._store.postpone_delivery(message.id, now + pause, receipt.words, body)
        logger.warning("a webhook was given up", extra=facts)
        self._observer.delivery_dropped("gave_up")
        return await self._store.bury_delivery(message.id, now, receipt.words, body)

    async def _tell_end(self, message: Delivery) -> bytes | None:
        """Tell what comes before the end, if it is the first try; return the end's body, if the end is wanted."""
        view = await self._store.prediction(message.prediction_id or "")
        if view is None:
            self._lines.end(message.prediction_id or "")
            self._observer.delivery_dropped("gone")
            return None
        body = self._body(view)
        events = self._events_of_end(message, view)
        for event in events:
            if event is not Event.COMPLETED:
                await self._send_once(event, view, documents.as_running(body, at_start=event is Event.START))
        return body if Event.COMPLETED in events else None

    def _events_of_end(self, message: Delivery, view: PredictionView) -> tuple[Event, ...]:
        """Say what is due now that a prediction has ended, its start and output too if nobody was told of them."""
        ending = self._lines.end(view.prediction.id)
        wanted = webhook_events.wanted(view.prediction.webhook_events_filter)
        completed = (Event.COMPLETED,) if Event.COMPLETED in wanted else ()
        if message.attempts > 1:
            return completed
        try:
            moment = webhook_events.moment_of(view)
        except ValueError:
            return completed
        if ending is None:
            # Nobody followed it: it was over at once, or an earlier process has told what there was to tell.
            followed_since = max(self._began, self._clock.now() - LINES_KEPT_SECONDS)
            is_new = view.prediction.source is Source.HIT or message.created_at >= followed_since
            ending = Ending(Sent() if is_new else webhook_events.caught_up(moment))
        due = webhook_events.due(ending.told, moment, wanted, self._clock.monotonic()).events
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
