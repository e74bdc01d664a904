"""Output store in a folder: one file per object, named by its SHA-256.

A file is written under a temporary name in `incoming`, synced to disk, and renamed, so a file with its final name is
complete. Files in `incoming` are locked by the process that writes them; those without a lock were left by a process
that died. Damage to the disk is detected when a file is read: nothing is sent of a file whose hash differs from its
name.
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
"""How long a file is trusted after its hash was checked."""


class FolderStore:
    """Stores objects as files."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._incoming = root / _INCOMING
        self._threads = Threads()
        self._verified: TTLCache[str, int] = TTLCache(_VERIFIED_KEPT, _VERIFIED_SECONDS)

    async def open(self) -> None:
        """Create the folder, and delete the unfinished files of processes that died."""
        await self._threads.do(self._prepare)

    async def close(self) -> None:
        """Stop the threads."""
        self._threads.close()

    def _prepare(self) -> None:
        self._incoming.mkdir(mode=0o700, parents=True, exist_ok=True)
        for unfinished in self._incoming.iterdir():
            _remove_unless_locked(unfinished)

    @asynccontextmanager
    async def spool(self) -> AsyncIterator["FileSpool"]:
        """Open a spool for the bytes of one object."""
        file, path = await self._threads.do(self._create_temporary, lambda created: _close_and_remove(*created))
        try:
            yield FileSpool(file, self._threads, path)
        finally:
            await self._threads.do(lambda: _close_and_remove(file, path))

    def _create_temporary(self) -> tuple[BinaryIO, Path]:
        descriptor, name = tempfile.mkstemp(dir=self._incoming)
        file = os.fdopen(descriptor, "w+b")
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return file, Path(name)

    async def put(self, spool: "Spool", sha256: str) -> None:
        """Rename a finished spool to its final name. An existing file is replaced, because it can be damaged."""
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
        """Open an object for reading. Raise `OutputLost` if it is missing, or its size or hash differs."""
        file = await self._threads.do(lambda: self._open(sha256, size), lambda opened: opened.close())
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
                # The entire folder is missing, for example because the disk is not mounted.
                raise StoreUnavailable("The output store's folder does not exist.", retry_after=5) from None
            raise OutputLost from None
        if os.fstat(file.fileno()).st_size != size:
            file.close()
            raise OutputLost
        return file

    async def _verify(self, file: BinaryIO, sha256: str) -> None:
        """Check the hash of a file, once a day and after every change of the file. Raise `OutputLost`."""
        written_at = os.fstat(file.fileno()).st_mtime_ns
        if self._verified.get(sha256) == written_at:
            return
        if await self._threads.do(lambda: hashlib.file_digest(file, "sha256").hexdigest()) != sha256:  # type: ignore[arg-type]
            raise OutputLost
        self._verified[sha256] = written_at

    async def delete(self, sha256: str) -> None:
        """Delete an object's file. Do nothing if it does not exist."""
        await self._threads.do(lambda: self._path(sha256).unlink(missing_ok=True))

    def _path(self, sha256: str) -> Path:
        return self._root / sha256[:2] / sha256


class _OpenFile:
    """An open file of an object."""

    def __init__(self, file: BinaryIO, threads: Threads) -> None:
        self.file: BinaryIO | None = file
        self._descriptor = file.fileno()
        self._threads = threads

    async def blocks(self, start: int, stop: int) -> AsyncIterator[bytes]:
        """Yield the bytes from `start` to `stop`, block by block. Raise `OutputLost` if they cannot be read."""
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


def _close_and_remove(file: BinaryIO, path: Path) -> None:
    with file:
        path.unlink(missing_ok=True)


def _remove_unless_locked(path: Path) -> None:
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
