"""Stored copies of outputs, seen from outside: files that outlive upstream's hour, and who may read them how."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from gateway.http import response_body
from gateway.simulator import Simulator
from tests.support.http_calls import PAGE, STRANGER, Reply, ask, assert_problem
from tests.support.output_copies import HOUR, PICTURE, hit_link, is_ours, objects_in, paint_lake
from tests.support.outputs import add_output, gateway_with_copies
from tests.support.samples import create, finished
from tests.support.stack import OpenGateway, Stack
from tests.support.upstream import creates

MIB = 1024 * 1024


async def test_hit_two_hours_later_serves_the_stored_copy(
    open_gateway: OpenGateway, upstream: Simulator, outputs_url: str
):
    """Upstream has deleted the file; the caller gets it byte for byte and pays nothing."""
    async with gateway_with_copies(open_gateway, upstream, outputs_url) as it:
        first = await paint_lake(it.stack)
        (link,) = first.json["output"]
        assert link.startswith(upstream.delivery_url), "while upstream's link lives, it is shown"
        await it.settled(1)
        it.clock.advance(2 * HOUR)
        assert (await ask(it.stack, "GET", link, key=None)).status == 404
        again = await paint_lake(it.stack)
        assert again.headers["Cache-Status"].startswith("replicate-gateway; hit; ttl=")
        (mine,) = again.json["output"]
        assert is_ours(it.stack, mine)
        assert mine.endswith("/out-0.png")
        reply = await ask(it.stack, "GET", mine, key=None)
        assert reply.body == PICTURE
        assert reply.headers["Content-Type"] == "image/png"
        # The first caller's prediction shows a copy by now, too, under a ticket of its own.
        (first_again,) = (await ask(it.stack, "GET", first.json["urls"]["get"])).json["output"]
        assert is_ours(it.stack, first_again)
        assert first_again != mine
        assert (await ask(it.stack, "GET", first_again, key=None)).body == PICTURE
        assert creates(upstream) == 1
        assert upstream.requests.authorized("delivery") == 0


@pytest.mark.parametrize("outputs", [{}, {"persist": "off"}], ids=["no store", "off"])
async def test_without_copies_the_cached_result_expires_with_its_links(
    open_gateway: OpenGateway, upstream: Simulator, folder: Path, outputs: dict[str, str]
):
    """No caller gets a link to a deleted file: the picture is generated again."""
    async with gateway_with_copies(open_gateway, upstream, folder / "o" if outputs else None, outputs=outputs) as it:
        await paint_lake(it.stack)
        it.clock.advance(2 * HOUR)
        again = await paint_lake(it.stack)
        assert again.headers["Cache-Status"] == "replicate-gateway; fwd=miss; stored"
        assert again.json["output"][0].startswith(upstream.delivery_url)
        assert creates(upstream) == 2


async def test_copy_supports_ranges_conditions_and_head(
    open_gateway: OpenGateway, upstream: Simulator, outputs_url: str
):
    """A copy is served whole, in parts, or not at all if the caller has it; never as a page of the gateway."""
    async with gateway_with_copies(open_gateway, upstream, outputs_url) as it:
        link = await hit_link(it)

        async def read(method: str = "GET", **headers: str) -> Reply:
            given = {name.replace("_", "-"): value for name, value in headers.items()}
            return await ask(it.stack, method, link, key=None, headers=given)

        whole = await read()
        assert (whole.status, whole.body) == (200, PICTURE)
        assert whole.headers["Content-Length"] == str(len(PICTURE))
        assert whole.headers["Content-Type"] == "image/png"
        assert whole.headers["Content-Disposition"] == 'inline; filename="out-0.png"'
        assert whole.headers["X-Content-Type-Options"] == "nosniff"
        assert whole.headers["Content-Security-Policy"] == "sandbox; default-src 'none'"
        assert whole.headers["Cross-Origin-Resource-Policy"] == "cross-origin"
        assert whole.headers["Referrer-Policy"] == "no-referrer"
        assert whole.headers["Accept-Ranges"] == "bytes"
        assert whole.headers["Cache-Control"] == "private, max-age=3600, immutable"
        head = await read("HEAD")
        assert (head.status, head.body) == (200, b"")
        assert head.settled[1] == whole.settled[1]
        etag, at = whole.headers["ETag"], whole.headers["Last-Modified"]
        for span, start, stop in (("0-0", 0, 1), ("10-", 10, None), ("-7", -7, None), ("5-9", 5, 10)):
            part = await read(Range=f"bytes={span}")
            assert (part.status, part.body) == (206, PICTURE[start:stop])
            assert part.headers["Content-Range"].endswith(f"/{len(PICTURE)}")
            assert part.headers["ETag"] == etag
        assert (await read(Range="bytes=0-1,4-5")).body == PICTURE
        for condition in (etag, f'W/{etag}, "x"', "*"):
            known = await read(If_None_Match=condition)
            assert (known.status, known.body, known.headers["ETag"]) == (304, b"", etag)
        assert (await read(If_Modified_Since=at)).status == 304
        assert (await read(If_Range=etag, Range="bytes=0-1")).status == 206
        assert (await read(If_Range='"other"', Range="bytes=0-1")).body == PICTURE
        assert_problem(await read(If_Match='"other"'), 412, origin=None)
        beyond = await read(Range=f"bytes={len(PICTURE)}-")
        assert_problem(beyond, 416, origin=None)
        assert beyond.headers["Content-Range"] == f"bytes */{len(PICTURE)}"
        assert_problem(await read("POST"), 405, origin=None)


async def test_copy_is_readable_by_any_origin(open_gateway: OpenGateway, upstream: Simulator, folder: Path):
    """As upstream's own files are: the link is the permission, and no cookie is sent."""
    async with gateway_with_copies(open_gateway, upstream, folder / "outputs") as it:
        link = await hit_link(it)
        for origin in (PAGE, STRANGER, "null"):
            reply = await ask(it.stack, "GET", link, key=None, headers={"Origin": origin})
            assert reply.headers["Access-Control-Allow-Origin"] == "*"
            assert "Access-Control-Allow-Credentials" not in reply.headers
            assert "Content-Range" in reply.headers["Access-Control-Expose-Headers"]
            missing = await ask(it.stack, "GET", link + "x", key=None, headers={"Origin": origin})
            assert (missing.status, missing.headers["Access-Control-Allow-Origin"]) == (404, "*")
        asked = {"Origin": STRANGER, "Access-Control-Request-Method": "GET"}
        preflight = await ask(
            it.stack, "OPTIONS", link, key=None, headers=asked | {"Access-Control-Request-Headers": "if-none-match"}
        )
        assert (preflight.status, preflight.headers["Access-Control-Allow-Origin"]) == (204, "*")
        assert "If-None-Match" in preflight.headers["Access-Control-Allow-Headers"]


async def test_copy_needs_its_exact_ticket(open_gateway: OpenGateway, upstream: Simulator, folder: Path):
    """Another prediction's ticket, index or name, and the hash of the bytes: all are the same 404."""
    async with gateway_with_copies(open_gateway, upstream, folder / "outputs", cache={"share": "all"}) as it:
        link = await hit_link(it)
        (theirs,) = (await paint_lake(it.stack, key="beta")).json["output"]
        assert is_ours(it.stack, theirs)
        assert (await ask(it.stack, "GET", theirs, key=None)).body == PICTURE
        assert link != theirs
        ticket, _, name = link.removeprefix(f"{it.stack.origin}/outputs/").partition("/")
        prediction, place, proof = ticket.split("-")
        other = theirs.split("/")[-2].split("-")[0]
        sha256 = (await ask(it.stack, "GET", link, key=None)).headers["ETag"].strip('"')
        unknown = await ask(it.stack, "GET", f"/outputs/{'z' * 26}-0-{'a' * 52}/{name}", key=None)
        assert_problem(unknown, 404, origin=None)
        for path in (
            f"{other}-{place}-{proof}/{name}",
            f"{prediction}-1-{proof}/{name}",
            f"{prediction}-{place}-{proof[:-1]}{'a' if proof[-1] != 'a' else 'b'}/{name}",
            f"{ticket}/other.png",
            f"{ticket}",
            f"{sha256}/{name}",
            f"{prediction}-{place}-{sha256[:52]}/{name}",
            f"../{sha256[:2]}/{sha256}",
        ):
            for key in (None, "alpha", "beta"):
                reply = await ask(it.stack, "GET", f"/outputs/{path}", key=key)
                assert reply.settled[::2] == unknown.settled[::2], path
        assert len(await objects_in(folder / "outputs")) == 1, "equal bytes are kept once"


async def test_large_copy_is_served_whole_and_in_parts(
    open_gateway: OpenGateway, upstream: Simulator, outputs_url: str
):
    """A film of some megabytes, in ranges and as one."""
    film = bytes(range(256)) * 12_000
    add_output(upstream, "acme/film", lambda job: job.host("film.mp4", film, "video/mp4"))
    async with gateway_with_copies(open_gateway, upstream, outputs_url, outputs={"persist": "all"}) as it:
        made = await create(it.stack, model="acme/film", headers={"Prefer": "wait"})
        await it.settled(1)
        it.clock.advance(58 * 60)
        link = (await ask(it.stack, "GET", made.json["urls"]["get"])).json["output"]
        assert (await ask(it.stack, "GET", link, key=None)).body == film
        part = await ask(it.stack, "GET", link, key=None, headers={"Range": "bytes=1000000-2999999"})
        assert (part.status, part.body) == (206, film[1_000_000:3_000_000])
        assert await it.metric("outputs_served_bytes_total") == len(film) + 2_000_000


@asynccontextmanager
async def reading_nothing(stack: Stack, link: str) -> AsyncIterator[None]:
    """Ask for a file, and take none of it."""
    parts = urlsplit(link)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port, limit=1)
    writer.write(f"GET {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\n\r\n".encode())
    try:
        yield
    finally:
        writer.transport.abort()
        del reader


async def test_stalled_copy_reader_is_disconnected(
    open_gateway: OpenGateway, upstream: Simulator, outputs_url: str, monkeypatch: pytest.MonkeyPatch
):
    """A caller who stops reading does not keep a file open, nor a place that others wait for."""
    add_output(upstream, "acme/cinema", lambda job: job.host("film.mp4", bytes(16 * MIB), "video/mp4"))
    settings = {"persist": "all", "max_readers_per_team": 1}
    async with gateway_with_copies(open_gateway, upstream, outputs_url, outputs=settings) as it:
        made = await create(it.stack, model="acme/cinema", headers={"Prefer": "wait"})
        await it.settled(1)
        it.clock.advance(56 * 60)
        link = (await ask(it.stack, "GET", made.json["urls"]["get"])).json["output"]
        assert is_ours(it.stack, link)
        async with reading_nothing(it.stack, link):
            while not await it.metric("outputs_being_sent"):
                pass
            assert_problem(await ask(it.stack, "GET", link, key=None), 503, origin=None)
            monkeypatch.setattr(response_body, "STALL_SECONDS", 0.05)
        async with reading_nothing(it.stack, link):
            while await it.metric("outputs_being_sent"):
                pass
        monkeypatch.undo()
        assert len((await ask(it.stack, "GET", link, key=None)).body) == 16 * MIB


async def test_links_switch_to_copies_in_hits_and_after_the_hour(
    open_gateway: OpenGateway, upstream: Simulator, folder: Path
):
    """Nothing else in a body changes, not even text that merely contains a link."""
    async with gateway_with_copies(open_gateway, upstream, folder / "outputs") as it:
        first = await paint_lake(it.stack)
        theirs = first.json["output"]
        await it.settled(1)
        mine = (await paint_lake(it.stack)).json
        assert [is_ours(it.stack, link) for link in mine["output"]] == [True]

        async def shown() -> Any:
            return (await ask(it.stack, "GET", first.json["urls"]["get"])).json

        assert (await shown())["output"] == theirs
        it.clock.advance(54 * 60)
        assert (await shown())["output"] == theirs
        it.clock.advance(2 * 60)
        later = await shown()
        assert is_ours(it.stack, later["output"][0])
        assert later == first.json | {"output": later["output"]}
        assert (await shown()) == later
        listed = (await ask(it.stack, "GET", "/v1/predictions")).json["results"]
        assert [each["output"] for each in listed] == [mine["output"], later["output"]]


async def test_copy_links_use_the_callers_base(open_gateway: OpenGateway, upstream: Simulator, folder: Path):
    """With `public_url` they use that."""
    public = {"public_url": "https://gateway.example.org"}
    async with gateway_with_copies(open_gateway, upstream, folder / "outputs", server={"port": 0} | public) as it:
        await paint_lake(it.stack)
        await it.settled(1)
        (link,) = (await paint_lake(it.stack)).json["output"]
        assert link.startswith("https://gateway.example.org/outputs/")
        path = link.removeprefix("https://gateway.example.org")
        assert (await ask(it.stack, "GET", path, key=None)).body == PICTURE


async def test_replayed_file_stream_shows_copies(open_gateway: OpenGateway, upstream: Simulator, folder: Path):
    """Upstream's stream and its files are long gone."""
    async with gateway_with_copies(open_gateway, upstream, folder / "outputs", outputs={"persist": "all"}) as it:
        made = await create(it.stack, model="acme/frames")
        stream = made.json["urls"]["stream"]
        body = await finished(it.stack, made.json["id"])
        await it.settled(len(body["output"]))
        live = (await ask(it.stack, "GET", stream, key=None)).text
        assert body["output"][0] in live
        it.clock.advance(56 * 60)
        shown = (await ask(it.stack, "GET", made.json["urls"]["get"])).json["output"]
        assert all(is_ours(it.stack, link) for link in shown)
        replayed = (await ask(it.stack, "GET", stream, key=None)).text
        assert [line[6:] for line in replayed.splitlines() if line.startswith("data: http")] == shown
        assert replayed.rstrip().endswith("data: {}")
        ids = [line for line in replayed.splitlines() if line.startswith("id: ")]
        assert ids == [line for line in live.splitlines() if line.startswith("id: ")], "who comes back goes on"
        rest = await ask(it.stack, "GET", stream, key=None, headers={"Last-Event-ID": ids[0][4:]})
        assert [line for line in rest.text.splitlines() if line.startswith("id: ")] == ids[1:]
        assert (await ask(it.stack, "GET", shown[0], key=None)).headers["Content-Type"].startswith("image/")
