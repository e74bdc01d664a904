"""Links to stored copies. They are derived from the prediction, so every response shows the same ones."""

from collections.abc import Mapping

from gateway.domain.ports.clock import Clock
from gateway.domain.records import PredictionView
from gateway.outputs.rules import outputs


class OutputLinks:
    """Replaces upstream's links in predictions by links to stored copies."""

    def __init__(self, clock: Clock, *, secret: bytes, ttl_seconds: float) -> None:
        self._clock = clock
        self._secret = secret
        self._ttl_seconds = ttl_seconds

    def are_shown(self, view: PredictionView) -> bool:
        """Return whether a prediction shows links to copies now."""
        return bool(view.run.copies) and outputs.are_shown(view, self._clock.now())

    def of(self, view: PredictionView, base: str) -> Mapping[str, str]:
        """Return the replacements of upstream's links in a prediction, for a caller of the base URL `base`."""
        if not view.run.copies:
            return {}
        origin = base.removesuffix("/v1")
        return outputs.links(view, self._secret, origin, self._clock.now(), self._ttl_seconds)
