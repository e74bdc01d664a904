"""A run that the tracker follows, and the requests that wait for it. Memory only."""

import asyncio
import hashlib
import math
from collections.abc import Callable

from msgspec.structs import replace

from gateway.domain.ports.clock import Clock
from gateway.domain.records import Run
from gateway.predictions.document_memory import DocumentMemory
from gateway.runtime.pauses import LARGE

Mark = tuple[int, int | bytes]
"""What tells a document from another one."""


class TrackedRun:
    """A run that is followed: its newest state, and the requests that wait for a change of it."""

    __slots__ = (
        "_document_mark",
        "_is_poll_due",
        "_longest_pause",
        "_memory",
        "_pause",
        "_waiters",
        "document_size",
        "interested",
        "is_cancel_asked",
        "is_unreadable",
        "is_whole",
        "repaired",
        "run",
    )

    def __init__(self, run: Run, memory: DocumentMemory | None = None) -> None:
        self._memory = memory
        self.run = run
        """The newest state. Without its document if that was dropped. `set_run` and `update` change it."""
        self.is_whole = True
        """Whether `run` has its document. If not, only the store has it."""
        self._document_mark: Mark | None = None
        self.document_size = 0
        """Size of the newest document, whether it is held or not."""
        self._set(run, _mark_if_small(run.document))
        self.is_cancel_asked = False
        self.repaired: Mark | None = None
        """The mark of upstream's last answer, if it was not valid text and the run has it in a repaired form."""
        self.is_unreadable = False
        """Whether the last answer about it could not be read."""
        self._is_poll_due = False
        self._longest_pause = math.inf
        self._pause: asyncio.Future[None] | None = None
        """What ends the pause before the next poll, during that pause."""
        self._waiters: set[asyncio.Future[None]] = set()
        self.interested = 0
        """How many requests and streams wait for it. A run of another node is observed as long as any does."""

    def set_run(self, run: Run) -> None:
        """Set the newest state."""
        is_same = run.document is self.run.document
        self._set(run, self._document_mark if is_same else _mark_if_small(run.document))

    def update(self, run: Run, document: bytes, mark: Mark) -> None:
        """Set the newest state. `mark` is that of `document`, the run's unless the store kept another one."""
        self._set(run, mark if run.document is document else _mark_if_small(run.document))

    def _set(self, run: Run, mark: Mark | None) -> None:
        self.run = run
        if run.document or self.is_whole:
            self.is_whole = True
            self._document_mark, self.document_size = mark, len(run.document)
            if run.status.is_terminal:
                self.leave_memory()
            elif self._memory is not None:
                self._memory.hold(self, len(run.document))

    def has_document(self, mark: Mark) -> bool:
        """Return whether the newest document is known to have this mark."""
        return self._document_mark == mark

    def is_known_as(self, run: Run) -> bool:
        """Return whether a run is known to be the newest state, although its document is not in memory.

        False also for a large document: to compare it takes long.
        """
        document = run.document
        return self.run.status is run.status and len(document) <= LARGE and self.has_document(mark_of(document))

    def note_mark(self, mark: Mark) -> None:
        """Take the mark of the newest document from the store, which says that another one is equal to it."""
        if self._document_mark is None and mark[0] == self.document_size:
            self._document_mark = mark

    def drop_document(self) -> None:
        """Hold the document no longer."""
        self.is_whole = False
        self.run = replace(self.run, document=b"")

    def leave_memory(self) -> None:
        """Count for the bound on documents no longer: the run has ended, or is not followed any more."""
        if self._memory is not None:
            self._memory.release(self)

    def wake(self) -> None:
        """Let every waiter check its condition. They run after the caller's next await."""
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._waiters.clear()

    def poll_now(self) -> None:
        """End the pause before the next poll."""
        self._is_poll_due = True
        if self._pause is not None and not self._pause.done():
            self._pause.set_result(None)

    def poll_within(self, seconds: float) -> None:
        """Let the next pause be no longer than this."""
        self._longest_pause = seconds

    async def pause(self, clock: Clock, seconds: float) -> None:
        """Sleep until the next poll is due, or `poll_now` is called."""
        seconds, self._longest_pause = min(seconds, self._longest_pause), math.inf
        if not self._is_poll_due:
            # Without a task: this happens before every poll of every run.
            self._pause = asyncio.get_running_loop().create_future()
            try:
                await clock.sleep_until(self._pause, seconds)
            finally:
                self._pause = None
        self._is_poll_due = False

    async def poll_asked(self) -> None:
        """Wait until `poll_now` is called, unless it was since the last pause."""
        if not self._is_poll_due:
            self._pause = asyncio.get_running_loop().create_future()
            try:
                await self._pause
            finally:
                self._pause = None
        self._is_poll_due = False

    async def wait_until(self, done: Callable[[Run], bool], seconds: float) -> Run:
        """Wait until `done` is true of the run or the time has passed; return the run as it is then."""
        loop = asyncio.get_running_loop()
        self.interested += 1
        try:
            async with asyncio.timeout(seconds):
                while not done(self.run):
                    waiter: asyncio.Future[None] = loop.create_future()
                    self._waiters.add(waiter)
                    try:
                        await waiter
                    finally:
                        self._waiters.discard(waiter)
        except TimeoutError:
            pass
        finally:
            self.interested -= 1
        return self.run


def mark_of(document: bytes) -> Mark:
    """Return the mark of a document.

    Python computes the hash of a bytes object once, and seeds it at random, so that nobody can choose equal ones. While
    it hashes, nothing else runs: for large documents, SHA-256 is taken, which a thread can compute beside the loop.
    """
    return len(document), hash(document) if len(document) <= LARGE else hashlib.sha256(document).digest()


def _mark_if_small(document: bytes) -> Mark | None:
    """Return what `mark_of` does; `None` for a large document, whose mark takes too long on the event loop."""
    return (len(document), hash(document)) if len(document) <= LARGE else None
