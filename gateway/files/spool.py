"""Spools: bodies that have to be known to their end before they may go on. They wait on disk, within a bound."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import IO

_CHUNK = 256 * 1024
_IN_MEMORY = 256 * 1024
"""What is smaller is not worth a file."""


class Spool:
    """One body: written to its end, then read as often as it is wanted."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._size = 0

    async def fill(self, chunks: AsyncIterator[bytes]) -> None:
        """Take a body in. What `chunks` raises is raised here."""
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
        """Read the body from its beginning."""
        self._file.seek(0)
        is_small = self._size <= _IN_MEMORY
        while data := self._file.read(_CHUNK) if is_small else await asyncio.to_thread(self._file.read, _CHUNK):
            yield data


class Spools:
    """Hands out spools, as long as there is room for them."""

    def __init__(self, max_bytes: Callable[[], int]) -> None:
        self._max_bytes = max_bytes
        self.held_bytes = 0
        """Room that is given out, whether or not it is filled yet."""

    def has_room(self, size: int) -> bool:
        """Say whether a body of `size` bytes may be spooled now."""
        return self.held_bytes + size <= self._max_bytes()

    @asynccontextmanager
    async def open(self, size: int) -> AsyncIterator[Spool]:
        """Give out a spool for at most `size` bytes."""
        self.held_bytes += size
        try:
            # In memory until it is worth a file, which has no name and so is gone with the process.
            with tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY) as file:
                yield Spool(file)
        finally:
            self.held_bytes -= size
