"""Output files on the delivery host: public, kept for one hour."""

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from gateway.simulator import ids
from gateway.simulator.settings import RETENTION_SECONDS


@dataclass(frozen=True, slots=True)
class Output:
    """A hosted file. `model` is the prediction's model, for faults that depend on targets."""

    data: bytes
    content_type: str
    etag: str
    expires_at: float
    model: str


class OutputStore:
    """Hosted files by path. The oldest are evicted above `max_bytes`."""

    def __init__(self, max_bytes: int, now: Callable[[], float]) -> None:
        self._files: OrderedDict[str, Output] = OrderedDict()
        self._max_bytes = max_bytes
        self._now = now
        self.size = 0

    def put(self, name: str, data: bytes, content_type: str, model: str) -> str:
        """Host a file and return its path."""
        path = ids.output_path(name)
        etag = f'"{hashlib.md5(data, usedforsecurity=False).hexdigest()}"'
        self._files[path] = Output(data, content_type, etag, self._now() + RETENTION_SECONDS, model)
        self.size += len(data)
        while self.size > self._max_bytes and len(self._files) > 1:
            self._drop(next(iter(self._files)))
        return path

    def get(self, path: str) -> Output | None:
        """Return a file, unless it has expired."""
        output = self._files.get(path)
        return None if output is None or output.expires_at <= self._now() else output

    def sweep(self) -> None:
        """Delete expired files."""
        now = self._now()
        for path in [path for path, output in self._files.items() if output.expires_at <= now]:
            self._drop(path)

    def clear(self) -> None:
        """Delete all files."""
        self._files.clear()
        self.size = 0

    def __len__(self) -> int:
        return len(self._files)

    def _drop(self, path: str) -> None:
        self.size -= len(self._files.pop(path).data)
