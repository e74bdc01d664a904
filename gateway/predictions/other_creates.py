"""Creates in progress on other nodes, as far as somebody waits here for the outcome.

A prediction can join a run whose create another node is about to send, or has sent. The outcome is read from the store,
on news and else every second, and is the same as on the node that creates: created, refused with upstream's answer, not
sent, or uncertain for too long.
"""

import asyncio
import logging

from gateway.domain.ports.clock import Clock
from gateway.domain.records import Run, RunState
from gateway.domain.upstream_response import Answer
from gateway.errors import GatewayError, UpstreamUnavailable
from gateway.predictions.in_flight import Created, NotSent, PendingCreate, Refused, Resolved
from gateway.predictions.observed_runs import LOOK_SECONDS
from gateway.predictions.ports.sharing import CreateStore
from gateway.predictions.rules import create_outcomes
from gateway.runtime.sleep import sleep_until_event
from gateway.runtime.tasks import Tasks

logger = logging.getLogger(__name__)


class OtherCreates:
    """Reads the outcomes of other nodes' creates."""

    def __init__(self, store: CreateStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._pending: dict[str, PendingCreate] = {}
        self._changed: dict[str, asyncio.Event] = {}
        self._tasks = Tasks()

    @property
    def waiting(self) -> int:
        """How many requests wait for an outcome."""
        return sum(pending.waiters for pending in self._pending.values())

    def pending(self, run: Run) -> PendingCreate:
        """Return what to wait for. Wait soon: it is not read for nobody."""
        pending = self._pending.get(run.id)
        if pending is None:
            pending = self._pending[run.id] = PendingCreate(run)
            self._changed[run.id] = asyncio.Event()
            self._tasks.spawn(self._read_until_resolved(pending), f"create {run.id}")
        return pending

    def look_at(self, run_id: str) -> None:
        """Read an outcome again: there is one, perhaps."""
        if changed := self._changed.get(run_id):
            changed.set()

    def look_at_all(self) -> None:
        """Read all outcomes again."""
        for changed in self._changed.values():
            changed.set()

    async def close(self) -> None:
        """Stop reading."""
        await self._tasks.close(0.0)

    async def _read_until_resolved(self, pending: PendingCreate) -> None:
        run_id = pending.run.id
        changed = self._changed[run_id]
        try:
            while True:
                changed.clear()
                try:
                    outcome = await self._outcome(pending)
                except GatewayError as exc:
                    extra = {"run": run_id, "reason": exc.detail}
                    logger.warning("the outcome of another node's create could not be read", extra=extra)
                    outcome = None
                if outcome is not None:
                    pending.resolve(outcome)
                    return
                await sleep_until_event(self._clock, LOOK_SECONDS, changed)
                if not pending.waiters:
                    return
        finally:
            del self._pending[run_id], self._changed[run_id]
            # Nothing is read any more: nobody waits for longer than a limit.
            pending.turn_uncertain()

    async def _outcome(self, pending: PendingCreate) -> Resolved | None:
        """Return the outcome, if there is one; note that it has become uncertain."""
        run = await self._store.run(pending.run.id)
        if run is None:
            return await self._failure(pending.run.id)
        if run.state is RunState.INTENDED:
            if run.uncertain_at is not None:
                pending.turn_uncertain()
            return None
        view = await self._store.prediction(run.leader_id)
        return None if view is None else Created(view, None)

    async def _failure(self, run_id: str) -> Resolved:
        text = await self._store.create_outcome(run_id)
        if text is None:
            return NotSent(UpstreamUnavailable("The prediction was not sent."))
        said = create_outcomes.decode(text)
        return Refused(said) if isinstance(said, Answer) else NotSent(said)
