"""Measures how long each run waited for its start, and how long it took."""

from gateway.domain.ports.observers import PredictionObserver
from gateway.domain.run_end import RunEnded
from gateway.predictions.rules import run_times


class RunTimings:
    """End-of-run listener that measures runs."""

    def __init__(self, observer: PredictionObserver) -> None:
        self._observer = observer

    def on_run_ended(self, ended: RunEnded) -> None:
        """Measure a run, as far as its document has times."""
        queue, seconds = run_times.read(ended.run.document)
        self._observer.run_ended(run_times.name_of(ended.run.target), queue, seconds)
