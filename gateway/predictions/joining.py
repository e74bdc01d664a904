"""Joining: what happens to a prediction after the store has added it to an open run.

See docs/architecture.md, Create.

The run may still be an intent: the prediction then waits for the outcome of its create. The run may have a provisional
identity: then the model's schema decides whether the prediction stays or is detached and tried again.
"""

import asyncio
from typing import assert_never

import msgspec

from gateway.domain.create_request import CreateContext
from gateway.domain.ports.clock import Clock
from gateway.domain.records import LARGE_DOCUMENT, PredictionView, Run, RunState
from gateway.domain.upstream_response import Answer
from gateway.errors import GatewayError
from gateway.predictions import in_flight
from gateway.predictions.ports.sharing import CreateStore
from gateway.predictions.run_creator import RunCreator
from gateway.predictions.run_identity import RunIdentities
from gateway.predictions.settings import PredictionSettings
from gateway.predictions.tracker import Tracker
from gateway.runtime.live import LiveSettings
from gateway.sharing.identity import Identity


class RetryCreate(msgspec.Struct, frozen=True):
    """The attempt recorded nothing, for a reason that is not the request's own: it may be tried again."""

    error: GatewayError | None = None
    """What kept the run from being created; `None` if the model of another request's run decides what is equal."""


class JoinService:
    """Completes predictions that have joined a run."""

    def __init__(
        self,
        store: CreateStore,
        tracker: Tracker,
        run_creator: RunCreator,
        identities: RunIdentities,
        clock: Clock,
        settings: LiveSettings[PredictionSettings],
    ) -> None:
        self._store = store
        self._tracker = tracker
        self._run_creator = run_creator
        self._identities = identities
        self._clock = clock
        self._settings = settings
        self._in_progress: dict[str, asyncio.Event] = {}
        """Set when `complete` ends, by prediction."""

    async def complete_repeated(
        self, context: CreateContext, identity: Identity, view: PredictionView
    ) -> PredictionView | Answer | RetryCreate:
        """Return the prediction that an earlier request with the same idempotency key has joined.

        The earlier request may not know yet whether its prediction stays. Its outcome counts, and it announces the
        prediction. If it has failed or was lost in a crash, this request does what `complete` does.
        """
        prediction_id = view.prediction.id
        while prediction_id in self._in_progress or view.run.fingerprint is None:
            if (earlier := self._in_progress.get(prediction_id)) is not None:
                await earlier.wait()
            newest = await self._store.prediction(prediction_id, most_bytes=LARGE_DOCUMENT)
            if newest is None:
                return RetryCreate()
            view = newest
            if view.run.fingerprint is None and prediction_id not in self._in_progress:
                return await self.complete(context, identity, view)
        return view

    async def complete(
        self, context: CreateContext, identity: Identity, view: PredictionView
    ) -> PredictionView | Answer | RetryCreate:
        """Wait until the run exists and the prediction can stay, and announce the prediction.

        Return upstream's answer if upstream refused the run. Raise `UpstreamUncertain` if it is unknown for too long
        whether upstream took the create, and `StoreUnavailable`.
        """
        ended = self._in_progress[view.prediction.id] = asyncio.Event()
        try:
            return await self._complete(context, identity, view)
        finally:
            self._in_progress.pop(view.prediction.id, None)
            ended.set()

    async def identify(self, context: CreateContext, run: Run) -> None:
        """Give a run that has ended its final identity, for an equal request. Raise `StoreUnavailable`.

        Whoever started it has not done so yet, or has ended before it could.
        """
        await self._identities.settle(run, context)

    async def _complete(
        self, context: CreateContext, identity: Identity, view: PredictionView
    ) -> PredictionView | Answer | RetryCreate:
        run = view.run
        if view.left_out and (tracked := self._tracker.tracked(run.id)) is not None and tracked.is_whole:
            # In memory, so it need not be read.
            run = tracked.run
        pending = self._run_creator.pending_creates.get(run.id)
        if pending is None and run.state is RunState.INTENDED:
            # Another node creates it; or the store recorded the intent, and its answer was lost: upstream's list shows
            # whether the run exists.
            pending = self._run_creator.search(run)
        if pending is not None:
            match await pending.wait(self._settings.value.adopt_wait_seconds):
                case in_flight.Created(starter):
                    run = starter.run
                case in_flight.Refused(answer):
                    return answer
                case in_flight.NotSent(error):
                    return RetryCreate(error)
                case never:
                    assert_never(never)
        settled = await self._settled(context, identity, run)
        if settled is None:
            await self._detach(view.prediction.id)
            return RetryCreate()
        view = PredictionView(view.prediction, settled, 0 if settled.document else view.left_out)
        self._run_creator.recorder.announce(view)
        return view

    async def _settled(self, context: CreateContext, identity: Identity, run: Run) -> Run | None:
        """Return the run if the prediction can stay on it.

        A run that outlived the process that started it can be without its final identity: an equal request gives it.
        """
        if run.fingerprint is not None and run.fingerprint == identity.fingerprint:
            return run
        run, identity = await self._identities.settle(run, context)
        is_equal = run.fingerprint is not None and run.fingerprint == identity.fingerprint
        return run if is_equal else None

    async def _detach(self, prediction_id: str) -> None:
        """Remove a prediction from a run that is not its own; if nobody else waits for the run, cancel the run."""
        cancellation = await self._store.cancel(prediction_id, self._clock.now())
        if cancellation is not None and cancellation.is_last:
            # Before the next await: afterwards the run may have ended, and would be followed and reported again.
            self._tracker.cancel_asked(cancellation.view.run)
        await self._store.detach(prediction_id)
