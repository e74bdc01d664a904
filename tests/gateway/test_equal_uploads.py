"""Identical bytes of a team are uploaded once while upstream has them (docs/architecture.md, Files and outputs)."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from functools import partial

import pytest

from gateway.files import uploads
from gateway.simulator import Fault
from tests.support.http_calls import Reply, ask, hang_up_after, raw_request, until_metric
from tests.support.memory import MIB, memory_kib
from tests.support.polling import attempts
from tests.support.samples import FORM, content, form
from tests.support.stack import OpenGateway, Stack
from tests.support.system_clocks import AdvancingClock
from tests.support.uploads import download, post_file
from tests.support.upstream import version_of

HELLO = form(content("blob_1764000000001", b"hello"))
AGAIN = form(content("blob_1764000000002", b"hello"))


def sent(stack: Stack) -> int:
    return stack.upstream.requests.count("files.create")


async def made(stack: Stack, body: bytes, **kwargs: str) -> Reply:
    reply = await post_file(stack, body, **kwargs)
    assert reply.status == 201, reply.text
    return reply


async def test_equal_bytes_need_no_second_upload(gateway: Stack):
    """The caller gets a file of its own, with the name it gave this time and the same checksums."""
    first, second = (await made(gateway, HELLO)).json, (await made(gateway, AGAIN)).json
    assert sent(gateway) == 1
    assert first["id"] != second["id"]
    assert second["name"] == "blob_1764000000002"
    assert second["urls"]["get"].endswith(f"/v1/files/{second['id']}")
    for same in ("size", "content_type", "etag", "checksums", "expires_at", "metadata"):
        assert second[same] == first[same]
    assert set(second) == set(first)
    assert (await ask(gateway, "GET", f"/v1/files/{second['id']}")).json == second
    assert (await ask(gateway, "GET", "/v1/files")).json["results"] == [second, first]


@pytest.mark.parametrize(
    "other",
    [
        form(content("blob_1764000000001", b"hellO")),
        form(content("blob_1764000000001", b"hello", "image/png")),
        form(content("blob.png", b"hello")),
        form(content("a", b"hello"), b'--frontier\r\nContent-Disposition: form-data; name="metadata[a]"\r\n\r\n1\r\n'),
    ],
    ids=["bytes", "type", "extension", "metadata"],
)
async def test_upload_that_a_model_could_distinguish_is_sent(gateway: Stack, other: bytes):
    """Other bytes, another type, another extension, or metadata that only upstream assembles."""
    await made(gateway, HELLO)
    await made(gateway, other)
    assert sent(gateway) == 2


async def test_each_equal_upload_keeps_its_own_metadata(gateway: Stack):
    """Metadata is not part of the bytes."""
    metadata = b'--frontier\r\nContent-Disposition: form-data; name="metadata"\r\n\r\n{"a": 1}\r\n'
    assert (await made(gateway, HELLO)).json["metadata"] == {}
    assert (await made(gateway, form(content("b", b"hello"), metadata))).json["metadata"] == {"a": 1}
    assert sent(gateway) == 1


async def test_equal_bytes_of_another_team_are_uploaded(gateway: Stack):
    """No team can learn what another has uploaded, not even from how long an upload takes."""
    await made(gateway, HELLO)
    await made(gateway, AGAIN, key="beta")
    assert sent(gateway) == 2


async def test_upstream_file_is_deleted_with_the_last_file_that_uses_it(gateway: Stack):
    """Deleting the first file does not break the second."""
    ids = [(await made(gateway, body)).json["id"] for body in (HELLO, AGAIN, AGAIN)]
    for each in ids[:2]:
        assert (await ask(gateway, "DELETE", f"/v1/files/{each}")).status == 204
        assert (await ask(gateway, "GET", f"/v1/files/{each}")).status == 404
        assert gateway.upstream.requests.count("files.delete") == 0
    assert (await ask(gateway, "DELETE", f"/v1/files/{ids[2]}")).status == 204
    assert gateway.upstream.requests.count("files.delete") == 1
    assert not gateway.upstream.world.files._files
    await made(gateway, HELLO)
    assert sent(gateway) == 2


async def test_download_is_signed_for_the_file_that_upstream_has(gateway: Stack):
    """A signature covers an id, and upstream knows only the first one."""
    first, second = [(await made(gateway, body)).json["id"] for body in (HELLO, AGAIN)]
    assert (await download(gateway, first)).body == b"hello"
    assert (await download(gateway, second)).status == 404


async def test_input_names_the_file_that_upstream_has(gateway: Stack):
    """The model reads the same bytes through either link, so the two requests are one run."""
    version = version_of(gateway.upstream, "acme/upscale")
    for link in [(await made(gateway, body)).json["urls"]["get"] for body in (HELLO, AGAIN)]:
        body = {"version": f"acme/upscale:{version}", "input": {"image": link, "seed": 1}}
        assert (await ask(gateway, "POST", "/v1/predictions", json=body)).status == 201
    posted = {request.json["input"]["image"] for request in gateway.upstream.requests.find("predictions.create")}
    (file_id,) = gateway.upstream.world.files._files
    assert posted == {f"{gateway.upstream.base_url}/files/{file_id}"}


async def test_upstream_file_that_is_gone_is_uploaded_again(gateway: Stack):
    """Someone deleted it on the web site: the gateway notices before it promises a file."""
    await made(gateway, HELLO)
    gateway.upstream.world.files.clear()
    file = (await made(gateway, AGAIN)).json
    assert sent(gateway) == 2
    assert len((await ask(gateway, "GET", "/v1/files")).json["results"]) == 2
    assert file["id"] in gateway.upstream.world.files._files


async def test_file_about_to_expire_is_not_reused(open_gateway: OpenGateway):
    """A run that reads it may have to queue first."""
    clock = AdvancingClock()
    async with open_gateway(clock=clock) as stack:
        await made(stack, HELLO)
        clock.advance(22.9 * 3600)
        await made(stack, AGAIN)
        assert sent(stack) == 1
        clock.advance(0.2 * 3600)
        await made(stack, AGAIN)
        assert sent(stack) == 2


async def test_three_concurrent_equal_uploads_are_one(gateway: Stack):
    """The later ones wait for the first and then need not be sent."""
    gateway.upstream.faults.set(Fault("delay_headers", operation="files.create", seconds=0.2))
    body = b"x" * 300_000
    replies = await asyncio.gather(*(made(gateway, form(content(f"blob_{n}", body))) for n in range(3)))
    assert len({reply.json["id"] for reply in replies}) == 3
    assert sent(gateway) == 1


async def test_uploads_that_waited_for_a_failed_one_are_sent(gateway: Stack):
    """A failure is reported to the first caller only."""
    gateway.upstream.faults.set(Fault("error", operation="files.create", status=500, times=1))
    body = b"x" * 300_000
    replies = await asyncio.gather(*(post_file(gateway, form(content(f"blob_{n}", body))) for n in range(3)))
    assert sorted(reply.status for reply in replies) == [201, 201, 500]


async def test_upload_waiting_for_a_disconnected_sender_continues(gateway: Stack):
    """The second upload goes on when the first sender is gone."""
    length = len(HELLO)
    head = raw_request("POST", "/v1/files", [("Content-Type", FORM), ("Content-Length", f"{length}")], key="")
    head = head.replace(b"Bearer ", b"Bearer " + gateway.keys["alpha"].encode())
    leaver = asyncio.create_task(hang_up_after(gateway, head + HELLO[:60]))
    await made(gateway, AGAIN)
    await leaver
    assert sent(gateway) >= 1


async def test_upload_without_spool_space_is_streamed(open_gateway: OpenGateway):
    """The spool limit costs bandwidth, not the upload."""
    async with open_gateway(server={"max_spool_bytes": 0}) as stack:
        await made(stack, HELLO)
        await made(stack, AGAIN)
        assert sent(stack) == 2


async def test_form_of_unknown_length_is_compared(gateway: Stack):
    """Chunked bodies announce no length."""
    await made(gateway, HELLO)

    async def chunks() -> AsyncIterator[bytes]:
        yield AGAIN[:40]
        yield AGAIN[40:]

    send = partial(ask, gateway, "POST", "/v1/files", headers={"Content-Type": FORM})
    assert (await send(data=chunks())).status == 201
    assert sent(gateway) == 1


async def test_broken_form_reaches_no_upstream(gateway: Stack):
    """A form that can be recognised as broken is refused before upstream sees it."""
    await made(gateway, HELLO)
    assert (await post_file(gateway, content("a", b"hello"))).status == 400
    assert sent(gateway) == 1


async def test_large_equal_upload_is_not_held_in_memory(gateway: Stack):
    """Ninety megabytes wait on disk while they are hashed; the process grows by a few."""
    piece, count = b"y" * MIB, 90
    length = len(form(content("blob_1"))) - 5 + count * MIB

    async def body() -> AsyncIterator[bytes]:
        whole = form(content("blob_1", b""))
        head, tail = whole[: -len(b"\r\n--frontier--\r\n")], b"\r\n--frontier--\r\n"
        yield head
        for _ in range(count):
            yield piece
        yield tail

    send = partial(ask, gateway, "POST", "/v1/files", headers={"Content-Type": FORM, "Content-Length": str(length)})
    first = await send(data=body())
    assert first.status == 201, first.text
    before, highest = memory_kib(), 0
    task = asyncio.create_task(send(data=body()))
    async for _ in attempts(60):
        if task.done():
            break
        highest = max(highest, memory_kib())
    again = await task
    assert again.status == 201, again.text
    assert again.json["checksums"]["sha256"] == hashlib.sha256(piece * count).hexdigest()
    assert sent(gateway) == 1
    assert highest - before < 30 * 1024, f"grew by {highest - before} KiB"


async def test_unverified_upstream_file_is_not_promised(gateway: Stack):
    """Upstream is unreachable when it is asked for the bytes it had: no file is created that no one can read."""
    await made(gateway, HELLO)
    gateway.upstream.faults.set(Fault("drop_before", operation="files.*"))
    assert (await post_file(gateway, AGAIN)).status >= 500
    gateway.upstream.faults.clear()
    (first,) = (await ask(gateway, "GET", "/v1/files")).json["results"]
    assert (await ask(gateway, "DELETE", f"/v1/files/{first['id']}")).status == 204
    assert gateway.upstream.requests.count("files.delete") == 1, "upstream's file stands for no other"


async def test_stalled_sender_delays_equal_uploads_only_briefly(gateway: Stack, monkeypatch: pytest.MonkeyPatch):
    """Uploads wait for bytes that may turn out to be equal, but not for long."""
    monkeypatch.setattr(uploads, "_PATIENCE_SECONDS", 0.05)
    head = raw_request("POST", "/v1/files", [("Content-Type", FORM), ("Content-Length", f"{len(HELLO)}")], key="")
    head = head.replace(b"Bearer ", b"Bearer " + gateway.keys["alpha"].encode())
    host, port = gateway.origin.removeprefix("http://").split(":")
    _, writer = await asyncio.open_connection(host, int(port))
    writer.write(head + HELLO[:60])
    await writer.drain()
    await until_metric(gateway, "replicate_gateway_http_requests_in_flight 1.0")
    await made(gateway, AGAIN)
    writer.close()
    await writer.wait_closed()
