"""Webhooks as they arrive, checked by Replicate's own clients, with the secret that these clients ask for."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from replicate.webhook import InvalidSignatureError, Webhooks, WebhookSigningSecret

from gateway.runtime.clock import SystemClock
from gateway.simulator import Simulator
from gateway.store.sqlite import SQLiteStore
from gateway.webhooks.secrets import WebhookSecrets
from tests.support.audit import BY_TEST
from tests.support.node import Play
from tests.support.python_client import python_client
from tests.support.stack import Stack, start_gateway
from tests.support.upstream import version_of
from tests.support.webhook_receiver import Message, Receiver, start_receiver


@pytest.fixture
async def gateway(upstream: Simulator, tmp_path: Path, a_quiet_gateway: None) -> AsyncIterator[Stack]:
    """A gateway that may reach receivers on this machine."""
    local = {"allow_http": True, "allow_private_addresses": True}
    async with start_gateway(upstream, tmp_path, webhooks=local) as stack:
        yield stack


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    """A receiver."""
    async with start_receiver() as made:
        yield made


async def reported(stack: Stack, receiver: Receiver) -> Message:
    """Have a prediction made, by name and text that no encoding leaves alone; return the message of its end."""
    body = {
        "version": version_of(stack.upstream, "replicate/hello-world"),
        "input": {"text": "näme ☃ <&> \u2028"},
        "webhook": receiver.url,
        "webhook_events_filter": ["completed"],
    }
    before = len(receiver.messages)
    async with stack.caller() as session, session.post("/v1/predictions", json=body) as answer:
        assert answer.status == 201
    await receiver.count(before + 1)
    return receiver.messages[-1]


def parts(message: Message) -> dict[str, str]:
    """What npm `replicate` wants to be given."""
    named = {name: message.headers[f"webhook-{name}"] for name in ("id", "timestamp", "signature")}
    return named | {"body": message.body.decode()}


@pytest.mark.node
async def test_npm_replicate_validates_webhooks(replicate_js: Play, gateway: Stack, receiver: Receiver):
    """`validateWebhook` with `webhooks.default.secret.get()`, as documented."""
    message = parts(await reported(gateway, receiver))
    assert (await replicate_js("validate", message=message)).result["isValid"] is True
    assert (await replicate_js("validate", message=message | {"body": message["body"] + " "})).result[
        "isValid"
    ] is False
    assert (await replicate_js("validate", message=message, team="beta")).result["isValid"] is False


async def test_pypi_replicate_validates_webhooks(gateway: Stack, receiver: Receiver, is_async: bool):
    """`Webhooks.validate` with `webhooks.default.secret()`."""
    client = python_client(gateway.keys["alpha"], gateway.origin, is_async=is_async)
    message = await reported(gateway, receiver)
    secret = await client.do(client.client.webhooks.default, "secret")
    await client.close()
    headers = {name.lower(): value for name, value in message.headers.items()}
    Webhooks.validate(headers=headers, body=message.body.decode(), secret=secret)
    with pytest.raises(InvalidSignatureError):
        Webhooks.validate(headers=headers, body=message.body.decode() + " ", secret=secret)


@pytest.mark.node
async def test_both_secrets_validate_during_a_rotation(replicate_js: Play, gateway: Stack, receiver: Receiver):
    """A secret is rotated beside a gateway that serves: nothing restarts, and no receiver misses a message."""
    old = (await replicate_js("validate", message=parts(await reported(gateway, receiver)))).result["key"]
    store = SQLiteStore(gateway.database)
    await store.open()
    await WebhookSecrets(store, SystemClock()).rotate("alpha", 3600, actor=BY_TEST)
    await store.close()
    message = await reported(gateway, receiver)
    fresh = (await replicate_js("validate", message=parts(message))).result
    assert fresh["isValid"] is True
    assert fresh["key"] != old
    assert (await replicate_js("validate", message=parts(message), secret=old)).result["isValid"] is True
    headers = {name.lower(): value for name, value in message.headers.items()}
    for key in (old, fresh["key"]):
        Webhooks.validate(headers=headers, body=message.body.decode(), secret=WebhookSigningSecret(key=key))
