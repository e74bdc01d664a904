"""`/admin/keys`: the keys of all teams."""

from typing import Annotated

import msgspec
from aiohttp import web

from gateway.access.key_service import Authority
from gateway.access.rules.key_requests import KeyRequest, RotateRequest
from gateway.access.rules.key_rows import page_of
from gateway.http.json_body import answer, read_cursor, read_ops_body, write_cursor
from gateway.http.keys import KEY_SERVICE
from gateway.http.ops.answers import actor_of, next_url, read_query


class KeyQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The filters of the list."""

    team: str | None = None
    created_by: str | None = None
    """Who created them, as in the audit log (for example: key:abcdefghijkl)."""
    cursor: str | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 100


async def list_keys(request: web.Request) -> web.Response:
    """Handle `GET /admin/keys`: keys, newest first, those of the config last."""
    query = read_query(request, KeyQuery)
    found = await request.app[KEY_SERVICE].list(
        team=query.team, created_by=query.created_by, limit=query.limit, older_than=read_cursor(query.cursor)
    )
    return answer(page_of(found, next_url(request, write_cursor(found.next))))


async def create_key(request: web.Request) -> web.Response:
    """Handle `POST /admin/keys`: create a key of a team. The answer alone has the key itself."""
    wanted = await read_ops_body(request, KeyRequest)
    return answer(await request.app[KEY_SERVICE].create(_operators(request), wanted), status=201)


async def change_key(request: web.Request) -> web.Response:
    """Handle `PATCH /admin/keys/<id>`: change what a key may do."""
    wanted = await read_ops_body(request, KeyRequest)
    return answer(await request.app[KEY_SERVICE].change(_operators(request), request.match_info["id"], wanted))


async def revoke_key(request: web.Request) -> web.Response:
    """Handle `DELETE /admin/keys/<id>`: revoke a key. Once more, it changes nothing.

    The keys that were created with it stay valid; the answer has their number.
    """
    return answer(await request.app[KEY_SERVICE].revoke(_operators(request), request.match_info["id"]))


async def rotate_key(request: web.Request) -> web.Response:
    """Handle `POST /admin/keys/<id>/rotate`: replace a key. The answer has the new one."""
    wanted = await read_ops_body(request, RotateRequest)
    service, key_id = request.app[KEY_SERVICE], request.match_info["id"]
    new, _ = await service.rotate(_operators(request), key_id, wanted.overlap_seconds)
    return answer(new, status=201)


def _operators(request: web.Request) -> Authority:
    return Authority(actor=actor_of(request))


def add_routes(app: web.Application) -> None:
    """Register the routes."""
    app.router.add_get("/admin/keys", list_keys)
    app.router.add_post("/admin/keys", create_key)
    app.router.add_patch("/admin/keys/{id}", change_key)
    app.router.add_delete("/admin/keys/{id}", revoke_key)
    app.router.add_post("/admin/keys/{id}/rotate", rotate_key)
