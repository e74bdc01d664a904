"""The parts of the simulator that the runner uses."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from gateway.simulator.clock import SimulatorClock
from gateway.simulator.files import FileStore
from gateway.simulator.models.job import Job
from gateway.simulator.outputs import OutputStore
from gateway.simulator.prediction import Prediction
from gateway.simulator.render import Links
from gateway.simulator.webhooks import Webhooks


@dataclass(frozen=True)
class Services:
    """Parts used by a running prediction."""

    clock: SimulatorClock
    links: Links
    outputs: OutputStore
    files: FileStore
    webhooks: Webhooks
    find: Callable[[str], Prediction | None]
    train: Callable[[Job, Prediction], Awaitable[None]]
