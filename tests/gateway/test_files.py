"""Files: streamed through, owned by a team, shown from the gateway's own records."""

import asyncio
import gzip
import hashlib
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import pytest

from gateway.http import response_body
from gateway.simulator import Fault
from tests.support.http_calls import ask, assert_problem, exchange, hang_up_after, parse, raw_request, send_raw
from tests.support.memory import MIB, memory_kib
from tests.support.polling import attempts
from tests.support.raw_server import answer, raw_server
from tests.support.samples import FORM, UNKNOWN_FILE, content, form
from tests.support.stack import OpenGateway, Stack
from tests.support.uploads import download, post_file, signed_query


async def test_file_upload_show_list_and_delete(gateway: Stack):
    """A file has Replicate's shape with this gateway's links, from upload to delete."""
    data = bytes(range(256)) * 100
    made = await post_file(gateway, form(content("a.bin", data, "application/octet-stream")))
    assert made.status == 201
    file = made.json
    assert (file["name"], file["size"], file["content_type"]) == ("a.bin", len(data), "application/octet-stream")
    assert file["checksums"]["sha256"] == hashlib.sha256(data).hexdigest()
    gateway.upstream.requests.clear()
    assert (await ask(gateway, "GET", f"/v1/files/{file['id']}")).json == file
    assert (await ask(gateway, "GET", "/v1/files")).json == {"previous": None, "next": None, "results": [file]}
    assert not len(gateway.upstream.requests), "shown from our own records"
    gone = await ask(gateway, "DELETE", f"/v1/files/{file['id']}")
    assert (gone.status, gone.body) == (204, b"")
    assert (await ask(gateway, "GET", f"/v1/files/{file['id']}")).status == 404
    assert (await ask(gateway, "DELETE", f"/v1/files/{file['id']}")).status == 404
    assert (await ask(gateway, "GET", "/v1/files")).json["results"] == []
    assert gateway.upstream.requests.count("files.delete") == 1


@pytest.mark.parametrize(
    "name",
    [
        "caf\u00e9.txt",
        "\u65e5\u672c\u8a9e.png",
        "\U0001f600.gif",
        "a b.txt",
        "a;b.txt",
        "a'b.txt",
        "n" * 255,
        "\u20ac" * 85,
        "..",
        "../../etc/passwd",
        "CON",
        "a%22b.txt",
        ".hidden",
    ],
    ids=lambda name: name[:20].encode("unicode_escape").decode(),
)
async def test_file_names_of_any_script_are_kept(gateway: Stack, name: str):
    """A file name may be any text up to 255 bytes."""
    made = await post_file(gateway, form(content(name)))
    assert made.status == 201, made.text
    assert made.json["name"] == name


@pytest.mark.parametrize("name", ['a"b.txt', "a\\b.txt", "a\rb", "x\x00y"], ids=ascii)
async def test_file_name_with_quotes_or_line_breaks_adds_no_header(gateway: Stack, name: str):
    """A quote or a line break in a name adds no header and no second part."""
    spelled = name.replace("\\", "\\\\").replace('"', '\\"')
    made = await post_file(gateway, form(content(spelled)))
    assert made.status in (201, 400), made.text
    (stored,) = [file.name for file in gateway.upstream.world.files._files.values()] or [""]
    assert not {"\r", "\n", "\0"} & set(stored)


async def test_metadata_and_other_fields_are_kept(gateway: Stack):
    """The client's own metadata is kept."""
    head = b'--frontier\r\nContent-Disposition: form-data; name="metadata"\r\nContent-Type: application/json'
    metadata = head + b'\r\n\r\n{"a":1}\r\n'
    made = await post_file(gateway, form(content(), metadata))
    assert made.json["metadata"] == {"a": 1}


@pytest.mark.parametrize("size", [0, 1, 65535, 65536, 65537, 1_000_003])
async def test_upload_of_any_size_arrives_unchanged(gateway: Stack, size: int):
    """An empty file, one that fills a chunk, one byte more: the checksum matches."""
    data = (b"0123456789\r\n--frontie" * (size // 20 + 1))[:size]
    made = await post_file(gateway, form(content(data=data)))
    assert made.status == 201, made.text
    assert made.json["checksums"]["sha256"] == hashlib.sha256(data).hexdigest()
    assert made.json["size"] == size


@pytest.mark.parametrize("head", [b"Content-Length: x\r\n", b"Content-Length: -5\r\n", b"Content-Length: 2\r\n",
                                  b"Content-Length: 500\r\n"])  # fmt: skip
async def test_content_length_of_a_part_is_ignored(gateway: Stack, head: bytes):
    """The boundary says where a part ends; a header that says otherwise truncates nothing."""
    made = await post_file(gateway, form(content().replace(b"Content-Type", head + b"Content-Type")))
    assert (made.status, made.json["size"]) == (201, 5)


async def test_large_upload_is_not_held_in_memory(open_gateway: OpenGateway):
    """Sixty megabytes pass through while the process grows by a few."""
    file_id = "A" * 48
    document = b'{"id":"%s","created_at":"2030-01-01T00:00:00Z","expires_at":"2030-01-02T00:00:00Z"}' % file_id.encode()
    piece, count = b"x" * MIB, 60

    async def body() -> AsyncIterator[bytes]:
        yield content(data=b"")[:-2]
        for _ in range(count):
            yield piece
        yield b"\r\n--frontier--\r\n"

    async with (
        raw_server(answer(document, status="201 Created", Connection="close")) as sink,
        open_gateway(base_url=sink.url + "/v1") as stack,
    ):
        await post_file(stack, form(content(data=b"x" * MIB)))
        before, highest = memory_kib(), 0
        upload_task = asyncio.create_task(ask(stack, "POST", "/v1/files", data=body(), headers={"Content-Type": FORM}))
        async for _ in attempts(60):
            if upload_task.done():
                break
            highest = max(highest, memory_kib())
        assert (await upload_task).status == 201
        assert sink.body_bytes > count * MIB
        assert highest - before < 16 * 1024, f"grew by {highest - before} KiB"


async def test_upload_over_upstreams_limit_gets_upstreams_error(gateway: Stack):
    """A file that is too large for upstream is refused with upstream's own document."""
    gateway.upstream.faults.set(
        Fault("error", operation="files.create", status=413, value="Files must be less than 100MB in size")
    )
    reply = await post_file(gateway, form(content()))
    assert reply.status == 413
    assert reply.json["detail"] == "Files must be less than 100MB in size"


@pytest.mark.parametrize(
    ("name", "status"),
    [("html_error", 502), ("error", 500), ("drop_before", 502), ("drop_after", 502), ("malformed_json", 502),
     ("token_revoked", 502), ("throttle", 429), ("redirect", 502)],
)  # fmt: skip
async def test_failed_upload_is_reported_and_not_retried(gateway: Stack, name: str, status: int):
    """One attempt, one clear response, no record of a file that does not exist."""
    gateway.upstream.faults.set(Fault(name, operation="files.create"))
    reply = await post_file(gateway, form(content()))
    assert reply.status == status, reply.text
    assert "<html" not in reply.text
    assert gateway.upstream.requests.count("files.create") == 1
    assert (await ask(gateway, "GET", "/v1/files")).json["results"] == []


async def test_early_refusal_reaches_a_sender_that_still_sends(open_gateway: OpenGateway):
    """A 413 while megabytes are on their way is a response, not a broken pipe."""
    async with open_gateway(server={"max_upload_bytes": 100_000}) as stack:
        head = raw_request(
            "POST", "/v1/files", [("Content-Type", FORM), ("Transfer-Encoding", "chunked")], key=stack.keys["alpha"]
        )
        first = content(data=b"")[:-2]
        piece = b"x" * 65536
        pieces = [head, b"%x\r\n%b\r\n" % (len(first), first), *[b"%x\r\n%b\r\n" % (len(piece), piece)] * 40]
        assert_problem(await send_raw(stack, pieces), 413)


@pytest.mark.parametrize(("max_page_bytes", "sizes"), [(1, [1, 1, 1]), (700_000, [1, 1, 1]), (50_000_000, [3])])
async def test_a_page_of_files_ends_at_its_size(open_gateway: OpenGateway, max_page_bytes: int, sizes: list[int]):
    """A hundred files with a mebibyte of metadata each are no answer of a hundred mebibytes."""
    metadata = b'--frontier\r\nContent-Disposition: form-data; name="metadata"\r\n\r\n{"a":"%b"}\r\n' % (b"m" * 400_000)
    async with open_gateway(limits={"max_page_bytes": max_page_bytes}) as stack:
        made = [
            (await post_file(stack, form(content(data=b"%d" % number), metadata))).json["id"] for number in range(3)
        ]
        url, seen, found = "/v1/files", [], []
        while url:
            page = await ask(stack, "GET", url)
            seen += [each["id"] for each in page.json["results"]]
            found.append(len(page.json["results"]))
            url = page.json["next"]
        assert (seen, found) == (made[::-1], sizes)


@pytest.mark.parametrize(("lines", "status"), [(10, 201), (10_000, 400)])
async def test_what_comes_before_the_first_part_is_bounded(gateway: Stack, lines: int, status: int):
    """It means nothing, and a megabyte of short lines takes the event loop half a second."""
    reply = await post_file(gateway, b"x\r\n" * lines + form(content()))
    assert reply.status == status, reply.text


@pytest.mark.parametrize(("parts", "status"), [(1, 201), (5, 413)])
async def test_parts_beside_the_file_are_bounded_in_sum(gateway: Stack, parts: int, status: int):
    """They stay in memory until the upload is complete, and parts of one name count together."""
    head = b'--frontier\r\nContent-Disposition: form-data; name="metadata"\r\n\r\n'
    part = head + (b'{"a":"' + b"x" * 250_000 + b'"}') + b"\r\n"
    reply = await post_file(gateway, form(content(), *[part] * parts))
    assert reply.status == status, reply.text
    if status == 413:
        assert "beside the file" in reply.json["detail"]


async def test_files_are_listed_newest_first_over_pages(gateway: Stack):
    """More files than fit on a page are all listed, each once."""
    made = [
        reply.json["id"]
        for reply in await asyncio.gather(*(post_file(gateway, form(content(f"{n}.txt"))) for n in range(105)))
    ]
    first = (await ask(gateway, "GET", "/v1/files")).json
    second = (await ask(gateway, "GET", first["next"])).json
    assert [len(first["results"]), len(second["results"])] == [100, 5]
    assert second["next"] is None
    listed = [each["id"] for each in first["results"] + second["results"]]
    assert sorted(listed) == sorted(made)
    assert (await ask(gateway, "GET", second["previous"])).json["results"] == first["results"]


async def test_download_returns_the_bytes_and_cannot_run_as_a_page(gateway: Stack):
    """A caller's HTML file cannot act as this origin."""
    data = b"<script>alert(1)</script>" * 10_000
    file = (await post_file(gateway, form(content("x.html", data, "text/html")))).json
    reply = await download(gateway, file["id"])
    assert (reply.status, reply.body) == (200, data)
    assert reply.headers["X-Content-Type-Options"] == "nosniff"
    assert "sandbox" in reply.headers["Content-Security-Policy"]
    assert "attachment" in reply.headers["Content-Disposition"]
    assert_problem(await download(gateway, file["id"], "beta"), 404, origin=None)
    unsigned = await ask(gateway, "GET", f"/v1/files/{file['id']}/download")
    assert unsigned.status in (400, 404, 422)
    assert_problem(await download(gateway, UNKNOWN_FILE), 404, origin=None)


async def cut_download(open_gateway: OpenGateway, written: bytes) -> bytes:
    """Return the bytes on the line of a download that upstream cuts off after `written`."""
    async with raw_server(written) as broken, open_gateway(base_url=broken.url + "/v1") as stack:
        request = raw_request("GET", "/v1/files/" + "A" * 48 + "/download?x=y", key=stack.keys["operator"])
        return await exchange(stack, request)


async def test_stalled_download_reader_is_disconnected(open_gateway: OpenGateway, monkeypatch: pytest.MonkeyPatch):
    """It would hold a connection to upstream that others wait for."""
    monkeypatch.setattr(response_body, "STALL_SECONDS", 0.05)
    gone = asyncio.Event()

    async def endless(_: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: video/mp4\r\nContent-Length: 9999999999\r\n\r\n")
        try:
            while True:
                writer.write(bytes(1024 * 1024))
                await writer.drain()
        except ConnectionError:
            gone.set()

    async with raw_server(endless) as host, open_gateway(base_url=host.url + "/v1") as stack:
        parts = urlsplit(stack.origin)
        _, writer = await asyncio.open_connection(parts.hostname, parts.port, limit=1)
        writer.write(raw_request("GET", "/v1/files/" + "A" * 48 + "/download?x=y", key=stack.keys["operator"]))
        await gone.wait()
        writer.transport.abort()


async def test_truncated_download_is_truncated_for_the_caller_too(open_gateway: OpenGateway):
    """Never a short file that looks complete, never an error document inside a file."""
    written = b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nContent-Length: 100000\r\n\r\n" + b"x" * 5000
    received = await cut_download(open_gateway, written)
    assert received.count(b"HTTP/1.1") == 1
    assert b"problem+json" not in received
    assert b"0\r\n\r\n" not in received[-10:]
    with pytest.raises((AssertionError, ValueError)):
        parse(received)


async def test_equal_files_of_two_teams_are_separate(gateway: Stack):
    """One team's delete does not remove the other team's file."""
    a = (await post_file(gateway, form(content()), key="alpha")).json["id"]
    b = (await post_file(gateway, form(content()), key="beta")).json["id"]
    assert a != b
    await ask(gateway, "DELETE", f"/v1/files/{a}")
    assert (await ask(gateway, "GET", f"/v1/files/{b}", key="beta")).status == 200


async def test_upload_with_content_encoding_is_decoded(gateway: Stack):
    """A Content-Encoding on the form is undone on the way."""
    data = form(content(data=b"hello" * 1000))
    made = await post_file(gateway, gzip.compress(data), **{"Content-Encoding": "gzip"})
    assert (made.status, made.json["size"]) == (201, 5000)


async def test_interrupted_upload_leaves_nothing(gateway: Stack):
    """A phone loses its connection in the middle of a photo."""
    head = raw_request(
        "POST", "/v1/files", [("Content-Type", FORM), ("Content-Length", "500000")], key=gateway.keys["alpha"]
    )
    await hang_up_after(gateway, head + content(data=b"x" * 100_000)[:90_000])
    assert (await ask(gateway, "GET", "/v1/files")).json["results"] == []
    assert not gateway.upstream.world.files._files


async def test_bad_uploads_do_not_open_the_breaker(gateway: Stack):
    """The breaker counts upstream's failures, not those of a caller who sends broken forms or disconnects."""
    head = raw_request(
        "POST", "/v1/files", [("Content-Type", FORM), ("Content-Length", "500000")], key=gateway.keys["beta"]
    )
    for _ in range(12):
        assert (await post_file(gateway, content(), key="beta")).status == 400
    await asyncio.gather(*(hang_up_after(gateway, head + content(data=b"x" * 80_000)) for _ in range(12)))
    assert (await post_file(gateway, form(content()))).status == 201


async def test_abandoned_downloads_do_not_open_the_breaker(gateway: Stack):
    """A browser that cancels downloads is no failure of upstream."""
    file = (await post_file(gateway, form(content(data=b"x" * 20 * MIB)))).json
    path = f"/v1/files/{file['id']}/download?{signed_query(gateway, file['id'])}"
    for _ in range(12):
        await hang_up_after(gateway, raw_request("GET", path, key=gateway.keys["alpha"]))
    assert (await ask(gateway, "GET", "/v1/models")).status == 200
