"""What a model sees of the world while it runs, and the error with which it fails."""

import hashlib
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol


class ModelError(Exception):
    """The model raised; the text becomes the prediction's `error`."""


class Job(Protocol):
    """One run of one model. Waits are in the service's time, which `speed` shortens."""

    input: dict[str, Any]
    metrics: dict[str, Any]

    async def wait(self, seconds: float) -> None:
        """Work for some time."""

    def log(self, text: str) -> None:
        """Write to the logs."""

    def emit(self, chunk: str) -> None:
        """Give the next piece of an output that is a list."""

    def give(self, output: Any) -> None:
        """Give an output that is whole at once."""

    def host(self, name: str, data: bytes, content_type: str) -> str:
        """Store an output file, and say where it will be found."""

    async def fetch(self, url: str) -> bytes:
        """Read an input file: a data URI, a file of the account, a hosted output or another address."""


Run = Callable[[Job], Awaitable[None]]


@dataclass(frozen=True)
class Program:
    """What a model computes, its schema, and how long it takes to start."""

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
        """What the output streams: `text`, `files`, or None."""
        output = self.schema["components"]["schemas"]["Output"]
        if output.get("x-cog-array-type") != "iterator":
            return None
        return "files" if output["items"].get("format") == "uri" else "text"

    @property
    def can_train(self) -> bool:
        """Tell whether trainings can start from it."""
        return "TrainingInput" in self.schema["components"]["schemas"]


def dice(*parts: Any) -> random.Random:
    """Make a generator that depends on `parts` alone."""
    text = "\x1f".join(str(part) for part in parts)
    return random.Random(int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]))  # noqa: S311 - a picture, not a secret


def choose_seed(job: Job) -> int:
    """Take the caller's seed, or draw one and say so in the logs, as real models do."""
    seed = job.input.get("seed")
    if seed is None:
        seed = random.SystemRandom().randrange(2**31)
    job.log(f"Using seed: {int(seed)}\n")
    return int(seed)
