"""Those who know a part of a prediction's story."""

from collections.abc import Sequence
from typing import Protocol

from gateway.domain.records import Sight
from gateway.operations.rules.explain import Happening


class Teller(Protocol):
    """Whoever did something for a prediction that its own record does not tell: deliveries, copies of outputs."""

    async def happenings(self, sight: Sight) -> Sequence[Happening]:
        """Tell what was done for this prediction; nothing of others that share its run."""
        ...
