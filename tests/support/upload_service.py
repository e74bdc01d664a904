"""The service of uploads, with one upload of known bytes."""

import hashlib
from collections.abc import AsyncIterator

from gateway.domain.file_content import OCTETS
from gateway.domain.records import File
from gateway.domain.scopes import Scope
from gateway.domain.teams import Caller, Team
from gateway.files.rules.transfers import Direction, TransferSettings
from gateway.files.rules.uploads import Described
from gateway.files.transfers import Transfers
from gateway.files.uploads import Upload, UploadService, UploadSettings
from gateway.runtime.live import LiveSettings
from tests.support.clock import START, ManualClock
from tests.support.fakes import FakeObserver, FakeStore, FakeUpstream
from tests.support.records import file

CALLER = Caller(team=Team(name="red", scopes=frozenset(Scope)), key_id="k1", scopes=frozenset(Scope), models=(("*",),))
CONTENT = b"equal bytes"
DIGEST = hashlib.sha256(CONTENT).hexdigest()
DOCUMENT = b'{"id":"known","name":"b.bin","content_type":"application/octet-stream"}'


def known_file() -> File:
    """Return a file of these bytes that upstream has."""
    return file("known", sha256=DIGEST, size=len(CONTENT), expires_at=START + 86_400, document=DOCUMENT)


def upload() -> Upload:
    """Return an upload of these bytes."""

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
    """Return the service on fakes."""
    places = Transfers(Direction.UPLOADS, LiveSettings(TransferSettings()), observer)
    settings = LiveSettings(UploadSettings(max_spool_bytes=1000))
    return UploadService(store, upstream, clock, observer, settings, places)
