"""The nodes that serve from the store, for operators."""

from typing import Annotated, Any

import msgspec
from aiohttp import web

from gateway.domain import times
from gateway.http import json_body
from gateway.http.keys import MEMBERSHIP, STORE
from gateway.http.ops import answers
from gateway.nodes.ports import Node

_MOST = 1000
"""Nodes of a page."""
_NEWEST = 2**63 - 1


class NodeQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The page of the list."""

    cursor: Annotated[int, msgspec.Meta(ge=1, le=_NEWEST)] = _NEWEST
    limit: Annotated[int, msgspec.Meta(ge=1, le=_MOST)] = _MOST


async def show_nodes(request: web.Request) -> web.Response:
    """Handle `GET /admin/nodes`: the nodes that are alive, and those that ended within a day, the newest first.

    Where one process serves from the store, the list is empty.
    """
    query = answers.read_query(request, NodeQuery)
    page = await listed(request.app, limit=query.limit, before=query.cursor)
    return json_body.answer(page | {"next": answers.next_url(request, page["next"])})


async def listed(app: web.Application, *, limit: int = _MOST, before: int = _NEWEST) -> dict[str, Any]:
    """Return a page of the nodes, with this node's number. `next` is a cursor."""
    nodes, own = app[STORE].nodes, app[MEMBERSHIP].number
    now, found = 0.0, list[Node]()
    if nodes is not None:
        found = await nodes.nodes(limit + 1, before=before)
        # After that: a lease that is renewed in between would have more left than it is long.
        now = await nodes.clock()
    following = str(found[limit - 1].number) if len(found) > limit else None
    return {"this_node": own, "results": [_shown(each, now) for each in found[:limit]], "next": following}


def _shown(node: Node, now: float) -> dict[str, object]:
    is_alive = node.ended_at is None and node.expires_at > now
    return {
        "number": node.number,
        "name": node.name,
        "alive": is_alive,
        "started_at": times.render(node.started_at),
        "renewed_at": times.render(node.renewed_at),
        "lease_seconds_left": round(node.expires_at - now, 3) if is_alive else 0.0,
        "ended_at": None if node.ended_at is None else times.render(node.ended_at),
        "report": msgspec.Raw(node.report.encode()),
    }
