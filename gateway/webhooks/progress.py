"""What the callers of live predictions have been told, and what they are to be told next: in memory, best effort.

Only the end must arrive; it is in the store. Of what comes before, the newest is what counts: a message that has not
gone out yet gives way to the next one.
"""

import heapq
import logging
from collections.abc import Iterator
from typing import NamedTuple

from gateway.domain.records import Run, Sight
from gateway.webhooks.rules import events
from gateway.webhooks.rules.events import Event, Moment, Told

logger = logging.getLogger(__name__)


class Ending(NamedTuple):
    """How far a prediction had been told when its end came, and what of that had not gone out yet."""

    told: Told
    owed: tuple[Event, ...] = ()


class _Line:
    """One prediction's."""

    __slots__ = ("events", "progress", "sight", "start", "told")

    def __init__(self, sight: Sight, told: Told) -> None:
        self.sight = sight
        self.events = events.wanted(sight.prediction.webhook_events_filter)
        self.told = told
        self.start: Sight | None = None
        self.progress: tuple[Event, Sight] | None = None

    @property
    def has_something(self) -> bool:
        return self.start is not None or self.progress is not None


class WebhookLines:
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

    def begin(self, sight: Sight, now: float) -> bool:
        """Follow a prediction that has come about; it may be in the midst of its run. Return whether it has news."""
        line = self._add(sight, Told())
        return self._look(line, _moment(sight), now)

    def resume(self, sight: Sight) -> None:
        """Follow a prediction that an earlier process followed: what was so then counts as told."""
        moment = _moment(sight)
        self._add(sight, events.caught_up(moment) if moment is not None else Told())

    def _add(self, sight: Sight, told: Told) -> _Line:
        prediction = sight.prediction
        line = self._lines[prediction.id] = _Line(sight, told)
        self._of_run.setdefault(prediction.run_id, set()).add(prediction.id)
        return line

    def change(self, run: Run, now: float) -> Iterator[Sight]:
        """Take news of a run that goes on; give the predictions that have something to tell."""
        moment: Moment | None = None
        for prediction_id in self._of_run.get(run.id, ()):
            line = self._lines[prediction_id]
            line.sight = Sight(line.sight.prediction, run)
            # Who is followed has not left, so that it is one moment for all.
            moment = moment or _moment(line.sight)
            if self._look(line, moment, now):
                yield line.sight

    def next_at(self) -> float | None:
        """Say when something that was held back is due."""
        return self._again[0][0] if self._again else None

    def due(self, now: float) -> Iterator[Sight]:
        """Give the predictions for which the time has come to tell what was held back."""
        while self._again and self._again[0][0] <= now:
            _, prediction_id = heapq.heappop(self._again)
            line = self._lines.get(prediction_id)
            if line is not None and self._look(line, _moment(line.sight), now):
                yield line.sight

    def _look(self, line: _Line, moment: Moment | None, now: float) -> bool:
        if moment is None or moment.status.is_terminal:
            # The end is told from the store.
            return False
        prediction_id = line.sight.prediction.id
        if prediction_id in self._ended:
            return False
        due = events.due(line.told, moment, line.events, now)
        line.told = due.told
        for event in due.events:
            if event is Event.START:
                line.start = line.sight
            else:
                line.progress = (event, line.sight)
        if due.again_at is not None:
            heapq.heappush(self._again, (due.again_at, prediction_id))
        if line.has_something:
            self._pending.setdefault(prediction_id)
        return bool(due.events)

    def take(self, prediction_id: str) -> tuple[Event, Sight] | None:
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
        owed = [Event.START] if line.start is not None else []
        if line.progress is not None:
            owed.append(line.progress[0])
        return Ending(line.told, tuple(owed))

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
        run_id = line.sight.run.id
        siblings = self._of_run.get(run_id, set())
        siblings.discard(line.sight.prediction.id)
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


def _moment(sight: Sight) -> Moment | None:
    try:
        return events.moment_of(sight)
    except ValueError as exc:
        logger.warning("a document cannot be read for webhooks", extra={"run": sight.run.id, "reason": str(exc)})
        return None
