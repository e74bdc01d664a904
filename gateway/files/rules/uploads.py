"""Equal uploads: when a file that upstream has can stand for one that is being uploaded.

See docs/architecture.md, Files and outputs.

Bytes alone do not decide. A model is told a file's type, and may go by the end of its name, so these must be equal too.
The rest of the name may differ: the JavaScript client names a blob after the time of day.
"""

import posixpath
from collections.abc import Mapping

import msgspec
from msgspec import Raw

from gateway.domain import times
from gateway.domain.records import File
from gateway.domain.surrogates import split

OCTETS = "application/octet-stream"
LEAST_LIFE_SECONDS = 3600.0
"""A file stands for another only while upstream keeps it that long: runs that read it may have to queue."""
FRAME_BYTES = 8192
"""By how much a form with one file may be larger than the file: heads, a name, a little metadata."""

_encode = msgspec.json.Encoder().encode


class Described(msgspec.Struct, frozen=True):
    """What an upload says of its file beside the bytes."""

    name: str
    content_type: str
    metadata: bytes | None
    """A JSON object; `None` if it was given in a form that only upstream reads."""


_decode_text = msgspec.json.Decoder(str).decode


def metadata_of(fields: Mapping[str, bytes]) -> bytes | None:
    """Return the metadata among a form's other fields, `None` if they say more than an object of metadata.

    A client may spell the object's members as fields of their own; what they come to, upstream says.
    """
    metadata = fields.get("metadata", b"{}")
    if fields.keys() - {"metadata"}:
        return None
    try:
        split(metadata)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return metadata


def can_stand_for(file: File, described: Described) -> bool:
    """Say whether a file of equal bytes can stand for what was described."""
    if described.metadata is None:
        return False
    try:
        fields = split(file.document)
        name, content_type = _decode_text(fields["name"]), _decode_text(fields["content_type"])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, KeyError):
        return False
    return content_type == described.content_type and _ending(name) == _ending(described.name)


def another(file: File, described: Described, file_id: str, key_id: str, now: float) -> File:
    """Return a file of its own that stands for what `file` stands for. It ends when upstream's does."""
    fields = split(file.document)
    fields["id"] = Raw(_encode(file_id))
    fields["name"] = Raw(_encode(described.name))
    fields["metadata"] = Raw(described.metadata or b"{}")
    fields["created_at"] = Raw(_encode(times.render(now)))
    return msgspec.structs.replace(file, id=file_id, key_id=key_id, created_at=now, document=_encode(fields))


def sizes(length: int | None) -> tuple[int, int]:
    """Return the smallest and largest file that a form of `length` bytes may hold; of unknown length, any."""
    return (max(0, length - FRAME_BYTES), length) if length is not None else (0, 2**62)


def _ending(name: str) -> str:
    return posixpath.splitext(name)[1].lower()
