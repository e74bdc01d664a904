"""Builds the delivery of callers' webhooks."""

import ssl
from secrets import token_bytes

import msgspec
from aiohttp.abc import AbstractResolver

from gateway.assembly.base import Base
from gateway.assembly.limits import MoneyParts
from gateway.assembly.predictions import PredictionParts
from gateway.upstream.webhooks import WebhookSender
from gateway.webhooks.dispatcher import WebhookDispatcher
from gateway.webhooks.secrets import WebhookSecrets


class ReceiverNetwork(msgspec.Struct, frozen=True):
    """How receivers of webhooks are found and trusted, in place of the system's resolver and certificates."""

    resolver: AbstractResolver | None = None
    tls: ssl.SSLContext | None = None


class WebhookParts(msgspec.Struct, frozen=True):
    """Deliveries and their secrets."""

    secrets: WebhookSecrets
    dispatcher: WebhookDispatcher
    """Begins to send when the listeners are open."""


def build_webhooks(
    base: Base, network: ReceiverNetwork, predictions: PredictionParts, money: MoneyParts
) -> WebhookParts:
    """Build the dispatcher and what it sends with."""
    tracker = predictions.tracker
    secrets = WebhookSecrets(base.store, base.clock)
    transport = WebhookSender(base.live.webhook_transport, base.clock, resolver=network.resolver, tls=network.tls)
    base.stack.push_async_callback(transport.close)
    dispatcher = WebhookDispatcher(
        base.store,
        secrets,
        transport,
        base.clock,
        base.metrics,
        base.live.webhooks,
        is_followed=lambda run_id: tracker.tracked(run_id) is not None,
        show=predictions.service.show,
        random_bytes=token_bytes,
        on_place_freed=money.limit_queue.freed,
        is_leader=base.membership.is_leader,
    )
    return WebhookParts(secrets, dispatcher)
