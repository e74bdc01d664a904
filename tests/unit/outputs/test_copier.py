"""The copier, on fakes: how many copies at once, how often, for how long, and what it does under too much load."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from msgspec.structs import replace

from gateway.domain.records import Copy, Kind, Run, RunState, Status
from gateway.errors import StoreUnavailable
from gateway.outputs import copier
from gateway.outputs.copier import WORKERS, Copier
from gateway.outputs.ports import Fetched, NotCopied
from gateway.outputs.rules.outputs import LINKS_DIE_SECONDS, Persist
from tests.support.clock import START, ManualClock, settle
from tests.support.records import run_ended

Fetch = Callable[[str], Awaitable[bytes]]


def run(number: int = 1, **fields: Any) -> Run:
    url = f"https://x.example/{number}.png"
    given = {
        "kind": Kind.PREDICTION, "team": "red", "key_id": "k", "target": "t", "path": "/p", "request": b"",
        "intended_at": START, "ended_at": START, "state": RunState.ENDED, "status": Status.SUCCEEDED,
        "document": b'{"output":["%b"]}' % url.encode(), "fingerprint": "F", "cache_until": START + 10,
    }  # fmt: skip
    return Run(id=f"run{number}", **given | fields)


class Records:
    """The records of runs, in a dictionary."""

    def __init__(self) -> None:
        self.runs: dict[str, Run] = {}
        self.trouble: StoreUnavailable | None = None

    async def run(self, run_id: str) -> Run | None:
        return self.runs.get(run_id)

    async def runs_ended(self, *, since: float, after: str = "", limit: int = 50) -> list[Run]:
        if self.trouble:
            raise self.trouble
        found = [run for run in self.runs.values() if (run.ended_at, run.id) > (since, after)]
        return sorted(found, key=lambda run: (run.ended_at, run.id))[:limit]

    async def keep_copies(self, run_id: str, copies: tuple[Copy, ...], cache_until: float | None) -> Run | None:
        if self.trouble:
            raise self.trouble
        self.runs[run_id] = replace(self.runs[run_id], copies=copies, cache_until=cache_until)
        return self.runs[run_id]


class Objects:
    """An output store that keeps nothing."""

    @asynccontextmanager
    async def spool(self) -> AsyncIterator["Objects"]:
        self.size = 0
        yield self

    async def write(self, chunk: bytes) -> None:
        self.size += len(chunk)

    async def finish(self) -> str:
        return "a" * 64

    async def put(self, spool: Any, sha256: str) -> None:
        return None

    async def claim(self, sha256: str, size: int) -> bool:
        return True


class World:
    """A copier and all around it; `fetch` says what upstream answers."""

    def __init__(self, fetch: Fetch) -> None:
        self.clock = ManualClock()
        self.records = Records()
        self.fetch = fetch
        self.asked: list[float] = []
        self.reasons: list[str] = []
        self.stored = 0
        self.defects: list[str] = []
        """Addresses at which telling files from other links crashes, once each."""
        objects = Objects()
        self.copier = Copier(
            self.records, objects, self, objects, self.clock, self,  # type: ignore[arg-type]
            persist=Persist.SHARED, max_bytes=100, is_output=self.is_output,
            keep_until=lambda run, _, ended_at: ended_at + 9999, on_kept=lambda _: None,
        )  # fmt: skip

    @asynccontextmanager
    async def open(self, url: str) -> AsyncIterator[Fetched]:
        self.asked.append(self.clock.now())
        data = await self.fetch(url)

        async def chunks() -> AsyncIterator[bytes]:
            yield data

        yield Fetched("image/png", None, chunks())

    def is_output(self, url: str) -> bool:
        if url in self.defects:
            self.defects.remove(url)
            raise RuntimeError("a defect")
        return True

    def output_stored(self, size: int) -> None:
        self.stored += 1

    def output_not_stored(self, reason: str) -> None:
        self.reasons.append(reason)

    async def end(self, *runs: Run) -> None:
        for each in runs:
            self.records.runs[each.id] = each
            self.copier.on_run_ended(run_ended(each))
        await settle()

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.copier.run())
        await settle()
        yield
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def answer(_: str) -> bytes:
    return b"picture"


async def fail(_: str) -> bytes:
    raise NotCopied("unreachable", "It is away.")


async def test_copies_are_limited_to_a_few_runs_at_a_time():
    """A burst of ends does not become a burst of downloads."""
    gate = asyncio.Event()

    async def wait(_: str) -> bytes:
        await gate.wait()
        return b"picture"

    world = World(wait)
    async with world.working():
        await world.end(*(run(number) for number in range(10)))
        assert len(world.asked) == WORKERS
        assert world.copier.pending == 10
        gate.set()
        for _ in range(10):
            await settle()
        assert (world.stored, world.copier.pending) == (10, 0)
    assert world.records.runs["run3"].cache_until == START + 9999


async def test_failed_copy_is_retried_until_the_link_expires():
    world = World(fail)
    async with world.working():
        await world.end(run())
        await world.clock.advance(LINKS_DIE_SECONDS + 600)
    pauses = [later - before for before, later in zip(world.asked, world.asked[1:], strict=False)]
    assert 10 <= len(world.asked) <= 40
    assert pauses[0] <= 8
    assert max(pauses) <= 300
    assert world.asked[-1] < START + LINKS_DIE_SECONDS
    assert world.asked[-1] > START + LINKS_DIE_SECONDS - 310
    assert (world.reasons[-1], world.copier.pending) == ("expired", 0)


async def test_permanent_failure_is_not_retried():
    async def large(_: str) -> bytes:
        return b"x" * 101

    world = World(large)
    async with world.working():
        await world.end(run())
        await world.clock.advance(LINKS_DIE_SECONDS)
    assert (len(world.asked), world.reasons, world.copier.pending) == (1, ["too_large"], 0)


async def test_unavailable_store_is_retried():
    """The bytes are stored, their record is not: the next attempt records it."""
    world = World(answer)
    async with world.working():
        world.records.trouble = StoreUnavailable("away")
        await world.end(run())
        assert (world.reasons, world.copier.pending) == (["store"], 1)
        world.records.trouble = None
        await world.clock.advance(60)
    assert len(world.records.runs["run1"].copies) == 1
    assert world.copier.pending == 0


async def test_runs_beyond_the_queue_are_found_later(monkeypatch: pytest.MonkeyPatch):
    """No copy is lost because its run ended in a burst."""
    monkeypatch.setattr(copier, "MAX_PENDING", 6)
    world = World(answer)
    await world.end(*(run(number) for number in range(30)))
    assert world.copier.pending == 6
    async with world.working():
        for _ in range(60):
            await settle()
            assert world.copier.pending <= 6
    assert all(each.copies for each in world.records.runs.values())


async def test_start_finds_runs_of_the_last_hour():
    """Even if the store is slow to respond."""
    world = World(answer)
    world.records.runs = {
        "run1": run(1, ended_at=START - 3000), "run2": run(2, ended_at=START - 3700), "run3": run(3, fingerprint=None)
    }  # fmt: skip
    world.records.trouble = StoreUnavailable("away")
    async with world.working():
        assert world.copier.pending == 0
        world.records.trouble = None
        await world.clock.advance(5)
    assert [bool(each.copies) for each in world.records.runs.values()] == [True, False, False]


async def test_run_with_an_unsettled_identity_is_checked_again():
    """Its copy is made before the gateway knows who may share the run; its expiry is extended afterwards."""
    world = World(answer)
    async with world.working():
        await world.end(run(fingerprint=None, provisional="P", cache_until=None))
        assert world.copier.pending == 1
        known = world.records.runs["run1"]
        world.records.runs["run1"] = replace(known, fingerprint="F", provisional=None, cache_until=START + 10)
        await world.clock.advance(10)
        assert world.copier.pending == 0
    assert world.records.runs["run1"].cache_until == START + 9999
    assert len(world.asked) == 1


async def test_cleared_data_is_not_copied():
    world = World(answer)
    await world.end(run(), run(2, data_removed=True), run(3, document=b'{"output":"text"}'), run(4, document=b"?"))
    world.copier.on_run_ended(run_ended(run(5, ended_at=None)))
    world.records.runs["run1"] = replace(run(), data_removed=True)
    async with world.working():
        pass
    assert (world.asked, world.copier.pending) == ([], 0)


async def test_run_whose_end_event_was_lost_is_found_in_the_store():
    """Its files are copied although the end-of-run listener failed."""
    world = World(answer)
    world.defects = ["https://x.example/1.png"]
    async with world.working():
        with pytest.raises(RuntimeError):
            await world.end(run())
        await world.clock.advance(1)
    assert world.records.runs["run1"].copies
    assert world.stored == 1


async def test_copier_that_starts_again_finds_the_copies_that_its_end_cancelled():
    """A crash of its loop loses no copy."""
    gate = asyncio.Event()

    async def fetch(_: str) -> bytes:
        await gate.wait()
        return b"picture"

    world = World(fetch)
    async with world.working():
        await world.end(run())
        assert world.asked
    assert world.copier.pending == 0
    gate.set()
    async with world.working():
        await world.clock.advance(1)
    assert world.stored == 1


async def test_run_that_cannot_be_queued_does_not_stop_other_copies(caplog: pytest.LogCaptureFixture):
    """A defect that one document triggers is logged and counted, and the copier continues."""
    world = World(answer)
    world.records.runs = {"run1": run(1), "run2": run(2)}
    world.defects = ["https://x.example/1.png"]
    async with world.working():
        await world.clock.advance(1)
    assert [bool(each.copies) for each in world.records.runs.values()] == [False, True]
    assert [each.getMessage() for each in caplog.records] == ["a run could not be queued for copying"]
    assert world.reasons == ["store"]


async def test_run_with_a_lost_copy_is_copied_again():
    """The output store lost an object while upstream still has the file."""
    world = World(answer)
    world.records.runs["run1"] = run()
    async with world.working():
        await world.clock.advance(1)
        assert (world.stored, world.copier.pending) == (1, 0)
        world.records.runs["run1"] = replace(world.records.runs["run1"], copies=())
        world.copier.enqueue(world.records.runs["run1"])
        await world.clock.advance(1)
    assert world.stored == 2
