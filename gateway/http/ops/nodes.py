"""The nodes that serve from the store, for operators."""

import re
from typing import Any

import msgspec
from aiohttp import web

from gateway.domain import times
from gateway.errors import BadRequest
from gateway.http.keys import MEMBERSHIP, STORE
from gateway.nodes.ports import Node

_MOST = 1000
"""Nodes of a page."""


async def show_nodes(request: web.Request) -> web.Response:
    """Handle `GET /admin/nodes`: the nodes that are alive, and those that ended within a day, the newest first.

    The list is a page: `next` has the address of the rest, if there is more. Where one process serves from the store,
    the list is empty.
    """
    limit = _number(request, "limit", _MOST, most=_MOST)
    before = _number(request, "before", 2**63 - 1)
    body = await listed(request.app, limit=limit, before=before)
    return web.Response(body=msgspec.json.encode(body), content_type="application/json")


async def listed(app: web.Application, *, limit: int = _MOST, before: int = 2**63 - 1) -> dict[str, Any]:
    """Return a page of the nodes, with this node's number."""
    nodes, own = app[STORE].nodes, app[MEMBERSHIP].number
    now, found = 0.0, list[Node]()
    if nodes is not None:
        now, found = await nodes.clock(), await nodes.nodes(limit + 1, before=before)
    following = f"/admin/nodes?limit={limit}&before={found[limit - 1].number}" if len(found) > limit else None
    return {"this_node": own, "nodes": [_shown(each, now) for each in found[:limit]], "next": following}


def _number(request: web.Request, name: str, default: int, *, most: int = 2**63 - 1) -> int:
    text = request.query.get(name, str(default))
    if not re.fullmatch(r"[0-9]{1,19}", text) or not 1 <= int(text) <= most:
        raise BadRequest(f"{name}: expected a whole number from 1 to {most}.")
    return int(text)


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
