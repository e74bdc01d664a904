"""What this node does when other nodes tell of runs and predictions (`gateway.nodes.news`).

News can be lost with the node that would have told them. So what must not be missed is also looked for now and then:
cancels, which stop a run from costing more. What a node that ends has left is taken over (`gateway.nodes.takeover`).
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import assert_never

from gateway.domain.ports.clock import Clock
from gateway.errors import GatewayError
from gateway.nodes.news import News, Topic, split
from gateway.predictions.deadlines import Deadlines
from gateway.predictions.events import PredictionEvents
from gateway.predictions.in_flight import PendingCreates
from gateway.predictions.other_creates import OtherCreates
from gateway.predictions.ports.sharing import CreateStore
from gateway.predictions.queries import PredictionService
from gateway.predictions.tracker import Tracker
from gateway.runtime.sleep import sleep_until_event

logger = logging.getLogger(__name__)

LOOK_SECONDS = 5.0
"""How often cancels are looked for of which no news have come."""
_RETRY_SECONDS = 1.0
_MOST = 10_000
"""Names of one topic that wait to be worked off. More stand for all names."""


class OtherNodes:
    """Works off the news of other nodes."""

    def __init__(
        self,
        store: CreateStore,
        tracker: Tracker,
        service: PredictionService,
        pending_creates: PendingCreates,
        other_creates: OtherCreates,
        deadlines: Deadlines,
        events: PredictionEvents,
        clock: Clock,
    ) -> None:
        self._purged: list[Callable[[], None]] = [service.forget_ended]
        self._pending_creates = pending_creates
        self._store = store
        self._tracker = tracker
        self._service = service
        self._other_creates = other_creates
        self._deadlines = deadlines
        self._events = events
        self._clock = clock
        self._due: dict[Topic, dict[str, None] | None] = {}
        """What has to be read from the store: names by topic; `None` for anything of it. Topics take turns."""
        self._has_due = asyncio.Event()

    @property
    def due(self) -> int:
        """How many news wait to be worked off."""
        return sum(1 if names is None else len(names) for names in self._due.values())

    def add_purged_listener(self, listener: Callable[[], None]) -> None:
        """Call `listener` when another node has, or may have, deleted data of ended runs."""
        self._purged.append(listener)

    def listen(self, news: News) -> None:
        """Work off the news from now on."""
        news.add_listener(Topic.RUN, self._on_runs)
        news.add_listener(Topic.POLL, self._on_polls)
        news.add_listener(Topic.CANCEL, self._on_cancels)
        news.add_listener(Topic.JOINED, self._on_joined)
        news.add_listener(Topic.PREDICTION, self._on_predictions)
        news.add_listener(Topic.PURGE, self._on_purges)

    def _on_runs(self, names: Sequence[str] | None) -> None:
        if names is None:
            self._tracker.observed.look_at_all()
            self._other_creates.look_at_all()
            self._add(Topic.PURGE, None)
            return
        for run_id in names:
            self._tracker.observed.look_at(run_id)
            self._other_creates.look_at(run_id)
            self._service.forget_run(run_id)
            if self._is_own(run_id):
                # Another node has settled its identity.
                self._add(Topic.RUN, run_id)

    def _on_purges(self, names: Sequence[str] | None) -> None:
        if names is None:
            self._add(Topic.PURGE, None)
        else:
            self._forget_ended()

    def _forget_ended(self) -> None:
        for listener in self._purged:
            listener()

    def _on_polls(self, names: Sequence[str] | None) -> None:
        # Polls come by themselves too.
        for run_id in names or ():
            self._tracker.poll_now(run_id)

    def _on_cancels(self, names: Sequence[str] | None) -> None:
        if names is None:
            self._add(Topic.CANCEL, None)
            return
        for run_id in filter(self._is_own, names):
            self._add(Topic.CANCEL, run_id)

    def _on_joined(self, names: Sequence[str] | None) -> None:
        if names is None:
            self._add(Topic.JOINED, None)
            return
        for name in names:
            run_id, prediction_id = split(name)
            if self._is_own(run_id):
                self._add(Topic.JOINED, prediction_id)

    def _on_predictions(self, names: Sequence[str] | None) -> None:
        if names is None:
            self._add(Topic.PREDICTION, None)
            return
        for name in names:
            run_id, prediction_id = split(name)
            is_read_here = self._is_own(run_id) or self._tracker.observed.get(run_id) is not None
            if is_read_here or self._service.is_known(prediction_id):
                self._add(Topic.PREDICTION, prediction_id)

    def _is_own(self, run_id: str) -> bool:
        # One that is recorded a moment before it is followed still has its pending create.
        return self._tracker.tracked(run_id) is not None or self._pending_creates.get(run_id) is not None

    def _own(self) -> list[str]:
        return [*(run.id for run in self._tracker.followed), *self._pending_creates.ids()]

    def _add(self, topic: Topic, name: str | None) -> None:
        names = self._due.setdefault(topic, {})
        if names is not None:
            if name is None or (len(names) >= _MOST and name not in names):
                self._due[topic] = None
            else:
                names[name] = None
        self._has_due.set()

    async def run(self) -> None:
        """Work off what is due, until cancelled. While the store is away, what is due waits."""
        look_at = self._clock.monotonic() + LOOK_SECONDS
        while True:
            self._has_due.clear()
            try:
                while self._due:
                    await self._do_next()
                if self._clock.monotonic() >= look_at:
                    look_at = self._clock.monotonic() + LOOK_SECONDS
                    await self._look_for_cancels()
            except GatewayError as exc:
                logger.warning("notifications of other nodes wait for the store", extra={"reason": exc.detail})
                await self._clock.sleep(_RETRY_SECONDS)
                continue
            if not self._due:
                await sleep_until_event(self._clock, max(0.0, look_at - self._clock.monotonic()), self._has_due)

    async def _do_next(self) -> None:
        topic, name = self._take()
        try:
            await self._do(topic, name)
        except GatewayError:
            self._add(topic, name)
            raise

    def _take(self) -> tuple[Topic, str | None]:
        """Take what is next away, so that a defect in it does not keep the rest from being worked off."""
        topic = next(iter(self._due))
        names = self._due.pop(topic)
        if names is None:
            return topic, None
        name = next(iter(names))
        del names[name]
        if names:
            self._due[topic] = names
        return topic, name

    async def _do(self, topic: Topic, name: str | None) -> None:
        match topic:
            case Topic.RUN:
                for run_id in self._own() if name is None else [name]:
                    if (run := await self._store.run(run_id)) is not None:
                        self._tracker.refresh(run)
            case Topic.CANCEL:
                if name is None:
                    await self._look_for_cancels()
                elif (run := await self._store.run(name)) is not None and run.cancel_asked_at is not None:
                    self._tracker.cancel_recorded(run)
            case Topic.JOINED:
                if name is None:
                    await self._deadlines.resume()
                else:
                    await self._take_joined(name)
            case Topic.PURGE:
                # While the store is away, nobody deletes anything, and what is in memory is all there is to serve.
                await self._look_for_cancels()
                self._forget_ended()
            case Topic.PREDICTION:
                await (self._service.look_at_all() if name is None else self._service.look_at(name))
            case Topic():
                raise AssertionError(topic)
            case never:
                assert_never(never)

    async def _look_for_cancels(self) -> None:
        for run in await self._store.runs_to_cancel():
            self._tracker.cancel_recorded(run)

    async def _take_joined(self, prediction_id: str) -> None:
        view = await self._store.prediction(prediction_id)
        if view is None or view.run.status.is_terminal or view.prediction.canceled_at is not None:
            return
        if view.prediction.deadline_at is not None:
            self._deadlines.add(view.prediction.deadline_at, prediction_id)
        self._events.on_prediction_joined(view)
