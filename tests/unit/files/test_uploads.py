"""Uploads whose bytes upstream has already."""

import asyncio

from tests.support.clock import ManualClock, settle
from tests.support.fakes import FakeObserver, FakeStore, FakeUpstream
from tests.support.upload_service import CALLER, known_file, upload, uploads_of


class SlowStore(FakeStore):
    """Adds a file late: its answer waits for `may_answer`."""

    def __init__(self) -> None:
        super().__init__()
        self.may_answer = asyncio.Event()

    async def share_file(self, file) -> bool:
        """Add a file, and answer later."""
        is_added = await super().share_file(file)
        await self.may_answer.wait()
        return is_added


async def test_upload_cancelled_while_its_record_is_written_leaves_no_record(
    upstream: FakeUpstream, clock: ManualClock, observer: FakeObserver
):
    """The caller never got the new id, so it could not delete the file."""
    store = SlowStore()
    store.uploaded["known"] = known_file()
    uploads = uploads_of(store, upstream, clock, observer)
    task = asyncio.create_task(uploads.upload(CALLER, upload()))
    await settle()
    assert len(store.uploaded) == 2
    task.cancel()
    await settle()
    store.may_answer.set()
    await asyncio.wait({task})
    await uploads.close()
    assert task.cancelled()
    assert list(store.uploaded) == ["known"]
