"""Decide when an upload can reuse a file that upstream already has (docs/architecture.md, Files and outputs).

Equal bytes are not enough. A model sees the file's content type and can depend on its name's extension, so these must
be equal too. The rest of the name can differ: the JavaScript client names a blob after the time of day.
"""

from collections.abc import Mapping

import msgspec
from msgspec import Raw

from gateway.domain import file_content, times
from gateway.domain.file_content import FileContent, extension_of
from gateway.domain.records import File
from gateway.domain.surrogates import split
from gateway.domain.teams import Caller

LEAST_LIFE_SECONDS = 3600.0
"""Minimum remaining lifetime of a file that is reused: the runs that read it can be queued for a while."""
FRAME_BYTES = 8192
"""Maximum size of a form with one file beyond the file itself: part headers, name, a little metadata."""

_encode = msgspec.json.Encoder().encode


class Described(msgspec.Struct, frozen=True):
    """What an upload states about its file, besides the bytes."""

    name: str
    content_type: str
    metadata: bytes | None
    """A JSON object; `None` if it was given in a form that only upstream can interpret."""


_decode_text = msgspec.json.Decoder(str).decode


def metadata_of(fields: Mapping[str, bytes]) -> bytes | None:
    """Return the metadata among a form's fields; `None` if the form has other fields or the metadata is no JSON object.

    Clients can send the members of the object as separate form fields. Only upstream knows how it combines those.
    """
    metadata = fields.get("metadata", b"{}")
    if fields.keys() - {"metadata"}:
        return None
    try:
        split(metadata)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return metadata


def can_reuse(file: File, described: Described) -> bool:
    """Return whether an upload can reuse a file with equal bytes."""
    named = _named(file) if described.metadata is not None else None
    if named is None:
        return False
    name, content_type = named
    return content_type == described.content_type and extension_of(name) == extension_of(described.name)


def content_of(file: File) -> FileContent:
    """Return the content of a file, by the name and the type that upstream recorded."""
    name, content_type = _named(file) or ("", "")
    return file_content.of_file(file.sha256, content_type, name)


def _named(file: File) -> tuple[str, str] | None:
    """Return the name and the content type of a file; `None` if its document has none."""
    try:
        fields = split(file.document)
        return _decode_text(fields["name"]), _decode_text(fields["content_type"])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, KeyError):
        return None


def another(file: File, described: Described, file_id: str, caller: Caller, now: float) -> File:
    """Return a new file record for the same upstream file as `file`. It expires when the upstream file does."""
    fields = split(file.document)
    fields["id"] = Raw(_encode(file_id))
    fields["name"] = Raw(_encode(described.name))
    fields["metadata"] = Raw(described.metadata or b"{}")
    fields["created_at"] = Raw(_encode(times.render(now)))
    return msgspec.structs.replace(
        file, id=file_id, key_id=caller.key_id, owner=caller.owner, created_at=now, document=_encode(fields)
    )


def sizes(length: int | None) -> tuple[int, int]:
    """Return the minimum and maximum size of the file in a form of `length` bytes; any size if `None`."""
    return (max(0, length - FRAME_BYTES), length) if length is not None else (0, 2**62)
