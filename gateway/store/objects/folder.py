"""Copies in a folder: one file for each object, named by its SHA-256.

A file is written under another name, brought to disk, and renamed: under its own name it is whole. What a process that
died had begun lies in `incoming` and is known by its lock, which ended with the process. What a disk has spoilt since
is noticed when it is read: no byte leaves of a file whose hash is not its name.
"""

import errno
import fcntl
import hashlib
import os
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from cachetools import TTLCache

from gateway.errors import OutputLost, StoreUnavailable
from gateway.store.objects.spool import BLOCK, FileSpool
from gateway.store.objects.threads import Threads

if TYPE_CHECKING:
    from gateway.outputs.ports import OutputStore, Spool, StoredObject

_INCOMING = "incoming"
_VERIFIED_KEPT = 10_000
_VERIFIED_SECONDS = 24 * 3600.0
"""For how long a file that was read through and found to be sound is taken to be so."""


class FolderStore:
    """Objects as files."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._incoming = root / _INCOMING
        self._threads = Threads()
        self._verified: TTLCache[str, int] = TTLCache(_VERIFIED_KEPT, _VERIFIED_SECONDS)

    async def open(self) -> None:
        """Make the folder, and sweep it."""
        await self._threads.do(self._prepare)

    async def close(self) -> None:
        """Let the threads go."""
        self._threads.close()

    def _prepare(self) -> None:
        self._incoming.mkdir(mode=0o700, parents=True, exist_ok=True)
        for left in self._incoming.iterdir():
            _remove_unless_written(left)

    @asynccontextmanager
    async def spool(self) -> AsyncIterator["FileSpool"]:
        """Take bytes in."""
        file, path = await self._threads.do(self._begin, lambda made: _end(*made))
        try:
            yield FileSpool(file, self._threads, path)
        finally:
            await self._threads.do(lambda: _end(file, path))

    def _begin(self) -> tuple[BinaryIO, Path]:
        descriptor, name = tempfile.mkstemp(dir=self._incoming)
        file = os.fdopen(descriptor, "w+b")
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return file, Path(name)

    async def put(self, spool: "Spool", sha256: str) -> None:
        """Give the file its name. One that has it already is replaced: it may be damaged."""
        assert isinstance(spool, FileSpool)
        assert spool.path is not None
        path = spool.path
        await self._threads.do(lambda: self._rename(path, sha256))

    def _rename(self, path: Path, sha256: str) -> None:
        target = self._path(sha256)
        if not target.parent.is_dir():
            target.parent.mkdir(mode=0o700, exist_ok=True)
            _sync_folder(self._root)
        path.rename(target)
        _sync_folder(target.parent)

    @asynccontextmanager
    async def read(self, sha256: str, size: int) -> AsyncIterator["_OpenFile"]:
        """Open an object."""
        file = await self._threads.do(lambda: self._open(sha256, size), lambda made: made.close())
        try:
            await self._verify(file, sha256)
            yield _OpenFile(file, self._threads)
        finally:
            await self._threads.do(file.close)

    def _open(self, sha256: str, size: int) -> BinaryIO:
        try:
            file = self._path(sha256).open("rb", buffering=0)
        except FileNotFoundError:
            if not self._incoming.is_dir():
                # Not this file is gone, but all of them: a disk that is not mounted, say.
                raise StoreUnavailable("The output store's folder is away.", retry_after=5) from None
            raise OutputLost from None
        if os.fstat(file.fileno()).st_size != size:
            file.close()
            raise OutputLost
        return file

    async def _verify(self, file: BinaryIO, sha256: str) -> None:
        """See that the bytes are those that were stored: once a day, and whenever the file is another."""
        written_at = os.fstat(file.fileno()).st_mtime_ns
        if self._verified.get(sha256) == written_at:
            return
        if await self._threads.do(lambda: hashlib.file_digest(file, "sha256").hexdigest()) != sha256:  # type: ignore[arg-type]
            raise OutputLost
        self._verified[sha256] = written_at

    async def delete(self, sha256: str) -> None:
        """Delete an object's file."""
        await self._threads.do(lambda: self._path(sha256).unlink(missing_ok=True))

    def _path(self, sha256: str) -> Path:
        return self._root / sha256[:2] / sha256


class _OpenFile:
    """An object that is open."""

    def __init__(self, file: BinaryIO, threads: Threads) -> None:
        self.file: BinaryIO | None = file
        self._descriptor = file.fileno()
        self._threads = threads

    async def blocks(self, start: int, stop: int) -> AsyncIterator[bytes]:
        """Give the bytes, block by block."""
        while start < stop:
            length = min(BLOCK, stop - start)
            block = await self._threads.do(partial(self._read, start, length))
            if len(block) < length:
                raise OutputLost
            start += length
            yield block

    def _read(self, at: int, length: int) -> bytes:
        try:
            return os.pread(self._descriptor, length, at)
        except OSError as exc:
            if exc.errno == errno.EIO:
                raise OutputLost from exc
            raise


def _end(file: BinaryIO, path: Path) -> None:
    with file:
        path.unlink(missing_ok=True)


def _remove_unless_written(path: Path) -> None:
    with suppress(OSError), path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink()


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


if TYPE_CHECKING:
    _: type[OutputStore] = FolderStore
    __: type[StoredObject] = _OpenFile
