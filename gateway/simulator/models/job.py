"""The interface between a model and the simulator."""

import hashlib
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol


class ModelError(Exception):
    """The model failed. The text becomes the prediction's `error`."""


class Job(Protocol):
    """A run of a model. Waits are in simulated time, which `speed` shortens."""

    input: dict[str, Any]
    metrics: dict[str, Any]

    async def wait(self, seconds: float) -> None:
        """Simulate work."""

    def log(self, text: str) -> None:
        """Write to the logs."""

    def emit(self, chunk: str) -> None:
        """Add an item to an output that is a list."""

    def give(self, output: Any) -> None:
        """Set the whole output."""

    def host(self, name: str, data: bytes, content_type: str) -> str:
        """Host an output file and return its URL."""

    async def fetch(self, url: str) -> bytes:
        """Read an input file: a data URI, an upload of the account, a hosted output or another URL."""


Run = Callable[[Job], Awaitable[None]]


@dataclass(frozen=True)
class Program:
    """The program of a model, its schema, and its boot time."""

    run: Run
    schema: dict[str, Any]
    boot_seconds: float = 0.2

    @property
    def input_schema(self) -> dict[str, Any]:
        """The schema's `Input`."""
        found: dict[str, Any] = self.schema["components"]["schemas"]["Input"]
        return found

    @property
    def streams(self) -> str | None:
        """Kind of stream: `text`, `files`, or None."""
        output = self.schema["components"]["schemas"]["Output"]
        if output.get("x-cog-array-type") != "iterator":
            return None
        return "files" if output["items"].get("format") == "uri" else "text"

    @property
    def can_train(self) -> bool:
        """Whether it can be trained."""
        return "TrainingInput" in self.schema["components"]["schemas"]


def dice(*parts: Any) -> random.Random:
    """Return a random generator that depends on `parts` only."""
    text = "\x1f".join(str(part) for part in parts)
    return random.Random(int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]))  # noqa: S311 - not for secrets


def choose_seed(job: Job) -> int:
    """Return the caller's seed, or a random one that is logged, like real models do."""
    seed = job.input.get("seed")
    if seed is None:
        seed = random.SystemRandom().randrange(2**31)
    job.log(f"Using seed: {int(seed)}\n")
    return int(seed)
