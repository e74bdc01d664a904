"""Open connections to PostgreSQL: address, settings, types."""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qsl, urlsplit

import psycopg
from psycopg.adapt import AdaptersMap
from psycopg.types.numeric import Int8BinaryDumper, NumericBinaryLoader
from psycopg.types.string import StrDumper

OLDEST_SERVER: Final = 140_000
_CONNECT_SECONDS: Final = 5
_LOCK_MILLISECONDS: Final = 2_000
_STATEMENTS: Final = 1_000
"""Prepared statements of a connection: more than there are, so none is prepared twice."""


class _WholeNumber(NumericBinaryLoader):
    """Sums of whole numbers are of the type `numeric`. All numerics of the store are such sums."""

    def load(self, data: bytes | bytearray | memoryview) -> int:  # type: ignore[override]
        return int(super().load(data))


_ADAPTERS: Final = AdaptersMap(psycopg.adapters)
# One type for each of Python's, so that a statement is prepared once, not once for each size of a number.
_ADAPTERS.register_dumper(int, Int8BinaryDumper)
_ADAPTERS.register_dumper(str, StrDumper)
_ADAPTERS.register_loader("numeric", _WholeNumber)


class Address(NamedTuple):
    """Where the database is."""

    url: str
    password: str | None = None
    timeout_seconds: float = 5.0

    def __repr__(self) -> str:
        return f"Address({self.url!r})"

    def connect(self, *, is_relaxed: bool = False, **settings: str) -> "psycopg.Connection[tuple[object, ...]]":
        """Open a connection that commits by itself. With `is_relaxed`, a commit does not wait for the disk."""
        # Another server setting can wait for replicas too, so `on` is left to the server.
        relaxed = {"synchronous_commit": "off"} if is_relaxed else {}
        connection = psycopg.connect(
            self.url,
            autocommit=True,
            context=_Context(),
            cursor_factory=psycopg.RawCursor,
            **self._parameters(relaxed | settings),
        )
        connection.prepared_max = _STATEMENTS
        return connection

    async def connect_async(self) -> "psycopg.AsyncConnection[tuple[object, ...]]":
        """Open a connection that commits by itself, whose statements are awaited on the event loop."""
        return await psycopg.AsyncConnection.connect(
            self.url,
            autocommit=True,
            context=_Context(),
            cursor_factory=psycopg.AsyncRawCursor,
            **self._parameters({}),
        )

    def _parameters(self, settings: Mapping[str, str]) -> dict[str, Any]:
        """Return what a connection is opened with, beside the address. `settings` are those of the session."""
        statement = int(self.timeout_seconds * 1000)
        settings = {
            "statement_timeout": str(statement),
            "lock_timeout": str(min(_LOCK_MILLISECONDS, statement)),
            # A step does nothing but statements, so one that is idle has lost its process.
            "idle_in_transaction_session_timeout": str(2 * statement),
            "default_transaction_isolation": r"read\ committed",
            "jit": "off",
            **settings,
        }
        named = dict(parse_qsl(urlsplit(self.url).query))
        options = " ".join(
            [named.get("options", ""), *(f"-c {name}={value}" for name, value in settings.items())]
        ).strip()
        return {
            "options": options,
            "client_encoding": "utf-8",
            "connect_timeout": _CONNECT_SECONDS,
            "tcp_user_timeout": 2 * statement,
            "keepalives_idle": 10,
            "keepalives_interval": 5,
            "keepalives_count": 3,
            "application_name": named.get("application_name", "replicate-gateway"),
            "password": self.password,
        }


class _Context:
    """What psycopg takes the types from."""

    adapters: AdaptersMap = _ADAPTERS
    connection: None = None
