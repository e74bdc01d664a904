"""Builds uploads and the files that callers own upstream."""

import msgspec

from gateway.assembly.base import Base
from gateway.assembly.upstream import UpstreamParts
from gateway.files.files import FileService
from gateway.files.uploads import UploadService


class FileParts(msgspec.Struct, frozen=True):
    """Files and uploads."""

    files: FileService
    uploads: UploadService


def build_files(base: Base, upstream: UpstreamParts) -> FileParts:
    """Build the services of files."""
    files = FileService(base.store, upstream.client, base.clock)
    base.stack.push_async_callback(lambda: files.close(base.shutdown_deadline.left()))
    uploads = UploadService(base.store, upstream.client, base.clock, base.metrics, base.live.uploads)
    base.stack.push_async_callback(uploads.close)
    base.metrics.read_on_scrape("upload_spool_bytes", lambda: uploads.spooled_bytes)
    return FileParts(files, uploads)
