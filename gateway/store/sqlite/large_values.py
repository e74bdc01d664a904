"""Very large values in statements: copied into SQLite and out of it while others are served.

`sqlite3` copies a bound value, and a value of a row, in one call that holds the interpreter: 20 ms and more for 40 MB.
Incremental I/O copies too, but releases the interpreter for it. So a very large value is first written to a temporary
table, from which the statement takes it, and a row has the row's number in place of a very large value, which is then
read.
"""

import re
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from typing import Any, Final

from gateway.store.sql.database import Parameters

LARGE: Final = 4 * 1024 * 1024
"""Smaller values, in bytes, are copied with the statement."""
_TABLE: Final = "CREATE TEMP TABLE IF NOT EXISTS large_values (id INTEGER PRIMARY KEY, value BLOB NOT NULL)"
_TAKEN: Final = "(SELECT value FROM temp.large_values WHERE id = {})"


def prepare(connection: sqlite3.Connection) -> None:
    """Have a connection keep its temporary table in memory. The folder for temporary files may be read-only."""
    connection.execute("PRAGMA temp_store = MEMORY")
    connection.execute("PRAGMA temp.page_size = 65536")
    connection.execute("PRAGMA temp.auto_vacuum = FULL")


def execute(connection: sqlite3.Connection, sql: str, parameters: Parameters) -> sqlite3.Cursor:
    """Execute a statement that can have very large values."""
    is_named = isinstance(parameters, Mapping)
    values: dict[Any, Any] = dict(parameters) if is_named else dict(enumerate(parameters))
    large = tuple(name for name, value in values.items() if isinstance(value, bytes) and len(value) > LARGE)
    if not large:
        return connection.execute(sql, parameters)
    connection.execute(_TABLE)
    for number, name in enumerate(large):
        value = values.pop(name)
        connection.execute("INSERT INTO temp.large_values VALUES (?, zeroblob(?))", (number, len(value)))
        with connection.blobopen("large_values", "value", number, name="temp") as blob:
            blob.write(value)
    cursor = connection.execute(_taking(sql, large), values if is_named else tuple(values.values()))
    connection.execute("DELETE FROM temp.large_values")
    return cursor


@cache
def _taking(sql: str, large: tuple[str | int, ...]) -> str:
    """Return a statement that takes these parameters from the temporary table."""
    for number, name in enumerate(large):
        if isinstance(name, str):
            sql = re.sub(rf":{name}\b", _TAKEN.format(number), sql)
    parts = sql.split("?")
    numbers = {place: number for number, place in enumerate(large)}
    marks = [_TAKEN.format(numbers[place]) if place in numbers else "?" for place in range(len(parts) - 1)]
    return "".join(part + mark for part, mark in zip(parts, [*marks, ""], strict=True))


RowFactory = Callable[[sqlite3.Cursor, tuple[Any, ...]], tuple[Any, ...]]


def row_factory(columns: Sequence[str]) -> RowFactory | None:
    """Return what reads the very large values of rows with these columns; `None` if there can be none."""
    places = [(place, name) for place, name in enumerate(columns) if name in ("document", "request")]
    return partial(_whole, places) if places else None


def _whole(places: list[tuple[int, str]], cursor: sqlite3.Cursor, row: tuple[Any, ...]) -> tuple[Any, ...]:
    for place, column in places:
        if type(number := row[place]) is int:
            with cursor.connection.blobopen("runs", column, number, readonly=True) as blob:
                row = (*row[:place], blob.read(), *row[place + 1 :])
    return row
