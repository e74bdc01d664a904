"""Dispatches webhook deliveries to callers' receivers.

See docs/architecture.md, Webhooks.

`completed` deliveries are queued in the store by the step that records the end (`gateway.webhooks.ports`). They are
sent and retried until they are delivered or become dead letters (`sender.py`). Earlier events are sent from memory
(`progress.py`). Slots in total, for each receiver and for each team keep slow receivers from delaying others
(`gateway.webhooks.rules.slots`). Creates take their places in the queue (`gateway.domain.webhook_places`), so no queued
delivery is ever dropped for want of room; the oldest dead letters of a team are.
"""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from gateway.domain.documents import Family
from gateway.domain.ledger import BudgetWarning
from gateway.domain.ports.clock import Clock
from gateway.domain.ports.observers import DeliveryObserver
from gateway.domain.records import PredictionView, Run
from gateway.domain.run_end import RunEnded
from gateway.errors import GatewayError
from gateway.runtime.live import LiveSettings
from gateway.runtime.loops import BackgroundLoop, keep_running
from gateway.runtime.sleep import sleep_until_event
from gateway.runtime.tasks import Tasks
from gateway.webhooks.ports import Busy, WebhookTransport
from gateway.webhooks.progress import ProgressQueue
from gateway.webhooks.rules import deliveries
from gateway.webhooks.rules.deliveries import Delivery, DeliveryKind
from gateway.webhooks.rules.slots import DeliverySlots, Job
from gateway.webhooks.secrets import WebhookSecrets
from gateway.webhooks.sender import PROGRESS_KEPT_SECONDS, DeliverySender, DeliveryStore
from gateway.webhooks.settings import WebhookSettings

if TYPE_CHECKING:
    from gateway.money.ports import Announcer

logger = logging.getLogger(__name__)

# How often the store is asked for deliveries that another process has queued, such as the command line.
_LOOK_SECONDS = 1.0
_COUNT_SECONDS = 5.0
_TIDY_SECONDS = 60.0
_TIDY_STEP = 100
_CLAIM = 200
# Longer than a claimed delivery can wait and take: up to three messages of fifteen seconds each, after those that wait
# for the same receiver.
_HOLD_SECONDS = 900.0


_Work = Delivery | str
"""A delivery from the store, or the id of a live prediction that has progress to send."""


class WebhookDispatcher:
    """Sends webhooks until it is closed."""

    def __init__(
        self,
        store: DeliveryStore,
        secrets: WebhookSecrets,
        transport: WebhookTransport,
        clock: Clock,
        observer: DeliveryObserver,
        settings: LiveSettings[WebhookSettings],
        *,
        is_followed: Callable[[str], bool],
        show: Callable[[PredictionView, str, Family], bytes],
        random_bytes: Callable[[int], bytes],
        on_place_freed: Callable[[str], None] = lambda _: None,
        is_leader: Callable[[], bool] = lambda: True,
    ) -> None:
        """Take `on_place_freed`, called with a team whose delivery has been attempted: its place may be free.

        Dead letters are deleted by the process that `is_leader`.
        """
        self._is_leader = is_leader
        self._store = store
        self._clock = clock
        self._observer = observer
        self._on_place_freed = on_place_freed
        self._settings = settings
        self._is_followed = is_followed
        self._progress = ProgressQueue()
        self._sender = DeliverySender(
            store,
            self._progress,
            secrets,
            transport,
            clock,
            observer,
            settings,
            show=show,
            random_bytes=random_bytes,
        )
        self._slots: DeliverySlots[_Work] = DeliverySlots(settings.value.slots)
        # Ids of what waits for a slot or is being sent: of the delivery, or of the prediction for progress.
        self._claimed: set[str] = set()
        self._jobs = Tasks()
        self._changed = asyncio.Event()
        self._may_be_more = True
        self._loop = Tasks()
        self._stopping = asyncio.Event()
        self._look_at = self._count_at = self._tidy_at = 0.0

    # Events.

    def on_prediction_created(self, view: PredictionView) -> None:
        """Send progress of a prediction that has a webhook, and wake the queue.

        If the run has ended, the store has queued the message already; a run that is not followed makes no progress.
        """
        if view.prediction.webhook is None:
            return
        if self._is_followed(view.run.id) and self._progress.begin(view, self._clock.monotonic()):
            self._put_progress(view)
        self._wake()

    def on_run_progressed(self, run: Run) -> None:
        """Send progress of a run's predictions that have a webhook."""
        for view in self._progress.change(run, self._clock.monotonic()):
            self._put_progress(view)
        # Progress that was held back may be due now.
        self._changed.set()

    def on_run_ended(self, ended: RunEnded) -> None:
        """Send no more progress of a run, and wake the queue: the store's step has queued its messages, if any."""
        self._progress.note_end(ended.run.id, self._clock.monotonic())
        if ended.has_webhooks:
            self._wake()

    def on_prediction_canceled(self, view: PredictionView) -> None:
        """Send no more progress of a prediction, and wake the queue: the store's step has queued its message."""
        self._progress.silence(view.prediction.id, self._clock.monotonic())
        if view.prediction.webhook is not None:
            self._wake()

    async def announce(self, warning: BudgetWarning, url: str, body: bytes) -> bool:
        """Queue the message of a budget warning, unless the warning was recorded before. Durable on return.

        Return whether it was not.
        """
        message = Delivery(
            id=self._sender.fresh_id(),
            kind=DeliveryKind.ANNOUNCEMENT,
            team=warning.team,
            url=url,
            receiver=deliveries.receiver_of(url),
            created_at=self._clock.now(),
        )
        is_first = await self._store.announce_once(warning, message, body)
        self._wake()
        return is_first

    # Start and close.

    async def resume(self) -> int:
        """Resume the work of an earlier process, or of nodes that have ended. Return how many deliveries they had."""
        after = ""
        while views := await self._store.awaiting_webhooks(after=after):
            after = views[-1].prediction.id
            for view in views:
                # The large ones are read one at a time.
                whole = await self._store.prediction(view.prediction.id) if view.left_out else None
                self._progress.resume(whole or view)
        reclaimed = await self._store.reclaim_deliveries()
        self._wake()
        return reclaimed

    def drop(self) -> None:
        """Send nothing of what waits: other nodes have taken over the runs, and the claims of deliveries."""
        self._progress.drop()
        for job in self._slots.clear():
            self._claimed.discard(job.work.id if isinstance(job.work, Delivery) else job.work)

    def start(self, origin: str) -> None:
        """Start sending. `origin` (without `/v1`) is the base of links in bodies if no public URL is set."""
        self._sender.origin = origin
        on_crash = self._observer.loop_crashed
        loop = keep_running(self._run, BackgroundLoop.WEBHOOKS, self._clock, on_crash, self._stopping)
        self._loop.spawn(loop, "webhooks")

    async def close(self, grace_seconds: float) -> None:
        """Finish what is being sent, within the grace; everything else stays in the store."""
        self._stopping.set()
        # The loop is not cancelled, so that deliveries that it is just claiming are released.
        self._changed.set()
        await self._loop.close()
        untried = [job.work.id for job in self._slots.clear() if isinstance(job.work, Delivery)]
        await self._jobs.close(grace_seconds)
        with suppress(GatewayError):
            await self._store.release_deliveries(untried)

    def _wake(self) -> None:
        self._may_be_more = True
        self._changed.set()

    async def _run(self) -> None:
        # After a crash, deliveries may be due that nothing reports again.
        self._may_be_more = True
        while not self._stopping.is_set():
            self._changed.clear()
            now = self._clock.monotonic()
            for view in self._progress.due(now):
                self._put_progress(view)
            try:
                if self._may_be_more or now >= self._look_at:
                    self._look_at = now + _LOOK_SECONDS
                    await self._claim()
                await self._look_after(now)
            except GatewayError as exc:
                logger.warning("webhooks wait for the store", extra={"reason": exc.detail})
            self._start_jobs()
            next_at = min(self._look_at, self._progress.next_at() or self._look_at)
            await sleep_until_event(self._clock, max(0.0, next_at - self._clock.monotonic()), self._changed)

    # Choose the next jobs.

    async def _claim(self) -> None:
        """Claim due deliveries from the store, enough for each slot to have a next one."""
        settings, now = self._settings.value, self._clock.now()
        busy = Busy(
            receivers=self._slots.full_receivers(settings.waiting_per_receiver),
            teams=self._slots.full_teams(settings.waiting_per_team),
            per_receiver=settings.waiting_per_receiver,
        )
        # Reset before the claim: an event during the claim sets it again, and the answer may lack its delivery.
        self._may_be_more = False
        claimed = await self._store.claim_deliveries(now, now + _HOLD_SECONDS, _CLAIM, busy)
        self._may_be_more |= bool(claimed or busy.receivers or busy.teams)
        for delivery in claimed:
            if delivery.id not in self._claimed:
                self._claimed.add(delivery.id)
                key = delivery.prediction_id or delivery.id
                self._slots.put(Job(delivery.team, delivery.receiver, key, delivery, is_urgent=True))

    def _put_progress(self, view: PredictionView) -> None:
        prediction = view.prediction
        assert prediction.webhook is not None
        if self._progress.pending_of(prediction.team) > self._settings.value.max_queued:
            self._count_dropped("full", self._progress.drop_oldest(prediction.team, 1))
        if prediction.id not in self._claimed:
            self._claimed.add(prediction.id)
            receiver = deliveries.receiver_of(prediction.webhook)
            self._slots.put(Job(prediction.team, receiver, prediction.id, prediction.id))

    def _start_jobs(self) -> None:
        while not self._stopping.is_set() and (job := self._slots.take()) is not None:
            self._jobs.spawn(self._do(job), f"webhook {job.key}")

    async def _do(self, job: Job[_Work]) -> None:
        try:
            if isinstance(job.work, Delivery):
                await self._sender.deliver(job.work)
            else:
                self._claimed.discard(job.work)
                if (view := await self._sender.send_progress(job.work)) is not None:
                    self._put_progress(view)
        except GatewayError as exc:
            # The delivery can be claimed again when its claim expires.
            logger.warning("a webhook waits for the store", extra={"reason": exc.detail})
        except Exception:
            logger.exception("a webhook could not be sent")
        finally:
            self._slots.done(job)
            if isinstance(job.work, Delivery):
                self._claimed.discard(job.work.id)
                self._on_place_freed(job.team)
            self._start_jobs()
            if self._may_be_more:
                self._changed.set()

    # Counts and limits.

    async def _look_after(self, now: float) -> None:
        if now >= self._count_at:
            self._count_at = now + _COUNT_SECONDS
            counts = await self._store.delivery_counts()
            age = self._clock.now() - counts.oldest_queued_at if counts.oldest_queued_at is not None else 0.0
            self._observer.deliveries_waiting(counts.queued, counts.dead, max(0.0, age))
            self._observer.webhook_places_taken(counts.taken)
            most = self._settings.value.max_queued
            if self._is_leader() and (trimmed := await self._store.trim_dead_deliveries(most)):
                self._count_dropped("dead_letters_full", trimmed)
                self._count_at = now
        if now >= self._tidy_at:
            before = self._clock.now() - self._settings.value.retain_dead_seconds
            went = await self._store.delete_dead_deliveries(before, _TIDY_STEP) if self._is_leader() else 0
            self._progress.forget_ended(now - PROGRESS_KEPT_SECONDS)
            self._tidy_at = now + (_TIDY_SECONDS if went < _TIDY_STEP else 0.0)

    def _count_dropped(self, reason: str, count: int) -> None:
        for _ in range(count):
            self._observer.delivery_dropped(reason)


if TYPE_CHECKING:
    _: type[Announcer] = WebhookDispatcher
