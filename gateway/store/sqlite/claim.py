"""Allow only one process to serve from a SQLite file (docs/architecture.md, Store).

Two serving processes would follow every run twice. The claim is an operating system lock on a file beside the database,
so it ends when the process ends, for whatever reason. The command line takes no claim: it can read and write meanwhile.
"""

import fcntl
import os
import threading
from pathlib import Path

from gateway.errors import StoreUnavailable


class Claim:
    """The claim on one database file."""

    def __init__(self, database: Path) -> None:
        self._path = database.with_name(database.name + ".serving")
        self._file: int | None = None
        # Two threads that renew at once would lock each other out.
        self._lock = threading.Lock()

    def take(self) -> None:
        """Take the claim. Raise `StoreUnavailable` if another process has it or the lock file cannot be opened."""
        try:
            file = os.open(self._path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except OSError as exc:
            raise StoreUnavailable(f"The store cannot be claimed: {exc.strerror}.") from exc
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            os.close(file)
            raise StoreUnavailable(
                "Another process already serves from this store. One process serves one SQLite file."
            ) from exc
        self._file = file

    def renew(self) -> None:
        """Take the claim again if its file was deleted or replaced. Raise `StoreUnavailable` if another process has it.

        A lock on a file that is gone protects nothing. Threads may call this at the same time.
        """
        with self._lock:
            self._renew()

    def _renew(self) -> None:
        if self._file is None:
            return
        try:
            found = self._path.stat()
        except OSError:
            is_same = False
        else:
            own = os.fstat(self._file)
            is_same = (own.st_dev, own.st_ino) == (found.st_dev, found.st_ino)
        if not is_same:
            lost = self._file
            self.take()
            os.close(lost)

    def release(self) -> None:
        """Release the claim. The lock file stays: after a removal, two processes could lock two files of this name."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
