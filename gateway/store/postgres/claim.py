"""Allow only one process to serve from a database, as long as there is no division of the runs among several.

Two serving processes would follow every run twice. The claim is a lock of the database on a connection of its own, so
it ends when the process ends, or when its machine has been silent for half a minute. The command line takes no claim:
it can read and write meanwhile.
"""

import threading
import time
from contextlib import suppress
from typing import Final

import psycopg

from gateway.errors import StoreTaken
from gateway.store.postgres.connection import Address
from gateway.store.postgres.failures import unavailable
from gateway.store.postgres.locks import key_of

_KEY: Final = key_of("CLAIM", "")
_RELEASED_SECONDS: Final = 1.0
_PAUSE_SECONDS: Final = 0.05


class Claim:
    """The claim on one database."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._connection: psycopg.Connection[tuple[object, ...]] | None = None
        # Two threads that renew at once would lock each other out.
        self._lock = threading.Lock()

    def take(self) -> None:
        """Take the claim. Raise `StoreUnavailable` if another process has it or the database cannot be reached.

        The server may hold it for a moment after the connection of a process has ended.
        """
        end = time.monotonic() + _RELEASED_SECONDS
        while not self._taken():
            if time.monotonic() > end:
                raise StoreTaken(
                    "Another process already serves from this store. One process serves from one database."
                )
            time.sleep(_PAUSE_SECONDS)

    def _taken(self) -> bool:
        try:
            # The server's keepalives notice a machine that is gone.
            connection = self._address.connect(
                tcp_keepalives_idle="10", tcp_keepalives_interval="5", tcp_keepalives_count="4"
            )
        except psycopg.Error as exc:
            raise unavailable(exc) from exc
        try:
            is_taken = connection.execute(b"SELECT pg_try_advisory_lock($1)", [_KEY]).fetchone() == (True,)
        except psycopg.Error as exc:
            connection.close()
            raise unavailable(exc) from exc
        if is_taken:
            self._connection = connection
        else:
            connection.close()
        return is_taken

    def renew(self) -> None:
        """Take the claim again if its connection was lost. Raise `StoreUnavailable` if another process has it.

        Threads may call this at the same time.
        """
        with self._lock:
            if self._connection is None:
                return
            try:
                self._connection.execute(b"SELECT 1")
            except psycopg.Error:
                lost = self._connection
                self.take()
                with suppress(psycopg.Error):
                    lost.close()

    def release(self) -> None:
        """Release the claim."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(psycopg.Error):
                connection.close()
