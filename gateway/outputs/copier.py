"""Copies the output files of ended runs into the output store before upstream deletes them.

See docs/architecture.md, Files and outputs.

The end of a run only queues the copies; nothing waits for them. A failed copy is retried with growing pauses until
upstream has deleted the file. The queue is in memory only: after a restart it is rebuilt from the store's records of
runs that ended within the last hour and lack copies.
"""

import asyncio
import heapq
import logging
import random
from collections.abc import Callable, Mapping

import msgspec

from gateway.domain import documents
from gateway.domain.ports.clock import Clock
from gateway.domain.ports.observers import DeliveryObserver
from gateway.domain.records import Copy, Run
from gateway.domain.run_end import RunEnded
from gateway.errors import GatewayError, StoreUnavailable
from gateway.outputs.eviction import OutputEviction
from gateway.outputs.ports import CopyFailure, CopyStore, NotCopied, OutputFetcher, OutputStore, Spool
from gateway.outputs.rules import outputs
from gateway.outputs.rules.outputs import Files, OutputFile, Persist
from gateway.runtime.sleep import sleep_until_event
from gateway.runtime.tasks import Tasks

logger = logging.getLogger(__name__)

WORKERS = 4
"""Runs whose files are copied at a time. Each takes some megabytes of memory and a share of the bandwidth."""
MAX_PENDING = 10_000
"""Runs that wait to be copied. If there are more, the rest is found in the store once half of these are done."""
_PAGE = 10
"""Runs that are read from the store at a time: each has a document."""
_IDLE_SECONDS = 3600.0


class _Job(msgspec.Struct, order=True):
    """A run whose files are to be copied: when to try next, and when upstream deletes the files."""

    due_at: float
    run_id: str
    dies_at: float
    attempts: int = 0
    impossible: set[str] = msgspec.field(default_factory=set)
    """URLs of files that cannot be copied, whatever is tried."""


class Copier:
    """Copies the files of runs."""

    def __init__(
        self,
        records: CopyStore,
        store: OutputStore,
        fetcher: OutputFetcher,
        eviction: OutputEviction,
        clock: Clock,
        observer: DeliveryObserver,
        *,
        persist: Persist,
        max_bytes: int,
        is_output: Callable[[str], bool],
        keep_until: Callable[[Run, bytes, float], float | None],
        on_kept: Callable[[Run], None],
    ) -> None:
        self._records = records
        self._store = store
        self._fetcher = fetcher
        self._eviction = eviction
        self._clock = clock
        self._observer = observer
        self._persist = persist
        self._max_bytes = max_bytes
        self._is_output = is_output
        self._keep_until = keep_until
        self._on_kept = on_kept
        self._known: set[str] = set()
        self._waiting: list[_Job] = []
        self._changed = asyncio.Event()
        self._free = asyncio.Semaphore(WORKERS)
        self._tasks = Tasks()
        self._has_missed = True
        """Whether there may be runs to copy that are not in the queue, as at the start."""

    @property
    def pending(self) -> int:
        """How many runs wait to be copied or are being copied."""
        return len(self._known)

    def on_run_ended(self, ended: RunEnded) -> None:
        """Copy the files of a run, if it has any. If this fails, the run is found again in the store's records."""
        try:
            self.enqueue(ended.run)
        except Exception:
            self._has_missed = True
            self._changed.set()
            raise

    def look_again(self) -> None:
        """Look for runs that lack copies: some may have become this node's."""
        self._has_missed = True
        self._changed.set()

    def enqueue(self, run: Run) -> None:
        """Copy the files that an ended run has and the output store lacks, while upstream keeps them."""
        if run.ended_at is None or run.data_removed or not outputs.is_copied(run, self._persist):
            return
        dies_at = run.ended_at + outputs.LINKS_DIE_SECONDS
        if run.id in self._known or self._clock.now() >= dies_at or not self._lacking(run, self._files(run)):
            return
        if len(self._known) >= MAX_PENDING:
            self._has_missed = True
            return
        self._known.add(run.id)
        heapq.heappush(self._waiting, _Job(self._clock.now(), run.id, dies_at))
        self._changed.set()

    def _files(self, run: Run) -> Files:
        try:
            return outputs.files_of(documents.output_of(run.document), self._is_output)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            # An unreadable output has no links.
            return Files((), is_whole=True)

    def _lacking(self, run: Run, files: Files) -> list[OutputFile]:
        known = {copy.url for copy in run.copies}
        return [file for file in files.found if file.url not in known]

    async def run(self) -> None:
        """Copy until cancelled. Copies in progress are then cancelled; the next start finds their runs again."""
        try:
            while True:
                while self._has_missed and len(self._known) <= MAX_PENDING // 2:
                    await self._look()
                wait = self._waiting[0].due_at - self._clock.now() if self._waiting else _IDLE_SECONDS
                if wait > 0:
                    self._changed.clear()
                    await sleep_until_event(self._clock, wait, self._changed)
                    continue
                await self._free.acquire()
                job = heapq.heappop(self._waiting)
                self._tasks.spawn(self._do(job), f"copy {job.run_id}")
        finally:
            await self._tasks.close(0.0)
            # After a crash the loop starts again: it finds the runs of cancelled copies in the store's records.
            self._known.clear()
            self._waiting.clear()
            self._has_missed = True

    async def _look(self) -> None:
        """Find the runs that ended within the hour and lack copies."""
        since, after = self._clock.now() - outputs.LINKS_DIE_SECONDS, ""
        self._has_missed = False
        try:
            while runs := await self._records.runs_ended(since=since, after=after, limit=_PAGE):
                for run in runs:
                    self._enqueue_found(run)
                since, after = runs[-1].ended_at or since, runs[-1].id
        except StoreUnavailable as exc:
            logger.warning("runs to copy could not be looked for", extra={"reason": exc.detail})
            self._has_missed = True
            await self._clock.sleep(outputs.pause(0, 1.0))

    def _enqueue_found(self, run: Run) -> None:
        try:
            self.enqueue(run)
        except Exception:
            # A defect with one run's document must not prevent the copies of the others.
            logger.exception("a run could not be queued for copying", extra={"run": run.id})
            self._observer.output_not_stored("store")

    async def _do(self, job: _Job) -> None:
        """Try a job once. Must not raise."""
        is_done = False
        try:
            is_done = await self._attempt(job)
        except GatewayError as exc:
            logger.warning("a run could not be copied", extra={"run": job.run_id, "reason": exc.detail})
            self._observer.output_not_stored("store")
        except Exception:
            logger.exception("copying a run crashed", extra={"run": job.run_id})
        finally:
            self._free.release()
        job.attempts += 1
        # Jitter spreads; it needs no secrecy.
        job.due_at = self._clock.now() + outputs.pause(job.attempts, random.random())  # noqa: S311
        if not is_done and job.due_at < job.dies_at:
            heapq.heappush(self._waiting, job)
        else:
            if not is_done:
                self._observer.output_not_stored("expired")
            self._known.discard(job.run_id)
        self._changed.set()

    async def _attempt(self, job: _Job) -> bool:
        """Copy the missing files of a run and record the copies. Return whether nothing is left to do."""
        run = await self._records.run(job.run_id)
        if run is None or run.ended_at is None or run.data_removed:
            return True
        files = self._files(run)
        copies = {copy.url: copy for copy in run.copies}
        for file in self._lacking(run, files):
            if file.url not in job.impossible and (copy := await self._try(job, file)) is not None:
                copies[file.url] = copy
        run = await self._record(run, copies)
        if run is None:
            return True
        # A run can end before its final identity is known. It is then tried again, to extend its time in the cache.
        is_settled = run.provisional is None or run.fingerprint is not None
        return is_settled and all(file.url in job.impossible for file in self._lacking(run, files))

    async def _record(self, run: Run, copies: Mapping[str, Copy]) -> Run | None:
        assert run.ended_at is not None
        wanted = msgspec.structs.replace(run, copies=tuple(copies.values()))
        until = self._keep_until(wanted, run.document, run.ended_at) if copies else None
        is_longer = until is not None and run.cache_until is not None and until > run.cache_until
        if len(copies) == len(run.copies) and not is_longer:
            return run
        kept = await self._records.keep_copies(run.id, wanted.copies, until)
        if kept is not None:
            self._on_kept(kept)
        return kept

    async def _try(self, job: _Job, file: OutputFile) -> Copy | None:
        try:
            copy = await self._copy(file)
        except NotCopied as exc:
            if exc.is_final:
                job.impossible.add(file.url)
            self._failed(job, exc.reason, exc.detail)
            return None
        except StoreUnavailable as exc:
            self._failed(job, "store", exc.detail)
            return None
        self._observer.output_stored(copy.size)
        return copy

    def _failed(self, job: _Job, reason: CopyFailure, detail: str) -> None:
        logger.warning("a file could not be copied", extra={"run": job.run_id, "reason": reason, "detail": detail})
        self._observer.output_not_stored(reason)

    async def _copy(self, file: OutputFile) -> Copy:
        async with self._store.spool() as spool:
            content_type = await self._fetch(file.url, spool)
            sha256 = await spool.finish()
            if not await self._eviction.claim(sha256, spool.size):
                raise NotCopied("store", "An object of these bytes is being deleted.")
            await self._store.put(spool, sha256)
            return Copy(
                place=file.place,
                url=file.url,
                content_type=content_type,
                sha256=sha256,
                size=spool.size,
                stored_at=self._clock.now(),
            )

    async def _fetch(self, url: str, spool: Spool) -> str:
        async with self._fetcher.open(url) as fetched:
            if (fetched.size or 0) > self._max_bytes:
                raise NotCopied("too_large", "The file is larger than the output store.", is_final=True)
            async for chunk in fetched.chunks:
                if spool.size + len(chunk) > self._max_bytes:
                    raise NotCopied("too_large", "The file is larger than the output store.", is_final=True)
                await spool.write(chunk)
            return fetched.content_type
