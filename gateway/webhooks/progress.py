"""What the callers of live predictions have been told, and what they are to be told next: in memory, best effort.

Only the end must arrive; it is in the store. Of what comes before, the newest is what counts: a message that has not
gone out yet gives way to the next one.
"""

import heapq
import logging
from collections.abc import Iterator
from typing import NamedTuple

from gateway.domain.records import PredictionView, Run
from gateway.webhooks.rules import events
from gateway.webhooks.rules.events import Event, ProgressSnapshot, Sent

logger = logging.getLogger(__name__)


class Ending(NamedTuple):
    """How far a prediction had been told when its end came, and what of that had not gone out yet."""

    told: Sent
    unsent: tuple[Event, ...] = ()


class _Line:
    """One prediction's."""

    __slots__ = ("events", "progress", "start", "told", "view")

    def __init__(self, view: PredictionView, told: Sent) -> None:
        self.view = view
        self.events = events.wanted(view.prediction.webhook_events_filter)
        self.told = told
        self.start: PredictionView | None = None
        self.progress: tuple[Event, PredictionView] | None = None

    @property
    def has_something(self) -> bool:
        return self.start is not None or self.progress is not None


class ProgressQueue:
    """The lines of predictions whose runs are live."""

    def __init__(self) -> None:
        self._lines: dict[str, _Line] = {}
        self._of_run: dict[str, set[str]] = {}
        # In the order in which they came to have something to tell.
        self._pending: dict[str, None] = {}
        self._again: list[tuple[float, str]] = []
        self._ended: dict[str, float] = {}

    @property
    def pending(self) -> int:
        """How many predictions have something to tell that has not gone out."""
        return len(self._pending)

    def begin(self, view: PredictionView, now: float) -> bool:
        """Follow a prediction that has come about; it may be in the midst of its run. Return whether it has news."""
        line = self._add(view, Sent())
        return self._look(line, _moment(view), now)

    def resume(self, view: PredictionView) -> None:
        """Follow a prediction that an earlier process followed: what was so then counts as told."""
        moment = _moment(view)
        self._add(view, events.caught_up(moment) if moment is not None else Sent())

    def _add(self, view: PredictionView, told: Sent) -> _Line:
        prediction = view.prediction
        line = self._lines[prediction.id] = _Line(view, told)
        self._of_run.setdefault(prediction.run_id, set()).add(prediction.id)
        return line

    def change(self, run: Run, now: float) -> Iterator[PredictionView]:
        """Take news of a run that goes on; give the predictions that have something to tell."""
        moment: ProgressSnapshot | None = None
        for prediction_id in self._of_run.get(run.id, ()):
            line = self._lines[prediction_id]
            line.view = PredictionView(line.view.prediction, run)
            # Who is followed has not left, so that it is one moment for all.
            moment = moment or _moment(line.view)
            if self._look(line, moment, now):
                yield line.view

    def next_at(self) -> float | None:
        """Say when something that was held back is due."""
        return self._again[0][0] if self._again else None

    def due(self, now: float) -> Iterator[PredictionView]:
        """Give the predictions for which the time has come to tell what was held back."""
        while self._again and self._again[0][0] <= now:
            _, prediction_id = heapq.heappop(self._again)
            line = self._lines.get(prediction_id)
            if line is not None and self._look(line, _moment(line.view), now):
                yield line.view

    def _look(self, line: _Line, moment: ProgressSnapshot | None, now: float) -> bool:
        if moment is None or moment.status.is_terminal:
            # The end is told from the store.
            return False
        prediction_id = line.view.prediction.id
        if prediction_id in self._ended:
            return False
        due = events.due(line.told, moment, line.events, now)
        line.told = due.told
        for event in due.events:
            if event is Event.START:
                line.start = line.view
            else:
                line.progress = (event, line.view)
        if due.again_at is not None:
            heapq.heappush(self._again, (due.again_at, prediction_id))
        if line.has_something:
            self._pending.setdefault(prediction_id)
        return bool(due.events)

    def take(self, prediction_id: str) -> tuple[Event, PredictionView] | None:
        """Return what is to be told next of a prediction, and count it as told."""
        line = self._lines.get(prediction_id)
        if line is None:
            return None
        taken = line.progress
        if line.start is not None:
            taken, line.start = (Event.START, line.start), None
        else:
            line.progress = None
        if not line.has_something:
            self._pending.pop(prediction_id, None)
        return taken

    def has_more(self, prediction_id: str) -> bool:
        """Say whether there is something to tell of a prediction."""
        return prediction_id in self._pending

    def end(self, prediction_id: str) -> Ending | None:
        """Follow a prediction no longer. Return how far it was told, if it was followed."""
        line = self._lines.pop(prediction_id, None)
        self._pending.pop(prediction_id, None)
        self._ended.pop(prediction_id, None)
        if line is None:
            return None
        self._leave_run(line)
        unsent = [Event.START] if line.start is not None else []
        if line.progress is not None:
            unsent.append(line.progress[0])
        return Ending(line.told, tuple(unsent))

    def silence(self, prediction_id: str, now: float) -> None:
        """Tell nothing more of a prediction but its end, which is to come."""
        line = self._lines.get(prediction_id)
        if line is None:
            return
        line.start = line.progress = None
        self._pending.pop(prediction_id, None)
        self._leave_run(line)
        self._ended[prediction_id] = now

    def note_end(self, run_id: str, now: float) -> None:
        """Take note that the ends of a run's predictions are to come."""
        for prediction_id in self._of_run.pop(run_id, ()):
            self._ended[prediction_id] = now

    def forget_ended(self, before: float) -> None:
        """Follow those no longer whose end was to come before that, and was not told."""
        for prediction_id in [each for each, at in self._ended.items() if at < before]:
            self.end(prediction_id)

    def _leave_run(self, line: _Line) -> None:
        run_id = line.view.run.id
        siblings = self._of_run.get(run_id, set())
        siblings.discard(line.view.prediction.id)
        if not siblings:
            self._of_run.pop(run_id, None)

    def drop_oldest(self, count: int) -> int:
        """Forget the oldest of what has not gone out; return how many predictions that concerned."""
        oldest = list(self._pending)[:count]
        for prediction_id in oldest:
            del self._pending[prediction_id]
            line = self._lines[prediction_id]
            line.start = line.progress = None
        return len(oldest)


def _moment(view: PredictionView) -> ProgressSnapshot | None:
    try:
        return events.moment_of(view)
    except ValueError as exc:
        logger.warning("a document cannot be read for webhooks", extra={"run": view.run.id, "reason": str(exc)})
        return None
