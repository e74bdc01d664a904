"""Measure how long runs were queued and how long they took."""

from gateway.domain.ports.observers import PredictionObserver
from gateway.domain.run_end import RunEnded
from gateway.predictions.rules import run_times


class RunTimings:
    """Reports the times of each run to the metrics."""

    def __init__(self, observer: PredictionObserver) -> None:
        self._observer = observer

    def on_run_ended(self, ended: RunEnded) -> None:
        """Measure a run, as far as its document has times."""
        queue, seconds = run_times.read(ended.run.document)
        self._observer.run_ended(run_times.name_of(ended.run.target), queue, seconds)
