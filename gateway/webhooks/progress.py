"""Progress webhooks of predictions whose runs are in progress: what was sent, and what to send next.

Kept in memory, best effort: only the delivery of the end is guaranteed, by the store. An unsent `output` or `logs`
event is replaced by a newer one, and dropped if its team has too many. A document that is not small is not kept: a
receiver that does not answer would fill the memory with inputs. It is read from the store when its event is sent.
"""

import heapq
import itertools
import logging
from collections.abc import Iterator
from typing import NamedTuple

from gateway.domain.records import PredictionView, Run
from gateway.webhooks.rules import events
from gateway.webhooks.rules.events import Event, ProgressSnapshot, Sent

logger = logging.getLogger(__name__)

SMALL_DOCUMENT = 4096
"""Bytes of a document that is kept with an unsent event. There may be 20,000 of a team."""


class Ending(NamedTuple):
    """The state of a prediction's progress webhooks at its end: what was sent, and what was due and not sent."""

    sent: Sent
    unsent: tuple[Event, ...] = ()


class _Followed:
    """A followed prediction: what was sent, and the views of its unsent events."""

    __slots__ = ("again_at", "events", "progress", "sent", "snapshot", "start", "view")

    def __init__(self, view: PredictionView, sent: Sent) -> None:
        self.view = _kept(view)
        self.snapshot: ProgressSnapshot | None = None
        """The newest progress, to decide about a throttled event when it becomes due."""
        self.events = events.wanted(view.prediction.webhook_events_filter)
        self.sent = sent
        self.start: PredictionView | None = None
        self.progress: tuple[Event, PredictionView] | None = None
        self.again_at: float | None = None
        """When a throttled event of this view becomes due."""

    def drop_document(self) -> None:
        """Drop the document if no event is made of it any more: it can be large."""
        if not self.has_unsent and self.again_at is None:
            self.view = self.view.without_document()

    @property
    def has_unsent(self) -> bool:
        return self.start is not None or self.progress is not None


class ProgressQueue:
    """The unsent progress events of predictions whose runs are in progress."""

    def __init__(self) -> None:
        self._followed: dict[str, _Followed] = {}
        self._of_run: dict[str, set[str]] = {}
        # Predictions with unsent events, oldest first, by team.
        self._pending: dict[str, dict[str, None]] = {}
        # Heap of times at which throttled events become due.
        self._again: list[tuple[float, str]] = []
        # Predictions whose run has ended and whose end is not yet delivered, with the time of the end.
        self._ended: dict[str, float] = {}

    @property
    def pending(self) -> int:
        """Number of predictions with unsent events."""
        return sum(map(len, self._pending.values()))

    def pending_of(self, team: str) -> int:
        """Return the number of a team's predictions with unsent events."""
        return len(self._pending.get(team, ()))

    def begin(self, view: PredictionView, now: float) -> bool:
        """Follow a new prediction, whose run may have begun before. Return whether an event is due."""
        followed = self._add(view, Sent())
        return self._update(followed, _snapshot(view), now)

    def resume(self, view: PredictionView) -> None:
        """Follow a prediction of an earlier process. Its state until now counts as sent."""
        snapshot = _snapshot(view)
        self._add(view, events.caught_up(snapshot) if snapshot is not None else Sent()).drop_document()

    def _add(self, view: PredictionView, sent: Sent) -> _Followed:
        prediction = view.prediction
        followed = self._followed[prediction.id] = _Followed(view, sent)
        self._of_run.setdefault(prediction.run_id, set()).add(prediction.id)
        return followed

    def change(self, run: Run, now: float) -> Iterator[PredictionView]:
        """Process a change of a run in progress. Yield the predictions with an event that is due."""
        snapshot: ProgressSnapshot | None = None
        for prediction_id in self._of_run.get(run.id, ()):
            followed = self._followed[prediction_id]
            view = PredictionView(followed.view.prediction, run)
            # Followed predictions are not cancelled, so the snapshot is the same for all of them.
            snapshot = snapshot or _snapshot(view)
            followed.view = _kept(view)
            if self._update(followed, snapshot, now):
                yield followed.view

    def next_at(self) -> float | None:
        """Return when the next throttled event becomes due; `None` if there is none."""
        return self._again[0][0] if self._again else None

    def due(self, now: float) -> Iterator[PredictionView]:
        """Yield the predictions whose throttled events have become due."""
        while self._again and self._again[0][0] <= now:
            _, prediction_id = heapq.heappop(self._again)
            followed = self._followed.get(prediction_id)
            if followed is not None and self._update(followed, followed.snapshot, now):
                yield followed.view

    def _update(self, followed: _Followed, snapshot: ProgressSnapshot | None, now: float) -> bool:
        followed.snapshot = snapshot
        if snapshot is None or snapshot.status.is_terminal:
            # The end is delivered from the store.
            return False
        prediction_id = followed.view.prediction.id
        if prediction_id in self._ended:
            return False
        due = events.due(followed.sent, snapshot, followed.events, now)
        followed.sent = due.sent
        for event in due.events:
            if event is Event.START:
                followed.start = followed.view
            else:
                followed.progress = (event, followed.view)
        followed.again_at = due.again_at
        if due.again_at is not None:
            heapq.heappush(self._again, (due.again_at, prediction_id))
        if followed.has_unsent:
            self._pending.setdefault(followed.view.prediction.team, {}).setdefault(prediction_id)
        followed.drop_document()
        return bool(due.events)

    def take(self, prediction_id: str) -> tuple[Event, PredictionView] | None:
        """Return a prediction's next unsent event and mark it as sent; `None` if there is none.

        The view has no document if that was not small.
        """
        followed = self._followed.get(prediction_id)
        if followed is None:
            return None
        taken = followed.progress
        if followed.start is not None:
            taken, followed.start = (Event.START, followed.start), None
        else:
            followed.progress = None
        if not followed.has_unsent:
            self._not_pending(followed)
        followed.drop_document()
        return taken

    def has_more(self, prediction_id: str) -> bool:
        """Return whether a prediction has unsent events."""
        followed = self._followed.get(prediction_id)
        return followed is not None and followed.has_unsent

    def end(self, prediction_id: str) -> Ending | None:
        """Stop following a prediction. Return its state; `None` if it was not followed."""
        followed = self._followed.pop(prediction_id, None)
        self._ended.pop(prediction_id, None)
        if followed is None:
            return None
        self._not_pending(followed)
        self._leave_run(followed)
        unsent = [Event.START] if followed.start is not None else []
        if followed.progress is not None:
            unsent.append(followed.progress[0])
        return Ending(followed.sent, tuple(unsent))

    def silence(self, prediction_id: str, now: float) -> None:
        """Drop a prediction's unsent events and send no more until its end is delivered. For a cancelled prediction."""
        followed = self._followed.get(prediction_id)
        if followed is None:
            return
        followed.start = followed.progress = None
        self._not_pending(followed)
        self._leave_run(followed)
        self._ended[prediction_id] = now

    def note_end(self, run_id: str, now: float) -> None:
        """Process the end of a run: the ends of its predictions are about to be delivered."""
        for prediction_id in self._of_run.pop(run_id, ()):
            self._ended[prediction_id] = now

    def forget_ended(self, before: float) -> None:
        """Stop following predictions that ended before a time and whose end was not delivered."""
        for prediction_id in [each for each, at in self._ended.items() if at < before]:
            self.end(prediction_id)

    def _leave_run(self, followed: _Followed) -> None:
        run_id = followed.view.run.id
        siblings = self._of_run.get(run_id, set())
        siblings.discard(followed.view.prediction.id)
        if not siblings:
            self._of_run.pop(run_id, None)

    def _not_pending(self, followed: _Followed) -> None:
        prediction = followed.view.prediction
        of_team = self._pending.get(prediction.team, {})
        of_team.pop(prediction.id, None)
        if not of_team:
            self._pending.pop(prediction.team, None)

    def drop_oldest(self, team: str, count: int) -> int:
        """Drop the unsent `output` or `logs` event of the `count` predictions of a team that wait longest.

        A `start` event stays. Return the number of events.
        """
        with_progress = (each for each in self._pending.get(team, ()) if self._followed[each].progress is not None)
        oldest = list(itertools.islice(with_progress, count))
        for prediction_id in oldest:
            followed = self._followed[prediction_id]
            followed.progress = None
            if not followed.has_unsent:
                self._not_pending(followed)
            followed.drop_document()
        return len(oldest)


def _kept(view: PredictionView) -> PredictionView:
    return view if len(view.run.document) <= SMALL_DOCUMENT else view.without_document()


def _snapshot(view: PredictionView) -> ProgressSnapshot | None:
    if view.left_out and not view.run.document:
        # A prediction that joined a run with a large document, which is not read for this.
        return None
    try:
        return events.snapshot_of(view)
    except ValueError as exc:
        logger.warning("document cannot be read for webhooks", extra={"run": view.run.id, "reason": str(exc)})
        return None
