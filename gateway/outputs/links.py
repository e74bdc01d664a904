"""The links of stored copies, as each caller sees them: derived, so that every answer shows the same ones."""

from collections.abc import Mapping

from gateway.domain.ports.clock import Clock
from gateway.domain.records import PredictionView
from gateway.outputs.rules import outputs


class OutputLinks:
    """Writes the links of copies."""

    def __init__(self, clock: Clock, *, secret: bytes, ttl_seconds: float) -> None:
        self._clock = clock
        self._secret = secret
        self._ttl_seconds = ttl_seconds

    def are_shown(self, view: PredictionView) -> bool:
        """Say whether a prediction shows them now."""
        return bool(view.run.copies) and outputs.are_shown(view, self._clock.now())

    def of(self, view: PredictionView, base: str) -> Mapping[str, str]:
        """Return what stands in for upstream's links in a prediction, for a caller who knows the gateway by `base`."""
        if not view.run.copies:
            return {}
        origin = base.removesuffix("/v1")
        return outputs.links(view, self._secret, origin, self._clock.now(), self._ttl_seconds)
