"""Upstream tells the gateway of ends, where `public_url` is https. The tests stand in for the network between them."""

import asyncio
import json
import time
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import pytest

from gateway.domain import signing
from gateway.simulator import Fault
from tests.support.stack import Stack, start_gateway, start_upstream

SLOW = "b4186a5171ad62e0d7679fcc8ad62fb99b1881ec9211e494283b2c4c082b4b5c"
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
PUBLIC = {"server": {"public_url": "https://gateway.example"}}


async def created(stack: Stack) -> tuple[dict, dict]:
    """Create a slow prediction; return it, and the body that upstream received."""
    async with stack.caller() as session:
        body = {"version": SLOW, "input": {"duration": 600}, "webhook": "https://caller.example/hook"}
        async with session.post("/v1/predictions", json=body) as answer:
            assert answer.status == 201
            prediction = await answer.json()
    (sent,) = [json.loads(r.body) for r in stack.upstream.requests if r.operation == "predictions.create"]
    return prediction, sent


def ended(prediction: dict) -> bytes:
    """Write what upstream would send at the end."""
    return json.dumps(
        {**prediction, "status": "succeeded", "output": "at last", "completed_at": "2099-01-01T00:00:00Z"}
    ).encode()


async def tell(stack: Stack, address: str, body: bytes, key: bytes, at: float | None = None) -> int:
    """Send a message as upstream would, by the gateway's real address."""
    timestamp = int(at or time.time())
    headers = {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(timestamp),
        "webhook-signature": signing.sign(key, "msg_1", timestamp, body),
        "Content-Type": "application/json",
    }
    url = address.replace("https://gateway.example", stack.origin)
    async with aiohttp.ClientSession() as session, session.post(url, data=body, headers=headers) as answer:
        return answer.status


async def status_of(stack: Stack, prediction: dict) -> str:
    async with stack.caller() as session, session.get(f"/v1/predictions/{prediction['id']}") as answer:
        return (await answer.json())["status"]


async def test_upstream_gets_a_webhook_url_of_the_gateway(tmp_path: Path):
    """The caller's webhook stays here; upstream gets an unguessable URL, and the caller never sees it."""
    async with start_upstream() as upstream, start_gateway(upstream, tmp_path, **PUBLIC) as stack:
        prediction, sent = await created(stack)
        assert sent["webhook"].startswith("https://gateway.example/gateway/webhooks/run_")
        assert sent["webhook_events_filter"] == ["start", "completed"]
        assert prediction["webhook"] == "https://caller.example/hook"
        assert "gateway/webhooks" not in json.dumps(prediction)


async def test_signed_webhook_ends_the_run_at_once(tmp_path: Path):
    """The end does not wait for the next poll."""
    async with start_upstream() as upstream, start_gateway(upstream, tmp_path, **PUBLIC) as stack:
        upstream.faults.set(Fault("delay", operation="predictions.get", seconds=600))
        prediction, sent = await created(stack)
        assert await tell(stack, sent["webhook"], ended(prediction), signing.key_of(SECRET)) == 204
        assert await status_of(stack, prediction) == "succeeded"
        # Doubled and late news of a run that has ended changes nothing.
        late = json.dumps({**prediction, "status": "processing"}).encode()
        assert await tell(stack, sent["webhook"], late, signing.key_of(SECRET)) == 204
        assert await status_of(stack, prediction) == "succeeded"


async def test_unsigned_or_old_webhook_is_ignored(tmp_path: Path):
    """A forged signature, an old message or an invented URL ends nothing."""
    async with start_upstream() as upstream, start_gateway(upstream, tmp_path, **PUBLIC) as stack:
        prediction, sent = await created(stack)
        good, body = signing.key_of(SECRET), ended(prediction)
        assert await tell(stack, sent["webhook"], body, b"another key of somebody") == 401
        assert await tell(stack, sent["webhook"], body, good, at=time.time() - 3600) == 401
        assert await tell(stack, sent["webhook"][:-4] + "0000", body, good) == 404
        assert await status_of(stack, prediction) in ("starting", "processing")


@pytest.mark.parametrize("sections", [{}, {"server": {"public_url": "http://gateway.example"}}])
async def test_without_https_no_webhook_is_requested(tmp_path: Path, sections: dict):
    """Replicate accepts https URLs only, so the body is sent without the field."""
    async with start_upstream() as upstream, start_gateway(upstream, tmp_path, **sections) as stack:
        _, sent = await created(stack)
        assert sent.keys() == {"version", "input"}


async def test_webhook_urls_are_specific_to_a_run(tmp_path: Path):
    """Knowing one URL opens no other: neither its last part nor another run's id fits."""
    async with start_upstream() as upstream, start_gateway(upstream, tmp_path, **PUBLIC) as stack:
        async with stack.caller() as session:
            for _ in range(2):
                async with session.post("/v1/predictions", json={"version": SLOW, "input": {"duration": 600}}) as made:
                    prediction = await made.json()
        sent = [json.loads(r.body) for r in upstream.requests if r.operation == "predictions.create"]
        (one, proof), (other, other_proof) = (each["webhook"].split("/")[-2:] for each in sent)
        assert one != other
        assert proof != other_proof
        assert len(proof) == 64
        swapped = f"https://gateway.example/gateway/webhooks/{other}/{proof}"
        assert await tell(stack, swapped, ended(prediction), signing.key_of(SECRET)) == 404


async def test_body_of_an_unknown_webhook_url_is_not_read(tmp_path: Path):
    """A stranger's guess is refused at once and costs no memory."""
    async with start_upstream() as upstream, start_gateway(upstream, tmp_path, **PUBLIC) as stack:
        path = f"/gateway/webhooks/run_{'a' * 26}/{'0' * 64}"
        begun = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n{{".encode()
        parts = urlsplit(stack.origin)
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        writer.write(begun)
        assert (await reader.readuntil(b"\r\n")).split()[1] == b"404"
        writer.close()
        await writer.wait_closed()


async def test_webhook_about_another_run_ends_nothing(tmp_path: Path):
    """Upstream's signature on another run's message does not end this one."""
    async with start_upstream() as upstream, start_gateway(upstream, tmp_path, **PUBLIC) as stack:
        prediction, sent = await created(stack)
        other = ended({**prediction, "id": "z" * 26})
        assert await tell(stack, sent["webhook"], other, signing.key_of(SECRET)) == 204
        assert await status_of(stack, prediction) in ("starting", "processing")


@pytest.mark.parametrize(("skew", "answer"), [(-290, 204), (290, 204), (-310, 401), (310, 401)])
async def test_webhook_is_accepted_for_five_minutes(tmp_path: Path, skew: int, answer: int):
    """Clocks may differ a little; a recorded message cannot be replayed later."""
    async with start_upstream() as upstream, start_gateway(upstream, tmp_path, **PUBLIC) as stack:
        prediction, sent = await created(stack)
        body = ended(prediction)
        assert await tell(stack, sent["webhook"], body, signing.key_of(SECRET), at=time.time() + skew) == answer


async def test_lost_webhook_is_covered_by_polling(tmp_path: Path):
    """Upstream's message never arrives, and the end is seen all the same."""
    async with start_upstream() as upstream, start_gateway(upstream, tmp_path, **PUBLIC) as stack:
        async with stack.caller() as session:
            body = {"version": SLOW, "input": {"duration": 2}}
            async with session.post("/v1/predictions", json=body, headers={"Prefer": "wait"}) as made:
                assert (await made.json())["status"] == "succeeded"
        assert upstream.requests.count("webhooks.default.secret.get") == 0


async def test_training_webhooks_work_like_predictions(tmp_path: Path):
    """A training of hours ends here when upstream says so."""
    async with start_upstream() as upstream, start_gateway(upstream, tmp_path, **PUBLIC) as stack:
        upstream.faults.set(Fault("delay", operation="trainings.get", seconds=600))
        version = upstream.world.registry.models["acme/storyteller"].latest
        assert version is not None
        path = f"/v1/models/acme/storyteller/versions/{version.id}/trainings"
        body = {"destination": "acme/painter", "input": {"train_data": "https://example.com/data.zip"}}
        async with stack.caller() as session, session.post(path, json=body) as made:
            assert made.status == 201
            training = await made.json()
        (sent,) = [json.loads(r.body) for r in upstream.requests if r.operation == "trainings.create"]
        assert sent["webhook"].startswith("https://gateway.example/gateway/webhooks/run_")
        assert await tell(stack, sent["webhook"], ended(training), signing.key_of(SECRET)) == 204
        async with stack.caller() as session, session.get(f"/v1/trainings/{training['id']}") as shown:
            assert (await shown.json())["status"] == "succeeded"
