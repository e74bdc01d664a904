"""Deleting a file, while upstream answers slowly, badly or not at all."""

import asyncio

import pytest

from gateway.domain.upstream_response import Answer
from gateway.errors import UpstreamUncertain
from gateway.files.files import FileService
from tests.support.clock import ManualClock, settle
from tests.support.fakes import Call, FakeObserver, FakeStore, FakeUpstream
from tests.support.upload_service import CALLER, DOCUMENT, known_file, upload, uploads_of


@pytest.fixture
def store() -> FakeStore:
    made = FakeStore()
    made.uploaded["known"] = known_file()
    return made


async def test_equal_upload_during_a_delete_gets_a_file_of_its_own(
    store: FakeStore, clock: ManualClock, observer: FakeObserver
):
    """Upstream still has the file that is being deleted, so the upload must not use it."""
    may_answer = asyncio.Event()

    async def script(call: Call) -> Answer:
        if call.operation == "files.delete":
            await may_answer.wait()
            return Answer(204, {}, b"")
        return Answer(201, {}, DOCUMENT.replace(b"known", b"new"))

    upstream = FakeUpstream(script)
    files = FileService(store, upstream, clock)
    uploads = uploads_of(store, upstream, clock, observer)
    deleting = asyncio.create_task(files.delete(CALLER, "known"))
    await settle()
    new, _ = await uploads.upload(CALLER, upload())
    may_answer.set()
    assert (await deleting).status == 204
    assert new is not None
    assert (new.upstream_id, list(store.uploaded)) == ("new", ["new"])


async def test_file_that_upstream_does_not_delete_stays(store: FakeStore, clock: ManualClock):
    """The caller gets upstream's answer and can try again."""
    files = FileService(store, FakeUpstream(lambda _: Answer(500, {}, b"{}")), clock)
    assert (await files.delete(CALLER, "known")).status == 500
    assert list(store.uploaded) == ["known"]


async def test_file_stays_if_upstream_does_not_answer(store: FakeStore, clock: ManualClock):
    async def script(_: Call) -> Answer:
        raise UpstreamUncertain("Replicate did not answer.")

    files = FileService(store, FakeUpstream(script), clock)
    with pytest.raises(UpstreamUncertain):
        await files.delete(CALLER, "known")
    assert list(store.uploaded) == ["known"]


async def test_delete_goes_on_when_its_caller_leaves(store: FakeStore, clock: ManualClock):
    may_answer = asyncio.Event()

    async def script(_: Call) -> Answer:
        await may_answer.wait()
        return Answer(204, {}, b"")

    files = FileService(store, FakeUpstream(script), clock)
    deleting = asyncio.create_task(files.delete(CALLER, "known"))
    await settle()
    deleting.cancel()
    may_answer.set()
    await files.close(1.0)
    assert not store.uploaded
