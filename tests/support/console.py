"""What a console shows: predictions and webhooks of teams."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from gateway.store.interface import Store
from gateway.store.urls import open_store
from gateway.webhooks.rules.deliveries import Delivery, DeliveryKind
from tests.support.session_calls import STORY, create, finished, open_session, versioned_model
from tests.support.stack import Stack


async def told(stack: Stack, team: str, given: Any = STORY) -> str:
    """Run a prediction of a team, and return its id."""
    async with open_session(stack, team) as session:
        made = await create(session, versioned_model(stack), given)
        assert made.status == 201, made.text
        await finished(session, made.json["id"])
        return str(made.json["id"])


@asynccontextmanager
async def store_of(stack: Stack) -> AsyncIterator[Store]:
    """Open the store of a gateway a second time, beside it."""
    store = open_store(f"sqlite:///{stack.database}")
    await store.open()
    yield store
    await store.close()


async def failed_delivery(stack: Stack, team: str) -> str:
    """Put a webhook into the store that is not tried again, and return its id."""
    # Of now: the gateway removes old ones. Due later: else it may send this one first.
    now = time.time()
    delivery = Delivery(
        id=f"msg_{team}", kind=DeliveryKind.ANNOUNCEMENT, team=team, url="https://hooks.example.com/secret-path",
        receiver="hooks.example.com", created_at=now, next_at=4e9,
    )  # fmt: skip
    async with store_of(stack) as store:
        await store.add_delivery(delivery, b"{}")
        await store.mark_dead(delivery.id, now, "answered 503", b"{}")
    return delivery.id
