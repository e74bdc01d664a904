"""Translate PostgreSQL's errors. No `psycopg` exception leaves the store.

What fails while a connection is opened has no SQLSTATE: libpq does not tell it. Its text says whether waiting helps.
"""

import re
from typing import Final, TypeVar

import psycopg

from gateway.errors import BadRequest, StoreAway, StoreUnavailable

ValueT = TypeVar("ValueT")

_CONNECTION: Final = ("The store's database cannot be reached.", 1)
_TOO_MANY: Final = ("The store's database has too many connections.", 5)
# Message and `retry_after` seconds by SQLSTATE, or by its class.
_MEANINGS: Final = {
    "08": _CONNECTION,
    "25006": ("The store's database is read-only.", 5),
    "28": ("The store's database refused the user or the password.", 30),
    "3D000": ("The store's database does not exist.", 30),
    "40": ("The store is busy.", 1),
    "42501": ("The store's user may not do this in the database.", 30),
    "53100": ("The store's disk is full.", 30),
    "53200": ("The store's database has run out of memory.", 5),
    "53300": _TOO_MANY,
    "55P03": ("The store is locked by another step.", 1),
    "57014": ("The store did not answer in time.", 1),
    "57P": _CONNECTION,
    "58": ("The store's disk cannot be read or written.", 30),
    "XX": ("The store's database is damaged.", 30),
}
_REFUSED: Final = ("The store's database refused the connection.", 30)
_STANDBY: Final = ("The store's database is a standby, which is read-only. Give the address of the primary.", 5)
_TEXTS: Final = (
    (re.compile(r"the server is a standby"), _STANDBY),
    (re.compile(r"too many (clients|connections)|connection slots are reserved"), _TOO_MANY),
    (
        # Nothing but a change of the config or of the server helps. In another language it counts as away.
        re.compile(
            r"authentication failed|no password supplied|(role|database|file) \".*\" does not exist|pg_hba\.conf"
            r"|not permitted to log in|certificate verify failed|does not support SSL|invalid (port|sslmode|connection)"
        ),
        _REFUSED,
    ),
)
_PERMANENT: Final = ("28", "3D000", "42501", "XX")
"""Errors that a retry cannot fix. The rest counts as away."""
_OTHERWISE: Final = ("The store failed.", 5)
_LASTING: Final = (_REFUSED, _OTHERWISE, *(_MEANINGS[each] for each in _PERMANENT))
_KINDS: Final = {"53100": "full", "58": "io", "25006": "access", "42501": "access", "XX": "damaged"}
_REPEATED: Final = {"23505": "key", "40001": "deadlock", "40P01": "deadlock", "55P03": "lock"}


def retry_cause(error: Exception | None) -> str | None:
    """Return why a step that was rolled back can succeed if it runs again at once (`STORE_RETRIES`), or `None`.

    Another step has inserted the same key, each of two waited for the other, or it waited for a lock for long.
    """
    return _REPEATED.get(error.sqlstate or "") if isinstance(error, psycopg.Error) else None


def is_read_only(error: Exception | None) -> bool:
    """Say whether the server takes no writes: it was the primary, and another one is now."""
    return isinstance(error, psycopg.Error) and error.sqlstate == "25006"


def has_nul(error: Exception) -> bool:
    """Say whether a text has a NUL character, which PostgreSQL cannot store."""
    return isinstance(error, psycopg.DataError) and error.sqlstate is None and "NUL" in str(error)


def translated(error: Exception) -> Exception:
    """Return the error for callers of a step that failed."""
    if not isinstance(error, psycopg.Error):
        return error
    if has_nul(error):
        refused = BadRequest("The request has a NUL character in a text that is stored.")
        refused.__cause__ = error
        return refused
    return unavailable(error)


def unavailable(error: psycopg.Error) -> StoreUnavailable:
    """Return the error for callers. `error`, with the details for the log, is its cause."""
    meaning = _by_state(_MEANINGS, error)
    if meaning is None:
        # libpq's own errors, such as those of a lost connection, have no SQLSTATE.
        is_lost = error.sqlstate is None and isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
        meaning = _lost(error) if is_lost else _OTHERWISE
    is_permanent = meaning in _LASTING
    made = (StoreUnavailable if is_permanent else StoreAway)(meaning[0], retry_after=meaning[1])
    made.__cause__ = error
    return made


def _lost(error: psycopg.Error) -> tuple[str, int]:
    return next((meaning for text, meaning in _TEXTS if text.search(str(error))), _CONNECTION)


def at_start(error: psycopg.Error) -> StoreUnavailable:
    """Return the error for the operator, with the text of the server or libpq, which never has the password."""
    made = unavailable(error)
    said = " ".join(str(error).split())
    if "unsupported startup parameter" in said:
        said += " Behind PgBouncer, set [store] listen_url to the address of the database itself."
    reported = type(made)(f"{made.detail} {said}" if said else made.detail, retry_after=made.retry_after)
    reported.__cause__ = error
    return reported


def kind_of(error: Exception) -> str | None:
    """Return the kind of a failure that lasts (`STORE_FAILURES`), or `None`."""
    return _by_state(_KINDS, error) if isinstance(error, psycopg.Error) else None


def _by_state(table: dict[str, ValueT], error: psycopg.Error) -> ValueT | None:
    state = error.sqlstate or ""
    return next((table[state[:size]] for size in (5, 3, 2) if state[:size] in table), None)
