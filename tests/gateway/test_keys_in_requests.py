"""Requests that contain the caller's own key outside of Authorization are refused."""

import asyncio
import json
from collections.abc import AsyncIterator

import pytest

from tests.support.http_calls import PAGE, Reply, ask, assert_problem, raw_request, send_raw
from tests.support.issued_keys import Issuer, mint
from tests.support.samples import FORM, content, form
from tests.support.stack import Stack
from tests.support.upstream import version_of

KEY_PLACES: dict[str, str] = {
    "in the input": '{"version":"V","input":{"prompt":"K"}}',
    "in a name": '{"version":"V","input":{"K":1}}',
    "deep in the input": '{"version":"V","input":{"a":[{"b":["Bearer K"]}]}}',
    "in the JavaScript client's own state": '{"version":"V","input":{"auth":"K","userAgent":"x","fetch":{}}}',
    "in the version": '{"version":"K","input":{}}',
    "in the webhook": '{"version":"V","input":{},"webhook":"https://a.example/?key=K"}',
    "in an unknown field": '{"version":"V","input":{},"auth":"K"}',
    "in escapes": '{"version":"V","input":{"prompt":"E"}}',
    "in escapes of capitals": '{"version":"V","input":{"prompt":"F"}}',
    "half in escapes": '{"version":"V","input":{"prompt":"H"}}',
    "in a name in escapes": '{"version":"V","input":{"E":1}}',
    "in escapes under a name that stands twice": '{"version":"V","input":{"a":"E","a":"x"}}',
    "in a body that is no JSON": "{K",
    "in a data URI": '{"version":"V","input":{"image":"data:text/plain,K"}}',
}


def place(text: str, key: str, stack: Stack) -> bytes:
    escaped = "".join(f"\\u{ord(letter):04x}" for letter in key)
    capitals = "".join(f"\\u{ord(letter):04X}" for letter in key)
    half = key[:9] + f"\\u{ord(key[9]):04x}" + key[10:]
    text = text.replace("V", version_of(stack.upstream, "acme/storyteller"))
    return text.replace("K", key).replace("E", escaped).replace("F", capitals).replace("H", half).encode()


def assert_key_named(reply: Reply) -> None:
    problem = assert_problem(reply, 422, origin=None)
    assert problem["title"] == "API key in request"
    assert "key" in problem["detail"]


@pytest.mark.parametrize("where", KEY_PLACES)
async def test_create_that_contains_a_key_is_refused(gateway: Stack, where: str):
    """The JavaScript client's `data-uri` strategy sends its key as input; it must reach neither disk nor Replicate."""
    key = gateway.keys["alpha"]
    data = place(KEY_PLACES[where], key, gateway)
    reply = await ask(gateway, "POST", "/v1/predictions", data=data, headers={"Content-Type": "application/json"})
    assert_key_named(reply)
    assert "data-uri" in reply.json["detail"]
    assert not len(gateway.upstream.requests)


async def test_create_that_contains_any_kind_of_key_is_refused(gateway: Stack, issuer: Issuer):
    """Issued keys and browser tokens are keys too."""
    _, issued = await issuer.issue()
    token = (await mint(gateway)).json["token"]
    for key in (issued, token):
        data = place(KEY_PLACES["in escapes"], key, gateway)
        headers = {"Content-Type": "application/json", "Origin": PAGE}
        assert_key_named(await ask(gateway, "POST", "/v1/predictions", key=key, data=data, headers=headers))
    assert not len(gateway.upstream.requests)


@pytest.mark.parametrize(
    "target",
    ["/v1/search?query={key}", "/v1/search?query={coded}", "/v1/models?cursor={key}", "/v1/models?x=a&{coded}=1",
     "/v1/predictions?created_after={key}", "/v1/files/" + "a" * 48 + "/download?signature={key}"],
)  # fmt: skip
async def test_query_that_contains_a_key_is_refused(gateway: Stack, target: str):
    """Queries are sent on and end up in other systems' logs."""
    key = gateway.keys["alpha"]
    path = target.format(key=key, coded="".join(f"%{ord(letter):02x}" for letter in key))
    assert_key_named(await ask(gateway, "GET", path))
    assert not len(gateway.upstream.requests)


@pytest.mark.parametrize("name", ["Gateway-User", "Gateway-Tags", "Prefer", "Cancel-After", "X-Request-Id",
                                  "If-None-Match", "Cookie", "Idempotency-Key", "X-Api-Key"])  # fmt: skip
async def test_other_header_that_contains_a_key_is_refused(gateway: Stack, name: str):
    """A header may be stored, sent on or echoed, and the key in it too."""
    key = gateway.keys["alpha"]
    data = place('{"version":"V","input":{"prompt":"x"}}', key, gateway)
    reply = await send_raw(
        gateway,
        raw_request("POST", "/v1/predictions", [("Content-Type", "application/json"), (name, key)], data, key=key),
    )
    assert_key_named(reply)
    assert not len(gateway.upstream.requests)


@pytest.mark.parametrize("path", ["/v1/models", "/v1/deployments", "/v1/models/acme/storyteller", "QUERY"])
async def test_relayed_body_that_contains_a_key_is_refused(gateway: Stack, path: str):
    """Bodies that are only passed on are scanned as well."""
    key = gateway.keys["alpha"]
    if path == "QUERY":
        reply = await ask(gateway, "QUERY", "/v1/models", data=key.encode(), headers={"Content-Type": "text/plain"})
    else:
        method = "PATCH" if path.count("/") > 2 else "POST"
        reply = await ask(gateway, method, path, json={"description": f"x {key}"})
    assert_key_named(reply)
    assert not len(gateway.upstream.requests)


@pytest.mark.parametrize("where", ["content", "name", "type", "metadata", "other part's type"])
async def test_upload_that_contains_a_key_is_refused(gateway: Stack, where: str):
    """A page that uploads its own settings file does not leave its key with Replicate."""
    key = gateway.keys["alpha"]
    parts = {
        "content": content(data=b"x" * 70_000 + key.encode() + b"y"),
        "name": content(name=key),
        "type": content(content_type=f"text/plain; x={key}"),
        "metadata": b'--frontier\r\nContent-Disposition: form-data; name="metadata"\r\n\r\n'
        + json.dumps({"k": key}).encode()
        + b"\r\n",
        "other part's type": b'--frontier\r\nContent-Disposition: form-data; name="metadata"\r\nContent-Type: text/'
        + key.encode()
        + b"\r\n\r\n{}\r\n",
    }
    data = form(parts[where], *([] if where in ("content", "name", "type") else [content()]))
    assert_key_named(await ask(gateway, "POST", "/v1/files", data=data, headers={"Content-Type": FORM}))
    assert not (await ask(gateway, "GET", "/v1/files")).json["results"]
    assert not gateway.upstream.world.files._files


@pytest.mark.parametrize("cut", range(-3, 60, 7))
async def test_key_across_two_upload_chunks_is_refused(gateway: Stack, cut: int):
    """The key is found wherever the chunks are cut."""
    key = gateway.keys["alpha"].encode()
    lead = len(content(data=b"").rstrip(b"\r\n")) + 4
    padding = 65536 - lead - cut
    body = form(content(data=b"x" * padding + key + b"y" * 100))
    at = body.index(key) + max(cut, 1)

    async def pieces() -> AsyncIterator[bytes]:
        for piece in (body[:at], body[at:]):
            yield piece
            # So that the two arrive as two chunks.
            await asyncio.sleep(0.01)

    assert_key_named(await ask(gateway, "POST", "/v1/files", data=pieces(), headers={"Content-Type": FORM}))
    assert not gateway.upstream.world.files._files
