"""What a step sees of a SQLite connection."""

import sqlite3
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from gateway.nodes.news import Topic
from gateway.store.sql.database import Database, Parameters, SumBounds
from gateway.store.sql.locks import Lock
from gateway.store.sqlite import large_values
from gateway.store.sqlite.dialect import SQL, WITH_LARGE_VALUES


class SQLiteDatabase:
    """One connection. All writes go through one of them, in turn, so there is nothing to lock."""

    is_shared: Final = False
    node: Final = 0

    def __init__(self, connection: sqlite3.Connection, bounds: SumBounds) -> None:
        self.connection = connection
        self.bounds = bounds
        self._execute = connection.execute
        self._row_factories: dict[str, large_values.RowFactory | None] = {}

    def execute(self, name: str, parameters: Parameters = ()) -> sqlite3.Cursor:
        """Execute a statement of the store."""
        sql = SQL[name]
        if name not in WITH_LARGE_VALUES:
            return self._execute(sql, parameters)
        cursor = large_values.execute(self.connection, sql, parameters)
        if name not in self._row_factories:
            self._row_factories[name] = large_values.row_factory([each[0] for each in cursor.description or ()])
        cursor.row_factory = self._row_factories[name]
        return cursor

    def executemany(self, name: str, parameters: Iterable[Parameters]) -> sqlite3.Cursor:
        """Execute a statement of the store once for each set of parameters."""
        return self.connection.executemany(SQL[name], parameters)

    def tell(self, topic: Topic, *names: str) -> None:
        """Do nothing: there are no other nodes."""

    def keep_node(self) -> bool:
        """Return true: the process that alone serves does not end."""
        return True

    def lock(self, lock: Lock, *names: str) -> None:
        """Do nothing."""


if TYPE_CHECKING:
    _: type[Database] = SQLiteDatabase
