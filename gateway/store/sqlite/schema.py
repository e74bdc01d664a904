"""Migrate the schema. `PRAGMA user_version` is the number of files of `migrations/` that have been applied."""

import sqlite3
import time
from collections.abc import Iterator
from importlib import resources

from gateway.domain.audit import Actor
from gateway.errors import StoreUnavailable
from gateway.store.sql.migration import Migration


def migrate(db: sqlite3.Connection, by: Actor | None = None) -> Migration:
    """Apply missing migrations in one transaction, and record them as a change of `by`, if somebody asked for them.

    Raise `StoreUnavailable` if a newer gateway wrote the file.
    """
    refuse_newer(db)
    steps = _steps()
    if _version(db) == len(steps):
        return Migration(len(steps), len(steps))
    # Another process can migrate at the same time, so the version is read again inside the transaction.
    db.execute("BEGIN IMMEDIATE")
    try:
        refuse_newer(db)
        migration = Migration(_version(db), len(steps))
        for step in steps[migration.before :]:
            for statement in _statements(step):
                db.execute(statement)
        db.execute(f"PRAGMA user_version = {len(steps)}")
        if by is not None and (entry := migration.entry(time.time(), by)):
            marks = ", ".join(f":{name}" for name in entry)
            db.execute(f"INSERT INTO audit ({', '.join(entry)}) VALUES ({marks})", entry)  # noqa: S608 - our columns
        db.execute("COMMIT")
        return migration
    finally:
        if db.in_transaction:
            db.execute("ROLLBACK")


def is_empty(db: sqlite3.Connection) -> bool:
    """Say whether no schema was ever applied to a file."""
    return _version(db) == 0


def refuse_older(db: sqlite3.Connection) -> None:
    """Raise `StoreUnavailable` if migrations are missing."""
    if _version(db) < len(_steps()):
        raise StoreUnavailable("The store's file is of an older version: run `gateway store migrate` first.")


def refuse_newer(db: sqlite3.Connection) -> None:
    """Raise `StoreUnavailable` if a newer gateway wrote the file."""
    version, newest = _version(db), len(_steps())
    if version > newest:
        raise StoreUnavailable(
            f"The store's file was written by a newer gateway (schema version {version}; this one supports {newest})."
        )


def _version(db: sqlite3.Connection) -> int:
    (version,) = db.execute("PRAGMA user_version").fetchone()
    return int(version)


def _steps() -> list[str]:
    files = resources.files("gateway.store.sqlite").joinpath("migrations").iterdir()
    return [each.read_text(encoding="utf-8") for each in sorted(files, key=lambda each: each.name)]


def _statements(script: str) -> Iterator[str]:
    """Split a script into statements. `executescript` cannot be used: it commits the transaction."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
