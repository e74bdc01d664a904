"""How PostgreSQL takes the locks of steps (`gateway.store.sql.locks` has their order).

| lock | what steps would break without it |
|---|---|
| NODES | what a node that has just joined holds is taken from it, because it is not seen yet |
| OUTPUTS | an object gets an owner while another step finds that it has none, and marks it for deletion |
| FILES | a file shares an upstream file while another step deletes its last record |
| NAMES | two keys of one name; a secret that is lost between two rotations |
| IDEMPOTENCY_KEY | two runs for two requests with one idempotency key |
| IDENTITY | two runs of one provisional identity; a fingerprint of two open runs; an intent after its discard |
| RUN, RUN_OF_PREDICTION | a prediction joins a run that is canceled, ended, discarded or deleted at the same moment |
| PLACES | more webhook deliveries than there may be |
| TEAM, METERS | more is reserved than a limit allows |
| NEW_NAMES | a user, or a value of a tag, is counted by name and, by a step that does not see that yet, with others |
| SUMS, RESERVATIONS | a sum is rebuilt while it changes |
| LEDGER | an audit passes over a line that has a lower id and is committed later |
| RATES | two nodes get the same part of a rate, or the same token |

Single rows need no lock where one conditional statement decides, or where an upsert adds. Unique indexes decide the
rest: one open run of a fingerprint, one run of an upstream id, one settlement of a run. A step that meets one runs
again. The locks of a step end with its transaction, so they work behind a pool of connections too.

Statements lock rows themselves with {shared} and {kept} (`dialect.py`): the run that a prediction joins, and the run of
a hit.
"""

from collections.abc import Sequence
from hashlib import blake2b
from typing import Final

from gateway.store.sql.locks import Lock

_ROWS: Final = {
    Lock.RUN: b"SELECT 1 FROM runs WHERE id = ANY($1) ORDER BY id FOR UPDATE",
    Lock.RUN_OF_PREDICTION: b"SELECT 1 FROM runs"
    b" WHERE id = ANY(SELECT run_id FROM predictions WHERE id = ANY($1)) ORDER BY id FOR UPDATE",
    Lock.RATES: b"SELECT 1 FROM rates WHERE name = ANY($1) ORDER BY name FOR UPDATE",
    Lock.METERS: b"SELECT 1 FROM meters WHERE scope = ANY($1) ORDER BY scope FOR UPDATE",
}
_TABLES: Final = {
    # Writers touch the tables in this order too.
    Lock.SUMS: b"LOCK TABLE usage_days, usage_users, usage_tags, spent IN SHARE ROW EXCLUSIVE MODE",
    Lock.LEDGER: b"LOCK TABLE ledger IN SHARE MODE",
    Lock.RESERVATIONS: b"LOCK TABLE reservations, meters IN EXCLUSIVE MODE",
}
_NODES: Final = b"SELECT pg_advisory_xact_lock_shared($1)"
_ADVISORY: Final = b"SELECT pg_advisory_xact_lock(key) FROM unnest(CAST($1 AS BIGINT[])) AS key"


def statement_of(lock: Lock, names: Sequence[str]) -> tuple[bytes, list[object]]:
    """Return the statement that takes a lock, and its parameters."""
    if lock is Lock.NODES:
        # Shared, because only a node that joins has to wait, which takes it alone.
        return _NODES, [key_of(lock.name, "")]
    if lock in _TABLES:
        return _TABLES[lock], []
    if lock in _ROWS:
        return _ROWS[lock], [list(names)]
    return _ADVISORY, [sorted({key_of(lock.name, each) for each in names or [""]})]


def key_of(kind: str, name: str) -> int:
    """Return the key of an advisory lock: 64 bits, so that two names rarely have the same."""
    return int.from_bytes(blake2b(f"{kind} {name}".encode(), digest_size=8).digest(), signed=True)
