"""`/admin/cache`: the size of the result cache, and dropping results from it."""

from typing import Annotated

import msgspec
from aiohttp import web

from gateway.domain import times
from gateway.http import json_body
from gateway.http.keys import CLOCK, STORE
from gateway.http.ops import answers
from gateway.operations.purging import purge


class CacheQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whose results are counted."""

    team: str | None = None


class PurgeQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which results are dropped; without any, all of them."""

    team: str | None = None
    target: Annotated[str, msgspec.Meta(pattern=r"^[^\[\]]*$")] | None = None
    """A target, or a glob such as `acme/*`."""


class CacheAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept for later requests. `bytes` is the size of the documents."""

    entries: int
    bytes: int
    oldest_ended_at: str | None


class Purged(msgspec.Struct, frozen=True):
    """How many results were dropped."""

    purged: int


async def cache_stats(request: web.Request) -> web.Response:
    """Handle `GET /admin/cache`: the number of cached results and their size in bytes."""
    query = answers.read_query(request, CacheQuery)
    found = await request.app[STORE].cache_stats(request.app[CLOCK].now(), query.team)
    oldest = None if found.oldest_ended_at is None else times.render(found.oldest_ended_at)
    return json_body.answer(CacheAnswer(entries=found.entries, bytes=found.bytes, oldest_ended_at=oldest))


async def purge_cache(request: web.Request) -> web.Response:
    """Handle `DELETE /admin/cache`: drop cached results so that they are not reused."""
    query = answers.read_query(request, PurgeQuery)
    store, now = request.app[STORE], request.app[CLOCK].now()
    return json_body.answer(
        Purged(await purge(store, now, answers.actor_of(request), team=query.team, target=query.target))
    )


def add_routes(app: web.Application) -> None:
    """Register the routes."""
    app.router.add_get("/admin/cache", cache_stats)
    app.router.add_delete("/admin/cache", purge_cache)
