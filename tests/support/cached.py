"""Results in the cache."""

from typing import Any

import aiohttp

from tests.support.session_calls import (
    STORED,
    create,
    versioned_model,
)
from tests.support.stack import Stack

PAINTING = {"prompt": "a lake", "seed": 3, "width": 32, "height": 32}


async def warm(session: aiohttp.ClientSession, stack: Stack, given: Any = None, model: str = "acme/storyteller") -> Any:
    """Run something once, to be found later."""
    reply = await create(session, versioned_model(stack, model), given, Prefer="wait")
    assert (reply.status, reply.json["status"], reply.cache) == (201, "succeeded", STORED)
    return reply.json
