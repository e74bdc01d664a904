"""The nodes that serve from the store, for operators."""

from typing import Any

import msgspec
from aiohttp import web

from gateway.domain import times
from gateway.http.keys import MEMBERSHIP, STORE
from gateway.nodes.ports import Node


async def show_nodes(request: web.Request) -> web.Response:
    """Handle `GET /admin/nodes`: the nodes that are alive, and those that ended within a day, the newest first.

    Where one process serves from the store, the list is empty.
    """
    return web.Response(body=msgspec.json.encode(await listed(request.app)), content_type="application/json")


async def listed(app: web.Application) -> dict[str, Any]:
    """Return this node's number, and the nodes."""
    nodes, own = app[STORE].nodes, app[MEMBERSHIP].number
    now, found = 0.0, list[Node]()
    if nodes is not None:
        now, found = await nodes.clock(), await nodes.nodes()
    return {"this_node": own, "nodes": [_shown(each, now) for each in found]}


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
