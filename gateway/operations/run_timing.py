"""Measure how long runs were queued and how long they took."""

from gateway.domain.ports.observers import RunObserver
from gateway.domain.records import Run
from gateway.predictions.rules import run_times


class RunTimings:
    """Reports the times of each run to the metrics."""

    def __init__(self, observer: RunObserver) -> None:
        self._observer = observer

    async def note_end(self, run: Run) -> None:
        """Report the times of an ended run."""
        queue, seconds = run_times.read(run.document)
        self._observer.run_ended(run_times.name_of(run.target), queue, seconds)
