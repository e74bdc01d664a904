"""Copy everything in a store to an empty one of the other engine (`gateway store copy`).

Both stores are locked against writes, so the copy is of one moment. It is one transaction of the target: all of it or
nothing. Before that is committed, every column is summed up on both sides and compared.
"""

import enum
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Any, Final, NamedTuple, Protocol

from gateway.domain.audit import Action, Actor, Change
from gateway.domain.money import usd
from gateway.errors import StoreUnavailable
from gateway.store.sql.audit import columns_of

Row = tuple[Any, ...]
AT_ONCE: Final = 1000
"""Rows of one batch."""
ALL: Final = "TRUE"
"""The condition of all rows."""
LEDGER: Final = "SELECT kind, sum(microusd) FROM ledger GROUP BY kind"
_OWN: Final = {"schema_version", "pings"}
"""Tables of an engine, or of the store itself."""
_KEPT_BY_TRIGGERS: Final = {"delivery_counts": "taken <> 0 OR dead <> 0"}
"""Counts that triggers of the target keep, with which rows of them are compared.

A row whose counts are all zero means the same as no row. One is left when the last row that it counted is gone.
"""
_OF_NODES: Final = {("runs", "owner"), ("deliveries", "held_by")}
"""Which node follows a run or delivers a webhook: none afterwards, because none serves."""


class ColumnKind(enum.Enum):
    """What a column holds, in both engines."""

    TEXT = "text"
    BYTES = "bytes"
    WHOLE = "whole number"
    REAL = "real number"
    OTHER = "other"
    """Only in tables that one engine has."""


Columns = Mapping[str, ColumnKind]
_AUDIT: Final = "audit"
_AUDIT_COLUMNS: Final[Columns] = {
    "at": ColumnKind.REAL,
    **dict.fromkeys(("actor", "action", "subject", "team", "before_values", "after_values"), ColumnKind.TEXT),
}
Sums = Mapping[str, object]
"""Number of rows, and for each column how many values there are, with their sum, total length, or first and last."""


class Reading(Protocol):
    """A store that is locked against writes."""

    def tables(self) -> Mapping[str, Columns]:
        """Return the tables with their columns."""
        ...

    def count(self, table: str) -> int:
        """Return the number of rows."""
        ...

    def rows(self, table: str, columns: Columns) -> Iterator[Row]:
        """Return all rows."""
        ...

    def sums(self, table: str, columns: Columns, which: str = ALL) -> Sums:
        """Sum up all rows for which the condition `which` holds."""
        ...

    def ledger(self) -> Mapping[str, int]:
        """Return the micro-dollars of all ledger lines, by kind."""
        ...


class Writing(Reading, Protocol):
    """An empty store, in a transaction."""

    def write(self, table: str, columns: Columns, rows: list[Row]) -> None:
        """Add rows."""
        ...

    def renumber(self) -> None:
        """Let new rows get numbers above those that were written."""
        ...

    def commit(self) -> None:
        """Commit everything that was written."""
        ...


class CopySource(NamedTuple):
    """Who copies what, for the audit log of the target."""

    actor: Actor
    at: float
    source: str
    """Its address without secrets."""


class Copied(NamedTuple):
    """What was copied."""

    rows: Mapping[str, int]
    """Number of rows by table."""
    replaced: int
    """Number of texts in which NUL characters, which PostgreSQL does not store, were replaced."""
    ledger_microusd: Mapping[str, int]
    """What the ledger sums up to, by kind of line; equal on both sides."""


def copy(source: Reading, target: Writing, on_progress: Callable[[str, int, int], None], origin: CopySource) -> Copied:
    """Copy all rows, add an entry to the audit log of the target, and commit.

    `on_progress` gets the table, and how many of how many rows it has so far.

    Raise `StoreUnavailable`, with nothing copied, if the target is not empty or differs afterwards.
    """
    tables = _tables_of_both(source, target)
    filled = [table for table in tables if target.count(table)]
    if filled:
        raise StoreUnavailable(f"The target is not empty: {', '.join(sorted(filled))}. Copy to a new store.")
    copied: dict[str, int] = {}
    replaced = 0
    for table, columns in tables.items():
        if table in _KEPT_BY_TRIGGERS:
            continue
        done, total = 0, source.count(table)
        rows = source.rows(table, columns)
        while batch := list(islice(rows, AT_ONCE)):
            cleaned = [_without_nul(row) for row in batch]
            replaced += sum(before is not after for before, after in zip(batch, cleaned, strict=True))
            target.write(table, columns, cleaned)
            done += len(batch)
            on_progress(table, done, total)
        copied[table] = done
    differences = [each for table, columns in tables.items() for each in _differences(source, target, table, columns)]
    microusd = source.ledger()
    if microusd != target.ledger():
        differences.append("the sums of the ledger")
    if differences:
        raise StoreUnavailable(f"Nothing was copied, because the copy would differ: {'; '.join(differences[:5])}.")
    result = Copied(copied, replaced, microusd)
    target.renumber()
    target.write(_AUDIT, _AUDIT_COLUMNS, [_entry(origin, result)])
    target.commit()
    return result


def _entry(origin: CopySource, copied: Copied) -> Row:
    after = {
        "source": origin.source,
        "records": sum(copied.rows.values()),
        "replaced": copied.replaced,
        "ledger_usd": {kind: usd(microusd) for kind, microusd in sorted(copied.ledger_microusd.items())},
        "rows": copied.rows,
    }
    columns = columns_of(origin.at, origin.actor, Change(action=Action.STORE_COPIED, subject="store", after=after))
    return tuple(columns[name] for name in _AUDIT_COLUMNS)


def _tables_of_both(source: Reading, target: Reading) -> dict[str, Columns]:
    """Return what to copy. A table that only one engine has is about serving processes, of which there are none."""
    ours, theirs = source.tables(), target.tables()
    return {
        table: {
            name: kind for name, kind in columns.items() if name in theirs[table] and (table, name) not in _OF_NODES
        }
        for table, columns in sorted(ours.items())
        if table in theirs and table not in _OWN
    }


def _without_nul(row: Row) -> Row:
    if any(isinstance(value, str) and "\0" in value for value in row):
        return tuple(value.replace("\0", "?") if isinstance(value, str) else value for value in row)
    return row


def _differences(source: Reading, target: Reading, table: str, columns: Columns) -> Iterator[str]:
    which = _KEPT_BY_TRIGGERS.get(table, ALL)
    before, after = source.sums(table, columns, which), target.sums(table, columns, which)
    for what, expected in before.items():
        if after[what] != expected:
            yield f"{table}, {what}: {expected} in the source, {after[what]} in the target"


def named(columns: Columns) -> str:
    """Return the columns as a list in SQL."""
    return ", ".join(f'"{each}"' for each in columns)


def summing(columns: Columns, by_kind: Mapping[ColumnKind, Mapping[str, str]]) -> dict[str, str]:
    """Return the expressions that sum up a table, by what each is. `by_kind` has those of an engine."""
    wanted = {"rows": "count(*)"}
    for name, kind in columns.items():
        for what, expression in {"number": "count({0})", **by_kind[kind]}.items():
            wanted[f"{what} of {name}"] = expression.format(f'"{name}"')
    return wanted
