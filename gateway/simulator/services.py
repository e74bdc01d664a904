"""What the runner needs of the rest of the simulator, in one place."""

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
    """The parts that a running prediction touches."""

    clock: SimulatorClock
    links: Links
    outputs: OutputStore
    files: FileStore
    webhooks: Webhooks
    find: Callable[[str], Prediction | None]
    train: Callable[[Job, Prediction], Awaitable[None]]
