"""The schema's versions: `PRAGMA user_version` counts the files of `migrations/` that have been applied."""

import sqlite3
from collections.abc import Iterator
from importlib import resources

from gateway.errors import StoreUnavailable


def migrate(db: sqlite3.Connection) -> None:
    """Apply what is missing, in one transaction; refuse a file that a newer gateway wrote."""
    refuse_newer(db)
    steps = _steps()
    if _version(db) == len(steps):
        return
    # Another process may be at it too: whoever comes second finds the work done.
    db.execute("BEGIN IMMEDIATE")
    try:
        refuse_newer(db)
        for step in steps[_version(db) :]:
            for statement in _statements(step):
                db.execute(statement)
        db.execute(f"PRAGMA user_version = {len(steps)}")
        db.execute("COMMIT")
    finally:
        if db.in_transaction:
            db.execute("ROLLBACK")


def is_empty(db: sqlite3.Connection) -> bool:
    """Say whether no schema was ever applied to a file."""
    return _version(db) == 0


def refuse_newer(db: sqlite3.Connection) -> None:
    """Refuse a file whose schema a newer gateway wrote."""
    version, newest = _version(db), len(_steps())
    if version > newest:
        raise StoreUnavailable(
            f"The store's file was written by a newer gateway (schema {version}, this one knows {newest})."
        )


def _version(db: sqlite3.Connection) -> int:
    (version,) = db.execute("PRAGMA user_version").fetchone()
    return int(version)


def _steps() -> list[str]:
    files = resources.files("gateway.store.sql").joinpath("migrations").iterdir()
    return [each.read_text(encoding="utf-8") for each in sorted(files, key=lambda each: each.name)]


def _statements(script: str) -> Iterator[str]:
    """Split a script: `executescript` would end the transaction."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
