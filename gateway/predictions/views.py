"""Questions about one stored prediction: who may see it, whether its run is final, how much memory it takes."""

from gateway.domain.records import Kind, PredictionView, Source
from gateway.domain.teams import Caller
from gateway.errors import NotFound
from gateway.predictions.recent import VIEW_BYTES


def owned_by(view: PredictionView | None, caller: Caller, kind: Kind | None) -> PredictionView:
    """Return a prediction that the caller may see. Raise `NotFound` for a foreign one, and one of another kind."""
    if view is None or kind not in (None, view.prediction.kind):
        raise NotFound
    if not caller.may_see(view.prediction.team, view.prediction.owner):
        raise NotFound
    return view


def is_settled(view: PredictionView) -> bool:
    """Whether the prediction stays on its run. One that joined a run without an identity may still be detached."""
    return view.prediction.source is not Source.JOINED or view.run.fingerprint is not None


def size_of_view(view: PredictionView) -> int:
    """Return the bytes of memory that a view counts as."""
    return len(view.run.document) + len(view.run.request) + VIEW_BYTES
