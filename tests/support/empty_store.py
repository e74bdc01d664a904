"""An empty SQLite store, made once for each process and copied for each test.

Making one takes 20 ms of CPU time: every migration runs. The tests of migrations and of damage make their own.
"""

import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

from gateway.store.sqlite.connection import open_for_writing


def put_empty_store(path: Path) -> None:
    """Put an empty store where there is none. A file that exists stays as it is."""
    if not path.exists() and path.parent.is_dir():
        path.touch(mode=0o600)
        path.write_bytes(_empty_store())


@cache
def _empty_store() -> bytes:
    # In a thread, because a test's event loop can be running here, and opening a file would block it.
    with ThreadPoolExecutor(1) as threads:
        return threads.submit(_make).result()


def _make() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "gateway.sqlite"
        db, _ = open_for_writing(path, 1.0, create=True)
        # Closing the only connection moves the write-ahead log into the file.
        db.close()
        return path.read_bytes()
