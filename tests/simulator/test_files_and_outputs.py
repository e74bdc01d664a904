"""Uploads, signed downloads, hosted outputs, and models that read and create images."""

import asyncio
import base64
import io
import json
import time

import aiohttp
import pytest
from PIL import Image

from gateway.simulator.files import sign_download
from gateway.simulator.models.image import paint


def form(data: bytes, name: str = "a.txt", kind: str = "text/plain", metadata: str | None = None) -> aiohttp.FormData:
    made = aiohttp.FormData(quote_fields=False)
    made.add_field("content", data, filename=name, content_type=kind)
    if metadata is not None:
        made.add_field("metadata", metadata, content_type="application/json")
    return made


async def test_file_is_stored_listed_read_and_deleted(api):
    """With correct checksums and without rate-limit headers."""
    created = await api.ask("POST", "/files", data=form(b"hello\r\n\r\n--x", "tüst.txt", metadata='{"n": 1}'))
    body = created.body
    assert created.status == 201
    assert (body["name"], body["size"], body["metadata"]) == ("tüst.txt", 12, {"n": 1})
    assert body["checksums"]["md5"] == body["etag"]
    assert len(body["id"]) == 48
    assert "ratelimit-remaining" not in created.headers
    assert (await api.get(f"/files/{body['id']}")).body == body
    assert (await api.get("/files")).body["results"] == [body]
    gone = await api.ask("DELETE", f"/files/{body['id']}")
    assert (gone.status, gone.raw) == (204, b"")
    assert gone.headers["Content-Type"].lower() == "text/plain; charset=utf-8"
    assert (await api.get(f"/files/{body['id']}")).status == 404


async def test_file_expires_after_a_day(api):
    """By the simulator's clock."""
    body = (await api.ask("POST", "/files", data=form(b"x"))).body
    assert body["expires_at"][:10] > body["created_at"][:10]
    api.simulator.clock.advance(86_400)
    assert (await api.get(f"/files/{body['id']}")).status == 404
    assert (await api.get("/files")).body["results"] == []


async def test_files_over_a_hundred_megabytes_are_refused(api):
    """413, before the body is read."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(api.simulator.base_url.split(":")[2][:-3]))
    writer.write(
        b"POST /v1/files HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer r8_x\r\nContent-Length: 107000000\r\n\r\n"
    )
    answer = await reader.readuntil(b"}")
    writer.close()
    assert b" 413 " in answer
    assert b"Files must be less than 100MB in size" in answer


@pytest.mark.parametrize("body", [b"", b"--x--", b"nothing"])
async def test_malformed_form_is_a_400(api, body):
    """Nothing is stored."""
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    assert (await api.ask("POST", "/files", data=body, headers=headers)).status == 400
    assert (await api.ask("POST", "/files", data=body, headers={"Content-Type": "text/plain"})).status == 400


async def test_signed_link_downloads_without_a_token_until_it_expires(api):
    """The signature grants access; a wrong one is a 404."""
    body = (await api.ask("POST", "/files", data=form(b"the bytes", kind="application/zip"))).body
    api.token = None
    expiry = int(time.time()) + 60
    signature = sign_download(api.simulator.settings.files_signing_secret, "acme", body["id"], expiry)
    query = {"owner": "acme", "expiry": str(expiry), "signature": signature}
    path = f"/files/{body['id']}/download"
    reply = await api.get(path, params=query)
    assert (reply.status, reply.raw, reply.headers["Content-Type"]) == (200, b"the bytes", "application/zip")
    assert (await api.get(path, params={**query, "owner": "other"})).status == 404
    assert (await api.get(path, params={**query, "signature": base64.b64encode(b"x").decode()})).body == {
        "detail": "File not found"
    }
    api.simulator.clock.advance(61)
    assert (await api.get(path, params=query)).status == 404


async def test_outputs_are_hosted_with_ranges_for_an_hour(api):
    """An image has an ETag, supports ranges and CORS, and is deleted after an hour."""
    made = (await api.create("acme/painter", {"prompt": "x", "seed": 1, "width": 32, "height": 16}, wait=True)).body
    (link,) = made["output"]
    assert link.startswith(api.simulator.delivery_url)
    whole = await api.get(link)
    assert whole.headers["Access-Control-Allow-Origin"] == "*"
    assert whole.headers["Cache-Control"] == "public, max-age=3600"
    assert whole.headers["Content-Type"] == "image/png"
    with Image.open(io.BytesIO(whole.raw)) as picture:
        assert picture.size == (32, 16)
    size = len(whole.raw)
    for asked, start, stop in (("bytes=0-9", 0, 10), ("bytes=10-", 10, size), ("bytes=-5", size - 5, size)):
        part = await api.get(link, headers={"Range": asked})
        assert (part.status, part.raw) == (206, whole.raw[start:stop])
        assert part.headers["Content-Range"] == f"bytes {start}-{stop - 1}/{size}"
    assert (await api.get(link, headers={"Range": f"bytes={size}-"})).status == 416
    assert (await api.get(link, headers={"Range": "bytes=0-1", "If-Range": '"other"'})).status == 200
    assert (await api.get(link, headers={"If-None-Match": whole.headers["ETag"]})).status == 304
    head = await api.ask("HEAD", link)
    assert (head.status, head.raw, head.headers["Content-Length"]) == (200, b"", str(size))
    api.simulator.clock.advance(3601)
    assert (await api.get(link)).status == 404


@pytest.mark.parametrize("source", ["file", "data", "output"])
async def test_upscaler_reads_files_data_uris_and_outputs(api, source):
    """For each kind of input, it returns a larger image."""
    picture = paint("small", 1, 20, 10)
    if source == "file":
        url = (await api.ask("POST", "/files", data=form(picture, "a.png", "image/png"))).body["urls"]["get"]
    elif source == "data":
        url = "data:image/png;base64," + base64.b64encode(picture).decode()
    else:
        made = (await api.create("acme/painter", {"seed": 1, "width": 20, "height": 16}, wait=True)).body
        url = made["output"][0]
    done = (await api.create("acme/upscale", {"image": url, "scale": 3}, wait=True)).body
    with Image.open(io.BytesIO((await api.get(done["output"])).raw)) as larger:
        assert larger.width == 60


@pytest.mark.parametrize(
    ("image", "error"),
    [
        ("data:image/png;base64,aGVsbG8=", "cannot identify image file"),
        ("{api}/files/nothing", "404 Client Error"),
        ("{delivery}/pbxt/nothing/out.png", "404 Client Error"),
        ("ftp://example.com/x", "Invalid URL"),
        ("http://127.0.0.1:1/x.png", "Failed to fetch"),
    ],
)
async def test_unreadable_input_fails_the_prediction(api, image, error):
    """The prediction fails with the reason; the request does not."""
    url = image.format(api=api.simulator.base_url, delivery=api.simulator.delivery_url)
    done = await api.finish((await api.create("acme/upscale", {"image": url})).body["id"])
    assert done["status"] == "failed"
    assert error in done["error"]


def test_images_depend_on_prompt_and_seed():
    """Equal requests give equal bytes."""
    paint.cache_clear()
    first = paint("a lake", 1, 40, 30)
    paint.cache_clear()
    assert paint("a lake", 1, 40, 30) == first
    assert paint("a lake", 2, 40, 30) != first
    assert paint("a hill", 1, 40, 30) != first


async def test_outputs_can_be_objects_and_strings(api):
    """Not every output is a list."""
    counted = (await api.create("acme/analyze", {"text": "a b a"}, wait=True)).body["output"]
    assert counted == {"words": 3, "characters": 5, "counts": {"a": 2, "b": 1}}
    assert (await api.create("replicate/hello-world", {"text": "Alice"}, wait=True)).body["output"] == "hello Alice"
    several = (
        await api.create("acme/painter", {"num_outputs": 3, "width": 16, "height": 16, "seed": 1}, wait=True)
    ).body
    assert len(set(several["output"])) == 3
    assert json.dumps(several)
