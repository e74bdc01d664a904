"""Protocols of stored output files: their records, their bytes, and fetching them from upstream."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import BinaryIO, Literal, Protocol, get_args

import msgspec

from gateway.domain.records import Copy, Run
from gateway.predictions.ports.sharing import Sharing

CopyFailure = Literal["unreachable", "refused", "untrusted", "broken", "too_large", "store", "expired"]
"""Why a file was not copied. `expired`: upstream's link expired before. `store`: the output store failed."""
COPY_FAILURES: tuple[CopyFailure, ...] = get_args(CopyFailure)
RemovalReason = Literal["evicted", "expired", "lost"]
"""Why copies were removed before their predictions: size limit, age limit, or unreadable bytes."""
REMOVAL_REASONS: tuple[RemovalReason, ...] = get_args(RemovalReason)


class OutputStats(msgspec.Struct, frozen=True):
    """Number and total size of the stored objects."""

    objects: int
    bytes: int


class Outputs(Protocol):
    """Records of the copies of runs, and of the objects that hold their bytes. An object is named by its SHA-256.

    An object is *claimed* before its bytes are written, so that bytes left by a crash have a record. It is *owned*
    while copies of a run refer to it. It is *marked for deletion* when none does; its bytes are deleted first, then its
    record, and until then it can be neither claimed nor owned.
    """

    async def runs_ended(self, *, since: float, after: str = "", limit: int = 50) -> list[Run]:
        """List runs with data that ended at `since` or later, in order of end and id.

        Of the runs that ended exactly at `since`, only those with an id above `after` are listed. So a page begins
        after the last run of the previous page.
        """
        ...

    async def claim_object(self, sha256: str, size: int, now: float, until: float) -> bool:
        """Claim an object whose bytes will be written. Durable. Return `False` if it is marked for deletion: retry."""
        ...

    async def keep_copies(self, run_id: str, copies: Sequence[Copy], cache_until: float | None) -> Run | None:
        """Replace the copies of an ended run and extend its caching. Kept. Atomic.

        The objects become owned and their claims end. Copies whose object is unknown or marked for deletion are left
        out. `cache_until` applies only if none was left out and the run is cached, and never shortens the caching.
        Return the updated run; `None` if it has not ended or its data was removed.
        """
        ...

    async def use_object(self, sha256: str, now: float) -> None:
        """Record that an object was read, for eviction."""
        ...

    async def drop_object(self, sha256: str) -> bool:
        """Mark an object for deletion and remove its copies from all runs. Atomic.

        These runs are then cached only as long as upstream's links live. Return `False` if the object is unknown or
        already marked.
        """
        ...

    async def drop_old_copies(self, stored_before: float, limit: int) -> int:
        """Remove at most `limit` copies that were stored before a time, with the effects of `drop_object` on their
        runs.

        Objects without an owner are marked for deletion. Return how many copies were removed.
        """
        ...

    async def evict_objects(self, max_bytes: int, now: float, limit: int = 50) -> int:
        """Drop the least recently used objects until the rest fits, at most `limit`; return how many.

        Objects that are claimed at `now` stay.
        """
        ...

    async def claim_deletions(self, now: float, until: float, limit: int = 50) -> list[str]:
        """Claim objects that are marked for deletion, in order to delete their bytes. The claim lasts until `until`.

        Objects whose claim expired without an owner are marked first.
        """
        ...

    async def delete_object_record(self, sha256: str) -> None:
        """Delete the record of an object whose bytes were deleted."""
        ...

    async def output_stats(self) -> OutputStats:
        """Return the number and size of the objects that are not marked for deletion."""
        ...


class CopyStore(Outputs, Sharing, Protocol):
    """The roles of the store that copying needs."""


class Spool(Protocol):
    """A new object that is being written to the output store."""

    size: int
    """Number of bytes so far."""

    async def write(self, chunk: bytes) -> None:
        """Append bytes."""
        ...

    async def finish(self) -> str:
        """Sync all bytes to disk; return their hex SHA-256."""
        ...


class StoredObject(Protocol):
    """An object that is open for reading."""

    file: BinaryIO | None
    """The file, if the object is a plain file, for `sendfile`. Do not read it on the event loop."""

    def blocks(self, start: int, stop: int) -> AsyncIterator[bytes]:
        """Yield the bytes from `start` to `stop` (exclusive), in blocks of at most a megabyte.

        Raise `OutputLost` if they are missing or damaged, `StoreUnavailable` if the output store fails.
        """
        ...


class OutputStore(Protocol):
    """The bytes of objects, by SHA-256. All methods raise `StoreUnavailable` if the output store fails."""

    async def open(self) -> None:
        """Prepare the output store, and remove unfinished files of processes that died."""
        ...

    async def close(self) -> None:
        """Release its resources."""
        ...

    def spool(self) -> AbstractAsyncContextManager[Spool]:
        """Open a spool. Bytes that were not `put` by the end of the context are removed."""
        ...

    async def put(self, spool: Spool, sha256: str) -> None:
        """Store a finished spool atomically. An object of this name can exist already."""
        ...

    def read(self, sha256: str, size: int) -> AbstractAsyncContextManager[StoredObject]:
        """Open an object. Raise `OutputLost` if it does not exist or has another size."""
        ...

    async def delete(self, sha256: str) -> None:
        """Delete an object's bytes. Do nothing if they do not exist."""
        ...


class Fetched(msgspec.Struct):
    """A file that upstream has begun to send."""

    content_type: str
    size: int | None
    """The Content-Length, if upstream sent one."""
    chunks: AsyncIterator[bytes]


class NotCopied(Exception):
    """A file could not be fetched or stored. Callers do not see this error."""

    def __init__(self, reason: CopyFailure, detail: str, *, is_final: bool = False) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail
        self.is_final = is_final
        """Whether a retry cannot succeed."""


class OutputFetcher(Protocol):
    """Fetches output files from upstream."""

    def open(self, url: str) -> AbstractAsyncContextManager[Fetched]:
        """Open a file. Raise `NotCopied` for every failure, until the context ends."""
        ...
