"""Temporary storage for request bodies that must be complete before they are processed. Disk use is bounded."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import IO

_CHUNK = 256 * 1024
_IN_MEMORY = 256 * 1024
"""Bodies up to this size stay in memory."""


class Spool:
    """One body: written once, then read any number of times."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._size = 0

    async def fill(self, chunks: AsyncIterator[bytes]) -> None:
        """Write a body. Exceptions of `chunks` propagate."""
        buffer = bytearray()
        async for chunk in chunks:
            buffer += chunk
            if len(buffer) >= _CHUNK:
                await self._write(bytes(buffer))
                buffer.clear()
        await self._write(bytes(buffer))

    async def _write(self, data: bytes) -> None:
        self._size += len(data)
        if self._size <= _IN_MEMORY:
            self._file.write(data)
        else:
            await asyncio.to_thread(self._file.write, data)

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the body from its beginning."""
        self._file.seek(0)
        is_small = self._size <= _IN_MEMORY
        while data := self._file.read(_CHUNK) if is_small else await asyncio.to_thread(self._file.read, _CHUNK):
            yield data


class Spools:
    """Creates spools within a total size."""

    def __init__(self, max_bytes: Callable[[], int]) -> None:
        self._max_bytes = max_bytes
        self.held_bytes = 0
        """Bytes reserved by open spools, whether written or not."""

    def has_room(self, size: int) -> bool:
        """Return whether there is room for a body of `size` bytes."""
        return self.held_bytes + size <= self._max_bytes()

    @asynccontextmanager
    async def open(self, size: int) -> AsyncIterator[Spool]:
        """Open a spool and reserve `size` bytes for it until the context ends."""
        self.held_bytes += size
        try:
            # In memory up to a size, then in an unnamed file, which the system deletes when the process dies.
            with tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY) as file:
                yield Spool(file)
        finally:
            self.held_bytes -= size
