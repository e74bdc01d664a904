"""Files: uploads are streamed to upstream; reads, lists and deletes use the gateway's own records."""

import logging

from aiohttp import web

from gateway.domain import documents
from gateway.domain import links as rewrite
from gateway.domain.cursors import Cursor
from gateway.domain.records import File
from gateway.domain.scopes import Scope
from gateway.errors import GatewayError, NotFound
from gateway.files.transfers import Transfers
from gateway.http import base_url, errors
from gateway.http.body_pace import pace_of
from gateway.http.handlers import passthrough
from gateway.http.handlers.creates import JSON
from gateway.http.handlers.predictions import cursor_of, page_links
from gateway.http.handlers.uploads import open_upload
from gateway.http.keys import CALLER, CLOCK, DOWNLOADS, FILES, UPLOADS, UPSTREAM, UPSTREAM_SECONDS
from gateway.http.response_body import ClientDisconnected, abort, begin, page_room, respond, send

logger = logging.getLogger(__name__)


async def create_file(request: web.Request) -> web.Response:
    """Handle `POST /files`."""
    base = base_url.base_of(request)
    upload = open_upload(request)
    clock = request.app[CLOCK]
    started = clock.monotonic()
    file, answer = await request.app[UPLOADS].upload(request[CALLER], upload)
    request[UPSTREAM_SECONDS] = clock.monotonic() - started
    if file is None:
        return errors.pass_on(answer)
    return web.Response(status=201, body=rewrite.file_document(file.document, base), content_type=JSON)


async def get_file(request: web.Request) -> web.Response:
    """Handle `GET /files/{id}`. Keys with the scope `account` also see files that the gateway has no record of."""
    base = base_url.base_of(request)
    try:
        file = await request.app[FILES].get(request[CALLER], request.match_info["file_id"])
    except NotFound:
        if not request[CALLER].may(Scope.ACCOUNT):
            raise
        answer = await request.app[UPSTREAM].read("files.get", f"/files/{request.match_info['file_id']}")
        if not answer.is_ok:
            return errors.pass_on(answer)
        with passthrough.parsing_upstream():
            body = rewrite.file_document(answer.body, base)
        return web.Response(body=body, content_type=JSON)
    return web.Response(body=rewrite.file_document(file.document, base), content_type=JSON)


async def list_files(request: web.Request) -> web.StreamResponse:
    """Handle `GET /files`, newest first. Keys with the scope `account` get upstream's list."""
    if request[CALLER].may(Scope.ACCOUNT):
        return await passthrough.account_files(request)
    base, position = base_url.base_of(request), cursor_of(request)
    async with page_room(request) as room:
        page = await request.app[FILES].list(request[CALLER], position)
        files = [item for item in page.items if isinstance(item, File)]
        ends = [Cursor(file.created_at, file.id) for file in files]
        next_url, previous_url = page_links(f"{base}/files", {}, page, ends, position)
        pieces = documents.page([rewrite.file_document(file.document, base) for file in files], next_url, previous_url)
        del page, files
        room.resize(sum(map(len, pieces)))
        return await respond(request, pieces, JSON)


async def delete_file(request: web.Request) -> web.Response:
    """Handle `DELETE /files/{id}`, of any file of the account for keys with the scope `account`."""
    file_id = request.match_info["file_id"]
    try:
        answer = await request.app[FILES].delete(request[CALLER], file_id)
    except NotFound:
        if not request[CALLER].may(Scope.ACCOUNT):
            raise
        answer = await request.app[UPSTREAM].send("files.delete", "DELETE", f"/files/{file_id}")
    return errors.pass_on(answer)


async def download_file(request: web.Request) -> web.StreamResponse:
    """Handle `GET /files/{id}/download`: stream the bytes. Upstream checks the signature in the query."""
    file_id = request.match_info["file_id"]
    try:
        file_id = (await request.app[FILES].get(request[CALLER], file_id)).upstream_id
    except NotFound:
        if not request[CALLER].may(Scope.ACCOUNT):
            raise
    downloads = request.app[DOWNLOADS]
    async with downloads.admit(request[CALLER]):
        return await _download(request, file_id, downloads)


async def _download(request: web.Request, file_id: str, downloads: Transfers) -> web.StreamResponse:
    query = request.rel_url.raw_query_string
    clock, pace = request.app[CLOCK], pace_of(request)
    opening = request.app[UPSTREAM].download("files.download", f"/files/{file_id}/download", query=query)
    response = web.StreamResponse()
    try:
        async with opening as download:
            response.set_status(download.status)
            # Callers choose the bytes: they must not run as a page of this origin.
            response.headers["Content-Security-Policy"] = "sandbox"
            response.headers["Content-Disposition"] = "attachment"
            response.headers.update(download.headers)
            await begin(request, response)
            if request.method == "HEAD":
                return response
            async for chunk in download.chunks:
                began = clock.monotonic()
                await send(request, response, chunk)
                pace.waited(clock.monotonic() - began)
                pace.moved(len(chunk))
                if pace.patience <= 0:
                    downloads.too_slow()
                    abort(request)
                    break
    except ClientDisconnected:
        return response
    except GatewayError as exc:
        if not response.prepared:
            raise
        logger.warning("file download failed midway", extra={"reason": exc.detail})
        abort(request)
    return response
