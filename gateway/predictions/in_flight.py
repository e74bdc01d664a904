"""Pending creates: runs that upstream has not confirmed yet, and the predictions that wait for the outcome.

Every prediction on a run that is still `intended` waits here: those that joined it, and the starter if the create is
uncertain. After a restart an intent has a pending create without waiters. A pending create is resolved once, with one
of the three outcomes of `Resolved`. Before that it can become uncertain; from then on nobody waits longer than a limit.
"""

import asyncio
import math
import operator
from collections.abc import Callable
from typing import Any

import msgspec

from gateway.domain.records import PredictionView, Run
from gateway.domain.upstream_response import Answer
from gateway.errors import GatewayError, UpstreamUncertain

_UNCERTAIN = (
    "Replicate did not say whether it accepted the prediction, and the prediction has not been found there yet. It may "
    "be running. A retry should carry an Idempotency-Key."
)


class Created(msgspec.Struct, frozen=True):
    """Upstream has the run, and the store has recorded it."""

    view: PredictionView
    """The starter and the run, as they are recorded."""
    answer: Answer | None
    """Upstream's answer to the create; `None` if the run was found later."""


class Refused(msgspec.Struct, frozen=True):
    """Upstream refused the create. Every waiter gets this answer."""

    answer: Answer


class NotSent(msgspec.Struct, frozen=True):
    """Nothing reached upstream, or upstream has no such run: a prediction that joined may be tried once more."""

    error: GatewayError


Resolved = Created | Refused | NotSent


class PendingCreate:
    """One create in progress."""

    def __init__(self, run: Run) -> None:
        loop = asyncio.get_running_loop()
        self.run = run
        self.waiters = 0
        """How many requests wait for the outcome."""
        self._resolved: asyncio.Future[Resolved] = loop.create_future()
        self._uncertain: asyncio.Future[None] = loop.create_future()

    def resolve(self, resolved: Resolved) -> None:
        """Give every waiter the outcome. The first call counts."""
        if not self._resolved.done():
            self._resolved.set_result(resolved)

    @property
    def is_uncertain(self) -> bool:
        """Whether it is unknown if upstream took the create."""
        return self._uncertain.done()

    def turn_uncertain(self) -> None:
        """Let waiters wait no longer than their limit from now on."""
        if not self._uncertain.done():
            self._uncertain.set_result(None)

    async def wait(self, seconds: float) -> Resolved:
        """Wait for the outcome. Raise `UpstreamUncertain` if there is none `seconds` after it became uncertain."""
        either: set[asyncio.Future[Any]] = {self._resolved, self._uncertain}
        self.waiters += 1
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if not self._resolved.done():
                await asyncio.wait({self._resolved}, timeout=seconds)
        finally:
            self.waiters -= 1
        if not self._resolved.done():
            raise UpstreamUncertain(_UNCERTAIN)
        return self._resolved.result()


class PendingCreates:
    """The creates in progress, by run."""

    def __init__(
        self,
        may_be_equal: Callable[[bytes, bytes], bool] = operator.eq,
        *,
        on_resolved: Callable[[str], None] | None = None,
    ) -> None:
        """Take `may_be_equal`, which compares two recorded requests of one path.

        `on_resolved` is called with each run whose outcome is recorded, for those who wait on other nodes.
        """
        self._on_resolved = on_resolved
        self.may_be_equal = may_be_equal
        self._pending: dict[str, PendingCreate] = {}
        self._sending: dict[str, PendingCreate] = {}
        """Those that are not uncertain; some of these may have become so since."""

    def __len__(self) -> int:
        return len(self._pending)

    @property
    def waiting(self) -> int:
        """How many requests wait for an outcome."""
        return sum(pending.waiters for pending in self._pending.values())

    def start(self, run: Run) -> PendingCreate:
        """Add a pending create for a run, or return the one that exists."""
        pending = self._pending.get(run.id)
        if pending is None:
            pending = self._pending[run.id] = self._sending[run.id] = PendingCreate(run)
        return pending

    def ids(self) -> list[str]:
        """Return the ids of the runs whose creates are in progress."""
        return list(self._pending)

    def get(self, run_id: str) -> PendingCreate | None:
        """Return the pending create of a run, until it is resolved."""
        return self._pending.get(run_id)

    def is_sending(self, request: bytes, path: str, until: float = math.inf) -> bool:
        """Whether an equal create that began until then awaits its answer.

        A run that upstream created at about `until` may be the run of that create.
        """
        for run_id in [run_id for run_id, pending in self._sending.items() if pending.is_uncertain]:
            del self._sending[run_id]
        return any(
            pending.run.path == path
            and pending.run.intended_at <= until
            and self.may_be_equal(pending.run.request, request)
            for pending in self._sending.values()
        )

    def is_only(self, run: Run) -> bool:
        """Whether no other create in progress can be equal to that of a run, as far as recorded requests say."""
        return not any(
            pending.run.id != run.id
            and pending.run.path == run.path
            # A large one may have been dropped from memory.
            and (not pending.run.request or self.may_be_equal(pending.run.request, run.request))
            for pending in self._pending.values()
        )

    def forget(self, run_id: str) -> None:
        """Remove the pending create of a run: another node finds out what became of it."""
        self._sending.pop(run_id, None)
        self._pending.pop(run_id, None)

    def resolve(self, run_id: str, resolved: Resolved) -> None:
        """Remove the pending create of a run and give its waiters the outcome."""
        self._sending.pop(run_id, None)
        if pending := self._pending.pop(run_id, None):
            pending.resolve(resolved)
        if self._on_resolved is not None:
            self._on_resolved(run_id)
