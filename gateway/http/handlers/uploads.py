"""Stream a multipart upload to upstream: parse it, check and hash it, and encode it again.

Encoding it again ensures that upstream gets exactly the parts that were checked: one `content` part with a valid file
name, within the size limit, without the caller's own key. At most one chunk of the content is in memory.
"""

import hashlib
import re
import secrets
from collections.abc import AsyncIterator

from aiohttp import BodyPartReader, MultipartReader, web
from aiohttp.http_exceptions import HttpProcessingError

from gateway.domain.file_content import OCTETS
from gateway.errors import BadRequest, BodyTooLarge, GatewayError, Unprocessable, UnsupportedMedia
from gateway.files.rules.uploads import Described, metadata_of
from gateway.files.uploads import Upload
from gateway.http import form_parts
from gateway.http.body_pace import pace_of, waiting
from gateway.http.form_parts import Disposition
from gateway.http.keys import PRESENTED_KEY, SETTINGS
from gateway.http.request_body import check_coding

_CHUNK = 64 * 1024
_MAX_PARTS = 16
_MAX_FIELD = 1024 * 1024
_MAX_FILENAME = 255  # bytes of UTF-8 (docs/replicate-api.md, Routes)
_FIELDS = ("content", "metadata", "filename", "type")
# aiohttp's reader raises AssertionError and ValueError for malformed framing, ConnectionError for a lost client.
_MALFORMED = (HttpProcessingError, web.RequestPayloadError, ValueError, AssertionError, EOFError, ConnectionError)
_METADATA_MEMBER = re.compile(r"metadata(?:\[[A-Za-z0-9_.-]{0,64}\]){1,8}")
_UNSAFE = str.maketrans("", "", "\r\n\0")


def open_upload(request: web.Request) -> Upload:
    """Start an upload. Nothing is read yet.

    Raise `UnsupportedMedia` if it is not a multipart form, `BodyTooLarge` if its declared length exceeds the limit.
    Iterating over the chunks raises `BadRequest`, `BodyTooLarge` or `Unprocessable` for errors in the body.
    """
    check_coding(request)
    if request.content_type != "multipart/form-data":
        raise UnsupportedMedia("The body must be multipart/form-data with a part named 'content'.")
    settings = request.app[SETTINGS].value
    max_length = settings.max_upload_bytes + _MAX_FIELD * _MAX_PARTS
    if (request.content_length or 0) > max_length:
        raise _too_large()
    reencoder = _Reencoder(request, settings.max_upload_bytes)
    return Upload(
        reencoder.chunks(),
        f"multipart/form-data; boundary={reencoder.boundary}",
        reencoder.digest_and_size,
        reencoder.description,
        request.content_length,
        max_length,
    )


def _is_known(name: str) -> bool:
    # Stainless clients send each member of an object as a part of its own: metadata[key].
    return name in _FIELDS or _METADATA_MEMBER.fullmatch(name) is not None


def _too_large() -> BodyTooLarge:
    # Upstream's text (docs/replicate-api.md, Files).
    return BodyTooLarge("Files must be less than 100MB in size")


class _Reencoder:
    """Reads the parts of one upload and yields them framed by a new boundary."""

    def __init__(self, request: web.Request, max_bytes: int) -> None:
        self.boundary = secrets.token_hex(16)
        self._request = request
        self._max_bytes = max_bytes
        self._pace = pace_of(request)
        self._hash = hashlib.sha256()
        self._size = 0
        self._seen_content = False
        self._name = ""
        self._content_type = OCTETS
        # Values of the other fields; parts with the same name are concatenated.
        self._fields: dict[str, bytes] = {}
        self._key = request.get(PRESENTED_KEY, b"")

    def digest_and_size(self) -> tuple[str, int]:
        """Return the SHA-256 in hex and the size in bytes of the content. Final once `chunks` is exhausted."""
        return self._hash.hexdigest(), self._size

    def description(self) -> Described:
        """Return the file's name, content type and metadata. Final once `chunks` is exhausted."""
        return Described(self._name, self._content_type, metadata_of(self._fields) if self._name else None)

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the body for upstream. Raise `BadRequest`, `BodyTooLarge` or `Unprocessable` for an invalid upload."""
        try:
            async for chunk in self._parts():
                yield chunk
        except GatewayError:
            raise
        except _MALFORMED as exc:
            raise BadRequest("The multipart body is malformed.") from exc

    async def _parts(self) -> AsyncIterator[bytes]:
        reader = form_parts.reader_of(self._request)
        count = 0
        while True:
            async with waiting(self._pace):
                part = await reader.next()
            if part is None:
                break
            count += 1
            if count > _MAX_PARTS or isinstance(part, MultipartReader):
                raise BadRequest("The multipart body has nested or too many parts.")
            given = form_parts.read_disposition(part.headers.get("Content-Disposition", ""))
            if given is None:
                raise Unprocessable.field("", "every part of the form needs a name", "required")
            if not _is_known(given.name):
                # Upstream's schema admits other parts, which mean nothing (docs/replicate-api.md, Routes).
                async for _ in self._body(part, given.name):
                    pass
                continue
            yield self._head(part, given)
            async for chunk in self._body(part, given.name):
                yield chunk
            yield b"\r\n"
        if not self._seen_content:
            raise Unprocessable.field("content", "content is required", "required")
        yield f"--{self.boundary}--\r\n".encode()

    def _head(self, part: BodyPartReader, given: Disposition) -> bytes:
        name = given.name
        disposition = f'form-data; name="{name}"'
        if name == "content":
            if self._seen_content:
                raise Unprocessable.field("content", "content is given twice")
            self._seen_content = True
            self._name = given.filename
            if len(self._name.encode("utf-8", "surrogateescape")) > _MAX_FILENAME:
                raise Unprocessable.field("content", f"the file name is longer than {_MAX_FILENAME} bytes")
            # Without a name here, the part `filename` can have it; without a content type, the part `type`.
            disposition += given.spelled
        content_type = part.headers.get("Content-Type", "")
        if name == "content":
            self._content_type = content_type or OCTETS
        lines = [f"--{self.boundary}", f"Content-Disposition: {disposition}"]
        if content_type:
            lines.append(f"Content-Type: {content_type.translate(_UNSAFE)}")
        head = ("\r\n".join(lines) + "\r\n\r\n").encode("utf-8", "surrogateescape")
        self._refuse_key(head)
        return head

    async def _body(self, part: BodyPartReader, name: str) -> AsyncIterator[bytes]:
        is_content = name == "content"
        limit, size = (self._max_bytes if is_content else _MAX_FIELD), 0
        tail = b""
        while True:
            async with waiting(self._pace):
                chunk = bytes(await part.read_chunk(_CHUNK))
            if not chunk:
                break
            self._pace.moved(len(chunk))
            size += len(chunk)
            if size > limit:
                raise _too_large()
            if self._key:
                # The key may be split across two chunks.
                self._refuse_key(tail + chunk)
                tail = (tail + chunk)[-len(self._key) + 1 :]
            if is_content:
                self._hash.update(chunk)
                self._size += len(chunk)
            elif _is_known(name):
                self._fields[name] = self._fields.get(name, b"") + chunk
            yield chunk

    def _refuse_key(self, data: bytes) -> None:
        if self._key and self._key in data:
            raise Unprocessable(detail="The upload contains your own API key.", title="API key in request")
