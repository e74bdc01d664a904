"""The stores that the contract tests run on: every backend in turn. A backend is added to `BACKENDS`."""

from collections.abc import Callable
from pathlib import Path

from gateway.store.interface import Store
from gateway.store.sqlite import SQLiteStore

StoreMaker = Callable[[], Store]
"""Makes one more store on the same data each time it is called, as another process would."""


def sqlite_maker(folder: Path) -> StoreMaker:
    """Return a maker of SQLite stores on one file."""
    return lambda: SQLiteStore(folder / "gateway.sqlite")


BACKENDS = {"sqlite": sqlite_maker}
