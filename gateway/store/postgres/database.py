"""What a step sees of a PostgreSQL connection, and the beginning and end of its transaction."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import psycopg
from psycopg.pq import TransactionStatus

from gateway.nodes.news import Topic
from gateway.nodes.rules.packing import pack
from gateway.store.postgres.commits import NO_STEP, NumberedStep
from gateway.store.postgres.connection import StoreConnection
from gateway.store.postgres.dialect import READING_SQL, SQL, Statement
from gateway.store.postgres.failures import has_nul
from gateway.store.postgres.locks import statement_of
from gateway.store.postgres.news import CHANNEL, MESSAGE_BYTES
from gateway.store.sql.database import Database, Parameters, Rows, SumBounds
from gateway.store.sql.locks import Lock

_PAGES: Final = ("_older", "_newer")
"""How the statements of pages end. A page can end early, by its bytes, so its rows are fetched as they are read."""
_ROWS_AT_ONCE: Final = 20

Connect = Callable[[], StoreConnection]


class NodeIdentity:
    """The number of this process among the nodes. It changes when the process joins again."""

    number = 0


class PostgresDatabase:
    """A connection that is opened when it is first used, and again after it was lost."""

    is_shared: Final = True
    _sql: Mapping[str, Statement] = SQL

    def __init__(self, connect: Connect, identity: NodeIdentity, bounds: SumBounds) -> None:
        self._connect = connect
        self._identity = identity
        self.bounds = bounds
        self._connection: StoreConnection | None = None
        self.node = 0
        """The number that the process had when the step began."""
        self._highest = Lock(1)
        self.step = NO_STEP
        """The open transaction, or the last one."""
        self.lost_at: float | None = None
        """When an attempt to connect first failed after the last that succeeded, on the monotonic clock."""

    @property
    def connection(self) -> StoreConnection:
        """The open connection."""
        assert self._connection is not None
        return self._connection

    @property
    def is_open(self) -> bool:
        """Whether there is a connection that is not known to be lost."""
        connection = self._connection
        return connection is not None and not connection.closed

    @property
    def is_lost(self) -> bool:
        """Whether there was a connection, and the server has ended it."""
        return self._connection is not None and self._connection.closed

    def has_been_lost_for(self, seconds: float) -> bool:
        """Whether attempts to connect have failed for longer than this."""
        return self.lost_at is not None and time.monotonic() - self.lost_at > seconds

    def open(self) -> None:
        """Connect, unless there is a connection. Raise `psycopg.Error`."""
        if self._connection is not None:
            if not self._connection.closed:
                return
            self.close()
        try:
            self._connection = self._connect()
        except psycopg.Error:
            self.lost_at = self.lost_at or time.monotonic()
            raise
        self.lost_at = None
        self.step = NumberedStep.of_new_session()

    def close(self) -> None:
        """Close the connection, if there is one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(psycopg.Error):
                connection.close()

    def begin(self, how: bytes = b"BEGIN ISOLATION LEVEL READ COMMITTED") -> None:
        """Begin a transaction."""
        self._highest = Lock(1)
        self.node = self._identity.number
        self.step = self.step.next()
        self.connection.execute(how + self.connection.at_begin, prepare=False)

    def commit(self) -> None:
        """Commit the transaction, with a note of the step (`commits.py`).

        Raise `psycopg.Error`. If the connection is lost then, `was_committed` finds out what became of it.
        """
        self._end(self.step.commit)

    def _end(self, commit: bytes) -> None:
        assert self.connection.info.transaction_status == TransactionStatus.INTRANS, "a statement has failed"
        self.connection.execute(commit, prepare=False)

    def was_committed(self, step: NumberedStep) -> bool:
        """Say whether a step of an earlier connection was committed. If it was not, it never will be.

        Raise `psycopg.Error`, also while the server has not ended the step.
        """
        # In a transaction, which a deadline for locks belongs to behind a pooler.
        self.connection.execute(b"BEGIN" + self.connection.at_begin, prepare=False)
        row = self.connection.execute(step.close_session, prepare=False).fetchone()
        self.connection.execute(b"COMMIT", prepare=False)
        return row == (step.number,)

    def roll_back(self) -> None:
        """Roll back the open transaction, if there is one; a connection that cannot do it is closed. Never raises."""
        connection = self._connection
        if connection is None:
            return
        try:
            if connection.info.transaction_status != TransactionStatus.IDLE:
                connection.execute(b"ROLLBACK", prepare=False)
        except psycopg.Error:
            self.close()

    def execute(self, name: str, parameters: Parameters = ()) -> Rows:
        """Execute a statement of the store."""
        statement = self._sql[name]
        values = statement.values(parameters) if isinstance(parameters, Mapping) else parameters
        try:
            return self.connection.execute(statement.text, values, binary=True)
        except psycopg.DataError as exc:
            # Nothing was sent.
            if has_nul(exc) and statement.finds_nothing(values):
                return NoRows()
            raise

    def executemany(self, name: str, parameters: Iterable[Parameters]) -> Rows:
        """Execute a statement of the store once for each set of parameters, in one exchange with the server."""
        statement = self._sql[name]
        values = [statement.values(each) if isinstance(each, Mapping) else each for each in parameters]
        cursor = self.connection.cursor()
        cursor.executemany(statement.text, values)
        return cursor

    def keep_node(self) -> bool:
        """Say whether the node has not ended. If so, it does not end before the step does."""
        return self.node == 0 or self.execute("keep_node", {"node": self.node}).fetchone() is not None

    def tell(self, topic: Topic, *names: str) -> None:
        """Tell all nodes when the transaction is committed."""
        for message in pack({topic: names}, MESSAGE_BYTES) if names else ():
            self.execute("tell", {"channel": CHANNEL, "message": message})

    def lock(self, lock: Lock, *names: str) -> None:
        """Lock something until the transaction ends."""
        assert lock >= self._highest, f"{lock!r} is taken after {self._highest!r}: see gateway.store.sql.locks"
        self._highest = lock
        # No row has a name with a NUL character.
        text, values = statement_of(lock, [each for each in names if "\0" not in each])
        self.connection.execute(text, values)


class ReadingDatabase(PostgresDatabase):
    """A connection whose steps only read.

    A step with one statement needs no transaction. One with several, or with a page, reads on a snapshot. Which it is
    shows when it asks for it.
    """

    _sql = READING_SQL

    def __init__(self, connect: Connect, identity: NodeIdentity) -> None:
        super().__init__(connect, identity, SumBounds())
        self._is_snapshot = False
        self._executed = 0

    def begin_single(self) -> None:
        """Allow one statement."""
        self.node = self._identity.number
        self._is_snapshot, self._executed = False, 0

    def begin_snapshot(self) -> None:
        """Allow any number of statements, all of which see the same."""
        self._is_snapshot = True
        self.begin(b"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")

    def commit(self) -> None:
        """End the snapshot."""
        self._end(b"COMMIT")

    def execute(self, name: str, parameters: Parameters = ()) -> Rows:
        """Execute a statement of the store. Raise `SeveralStatements` if it is one too many."""
        self._executed += 1
        is_page = name.endswith(_PAGES)
        if not self._is_snapshot and (is_page or self._executed > 1):
            raise SeveralStatements
        if not is_page:
            return super().execute(name, parameters)
        statement = self._sql[name]
        values = statement.values(parameters) if isinstance(parameters, Mapping) else parameters
        cursor = psycopg.RawServerCursor(self.connection, "page")
        cursor.itersize = _ROWS_AT_ONCE
        return cursor.execute(statement.text, values, binary=True)


class SeveralStatements(Exception):
    """A step that reads needs a snapshot."""


class NoRows:
    """The result of a search for a text with a NUL character: PostgreSQL stores none."""

    rowcount: Final = 0

    def fetchone(self) -> None:
        """Return `None`."""

    def fetchall(self) -> list[Any]:
        """Return nothing."""
        return []

    def __iter__(self) -> Iterator[Any]:
        return iter(())

    def close(self) -> None:
        """Do nothing."""


if TYPE_CHECKING:
    _: type[Database] = PostgresDatabase
    _reading: type[Database] = ReadingDatabase
