"""Predictions and trainings as their callers see them: shown, listed, awaited, cancelled, from the store.

What is kept in memory is bounded in bytes, because a document contains the input, with its files if they are data URIs.
Half of `memory_bytes` is for views, half for bodies (`bodies.py`). What does not fit is read from the store.
"""

import asyncio
from collections.abc import Awaitable, Mapping
from contextlib import suppress
from functools import partial

from cachetools import LRUCache
from msgspec.structs import replace

from gateway.domain import documents, surrogates, tickets
from gateway.domain.cursors import Cursor
from gateway.domain.documents import Family
from gateway.domain.ports.clock import Clock
from gateway.domain.ports.observers import PredictionObserver
from gateway.domain.records import (
    LARGE_DOCUMENT,
    Cancellation,
    Copy,
    Kind,
    Page,
    Prediction,
    PredictionView,
    Run,
)
from gateway.domain.run_end import RunEnded
from gateway.domain.teams import NO_LIST, Caller
from gateway.errors import Forbidden, NotFound
from gateway.nodes.news import News, NoNews, Topic, of_run
from gateway.predictions.bodies import PredictionBodies
from gateway.predictions.cancel_recorder import CancelRecorder
from gateway.predictions.changes import Changes
from gateway.predictions.events import PredictionEvents
from gateway.predictions.ports.outputs import CopyLinks
from gateway.predictions.ports.sharing import CreateStore
from gateway.predictions.recent import RecentPredictions
from gateway.predictions.settings import PredictionSettings
from gateway.predictions.tracker import Tracker
from gateway.predictions.views import is_settled, owned_by, size_of_view
from gateway.runtime.live import LiveSettings
from gateway.runtime.lru import resize_lru
from gateway.runtime.pauses import off_the_loop
from gateway.runtime.tasks import Tasks

PAGE_SIZE = 100
_RENEWED = 100
"""Number of runs with new copies to remember: a read that began before them may return the run without them."""
_CANCELED = 10_000
"""Number of cancelled predictions to remember: a read that began before a cancel may return the view without it."""


class PredictionService:
    """Shows, lists, awaits and cancels predictions."""

    def __init__(
        self,
        store: CreateStore,
        tracker: Tracker,
        clock: Clock,
        events: PredictionEvents,
        observer: PredictionObserver,
        *,
        ticket_secret: bytes,
        settings: LiveSettings[PredictionSettings],
        output_links: CopyLinks | None = None,
        news: News | None = None,
        upstream_base: str | None = None,
    ) -> None:
        self._news = news or NoNews()
        self._store = store
        self._tracker = tracker
        self._clock = clock
        self._events = events
        self._observer = observer
        half = settings.value.memory_bytes // 2
        self._ticket_secret = ticket_secret
        self._bodies = PredictionBodies(ticket_secret, output_links, half, upstream_base)
        self._recent = RecentPredictions(half, size_of_view)
        self._renewed: LRUCache[str, tuple[Copy, ...]] = LRUCache(_RENEWED)
        self._lately_canceled: LRUCache[str, Prediction] = LRUCache(_CANCELED)
        self._settings = settings
        self._waiting: dict[str, int] = {}
        self._canceled: set[str] = set()
        self._changes = Changes()
        self._tasks = Tasks()
        self._cancels = CancelRecorder(store, clock, self._tasks, self._after_cancel)
        self._closing = False
        self._shortening = asyncio.Lock()
        settings.subscribe(self._resize)

    def _resize(self, settings: PredictionSettings) -> None:
        self._bodies.resize(settings.memory_bytes // 2)
        self._recent = resize_lru(self._recent, settings.memory_bytes // 2)

    def canceled_at(self, view: PredictionView) -> float | None:
        """Return when a prediction was cancelled for its caller, as far as is known in memory."""
        return self._lately_canceled.get(view.prediction.id, view.prediction).canceled_at

    def show(self, view: PredictionView, base: str, family: Family) -> bytes:
        """Return the JSON of a prediction for its caller: the same bytes as long as nothing in it changes."""
        return self._bodies.show(view, base, family, is_kept=view.prediction.id in self._recent)

    def show_large(self, view: PredictionView, base: str, family: Family) -> Awaitable[bytes]:
        """Return what `show` returns, for a prediction that may be large: others are served meanwhile."""
        return self._bodies.show_large(view, base, family, is_kept=view.prediction.id in self._recent)

    def show_as_starting(self, view: PredictionView, base: str, family: Family) -> Awaitable[bytes]:
        """Return the JSON of a prediction as if it was just created, whatever its state."""
        return self._bodies.show_as_starting(view, base, family)

    async def show_shortened(self, view: PredictionView, base: str, family: Family) -> bytes:
        """Return what `show_as_starting` returns for a large prediction, without its input. One is read at a time."""
        async with self._shortening:
            whole = await self.whole(view)
            short = await off_the_loop(whole.run.document, partial(documents.shortened, whole.run.document))
            del whole
        return await self._bodies.show_as_starting(view.with_run(replace(view.run, document=short)), base, family)

    def copy_links(self, view: PredictionView, base: str) -> Mapping[str, str]:
        """Return the links that replace upstream's links in a prediction; empty if upstream's are shown."""
        return self._bodies.copy_links(view, base)

    def renew(self, run: Run) -> None:
        """Replace an ended run in memory: it now has copies of its files."""
        self._renewed[run.id] = run.copies
        self._recent.replace_run(run)

    @property
    def waiting(self) -> int:
        """Number of requests that wait for a prediction's end."""
        return sum(self._waiting.values())

    @property
    def shown_bytes(self) -> int:
        """Bytes of predictions kept in memory as they are shown, and of documents split for that."""
        return self._bodies.kept_bytes

    @property
    def recent_bytes(self) -> int:
        """Bytes of documents kept in memory."""
        return int(self._recent.currsize)

    async def get(self, caller: Caller, prediction_id: str, kind: Kind | None = None) -> PredictionView:
        """Return a prediction of the caller. Raise `NotFound` if it is unknown or not the caller's.

        A large document that only the store has is left out: see `whole`.
        """
        view = owned_by(self._from_memory(prediction_id) or await self._from_store(prediction_id), caller, kind)
        self._observer.polled("gateway")
        return view

    async def owned(self, caller: Caller, prediction_id: str, kind: Kind | None = None) -> PredictionView:
        """Return what `get` returns, without counting a poll."""
        return owned_by(await self.find(prediction_id), caller, kind)

    async def whole(self, view: PredictionView) -> PredictionView:
        """Return a prediction as it is now, with its document. Raise `NotFound` if it is gone.

        Call it when there is room for a document of its size: any number of requests may ask for large ones.
        """
        known = self._from_memory(view.prediction.id)
        if known is None:
            tracked = self._tracker.tracked(view.run.id)
            if tracked is not None and tracked.is_whole:
                known = self._newest(view)
        known = known or await self._from_store(view.prediction.id, most_bytes=None)
        if known is None:
            raise NotFound
        return known

    async def find(self, prediction_id: str) -> PredictionView | None:
        """Find a prediction of any team, without a large document. The caller checks who may see it."""
        return self._from_memory(prediction_id) or await self._from_store(prediction_id)

    def _from_memory(self, prediction_id: str) -> PredictionView | None:
        """Return the newest state of a prediction; `None` if only the store knows it."""
        # One look-up, where `get` is two: this is most of a poll's work here.
        try:
            view = self._recent[prediction_id]
        except KeyError:
            return None
        return self._newest(view)

    async def _from_store(self, prediction_id: str, most_bytes: int | None = LARGE_DOCUMENT) -> PredictionView | None:
        changes = self._changes.count
        view = await self._store.prediction(prediction_id, most_bytes=most_bytes)
        if view is None or not is_settled(view):
            return None
        if self._changes.may_concern(view.run.id, changes):
            return view
        view = self._keep(view)
        return self._newest(view) or view

    def _keep(self, view: PredictionView) -> PredictionView:
        """Keep a prediction in memory. A cancel that was recorded while it was read is kept."""
        if (canceled := self._lately_canceled.get(view.prediction.id)) is not None:
            view = PredictionView(canceled, view.run, view.left_out)
        if not view.run.copies and (copies := self._renewed.get(view.run.id)) is not None:
            # It was read before its copies were recorded.
            view = view.with_run(replace(view.run, copies=copies))
        self._remember(view)
        return view

    def _remember(self, view: PredictionView) -> None:
        """Keep a view, unless it alone is too large: then it is read from the store each time."""
        self._recent.pop(view.prediction.id, None)
        if view.left_out:
            return
        with suppress(ValueError):
            self._recent[view.prediction.id] = view

    def _newest(self, view: PredictionView) -> PredictionView | None:
        """Put the newest state of the run beside the prediction; `None` if only the store knows it."""
        if view.run.status.is_terminal:
            return view
        tracked = self._tracker.tracked(view.run.id)
        if tracked is None:
            return None
        if tracked.run is view.run:
            return view
        if not tracked.is_whole:
            return view if tracked.is_known_as(view.run) else None
        return self._keep(PredictionView(view.prediction, tracked.run))

    async def list(
        self,
        caller: Caller,
        kind: Kind,
        *,
        position: Cursor | None = None,
        created_after: float | None = None,
        created_before: float | None = None,
    ) -> Page:
        """List the predictions of a kind that the caller sees, newest first, `PAGE_SIZE` a page, fewer if large.

        Raise `Forbidden` for publishable keys.
        """
        if caller.is_shared_by_visitors:
            raise Forbidden(NO_LIST)
        page = await self._store.predictions(
            team=caller.team.name,
            owner=caller.sees_owner,
            kind=kind,
            limit=PAGE_SIZE,
            max_bytes=self._settings.value.max_page_bytes,
            position=position,
            created_after=created_after,
            created_before=created_before,
        )
        newest: list[PredictionView] = [
            self._newest(view) or view for view in page.items if isinstance(view, PredictionView) and is_settled(view)
        ]
        return Page(newest, page.has_newer, page.has_older)

    async def cancel(self, caller: Caller, prediction_id: str, kind: Kind | None = None) -> PredictionView:
        """End a prediction for its caller at once; upstream is asked when nobody else waits for the run.

        One that has ended stays as it is. Raise `NotFound` as `get` does.
        """
        await self.owned(caller, prediction_id, kind)
        return await self._tasks.run_to_completion(self._cancel(prediction_id), "cancel")

    async def expire(self, prediction_id: str) -> None:
        """End a prediction whose deadline has come: `aborted` if its run has not started, else `canceled`."""
        await self._tasks.run_to_completion(self._cancel(prediction_id, by_deadline=True), "expire")

    async def _cancel(self, prediction_id: str, *, by_deadline: bool = False) -> PredictionView:
        cancellation = await self._cancels.record(prediction_id, by_deadline=by_deadline)
        if cancellation is None:
            raise NotFound
        return self._after_cancel(cancellation, by_deadline=by_deadline)

    def _after_cancel(self, cancellation: Cancellation, *, by_deadline: bool) -> PredictionView:
        view = cancellation.view
        prediction_id = view.prediction.id
        if view.prediction.canceled_at is not None:
            self._lately_canceled[prediction_id] = view.prediction
        self._remember(view)
        if prediction_id in self._waiting:
            self._canceled.add(prediction_id)
        if cancellation.changed:
            self._events.on_prediction_canceled(view)
            self._news.tell(Topic.PREDICTION, of_run(view.run.id, prediction_id))
            self._observer.prediction_finished(view.prediction.team, documents.shown_status(view))
        if cancellation.is_last:
            self._observer.canceled("asked")
            self._tracker.cancel_asked(view.run)
        else:
            if cancellation.changed:
                self._observer.canceled("left")
            elif not by_deadline:
                # A deadline after the end is the rule, not a cancel that came too late.
                self._observer.canceled("over")
            self._tracker.wake(view.run.id)
        return view

    def on_run_ended(self, ended: RunEnded) -> None:
        """Show the end from memory, and count it for each prediction that was not cancelled before."""
        for prediction_id in ended.prediction_ids:
            view = self._recent.get(prediction_id)
            if view is not None:
                self._remember(PredictionView(view.prediction, ended.run))
        for shared in ended.shared_by:
            if shared.waiting:
                self._observer.prediction_finished(shared.team, ended.run.status, shared.waiting)

    async def wait(self, view: PredictionView, seconds: float) -> PredictionView:
        """Wait for a prediction to end for its caller, or for the time to be over; return it as it is then."""
        if view.run.status.is_terminal or view.prediction.canceled_at is not None:
            return view
        prediction_id = view.prediction.id
        tracked = self._tracker.awaited(view.run)
        if tracked is None:
            return await self.find(prediction_id) or view
        is_canceled = False
        self._waiting[prediction_id] = self._waiting.get(prediction_id, 0) + 1
        try:
            await tracked.wait_until(
                lambda run: run.status.is_terminal or self._closing or prediction_id in self._canceled, seconds
            )
            is_canceled = prediction_id in self._canceled
        finally:
            self._waiting[prediction_id] -= 1
            if not self._waiting[prediction_id]:
                del self._waiting[prediction_id]
                self._canceled.discard(prediction_id)
        if is_canceled or prediction_id in self._lately_canceled or not tracked.is_whole:
            return await self.find(prediction_id) or view
        return PredictionView(view.prediction, tracked.run)

    async def by_ticket(self, ticket: str, origin: str | None) -> PredictionView:
        """Return the prediction whose stream a ticket opens to a page of this origin, without a large document.

        Raise `NotFound` if it opens none, or no longer, or to other pages only.
        """
        prediction_id = tickets.prediction_of(self._ticket_secret, ticket)
        if prediction_id is not None:
            view = await self._store.prediction(prediction_id, most_bytes=LARGE_DOCUMENT)
        else:
            view = await self._store.prediction_by_ticket(tickets.fingerprint(ticket))
        if view is None or not tickets.opens(view.prediction, self._clock.now(), origin):
            raise NotFound
        return self._newest(view) or view

    def forget(self, prediction_id: str) -> None:
        """Drop a prediction from memory, because its record was changed or deleted."""
        self._recent.pop(prediction_id, None)
        self._lately_canceled.pop(prediction_id, None)

    def forget_run(self, run_id: str) -> None:
        """Drop the predictions of a run from memory, because another node has changed its record."""
        self._changes.note(run_id)
        self._recent.drop_run(run_id)

    def is_known(self, prediction_id: str) -> bool:
        """Return whether a prediction is in memory, or somebody waits for it."""
        return prediction_id in self._recent or prediction_id in self._waiting

    async def look_at(self, prediction_id: str) -> None:
        """Read a prediction that another node has cancelled, perhaps, and end it for those who wait for it here."""
        self._recent.pop(prediction_id, None)
        view = await self._store.prediction(prediction_id, most_bytes=LARGE_DOCUMENT)
        if view is None or view.prediction.canceled_at is None or prediction_id in self._lately_canceled:
            return
        self._lately_canceled[prediction_id] = view.prediction
        if prediction_id in self._waiting:
            self._canceled.add(prediction_id)
        self._events.on_prediction_canceled(view)
        self._tracker.wake(view.run.id)

    async def look_at_all(self) -> None:
        """Read every prediction that somebody waits for; drop the others whose runs go on from memory."""
        for prediction_id in [key for key, view in self._recent.items() if not view.run.status.is_terminal]:
            del self._recent[prediction_id]
        for prediction_id in tuple(self._waiting):
            await self.look_at(prediction_id)

    def forget_ended(self) -> None:
        """Drop every ended prediction from memory, because the janitor has removed data."""
        self._changes.note_all()
        self._renewed.clear()
        self._bodies.clear()
        surrogates.forget()
        for prediction_id in [key for key, view in self._recent.items() if view.run.status.is_terminal]:
            del self._recent[prediction_id]

    async def drain(self) -> None:
        """Answer all waiting requests with the current state. Their predictions continue."""
        self._closing = True
        self._cancels.stop()
        self._tracker.wake_all()

    async def close(self) -> None:
        """Wait for the cancels in progress."""
        await self._tasks.close()
