"""A primary and its standby, which fail and take over as a test wants it.

They listen on sockets in folders of their own. Nothing is synced: what a process has written survives its end.
"""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from gateway.store.postgres.connection import Address
from gateway.store.postgres.schema import open_schema
from tests.support.postgres import Server, copied_data, installed, launch, new_data

_REPLICATED = {"wal_level": "replica", "max_wal_senders": "5", "hot_standby": "on", "wal_retrieve_retry_interval": "50"}


class Pair:
    """Two servers, one of which is the primary."""

    def __init__(self, primary: Server, standby: Server) -> None:
        self.primary = primary
        self.standby = standby

    @property
    def url(self) -> str:
        """The address of the database on whichever server takes writes."""
        hosts = f"{self.primary.folder},{self.standby.folder}"
        return f"postgresql://gateway@/gateway?host={hosts}&target_session_attrs=read-write"

    def do(self, *statements: str) -> list[tuple[object, ...]]:
        """Execute statements on the primary; return the rows of the last."""
        with psycopg.connect(self.primary.url("gateway"), autocommit=True) as connection:
            for each in statements[:-1]:
                connection.execute(each)
            last = connection.execute(statements[-1])
            return last.fetchall() if last.description else []

    def require_standby(self, *, is_required: bool) -> None:
        """Let commits wait for the standby, or not."""
        names = "*" if is_required else ""
        self.do(f"ALTER SYSTEM SET synchronous_standby_names = '{names}'", "SELECT pg_reload_conf()")

    def restart(self) -> None:
        """End the primary at once, and start it again."""
        self._end(self.primary)
        self.primary = launch(self.primary.binaries, self.primary.folder)

    def fail_over(self) -> None:
        """End the primary at once, and let the standby take its place. The old one does not come back."""
        self._end(self.primary)
        with psycopg.connect(self.standby.url("gateway"), autocommit=True) as connection:
            connection.execute("SELECT pg_promote()")
        self.primary, self.standby = self.standby, self.primary

    def renew_standby(self) -> None:
        """Replace the server that has failed by a new standby."""
        self.require_standby(is_required=False)
        self.standby.stop()
        self.standby = launch(self.primary.binaries, copied_data(self.primary))
        self.wait_for_standby()
        self.require_standby(is_required=True)

    def stop_standby(self) -> None:
        """End the standby."""
        self._end(self.standby)

    def start_standby(self) -> None:
        """Start the standby again."""
        self.standby = launch(self.standby.binaries, self.standby.folder)
        self.wait_for_standby()

    def wait_for_standby(self) -> None:
        """Wait until the standby has all that the primary has."""
        for _ in range(500):
            query = "SELECT 1 FROM pg_stat_replication WHERE replay_lsn = pg_current_wal_lsn()"
            if self.do(query):
                return
            time.sleep(0.02)
        raise AssertionError("the standby does not follow")

    def _end(self, which: Server) -> None:
        which.process.send_signal(signal.SIGQUIT)
        which.process.wait()


@contextmanager
def pair() -> Iterator[Pair]:
    """Run a primary and a standby, with the store's schema."""
    binaries = installed()
    primary = launch(binaries, new_data(binaries, _REPLICATED))
    made = Pair(primary, primary)
    try:
        made.standby = launch(binaries, copied_data(primary))
        with psycopg.connect(primary.url("postgres"), autocommit=True) as connection:
            connection.execute("CREATE DATABASE gateway")
        open_schema(Address(made.url), create=True)
        made.wait_for_standby()
        yield made
    finally:
        for each in {made.primary, made.standby}:
            each.stop()
