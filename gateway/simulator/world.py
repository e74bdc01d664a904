"""State of the simulated service, and the operations of its routes."""

import asyncio
import contextlib
from bisect import insort
from collections.abc import Iterator
from typing import Any

from gateway.simulator import ids
from gateway.simulator.accounts import Accounts
from gateway.simulator.builtin import HARDWARE
from gateway.simulator.catalog import Model, Version
from gateway.simulator.clock import SimulatorClock
from gateway.simulator.faults import Fault, FaultBook
from gateway.simulator.files import FileStore
from gateway.simulator.journal import RequestLog
from gateway.simulator.outputs import OutputStore
from gateway.simulator.prediction import Prediction
from gateway.simulator.ratelimit import Bucket
from gateway.simulator.registry import Registry, targets_of
from gateway.simulator.render import Links
from gateway.simulator.runner import Runner
from gateway.simulator.services import Services
from gateway.simulator.settings import RETENTION_SECONDS, SimulatorSettings
from gateway.simulator.streams import EventLog
from gateway.simulator.webhooks import Webhooks


class World:
    """The state of a simulator. Routes change it through its methods."""

    def __init__(self, settings: SimulatorSettings) -> None:
        self.settings = settings
        self.clock = SimulatorClock(settings.speed)
        self.faults = FaultBook(settings.faults)
        self.requests = RequestLog(settings.max_requests_logged, settings.max_body_logged)
        self.accounts = Accounts(settings.tokens)
        self.registry = Registry(self.clock)
        self.links = Links("", "")  # set when the ports are known
        self.outputs = OutputStore(settings.max_output_bytes, self.clock.now)
        self.files = FileStore(settings.max_file_bytes, self.clock.now)
        self.webhooks = Webhooks(settings.webhook_secret, self.clock, self.faults)
        self.predictions: dict[str, Prediction] = {}
        self.streams: dict[str, Prediction] = {}
        self._in_order: list[Prediction] = []
        self._holders: set[asyncio.Task[Any]] = set()
        self._buckets: dict[tuple[str, str], Bucket] = {}
        self.runner = Runner(
            Services(
                self.clock,
                self.links,
                self.outputs,
                self.files,
                self.webhooks,
                self.predictions.get,
                self.registry.train,
            )
        )
        self.hardware = HARDWARE
        self.clock.on_advance(self.sweep)

    def bucket(self, account: str, kind: str) -> Bucket:
        """Return the account's rate limit for `create`, `poll` or `other`."""
        found = self._buckets.get((account, kind))
        if found is None:
            settings = self.settings
            if kind == "create" and settings.low_credit:
                found = Bucket(6, self.clock.now, burst=1)
            else:
                limits = {"create": settings.creates_per_minute, "poll": settings.polls_per_minute}
                found = Bucket(limits.get(kind, settings.requests_per_minute), self.clock.now)
            self._buckets[account, kind] = found
        return found

    def create(
        self,
        account: str,
        model: Model,
        version: Version,
        body: dict[str, Any],
        *,
        deadline_seconds: int | None = None,
        deployment: str | None = None,
        destination: str | None = None,
        faults: dict[str, Fault] | None = None,
    ) -> Prediction:
        """Record a prediction, or with a destination a training, and start it."""
        created_us = self.clock.stamp()
        prediction = Prediction(ids.prediction_id(self.clock.now()), account, model, version, body["input"], created_us)
        prediction.deployment = deployment
        prediction.webhook = body.get("webhook")
        prediction.webhook_events_filter = body.get("webhook_events_filter")
        if prediction.webhook is None and body.get("webhook_completed") is not None:
            # An older field, which the Python client still offers: the last event only.
            prediction.webhook, prediction.webhook_events_filter = body["webhook_completed"], ["completed"]
        if deadline_seconds is not None:
            prediction.deadline_us = created_us + deadline_seconds * 1_000_000
        if destination is not None:
            prediction.kind, prediction.destination = "training", destination
        elif (streams := version.program.streams) is not None:
            prediction.stream = EventLog(self.settings.max_stream_bytes)
            token = ids.stream_token() if streams == "text" else ids.file_stream_token()
            prediction.stream_path = f"/v1/streams/{token}" if streams == "text" else f"/v1/files/{token}"
            self.streams[token] = prediction
        _apply(prediction, faults or {})
        self.keep(prediction)
        model.run_count += 1
        self.runner.start(prediction, targets_of(model, version, deployment))
        return prediction

    def keep(self, prediction: Prediction) -> None:
        """Record a prediction, and delete the oldest above the limit."""
        self.predictions[prediction.id] = prediction
        insort(self._in_order, prediction, key=_created)  # almost always at the end
        excess = len(self.predictions) - self.settings.max_predictions
        if excess > 0:
            # Delete in batches, so that the list is not shifted for each new prediction.
            for oldest in self._in_order[: excess + self.settings.max_predictions // 50]:
                self._forget(oldest)
            self._in_order = self._in_order[excess + self.settings.max_predictions // 50 :]

    def in_order(self) -> list[Prediction]:
        """Return all predictions and trainings, oldest first."""
        return self._in_order

    def find(self, account: str, prediction_id: str) -> Prediction | None:
        """Return a prediction or training of the account, without its data if that has expired."""
        prediction = self.predictions.get(prediction_id)
        if prediction is None or prediction.account != account:
            return None
        self.expire(prediction)
        return prediction

    def expire(self, prediction: Prediction) -> None:
        """Delete a prediction's data an hour after completion, unless it was created on the web site."""
        if prediction.completed_us is None or prediction.data_removed or prediction.source == "web":
            return
        if prediction.completed_us + RETENTION_SECONDS * 1_000_000 <= self.clock.now() * 1_000_000:
            prediction.remove_data()

    def sweep(self) -> None:
        """Delete expired data."""
        for prediction in self.predictions.values():
            self.expire(prediction)
        self.outputs.sweep()
        self.files.sweep()

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Register the current task as a long-lived connection, so that close() ends it."""
        task = asyncio.current_task()
        assert task is not None
        self._holders.add(task)
        try:
            yield
        finally:
            self._holders.discard(task)

    def let_go(self) -> None:
        """Close the long-lived connections."""
        for task in tuple(self._holders):
            task.cancel()

    async def reset(self) -> None:
        """Reset: no predictions, no logged requests, and the faults of the settings."""
        await self.runner.close()
        await self.webhooks.cancel_all()
        self.predictions.clear()
        self.streams.clear()
        self._in_order = []
        self._buckets.clear()
        self.outputs.clear()
        self.files.clear()
        self.requests.clear()
        self.registry.reset()
        self.faults.set(*self.settings.faults)
        self.clock.reset()

    async def close(self) -> None:
        """Stop all tasks."""
        await self.runner.close()
        await self.webhooks.close()

    def forget_version(self, version_id: str) -> None:
        """Delete the predictions of a deleted version, with their outputs."""
        gone = [each for each in self._in_order if each.version.id == version_id]
        for prediction in gone:
            self._forget(prediction)
        self._in_order = [each for each in self._in_order if each.version.id != version_id]

    def _forget(self, prediction: Prediction) -> None:
        self.runner.drop(prediction)
        del self.predictions[prediction.id]
        if prediction.stream_path is not None:
            self.streams.pop(prediction.stream_path.rsplit("/", 1)[1], None)
        if prediction.stream is not None:
            prediction.stream.forget()


def _created(prediction: Prediction) -> int:
    return prediction.created_us


def _apply(prediction: Prediction, faults: dict[str, Fault]) -> None:
    """Apply the faults of a create to the new prediction."""
    for name, fault in faults.items():
        note = _NOTES.get(name)
        if note is not None:
            note(prediction, fault)


def _override_version(prediction: Prediction, fault: Fault) -> None:
    prediction.version_shown = fault.get("value")


def _hide_version(prediction: Prediction, _: Fault) -> None:
    prediction.version_shown = "hidden"


def _override_model(prediction: Prediction, fault: Fault) -> None:
    prediction.model_shown = fault.get("value")


def _hide_reads(prediction: Prediction, fault: Fault) -> None:
    prediction.reads_to_hide = fault.get("count")


def _boot_late(prediction: Prediction, fault: Fault) -> None:
    prediction.late_boot_seconds = fault.get("seconds")


def _fail(prediction: Prediction, fault: Fault) -> None:
    prediction.fails_with = fault.get("value")


def _hang(prediction: Prediction, _: Fault) -> None:
    prediction.hangs = True


_NOTES = {
    "version_override": _override_version,
    "hidden_version": _hide_version,
    "model_override": _override_model,
    "not_found_after_create": _hide_reads,
    "cold_boot": _boot_late,
    "interrupted": _fail,
    "hang": _hang,
}
