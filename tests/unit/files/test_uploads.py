"""Uploads whose bytes upstream has already."""

import asyncio
import hashlib
from collections.abc import AsyncIterator

from gateway.domain.file_content import OCTETS
from gateway.domain.scopes import Scope
from gateway.domain.teams import Caller, Team
from gateway.files.rules.transfers import Direction, TransferSettings
from gateway.files.rules.uploads import Described
from gateway.files.transfers import Transfers
from gateway.files.uploads import Upload, UploadService, UploadSettings
from gateway.runtime.live import LiveSettings
from tests.support.clock import START, ManualClock, settle
from tests.support.fakes import FakeObserver, FakeStore, FakeUpstream
from tests.support.records import file

CALLER = Caller(team=Team(name="red", scopes=frozenset(Scope)), key_id="k1", scopes=frozenset(Scope), models=(("*",),))
CONTENT = b"equal bytes"
DIGEST = hashlib.sha256(CONTENT).hexdigest()


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


def upload() -> Upload:
    async def chunks() -> AsyncIterator[bytes]:
        yield CONTENT

    return Upload(
        chunks(),
        "multipart/form-data",
        lambda: (DIGEST, len(CONTENT)),
        lambda: Described("a.bin", OCTETS, b"{}"),
        11,
        100,
    )


def uploads_of(store: FakeStore, upstream: FakeUpstream, clock: ManualClock, observer: FakeObserver) -> UploadService:
    places = Transfers(Direction.UPLOADS, LiveSettings(TransferSettings()), observer)
    settings = LiveSettings(UploadSettings(max_spool_bytes=1000))
    return UploadService(store, upstream, clock, observer, settings, places)


async def test_upload_cancelled_while_its_record_is_written_leaves_no_record(
    upstream: FakeUpstream, clock: ManualClock, observer: FakeObserver
):
    """The caller never got the new id, so it could not delete the file."""
    store = SlowStore()
    document = b'{"id":"known","name":"b.bin","content_type":"application/octet-stream"}'
    known = file("known", sha256=DIGEST, size=len(CONTENT), expires_at=START + 86_400, document=document)
    store.uploaded["known"] = known
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
