"""Open connections to PostgreSQL: address, settings, types."""

import time
from collections.abc import Mapping
from typing import Any, Final, NamedTuple, TypeVar
from urllib.parse import parse_qsl, urlsplit

import psycopg
from psycopg.abc import PQGen
from psycopg.adapt import AdaptersMap
from psycopg.types.numeric import Int8BinaryDumper, NumericBinaryLoader
from psycopg.types.string import StrDumper
from psycopg.waiting import Ready

T = TypeVar("T")

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


class StoreConnection(psycopg.Connection[tuple[object, ...]]):
    """A connection that commits by itself, until a transaction begins. It is closed if the server says nothing.

    The server's own deadlines do not help where it stands still, nor for a commit that waits for a standby.
    """

    at_begin = b""
    """Statements that each transaction begins with."""
    answer_seconds: float | None = None
    """Longer than `statement_timeout`."""

    def wait(self, gen: PQGen[T], *args: Any, **kwargs: Any) -> T:
        """Wait for an answer of the server. Raise `OperationalError` if there is none."""
        return super().wait(
            gen if self.answer_seconds is None else self._bounded(gen, self.answer_seconds), *args, **kwargs
        )

    def _bounded(self, gen: PQGen[T], seconds: float) -> PQGen[T]:
        end = time.monotonic() + seconds
        try:
            state = next(gen)
            while True:
                ready = yield state
                if ready == Ready.NONE and time.monotonic() > end:
                    self.pgconn.finish()
                    raise psycopg.OperationalError("the server has not answered in time")
                state = gen.send(ready)
        except StopIteration as exc:
            answer: T = exc.value
            return answer


class Address(NamedTuple):
    """Where the database is."""

    url: str
    password: str | None = None
    timeout_seconds: float = 5.0
    is_pooled: bool = False
    """Whether a pooler such as PgBouncer is there, which gives each transaction another of its connections.

    Nothing is then set for a session, and nothing is prepared.
    """

    def __repr__(self) -> str:
        return f"Address({self.url!r})"

    def connect(self, *, is_relaxed: bool = False, **settings: str) -> StoreConnection:
        """Open a connection. With `is_relaxed`, a commit does not wait for the disk."""
        statement = int(self.timeout_seconds * 1000)
        settings = {
            "statement_timeout": str(statement),
            "lock_timeout": str(min(_LOCK_MILLISECONDS, statement)),
            # A step does nothing but statements, so one that is idle has lost its process.
            "idle_in_transaction_session_timeout": str(2 * statement),
            "jit": "off",
            # Another server setting can wait for replicas too, so `on` is left to the server.
            **({"synchronous_commit": "off"} if is_relaxed else {}),
            **settings,
        }
        named = dict(parse_qsl(urlsplit(self.url).query))
        connection = StoreConnection.connect(
            self.url,
            autocommit=True,
            context=_Context(),
            cursor_factory=psycopg.RawCursor,
            client_encoding="utf-8",
            connect_timeout=_CONNECT_SECONDS,
            tcp_user_timeout=2 * statement,
            keepalives_idle=10,
            keepalives_interval=5,
            keepalives_count=3,
            application_name=named.get("application_name", "replicate-gateway"),
            password=self.password,
            options=None if self.is_pooled else _options(named, settings),
        )
        if connection.info.parameter_status("in_hot_standby") == "on":
            # Its rows may be older than what was acknowledged. After a failover, a name may lead to it for a while.
            connection.close()
            raise psycopg.OperationalError("the server is a standby")
        if settings["statement_timeout"] != "0":
            connection.answer_seconds = 2 * self.timeout_seconds
        if self.is_pooled:
            connection.prepare_threshold = None
            local = "".join(f"; SET LOCAL {name} = '{value}'" for name, value in settings.items())
            connection.at_begin = local.encode()
        else:
            connection.prepared_max = _STATEMENTS
        return connection


def _options(named: Mapping[str, str], settings: Mapping[str, str]) -> str:
    """Return what a session is started with. Options in the address stay."""
    of_session = {"default_transaction_isolation": r"read\ committed", **settings}
    return " ".join([named.get("options", ""), *(f"-c {name}={value}" for name, value in of_session.items())]).strip()


class _Context:
    """What psycopg takes the types from."""

    adapters: AdaptersMap = _ADAPTERS
    connection: None = None
