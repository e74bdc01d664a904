"""One request to upstream: how long it took, what became of it, and what its failure means."""

import asyncio
import time
from collections.abc import Callable
from typing import Self

import aiohttp

from gateway.domain.ports.observers import UpstreamObserver
from gateway.domain.ports.tracing import Call


class SentRequest:
    """A context that times a request, reports its outcome, and raises what a failure of it means."""

    __slots__ = ("_failed", "_observer", "_operation", "_started", "call", "outcome")

    def __init__(
        self,
        operation: str,
        call: Call,
        observer: UpstreamObserver,
        failed: Callable[[Exception], tuple[str, Exception]],
    ) -> None:
        """Take `failed`, which returns the outcome and the error for one of aiohttp's."""
        self.call = call
        self.outcome = "failed"
        self._operation = operation
        self._observer = observer
        self._failed = failed
        self._started = time.perf_counter()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: object, exc: BaseException | None, __: object) -> None:
        error: Exception | None = None
        if isinstance(exc, (aiohttp.ClientError, TimeoutError)):
            self.outcome, error = self._failed(exc)
        elif isinstance(exc, asyncio.CancelledError):
            self.outcome = "abandoned"
        self.call.ended(self.outcome)
        self._observer.upstream_answered(self._operation, self.outcome, time.perf_counter() - self._started)
        if error is not None:
            raise error from exc
