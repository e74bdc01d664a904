"""Builds uploads and the files that callers own upstream."""

import msgspec

from gateway.assembly.base import Base
from gateway.assembly.upstream import UpstreamParts
from gateway.files.files import FileService
from gateway.files.rules.transfers import Direction
from gateway.files.transfers import Transfers
from gateway.files.uploads import UploadService


class FileParts(msgspec.Struct, frozen=True):
    """Files and uploads."""

    files: FileService
    uploads: UploadService
    downloads: Transfers


def build_files(base: Base, upstream: UpstreamParts) -> FileParts:
    """Build the services of files."""
    settings = base.live.predictions
    files = FileService(base.store, upstream.client, base.clock, max_page_bytes=lambda: settings.value.max_page_bytes)
    base.stack.push_async_callback(lambda: files.close(base.shutdown_deadline.left()))
    transfers = {each: Transfers(each, base.live.transfers, base.metrics) for each in Direction}
    base.metrics.read_on_scrape("transfers_waiting", lambda: {name: each.waiting for name, each in transfers.items()})
    base.metrics.read_on_scrape("transfers", lambda: {name: each.in_progress for name, each in transfers.items()})
    uploads = UploadService(
        base.store, upstream.client, base.clock, base.metrics, base.live.uploads, transfers[Direction.UPLOADS]
    )
    base.stack.push_async_callback(uploads.close)
    base.metrics.read_on_scrape("upload_spool_bytes", lambda: uploads.spooled_bytes)
    return FileParts(files, uploads, transfers[Direction.DOWNLOADS])
