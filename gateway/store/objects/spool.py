"""Bytes on their way in: written to a file and hashed as they come, never held whole in memory."""

import hashlib
import os
from pathlib import Path
from typing import BinaryIO

from gateway.store.objects.threads import Threads

BLOCK = 1024 * 1024
"""A hand-over to a thread costs as much as hashing some kilobytes: blocks of this size make it unnoticeable."""


class FileSpool:
    """A file that is being written."""

    def __init__(self, file: BinaryIO, threads: Threads, path: Path | None = None) -> None:
        self.file = file
        self.path = path
        """Its name; `None` if it has none, and goes with the process."""
        self.size = 0
        self._threads = threads
        self._sha256 = hashlib.sha256()
        self._buffer = bytearray()

    async def write(self, chunk: bytes) -> None:
        """Add some bytes."""
        self._buffer += chunk
        self.size += len(chunk)
        if len(self._buffer) >= BLOCK:
            await self._flush()

    async def finish(self) -> str:
        """Bring everything to disk; return the SHA-256."""
        await self._flush()
        await self._threads.do(self._sync)
        return self._sha256.hexdigest()

    async def _flush(self) -> None:
        block, self._buffer = self._buffer, bytearray()
        await self._threads.do(lambda: self._take(block))

    def _take(self, block: bytearray) -> None:
        self._sha256.update(block)
        self.file.write(block)

    def _sync(self) -> None:
        self.file.flush()
        os.fsync(self.file.fileno())
