"""Flights: creates whose run upstream may already have, and those who wait for what becomes of them.

Whoever begins a prediction on a run that is still `intended` waits here: its leader, those that joined, and after a
restart nobody at first. A flight ends once, in one of the three ways of `Resolved`; until then it may turn uncertain,
from when on nobody waits longer than their patience.
"""

import asyncio
from typing import Any

import msgspec

from gateway.domain.records import Run
from gateway.domain.upstream_response import Answer
from gateway.errors import GatewayError, UpstreamUncertain

_UNCERTAIN = (
    "Replicate did not say whether it took the prediction, and it has not been found there yet. It may be running. "
    "A retry should carry an Idempotency-Key."
)


class Created(msgspec.Struct, frozen=True):
    """Upstream has the run, and so has the store."""

    run: Run
    answer: Answer | None
    """Upstream's answer to the create; `None` if the run was found later."""


class Refused(msgspec.Struct, frozen=True):
    """Upstream answered that it will not: the same answer is everybody's."""

    answer: Answer


class NotSent(msgspec.Struct, frozen=True):
    """Nothing reached upstream, or nothing came of it: those that joined may try once themselves."""

    error: GatewayError


Resolved = Created | Refused | NotSent


class PendingCreate:
    """One create that is under way."""

    def __init__(self, run: Run) -> None:
        loop = asyncio.get_running_loop()
        self.run = run
        self.waiters = 0
        """How many wait beside the one who leads."""
        self._landed: asyncio.Future[Resolved] = loop.create_future()
        self._uncertain: asyncio.Future[None] = loop.create_future()

    def resolve(self, resolved: Resolved) -> None:
        """Tell everybody what became of it. The first word stands."""
        if not self._landed.done():
            self._landed.set_result(resolved)

    @property
    def is_uncertain(self) -> bool:
        """Whether nobody knows what upstream made of it."""
        return self._uncertain.done()

    def turn_uncertain(self) -> None:
        """Tell everybody that patience is needed."""
        if not self._uncertain.done():
            self._uncertain.set_result(None)

    async def wait(self, patience: float) -> Resolved:
        """Wait for the end. Raise `UpstreamUncertain` when it is not known `patience` seconds after it turned so."""
        either: set[asyncio.Future[Any]] = {self._landed, self._uncertain}
        self.waiters += 1
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if not self._landed.done():
                await asyncio.wait({self._landed}, timeout=patience)
        finally:
            self.waiters -= 1
        if not self._landed.done():
            raise UpstreamUncertain(_UNCERTAIN)
        return self._landed.result()


class PendingCreates:
    """The creates that are under way, by run."""

    def __init__(self) -> None:
        self._flights: dict[str, PendingCreate] = {}

    def __len__(self) -> int:
        return len(self._flights)

    @property
    def waiting(self) -> int:
        """How many wait for the end of one."""
        return sum(pending.waiters for pending in self._flights.values())

    def start(self, run: Run) -> PendingCreate:
        """Begin a flight, or return the one that there is."""
        pending = self._flights.get(run.id)
        if pending is None:
            pending = self._flights[run.id] = PendingCreate(run)
        return pending

    def get(self, run_id: str) -> PendingCreate | None:
        """Return the flight of a run, while it lasts."""
        return self._flights.get(run_id)

    def is_sending(self, request: bytes, path: str) -> bool:
        """Whether an equal create is under way whose answer is still to come: a run found upstream may be its own."""
        return any(
            pending.run.request == request and pending.run.path == path and not pending.is_uncertain
            for pending in self._flights.values()
        )

    def resolve(self, run_id: str, resolved: Resolved) -> None:
        """End a flight."""
        if pending := self._flights.pop(run_id, None):
            pending.resolve(resolved)
