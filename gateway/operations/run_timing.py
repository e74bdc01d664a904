"""Tells how long each run took."""

from gateway.domain.ports.observers import RunObserver
from gateway.domain.records import Run
from gateway.predictions.rules import run_times


class RunTimings:
    """Acts at the end of runs."""

    def __init__(self, observer: RunObserver) -> None:
        self._observer = observer

    async def note_end(self, run: Run) -> None:
        """Tell of a run that has ended."""
        queue, seconds = run_times.read(run.document)
        self._observer.run_ended(run_times.name_of(run.target), queue, seconds)
