"""A dispatcher of webhooks with a receiver of its own."""

import itertools
import secrets
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
from aiohttp.abc import AbstractResolver
from standardwebhooks.webhooks import Webhook

from gateway.domain import rendering
from gateway.domain.ledger import BudgetWarning
from gateway.runtime.live import LiveSettings
from gateway.store.sqlite import SQLiteStore
from gateway.upstream.webhooks import TransportSettings, WebhookSender
from gateway.webhooks.dispatcher import WebhookDispatcher
from gateway.webhooks.rules.deliveries import DeliveryState
from gateway.webhooks.secrets import WebhookSecrets
from gateway.webhooks.settings import WebhookSettings
from tests.support.clock import ManualClock
from tests.support.observer import RecordingObserver
from tests.support.polling import attempts
from tests.support.webhook_receiver import Message, Receiver

HOUR = 3600.0


class Stack:
    """A notifier at work, and what is needed to look at it."""

    def __init__(self, store: SQLiteStore, clock: ManualClock, folder: Path, **settings: Any) -> None:
        self.store = store
        self.clock = clock
        self.counted = RecordingObserver()
        self.secrets = WebhookSecrets(store, clock)
        self.resolver: AbstractResolver | None = settings.pop("resolver", None)
        self.tls: ssl.SSLContext | None = settings.pop("tls", None)
        self.on_place_freed: Callable[[str], None] = lambda _: None
        self.transport_settings: dict[str, Any] = {"allow_private": True, "allow_http": True, "total_seconds": 5.0}
        for name in ("allow_private", "allow_http", "total_seconds"):
            if name in settings:
                self.transport_settings[name] = settings.pop(name)
        self.settings = WebhookSettings(
            **{"max_attempts": 12, "max_queued": 1000, "retain_dead_seconds": 7 * 24 * HOUR} | settings
        )

    @asynccontextmanager
    async def working(self) -> AsyncIterator[WebhookDispatcher]:
        sender = WebhookSender(
            LiveSettings(TransportSettings(**self.transport_settings, answer_seconds=0.2)), self.clock,
            resolver=self.resolver, tls=self.tls,
        )  # fmt: skip
        dispatcher = WebhookDispatcher(
            self.store, self.secrets, sender, self.clock, self.counted, LiveSettings(self.settings),
            show=lambda view, base, family: rendering.render(view, base, "streams/t", family=family),
            is_followed=lambda _: True,
            random_bytes=secrets.token_bytes,
            on_place_freed=self.on_place_freed,
        )  # fmt: skip
        await dispatcher.resume()
        dispatcher.start("http://gateway.test")
        try:
            yield dispatcher
        finally:
            await dispatcher.close(0.5)
            await sender.close()

    async def until(self, condition: Callable[[], object], *, passing: float = 0.0) -> None:
        """Wait for something to come about, letting time pass meanwhile if need be."""
        async for _ in attempts():
            if condition():
                break
            if passing:
                await self.clock.advance(passing)

    async def until_kept(self, state: DeliveryState, count: int) -> None:
        async for _ in attempts():
            if len(await self.store.deliveries(state=state)) == count:
                break

    async def until_claimed(self, count: int) -> None:
        async for _ in attempts():
            if sum(each.attempts > 0 for each in await self.store.deliveries()) >= count:
                break

    async def until_empty(self) -> None:
        async for _ in attempts():
            if not await self.store.deliveries():
                break

    def check(self, receiver: Receiver, secret: str) -> list[bool]:
        """Say which messages the library of the standard accepts with a secret."""
        return [is_valid(secret, message) for message in receiver.messages]


_numbers = itertools.count()


async def announce(dispatcher: WebhookDispatcher, team: str, url: str, kind: str, data: object) -> None:
    """Queue a message of the gateway's own, which is not a repeat of another."""
    body = msgspec.json.encode({"type": kind, "data": data})
    assert await dispatcher.announce(BudgetWarning(team, f"test {next(_numbers)}", 0, 100), url, body)


def is_valid(secret: str, message: Message) -> bool:
    """Sign anew with the library of the standard: its own check goes by the machine's clock."""
    at = datetime.fromtimestamp(int(message.headers["webhook-timestamp"]), UTC)
    signature = Webhook(secret).sign(message.id, at, message.body.decode())
    return signature in message.headers["webhook-signature"].split(" ")
