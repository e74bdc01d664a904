"""Runs with output files, and their copies."""

import asyncio
from pathlib import Path
from typing import Any

from gateway.simulator.models.image import paint
from tests.support.http_calls import Reply, ask
from tests.support.outputs import CopyingGateway
from tests.support.stack import Stack
from tests.support.upstream import version_of

LAKE = {"prompt": "a lake", "seed": 5, "width": 32, "height": 32}
PICTURE = paint("a lake", 5, 32, 32)
HOUR = 3600.0
HIT = "replicate-gateway; hit; ttl="


async def paint_lake(stack: Stack, *, key: str = "alpha", base: str | None = None, **given: Any) -> Reply:
    """Ask for the picture, and wait for it."""
    version = version_of(stack.upstream, "acme/painter")
    body = {"version": f"acme/painter:{version}", "input": LAKE | given}
    reply = await ask(stack, "POST", "/v1/predictions", key=key, json=body, headers={"Prefer": "wait"})
    assert reply.status == 201, reply.text
    assert reply.json["status"] == "succeeded"
    return reply


def is_ours(stack: Stack, link: str) -> bool:
    """Say whether a link is of a stored copy."""
    return link.startswith(f"{stack.origin}/outputs/")


async def objects_in(folder: Path) -> list[bytes]:
    """Read every object of a folder."""
    return await asyncio.to_thread(lambda: [path.read_bytes() for path in folder.rglob("*") if path.is_file()])


async def hit_link(it: CopyingGateway, **given: Any) -> str:
    """Paint the picture, let it be copied, and ask again: give the link that the hit shows."""
    await paint_lake(it.stack, **given)
    await it.settled(1)
    again = await paint_lake(it.stack, **given)
    assert again.headers["Cache-Status"].startswith(HIT)
    (link,) = again.json["output"]
    assert is_ours(it.stack, link)
    return str(link)
