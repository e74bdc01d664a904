"""Files: upload, list, read, delete, and the signed download. These responses have no rate-limit headers."""

import asyncio

import msgspec

from gateway.simulator import problems
from gateway.simulator.api.call import EDGE_JSON, Answer, Call, same_signature
from gateway.simulator.api.multipart import parse_multipart
from gateway.simulator.api.predictions import read_cursor
from gateway.simulator.files import File, digest, sign_download
from gateway.simulator.pagination import link, take_page
from gateway.simulator.settings import MAX_UPLOAD_BYTES

PAGE_SIZE = 100
_LONGEST_NAME_BYTES = 255
_HASHED_INLINE_BYTES = 1024 * 1024  # larger uploads are hashed in a thread


async def create(call: Call) -> Answer:
    """POST /files."""
    parts = {part.name: part for part in parse_multipart(call.request.headers.get("Content-Type", ""), call.body)}
    content = parts.get("content")
    if content is None:
        raise problems.Problem(400, {"detail": "Missing content"})
    if len(content.data) > MAX_UPLOAD_BYTES:
        raise problems.too_large()
    name = content.filename or (parts["filename"].text if "filename" in parts else "")
    if not name or len(name.encode()) > _LONGEST_NAME_BYTES:
        raise problems.Problem(400, {"detail": "Missing or invalid filename"})
    kind = content.content_type or (parts["type"].text if "type" in parts else "application/octet-stream")
    metadata = _metadata(parts["metadata"].data) if "metadata" in parts else {}
    data = content.data
    digests = digest(data) if len(data) <= _HASHED_INLINE_BYTES else await asyncio.to_thread(digest, data)
    world = call.world
    return _answer(call, world.files.put(call.account, name, kind, data, digests, metadata, world.clock.stamp()), 201)


async def list_all(call: Call) -> Answer:
    """GET /files: newest first."""
    query = call.query
    page = take_page(call.world.files.all(call.account), _created, PAGE_SIZE, read_cursor(query))
    body = {
        "next": link(call.url, query, page.next),
        "previous": link(call.url, query, page.previous),
        "results": [file.render(call.world.links.api) for file in page.results],
    }
    return Answer(200, msgspec.json.encode(body), EDGE_JSON, {"Vary": "Accept-Encoding"})


async def get(call: Call) -> Answer:
    """GET /files/{id}."""
    return _answer(call, _find(call), 200)


async def delete(call: Call) -> Answer:
    """DELETE /files/{id}."""
    call.world.files.delete(_find(call).id)
    return Answer(204, b"", "text/plain; charset=UTF-8", {"Vary": "Accept-Encoding"})


async def download(call: Call) -> Answer:
    """GET /files/{id}/download: authorized by its signature."""
    query = call.query
    owner, expiry, signature = query.get("owner", ""), query.get("expiry", ""), query.get("signature", "")
    file = call.world.files.get(owner, call.params["id"])
    if file is None or not expiry.isdigit() or int(expiry) < call.world.clock.now():
        raise problems.file_not_found()
    if not same_signature(
        signature, sign_download(call.world.settings.files_signing_secret, owner, file.id, int(expiry))
    ):
        raise problems.file_not_found()
    disposition = f'attachment; filename="{file.name.encode("ascii", "replace").decode()}"'
    return Answer(200, file.data, file.content_type, {"Content-Disposition": disposition, "ETag": f'"{file.md5}"'})


def _answer(call: Call, file: File, status: int) -> Answer:
    return Answer(
        status, msgspec.json.encode(file.render(call.world.links.api)), EDGE_JSON, {"Vary": "Accept-Encoding"}
    )


def _find(call: Call) -> File:
    file = call.world.files.get(call.account, call.params["id"])
    if file is None:
        raise problems.file_not_found()
    return file


def _metadata(data: bytes) -> dict[str, object]:
    try:
        value = msgspec.json.decode(data)
    except msgspec.DecodeError as error:
        raise problems.Problem(400, {"detail": "Invalid metadata: must be valid JSON"}) from error
    if not isinstance(value, dict):
        raise problems.Problem(400, {"detail": "Invalid metadata: must be a JSON object"})
    return value


def _created(file: File) -> int:
    return file.created_us
