"""Equal uploads: which file may stand for another, and how it is shown."""

import msgspec
import pytest
from msgspec.structs import replace

from gateway.domain.ids import file_id
from gateway.domain.records import File
from gateway.files.rules import uploads
from gateway.files.rules.uploads import Described
from tests.support.callers import caller

NOW = 1_764_000_000.0
DOCUMENT = (
    b'{"id":"NGZi","name":"blob_1.png","content_type":"image/png","size":3,"etag":"e","checksums":{"sha256":"s"},'
    b'"metadata":{"a":"\\ud83d"},"created_at":"2024-08-22T12:26:51.079Z","expires_at":"2024-08-23T12:26:51.079Z",'
    b'"urls":{"get":"https://api.replicate.com/v1/files/NGZi"}}'
)


def file(document: bytes = DOCUMENT) -> File:
    return File(
        id="NGZi",
        team="red",
        key_id="k1",
        sha256="s",
        size=3,
        created_at=NOW - 60,
        expires_at=NOW + 86_340,
        upstream_id="NGZi",
        document=document,
    )


@pytest.mark.parametrize(
    ("name", "content_type", "metadata", "can"),
    [
        ("blob_1.png", "image/png", b"{}", True),
        ("blob_2.PNG", "image/png", b'{"b":1}', True),
        ("blob_2", "image/png", b"{}", False),
        ("blob_2.jpg", "image/png", b"{}", False),
        ("blob_1.png", "image/jpeg", b"{}", False),
        ("blob_1.png", "image/png", None, False),
    ],
)
def test_equal_type_and_extension_are_needed_and_the_name_is_not(
    name: str, content_type: str, metadata: bytes | None, can: bool
) -> None:
    """A model goes by type and extension; the JavaScript client names a blob after the time of day."""
    assert uploads.can_reuse(file(), Described(name, content_type, metadata)) is can


@pytest.mark.parametrize("document", [b"", b"[]", b"{}", b'{"name":1,"content_type":"image/png"}', b"\xff"])
def test_file_with_an_odd_document_is_not_reused(document: bytes) -> None:
    """It is uploaded once more."""
    assert not uploads.can_reuse(file(document), Described("a.png", "image/png", b"{}"))


def test_reused_file_has_its_own_document() -> None:
    """Its id, name, time and metadata are those of its upload; size, checksums and expiry are those of the bytes."""
    who = replace(caller(user="ann"), key_id="k2")
    first = replace(file(), owner="user:ben")
    other = uploads.another(first, Described("ü.png", "image/png", b'{"b":[1.50]}'), "other", who, NOW)
    assert (other.owner, uploads.another(other, Described("", "", b""), "o", caller(), NOW).owner) == ("user:ann", None)
    assert (other.id, other.key_id, other.upstream_id, other.created_at) == ("other", "k2", "NGZi", NOW)
    assert (other.sha256, other.size, other.expires_at) == ("s", 3, NOW + 86_340)
    shown = msgspec.json.decode(other.document)
    assert (shown["id"], shown["name"], shown["metadata"]) == ("other", "ü.png", {"b": [1.5]})
    assert b'{"b":[1.50]}' in other.document
    assert shown["expires_at"] == "2024-08-23T12:26:51.079Z"
    assert shown["created_at"] != "2024-08-22T12:26:51.079Z"


@pytest.mark.parametrize(
    ("fields", "metadata"),
    [
        ({}, b"{}"),
        ({"metadata": b'{"a":1}'}, b'{"a":1}'),
        ({"metadata": b'{"a":"\\ud83d"}'}, b'{"a":"\\ud83d"}'),
        ({"metadata": b"[1]"}, None),
        ({"metadata": b""}, None),
        ({"metadata": b"\xff"}, None),
        ({"metadata": b"[" * 100_000}, None),
        ({"metadata[a]": b"1"}, None),
        ({"metadata": b"{}", "filename": b"x"}, None),
        ({"type": b"image/png"}, None),
    ],
)
def test_nested_metadata_is_left_to_upstream(fields: dict[str, bytes], metadata: bytes) -> None:
    """An object as one field is understood; anything else is uploaded as it is."""
    assert uploads.metadata_of(fields) == metadata


def test_form_is_a_little_larger_than_its_file() -> None:
    """The announced length says which sizes are possible; without one, any is."""
    smallest, largest = uploads.sizes(100_000)
    assert smallest < 100_000 - 300 < largest == 100_000
    assert uploads.sizes(10) == (0, 10)
    assert uploads.sizes(None)[0] == 0 < 2**40 < uploads.sizes(None)[1]


def test_file_id_has_upstreams_form() -> None:
    """48 letters, base64 of a UUID's text (docs/replicate-api.md, Files)."""
    assert len(file_id(bytes(16))) == 48
    assert file_id(bytes(16)) != file_id(bytes(15) + b"\1")
