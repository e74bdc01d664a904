"""Run predictions: boot, model, deadline, completion. Owns one task per unfinished prediction."""

import asyncio
from typing import Any

import msgspec

from gateway.simulator import render
from gateway.simulator.clock import Pace
from gateway.simulator.models.job import ModelError
from gateway.simulator.prediction import Prediction
from gateway.simulator.reading import Reader
from gateway.simulator.services import Services
from gateway.simulator.validation import with_defaults
from gateway.simulator.webhooks import Sender

# The edge answers a sync wait when the output is complete; the status follows slightly later.
BOOKKEEPING_SECONDS = 0.02


class Run:
    """A run of a model; implements `Job`."""

    __slots__ = ("_pace", "_prediction", "_reader", "_sender", "_services", "input", "metrics")

    def __init__(self, prediction: Prediction, services: Services, sender: Sender | None) -> None:
        self._prediction = prediction
        self._services = services
        self._sender = sender
        self._pace = Pace(services.clock)
        self._reader = Reader(services, prediction.account)
        self.input = with_defaults(prediction.input, prediction.version.program.input_schema)
        self.metrics: dict[str, Any] = {}

    async def wait(self, seconds: float) -> None:
        """Simulate work."""
        await self._pace.wait(seconds)

    def log(self, text: str) -> None:
        """Write to the logs and the stream."""
        prediction = self._prediction
        prediction.log_parts.append(text)
        if prediction.stream is not None:
            prediction.stream.add("logs", text, self._services.clock.now())
        self._event("logs")

    def emit(self, chunk: str) -> None:
        """Add an item to the output."""
        prediction = self._prediction
        if prediction.output is None:
            prediction.output = []
        prediction.output.append(chunk)
        if prediction.stream is not None:
            prediction.stream.add("output", chunk, self._services.clock.now())
        self._event("output")

    def give(self, output: Any) -> None:
        """Set the output."""
        self._prediction.output = output
        self._event("output")

    def host(self, name: str, data: bytes, content_type: str) -> str:
        """Host an output file."""
        path = self._services.outputs.put(name, data, content_type, self._prediction.model.ref)
        return self._services.links.delivery + path

    async def fetch(self, url: str) -> bytes:
        """Read an input file."""
        return await self._reader.read(url)

    def _event(self, event: str) -> None:
        if self._sender is not None:
            self._sender.event(event, lambda: body_of(self._prediction, self._services))


def body_of(prediction: Prediction, services: Services) -> bytes:
    """Render a prediction like GET does, for a webhook."""
    return render.edge_bytes(
        render.edge_prediction(prediction, services.links, as_training=prediction.kind == "training")
    )


class Runner:
    """Starts, cancels and ends predictions."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._deadlines: dict[str, asyncio.TimerHandle] = {}
        self._senders: dict[str, Sender] = {}
        services.clock.on_advance(self._check_deadlines)

    @property
    def running(self) -> int:
        """Number of unfinished predictions."""
        return len(self._tasks)

    def start(self, prediction: Prediction, targets: tuple[str, ...]) -> None:
        """Start a prediction as a task."""
        if prediction.webhook is not None:
            self._senders[prediction.id] = self._services.webhooks.sender(prediction, targets)
        task = asyncio.get_running_loop().create_task(self._run(prediction))
        self._tasks[prediction.id] = task
        task.add_done_callback(lambda _: self._tasks.pop(prediction.id, None))
        if prediction.deadline_us is not None:
            seconds = (prediction.deadline_us - prediction.created_us) / 1_000_000
            self._deadlines[prediction.id] = asyncio.get_running_loop().call_later(
                self._services.clock.real(seconds), self._deadline, prediction
            )

    def cancel(self, prediction: Prediction) -> None:
        """Cancel a prediction at once."""
        if not prediction.terminal:
            now = self._services.clock.stamp()
            if prediction.started_us is None:
                prediction.started_us = (
                    now - 3
                )  # as recorded: started_at of a prediction that never ran is 3 µs before its end
            self._finish(prediction, "canceled", now=now)

    def cancel_later(self, prediction: Prediction, seconds: float) -> None:
        """Cancel a prediction after a delay, unless it has ended."""
        asyncio.get_running_loop().call_later(self._services.clock.real(seconds), self.cancel, prediction)

    async def close(self) -> None:
        """Stop all tasks."""
        for timer in self._deadlines.values():
            timer.cancel()
        self._deadlines.clear()
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._tasks.clear()
        self._senders.clear()

    def drop(self, prediction: Prediction) -> None:
        """Stop the task of a deleted prediction."""
        task = self._tasks.pop(prediction.id, None)
        if task is not None:
            task.cancel()

    async def _run(self, prediction: Prediction) -> None:
        clock = self._services.clock
        await clock.sleep(prediction.version.program.boot_seconds + prediction.late_boot_seconds)
        prediction.started_us = clock.stamp()
        prediction.status = "processing"
        sender = self._senders.get(prediction.id)
        if sender is not None:
            sender.event("start", lambda: body_of(prediction, self._services))
        run = Run(prediction, self._services, sender)
        try:
            await self._work(prediction, run)
        except Exception as error:  # noqa: BLE001 - any exception of a model is the prediction's error
            self._finish(prediction, "failed", error=str(error) or type(error).__name__, extra=run.metrics)
            return
        prediction.output_complete = True
        prediction.wake()
        await clock.sleep(BOOKKEEPING_SECONDS)
        self._finish(prediction, "succeeded", extra=run.metrics)

    async def _work(self, prediction: Prediction, run: Run) -> None:
        if prediction.fails_with is not None:
            raise ModelError(prediction.fails_with)
        if prediction.hangs:
            await asyncio.get_running_loop().create_future()
        if prediction.kind == "training":
            await self._services.train(run, prediction)
        else:
            await prediction.version.program.run(run)

    def _deadline(self, prediction: Prediction) -> None:
        if prediction.terminal:
            return
        if prediction.started_us is None:
            self._finish(prediction, "aborted")
        else:
            self._finish(prediction, "canceled")

    def _check_deadlines(self) -> None:
        now_us = self._services.clock.now() * 1_000_000
        for prediction_id in list(self._deadlines):
            prediction = self._services.find(prediction_id)
            if prediction is not None and prediction.deadline_us is not None and prediction.deadline_us <= now_us:
                self._deadline(prediction)

    def _finish(
        self,
        prediction: Prediction,
        status: str,
        *,
        error: str | None = None,
        extra: dict[str, Any] | None = None,
        now: int | None = None,
    ) -> None:
        if prediction.terminal:
            return
        services = self._services
        prediction.completed_us = now or services.clock.stamp()
        prediction.status = status
        prediction.error = error
        prediction.metrics = {**(extra or {}), **self._times(prediction)}
        timer = self._deadlines.pop(prediction.id, None)
        if timer is not None:
            timer.cancel()
        task = self._tasks.get(prediction.id)
        if task is not None and task is not asyncio.current_task():
            task.cancel()
        self._end_stream(prediction)
        sender = self._senders.pop(prediction.id, None)
        if sender is not None:
            sender.event("completed", lambda: body_of(prediction, services))
        prediction.wake()

    def _times(self, prediction: Prediction) -> dict[str, Any]:
        # In simulated time, so that `speed` does not change costs.
        assert prediction.completed_us is not None
        speed = self._services.clock.speed
        times: dict[str, Any] = {}
        if prediction.started_us is not None:
            run_us = prediction.completed_us - prediction.started_us
            times["predict_time"] = run_us / 1_000_000 if run_us <= 3 else round(run_us * speed / 1_000_000, 9)
        times["total_time"] = round((prediction.completed_us - prediction.created_us) * speed / 1_000_000, 9)
        return times

    def _end_stream(self, prediction: Prediction) -> None:
        stream = prediction.stream
        if stream is None:
            return
        now = self._services.clock.now()
        if prediction.status == "failed":
            stream.add("error", msgspec.json.encode({"detail": prediction.error}).decode(), now)
            stream.add("done", '{"reason":"error"}', now)
        elif prediction.status == "succeeded":
            stream.add("done", "{}", now)
        else:
            stream.add("done", '{"reason":"canceled"}', now)
