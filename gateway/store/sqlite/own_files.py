"""Whether the database's files are still those that were opened.

SQLite goes on with files that were deleted or replaced under it: every write would succeed, and be lost with the
process. The files are compared by inode, which costs about a microsecond each.
"""

import os
from pathlib import Path

from gateway.errors import StoreUnavailable

_PARTS = ("", "-wal", "-shm")


class OwnFiles:
    """The files of one open database. They stay the same while a connection is open."""

    def __init__(self, path: Path) -> None:
        """Remember the files. Call it when a connection has used them all."""
        self._files = {Path(f"{path}{part}"): _inode(Path(f"{path}{part}")) for part in _PARTS}

    def check(self) -> None:
        """Raise `StoreUnavailable` if a file was deleted or replaced. It may come back: a folder that was renamed."""
        for path, inode in self._files.items():
            if inode is not None and (found := _inode(path)) != inode:
                what = "deleted" if found is None else "replaced"
                raise StoreUnavailable(
                    f"The store's file {path.name} was {what} while the gateway runs: nothing can be recorded. "
                    "Put it back, or restart the gateway with the right file.",
                    retry_after=30,
                ) from FileNotFoundError(str(path))


def _inode(path: Path) -> tuple[int, int] | None:
    try:
        found = os.stat(path)  # noqa: PTH116 - twice as fast, and called for every transaction
    except OSError:
        return None
    return found.st_dev, found.st_ino
