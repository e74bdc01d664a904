"""Write the bytes of an object to a temporary file and hash them, without holding the entire object in memory."""

import hashlib
import os
from pathlib import Path
from typing import BinaryIO

from gateway.store.objects.threads import Threads

BLOCK = 1024 * 1024
"""Block size. Passing work to a thread costs as much as hashing a few kilobytes, which is negligible at this size."""


class FileSpool:
    """A temporary file of one object."""

    def __init__(self, file: BinaryIO, threads: Threads, path: Path | None = None) -> None:
        self.file = file
        self.path = path
        """The file's path; `None` if it has no name, so that the system deletes it when the process ends."""
        self.size = 0
        self._threads = threads
        self._sha256 = hashlib.sha256()
        self._buffer = bytearray()

    async def write(self, chunk: bytes) -> None:
        """Append bytes."""
        self._buffer += chunk
        self.size += len(chunk)
        if len(self._buffer) >= BLOCK:
            await self._flush()

    async def finish(self) -> str:
        """Sync the file to disk and return its hex SHA-256."""
        await self._flush()
        await self._threads.do(self._sync)
        return self._sha256.hexdigest()

    async def _flush(self) -> None:
        block, self._buffer = self._buffer, bytearray()
        await self._threads.do(lambda: self._append(block))

    def _append(self, block: bytearray) -> None:
        self._sha256.update(block)
        self.file.write(block)

    def _sync(self) -> None:
        self.file.flush()
        os.fsync(self.file.fileno())
