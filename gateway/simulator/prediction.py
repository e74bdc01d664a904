"""A prediction or training. Only the runner changes it; `render` formats it."""

import asyncio
import copy
from typing import Any

from gateway.simulator.catalog import Model, Version
from gateway.simulator.secrets import redacted
from gateway.simulator.streams import EventLog

TERMINAL = frozenset({"succeeded", "failed", "canceled", "aborted"})


class Prediction:
    """The record. `model` and `version` are run; responses show `model_shown` and `version_shown`."""

    __slots__ = (
        "_waiters",
        "account",
        "cancel_ignored",
        "completed_us",
        "created_us",
        "data_removed",
        "deadline_us",
        "deployment",
        "destination",
        "error",
        "fails_with",
        "hangs",
        "id",
        "input",
        "kind",
        "late_boot_seconds",
        "log_parts",
        "metrics",
        "model",
        "model_shown",
        "output",
        "output_complete",
        "reads_to_hide",
        "source",
        "started_us",
        "status",
        "stream",
        "stream_path",
        "version",
        "version_shown",
        "webhook",
        "webhook_events_filter",
    )

    def __init__(
        self, prediction_id: str, account: str, model: Model, version: Version, given: dict[str, Any], created_us: int
    ) -> None:
        self.id = prediction_id
        self.account = account
        self.model = model
        self.version = version
        self.input = given
        self.created_us = created_us
        self.kind = "prediction"
        self.model_shown = model.ref
        self.version_shown = "hidden" if model.official else version.id
        self.status = "starting"
        self.output: Any = None
        self.output_complete = False
        self.error: str | None = None
        self.started_us: int | None = None
        self.completed_us: int | None = None
        self.deadline_us: int | None = None
        self.metrics: dict[str, Any] = {}
        self.source = "api"
        self.deployment: str | None = None
        self.destination: str | None = None
        self.webhook: str | None = None
        self.webhook_events_filter: list[str] | None = None
        self.data_removed = False
        self.stream: EventLog | None = None
        self.stream_path: str | None = None
        self.log_parts: list[str] = []
        # Set by faults.
        self.reads_to_hide = 0
        self.late_boot_seconds = 0.0
        self.fails_with: str | None = None
        self.hangs = False
        self.cancel_ignored = False
        self._waiters: list[asyncio.Future[None]] = []

    @property
    def input_shown(self) -> dict[str, Any]:
        """The input as responses show it: without secret values."""
        schemas = self.version.program.schema["components"]["schemas"]
        of = "TrainingInput" if self.kind == "training" else "Input"
        return redacted(self.input, schemas.get(of, {}).get("properties", {}))

    @property
    def terminal(self) -> bool:
        """Whether its status is terminal."""
        return self.status in TERMINAL

    @property
    def logs(self) -> str:
        """The logs so far."""
        if len(self.log_parts) > 1:
            self.log_parts = ["".join(self.log_parts)]
        return self.log_parts[0] if self.log_parts else ""

    @property
    def answerable(self) -> bool:
        """Whether a sync wait can be answered: the output is complete (the status may lag), or the run has ended."""
        return self.output_complete or self.terminal

    def wake(self) -> None:
        """Wake the waiters."""
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def wait(self, seconds: float, *, until_terminal: bool = False) -> None:
        """Wait until it is answerable (or terminal), for at most `seconds`."""
        deadline = asyncio.get_running_loop().time() + seconds
        while not (self.terminal if until_terminal else self.answerable):
            left = deadline - asyncio.get_running_loop().time()
            if left <= 0:
                return
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            await asyncio.wait([waiter], timeout=left)

    def as_processing(self) -> "Prediction":
        """Return a copy with status processing."""
        claim = copy.copy(self)
        claim.status = "processing"
        return claim

    def remove_data(self) -> None:
        """Delete input, output, logs and stream, as the service does an hour after completion."""
        self.data_removed = True
        self.input = {}
        self.output = None
        self.log_parts = []
        if self.stream is not None:
            self.stream.forget()
