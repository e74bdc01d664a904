"""Webhooks: events, signatures, retries, duplicates and order."""

import json

import pytest
from standardwebhooks.webhooks import Webhook

from gateway.simulator import Fault
from gateway.simulator.webhooks import sign
from tests.support.polling import holds, until
from tests.support.simulator_api import Receiver


def test_signature_of_the_documentations_example():
    """Key, id, time and body of the documentation give its signature."""
    body = b'{"test": 2432232314}'
    signature = sign("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body)
    assert signature == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


async def test_completed_is_signed_with_the_served_secret(api):
    """A receiver verifies it with an independent library; the body is the prediction as from GET."""
    async with Receiver() as receiver:
        created = (await api.create("replicate/hello-world", {"text": "x"}, webhook=receiver.url)).body
        assert created["webhook"] == receiver.url
        await until(lambda: "succeeded" in receiver.statuses)
    headers, body = receiver.received[-1]
    secret = (await api.get("/webhooks/default/secret")).body["key"]
    verified = Webhook(secret).verify(body, headers)
    assert verified == (await api.get(f"/predictions/{created['id']}")).body
    assert headers["webhook-id"].startswith("msg_")


@pytest.mark.parametrize(
    ("asked", "statuses"),
    [
        (["completed"], {"succeeded"}),
        (["start"], {"processing"}),
        (["start", "completed"], {"processing", "succeeded"}),
        ([], {"processing", "succeeded"}),
    ],
)
async def test_filter_selects_the_events(api, asked, statuses):
    """The default is output and completed."""
    async with Receiver() as receiver:
        given = {"prompt": "x", "seed": 1, "max_tokens": 100}
        created = (await api.create("acme/storyteller", given, webhook=receiver.url, webhook_events_filter=asked)).body
        await api.finish(created["id"])
        await api.simulator.world.webhooks.drain()
    assert set(receiver.statuses) == statuses
    assert receiver.statuses.count("succeeded") <= 1


async def test_output_events_are_sent_at_most_twice_a_second(start):
    """A hundred tokens in two seconds cause a few webhooks: two a second, of which speed makes twenty."""
    api = await start(speed=10)
    async with Receiver() as receiver:
        given = {"prompt": "x", "max_tokens": 100}
        created = (
            await api.create("acme/storyteller", given, webhook=receiver.url, webhook_events_filter=["output"])
        ).body
        await api.finish(created["id"])
        await api.simulator.world.webhooks.drain()
    (made,) = api.simulator.predictions
    seconds = (made.completed_us - made.created_us) / 1_000_000
    assert 2 <= len(receiver.received) <= 2 + 20 * seconds


async def test_only_completed_is_retried_with_the_same_id(api):
    """A receiver that is down briefly misses progress, not the end."""
    async with Receiver() as receiver:
        receiver.answers = [500, 500, 404, 200]
        asked = ["start", "completed"]
        await api.create("replicate/hello-world", {"text": "x"}, webhook=receiver.url, webhook_events_filter=asked)
        await until(lambda: len(receiver.received) == 4)
        await api.simulator.world.webhooks.drain()
    assert receiver.statuses == ["processing", "succeeded", "succeeded", "succeeded"]
    assert len({headers["webhook-id"] for headers, _ in receiver.received[1:]}) == 1


async def test_redirects_are_not_followed(api):
    """A 3xx counts as delivered."""
    async with Receiver() as receiver:
        receiver.answers = [302]
        body = {"webhook": receiver.url, "webhook_events_filter": ["completed"]}
        await api.create("replicate/hello-world", {"text": "x"}, **body)
        await until(lambda: receiver.received)
        await api.simulator.world.webhooks.drain()
        await holds(lambda: len(receiver.received) == 1)


async def test_faults_duplicate_reorder_and_lose_webhooks(api):
    """Receivers must handle these."""
    asked = ["start", "completed"]
    async with Receiver() as receiver:

        async def run(*faults):
            api.simulator.faults.set(*faults)
            receiver.received.clear()
            created = await api.create(
                "replicate/hello-world", {"text": "x"}, webhook=receiver.url, webhook_events_filter=asked
            )
            await api.finish(created.body["id"])
            await api.simulator.world.webhooks.drain()
            return receiver.statuses

        assert await run(Fault("webhook_double")) == ["processing", "processing", "succeeded", "succeeded"]
        assert await run(Fault("webhook_disorder")) == ["succeeded", "processing"]
        assert await run(Fault("webhook_lost", times=1)) == ["succeeded"]
        assert await run(Fault("webhook_bad_signature")) == ["processing", "succeeded"]
        headers, body = receiver.received[0]
        with pytest.raises(Exception, match="No matching signature"):
            Webhook(api.simulator.settings.webhook_secret).verify(body, headers)
        ids = [headers["webhook-id"] for headers, _ in receiver.received]
        assert len(set(ids)) == 2
    assert json.loads(receiver.received[0][1])["id"]
