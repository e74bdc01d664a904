"""`/gateway/keys`: the keys of the caller's team, for keys with the scope `keys`.

`access/rules/grants.py` says which of them the caller may change. Pages cannot use these routes (`CLOSED_TO_PAGES`).
"""

from typing import Annotated

import msgspec
from aiohttp import web

from gateway.access.key_service import Authority
from gateway.access.rules.key_requests import KeyRequest, RotateRequest
from gateway.access.rules.key_rows import page_of
from gateway.http import base_url
from gateway.http.json_body import answer, read_body, read_cursor, write_cursor
from gateway.http.keys import CALLER, KEY_SERVICE
from gateway.http.ops.answers import read_query


class TeamKeyQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A page of the list."""

    created_by: str | None = None
    """Who created them, as in the audit log (for example: key:abcdefghijkl)."""
    cursor: str | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 100


async def list_keys(request: web.Request) -> web.Response:
    """Handle `GET /gateway/keys`: the keys of the team, newest first, those of the config last."""
    query = read_query(request, TeamKeyQuery)
    found = await request.app[KEY_SERVICE].list(
        team=request[CALLER].team.name,
        created_by=query.created_by,
        limit=query.limit,
        older_than=read_cursor(query.cursor),
    )
    return answer(page_of(found, _next_url(request, write_cursor(found.next))))


async def create_key(request: web.Request) -> web.Response:
    """Handle `POST /gateway/keys`: create a key. The answer alone has the key itself."""
    wanted = await read_body(request, KeyRequest)
    return answer(await request.app[KEY_SERVICE].create(_authority(request), wanted), status=201)


async def change_key(request: web.Request) -> web.Response:
    """Handle `PATCH /gateway/keys/<id>`: change what a key may do."""
    wanted = await read_body(request, KeyRequest)
    return answer(await request.app[KEY_SERVICE].change(_authority(request), request.match_info["id"], wanted))


async def revoke_key(request: web.Request) -> web.Response:
    """Handle `DELETE /gateway/keys/<id>`: revoke a key. Once more, it changes nothing.

    The keys that were created with it stay valid; the answer has their number.
    """
    return answer(await request.app[KEY_SERVICE].revoke(_authority(request), request.match_info["id"]))


async def rotate_key(request: web.Request) -> web.Response:
    """Handle `POST /gateway/keys/<id>/rotate`: replace a key. The answer has the new one."""
    wanted = await read_body(request, RotateRequest) if request.can_read_body else RotateRequest()
    service, key_id = request.app[KEY_SERVICE], request.match_info["id"]
    new, _ = await service.rotate(_authority(request), key_id, wanted.overlap_seconds)
    return answer(new, status=201)


def _next_url(request: web.Request, cursor: str | None) -> str | None:
    """Return the address of the next page, as the caller reaches the gateway."""
    if cursor is None:
        return None
    origin = base_url.base_of(request).removesuffix("/v1")
    return origin + str(request.rel_url.update_query(cursor=cursor))


def _authority(request: web.Request) -> Authority:
    return Authority.of_caller(request[CALLER])
