"""Which creates in progress may be equal to an uncertain one: those of this process, and of all other nodes.

An uncertain create may only be given a run upstream that no other create can explain. The creates of other nodes are
intents in the store.
"""

from collections.abc import Callable

from gateway.domain.records import Run
from gateway.predictions.in_flight import PendingCreates
from gateway.predictions.ports.sharing import Sharing

_PAGE = 20


class EqualCreates:
    """Answers for one search."""

    def __init__(self, pending: PendingCreates, is_sought: Callable[[str], bool], store: Sharing | None = None) -> None:
        """Take `is_sought`, of intents by id, and the store, where other nodes serve from it too."""
        self._pending = pending
        self._is_sought = is_sought
        self._store = store

    async def is_sending(self, run: Run, until: float) -> bool:
        """Return whether an equal create that began until then awaits its answer."""
        if self._pending.is_sending(run.request, run.path, until):
            return True
        return any(
            other.uncertain_at is None and other.intended_at <= until and not self._is_sought(other.id)
            for other in await self._equal(run)
        )

    async def is_only(self, run: Run) -> bool:
        """Return whether no other create in progress can be equal to that of a run."""
        return self._pending.is_only(run) and not await self._equal(run)

    async def _equal(self, run: Run) -> list[Run]:
        """Return the equal intents in the store, those of this process included."""
        if self._store is None:
            return []
        equal: list[Run] = []
        after = ""
        while intents := await self._store.intents(run.path, after=after, limit=_PAGE):
            after = intents[-1].id
            equal += [
                other
                for other in intents
                if other.id != run.id and self._pending.may_be_equal(other.request, run.request)
            ]
        return equal
