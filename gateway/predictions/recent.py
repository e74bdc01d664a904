"""The predictions that were read or changed last, in memory."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from cachetools import Cache, LRUCache

from gateway.domain.records import PredictionView, Run

VIEW_BYTES = 2560
"""Memory of a view beside its document, and of its entry in a cache (measured)."""

if TYPE_CHECKING:
    _Views = LRUCache[str, PredictionView]
else:
    _Views = LRUCache


class RecentPredictions(_Views):
    """Predictions by id, and by run. The least recently used one is dropped first."""

    def __init__(self, maxsize: float, getsizeof: Callable[[PredictionView], float]) -> None:
        super().__init__(maxsize, getsizeof)
        self._of_run: dict[str, set[str]] = {}

    def __setitem__(self, prediction_id: str, view: PredictionView) -> None:
        super().__setitem__(prediction_id, view)
        self._of_run.setdefault(view.run.id, set()).add(prediction_id)

    def __delitem__(self, prediction_id: str) -> None:
        run_id = Cache.__getitem__(self, prediction_id).run.id
        super().__delitem__(prediction_id)
        of_run = self._of_run[run_id]
        of_run.discard(prediction_id)
        if not of_run:
            del self._of_run[run_id]

    def clear(self) -> None:
        """Drop everything."""
        super().clear()
        self._of_run.clear()

    def drop_run(self, run_id: str) -> None:
        """Drop the predictions of a run."""
        for prediction_id in tuple(self._of_run.get(run_id, ())):
            del self[prediction_id]

    def replace_run(self, run: Run) -> None:
        """Replace a run in its predictions. This does not count as a use of them."""
        for prediction_id in tuple(self._of_run.get(run.id, ())):
            known = Cache.__getitem__(self, prediction_id)
            view = PredictionView(known.prediction, run)
            if self.getsizeof(view) > self.getsizeof(known):
                # Others, or this one, would have to go for it.
                del self[prediction_id]
            else:
                Cache.__setitem__(self, prediction_id, view)
