"""Documents of runs in progress are kept in memory within a bound in bytes."""

import pytest
from msgspec.structs import replace

from gateway.domain.records import Run, RunState, Status
from gateway.predictions.document_memory import DocumentMemory
from gateway.predictions.tracked_run import TrackedRun, mark_of
from gateway.runtime.pauses import LARGE
from tests.support.records import NOW, live


def run(name: str, size: int) -> Run:
    return live(name, upstream_id=name, document=b"x" * size)


@pytest.fixture
def memory() -> DocumentMemory:
    return DocumentMemory(lambda: 100)


async def test_the_longest_unchanged_documents_are_dropped(memory: DocumentMemory) -> None:
    first, second, third = (TrackedRun(run(name, 40), memory) for name in ("one", "two", "three"))
    assert [each.is_whole for each in (first, second, third)] == [False, True, True]
    assert (first.run.document, second.run.document, memory.held_bytes) == (b"", b"x" * 40, 80)
    second.set_run(run("two", 41))
    first.set_run(run("one", 50))
    assert [each.is_whole for each in (first, second, third)] == [True, True, False]
    assert memory.held_bytes == 91


async def test_a_document_larger_than_the_bound_is_not_held(memory: DocumentMemory) -> None:
    tracked = TrackedRun(run("one", 101), memory)
    assert (tracked.is_whole, tracked.run.document, memory.held_bytes) == (False, b"", 0)
    assert tracked.document_size == 101
    assert tracked.has_document(mark_of(b"x" * 101))
    assert not tracked.has_document(mark_of(b"y" * 101))


async def test_changes_of_a_run_without_its_document_leave_it_so(memory: DocumentMemory) -> None:
    """An identity that is settled later, for example."""
    tracked = TrackedRun(run("one", 101), memory)
    tracked.set_run(replace(tracked.run, fingerprint="F"))
    assert (tracked.is_whole, tracked.run.fingerprint, memory.held_bytes) == (False, "F", 0)
    assert tracked.has_document(mark_of(b"x" * 101))


async def test_the_mark_of_a_large_document_is_taken_from_the_store() -> None:
    """On the event loop, others would wait for it."""
    size = LARGE + 1
    tracked, mark = TrackedRun(run("one", size)), mark_of(b"x" * size)
    assert (tracked.document_size, tracked.has_document(mark)) == (size, False)
    tracked.note_mark(mark_of(b"x" * 5))
    assert not tracked.has_document(mark)
    tracked.note_mark(mark)
    tracked.set_run(replace(tracked.run, fingerprint="F"))
    assert tracked.has_document(mark)
    tracked.set_run(run("one", size))
    assert not tracked.has_document(mark)


async def test_an_ended_run_is_held_by_those_who_ask_for_it(memory: DocumentMemory) -> None:
    tracked = TrackedRun(run("one", 60), memory)
    ended = replace(run("one", 200), state=RunState.ENDED, status=Status.SUCCEEDED, ended_at=NOW)
    tracked.set_run(ended)
    assert (tracked.is_whole, tracked.run, memory.held_bytes) == (True, ended, 0)
    tracked.leave_memory()
    assert memory.held_bytes == 0
