"""What predictions ask of stored outputs."""

from collections.abc import Mapping
from typing import Protocol

from gateway.domain.records import PredictionView


class CopyLinks(Protocol):
    """Links of stored copies, which replace upstream's links when those have expired."""

    def are_shown(self, view: PredictionView) -> bool:
        """Say whether a prediction shows links of copies now."""
        ...

    def of(self, view: PredictionView, base: str) -> Mapping[str, str]:
        """Map upstream's links in a prediction to links of copies below the base URL `base`."""
        ...
