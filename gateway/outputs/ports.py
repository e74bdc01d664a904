"""Stored copies of output files: their records, their bytes, and the fetcher of the originals."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import BinaryIO, Literal, Protocol, get_args

import msgspec

from gateway.domain.records import Copy, Run
from gateway.predictions.ports.sharing import Sharing

CopyFailure = Literal["unreachable", "refused", "untrusted", "broken", "too_large", "store", "expired"]
"""Why a file was not copied. `expired`: upstream's link died before it was. `store`: the output store failed."""
COPY_FAILURES: tuple[CopyFailure, ...] = get_args(CopyFailure)
GoneReason = Literal["evicted", "expired", "lost"]
"""Why copies went before their predictions: no room, past their time, or their bytes could not be read."""
GONE_REASONS: tuple[GoneReason, ...] = get_args(GoneReason)


class OutputStats(msgspec.Struct, frozen=True):
    """What the output store holds."""

    objects: int
    bytes: int


class Outputs(Protocol):
    """Which run has copies of which objects. An object is known by the SHA-256 of its bytes, whoever's they are.

    An object is *claimed* before its bytes are written, so that every byte that a crash leaves behind has a record.
    *Owned* while the copies of some run name it. *Doomed* when nothing does: then its bytes are deleted, then its
    record; meanwhile it can be neither claimed nor owned.
    """

    async def runs_ended(self, *, since: float, after: str = "", limit: int = 50) -> list[Run]:
        """List ended runs whose data is kept, that ended at `since` or later, by end and id.

        Those that ended at `since` itself are listed only beyond the id `after`: a page begins after the one before.
        """
        ...

    async def claim_object(self, sha256: str, size: int, now: float, until: float) -> bool:
        """Announce that bytes are about to be written. Durable. False if the object is doomed: try again later."""
        ...

    async def keep_copies(self, run_id: str, copies: Sequence[Copy], cache_until: float | None) -> Run | None:
        """Give an ended run its copies, in the place of those it had, and let it be shared longer. Kept. One step.

        The copies' objects become owned, and their claims end. Copies whose objects are unknown or doomed are left
        out. `cache_until` counts only if none was left out, and the run may answer later requests as it is; it never
        shortens their time. Return the run as it is then; `None` if it has not ended, or its data was removed.
        """
        ...

    async def use_object(self, sha256: str, now: float) -> None:
        """Note that an object was read, for eviction."""
        ...

    async def drop_object(self, sha256: str) -> bool:
        """Doom an object whose bytes are lost. One step. Return whether it was known and not doomed yet.

        Its copies are taken out of their runs, which are then shared no longer than upstream's own links live.
        """
        ...

    async def drop_old_copies(self, stored_before: float, limit: int) -> int:
        """Take copies that were stored before that out of their runs, at most `limit`, as `drop_object` does.

        Objects that nobody owns any more are doomed. Return how many copies went.
        """
        ...

    async def evict_objects(self, max_bytes: int, now: float, limit: int = 50) -> int:
        """Doom the least recently used objects until the rest fits, as `drop_object` does. Return how many went.

        At most `limit` go at a time. Objects that are claimed at `now` stay.
        """
        ...

    async def take_doomed(self, now: float, until: float, limit: int = 50) -> list[str]:
        """Take doomed objects to delete their bytes: nobody else is given them until then.

        Objects whose claim has ended without an owner are doomed first.
        """
        ...

    async def forget_object(self, sha256: str) -> None:
        """Forget a doomed object: its bytes are deleted."""
        ...

    async def output_stats(self) -> OutputStats:
        """Count the objects that are not doomed, and their bytes."""
        ...


class CopyStore(Outputs, Sharing, Protocol):
    """What copying asks of the store."""


class Spool(Protocol):
    """Bytes on their way into the output store."""

    size: int
    """How many there are so far."""

    async def write(self, chunk: bytes) -> None:
        """Add some."""
        ...

    async def finish(self) -> str:
        """Bring all of them to disk; return their SHA-256 (hex)."""
        ...


class StoredObject(Protocol):
    """An object that is open for reading."""

    file: BinaryIO | None
    """Where it is a plain file: for the operating system to send. Not to be read on the event loop."""

    def blocks(self, start: int, stop: int) -> AsyncIterator[bytes]:
        """Give the bytes from `start` up to `stop`, in blocks of at most a megabyte.

        Raise `gateway.errors.OutputLost` when they are not there, `StoreUnavailable` when they cannot be read now.
        """
        ...


class OutputStore(Protocol):
    """The bytes of objects, by their SHA-256. All methods raise `gateway.errors.StoreUnavailable` when it is away."""

    async def open(self) -> None:
        """Make ready, and remove what a process that died had begun to write."""
        ...

    async def close(self) -> None:
        """Let go."""
        ...

    def spool(self) -> AbstractAsyncContextManager[Spool]:
        """Take bytes in; what has not been `put` by the end of the context leaves nothing behind."""
        ...

    async def put(self, spool: Spool, sha256: str) -> None:
        """Keep what was spooled, whole or not at all. An object that is there already stays one."""
        ...

    def read(self, sha256: str, size: int) -> AbstractAsyncContextManager[StoredObject]:
        """Open an object. Raise `gateway.errors.OutputLost` if it is not there, or not of that size."""
        ...

    async def delete(self, sha256: str) -> None:
        """Delete an object's bytes, if they are there."""
        ...


class Fetched(msgspec.Struct):
    """A file of upstream's, about to be read."""

    content_type: str
    size: int | None
    """As upstream announces it."""
    chunks: AsyncIterator[bytes]


class NotCopied(Exception):
    """A file of upstream's could not be fetched or kept. No caller hears of it."""

    def __init__(self, reason: CopyFailure, detail: str, *, is_final: bool = False) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail
        self.is_final = is_final
        """Whether another try would end the same."""


class OutputFetcher(Protocol):
    """Whoever fetches output files from upstream."""

    def open(self, url: str) -> AbstractAsyncContextManager[Fetched]:
        """Open a file. Raise `NotCopied` for whatever goes wrong, until the context ends."""
        ...
