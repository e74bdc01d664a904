"""Stored copies of outputs, seen from outside: files that outlive upstream's hour, and who may read them how."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from gateway.http import response_body
from gateway.outputs import downloads as outputs_service
from gateway.simulator import Fault, Simulator
from gateway.simulator.models.image import paint
from gateway.simulator.models.job import Job
from tests.support.http_calls import PAGE, STRANGER, Reply, ask, assert_problem, metrics_of
from tests.support.outputs import CopyingGateway, add_output, gateway_with_copies
from tests.support.polling import attempts
from tests.support.samples import create, finished
from tests.support.secret_scanner import LogScanner
from tests.support.simulator_models import FILM
from tests.support.stack import OpenGateway, Stack
from tests.support.upstream import creates, version_of

LAKE = {"prompt": "a lake", "seed": 5, "width": 32, "height": 32}
PICTURE = paint("a lake", 5, 32, 32)
HOUR = 3600.0
MIB = 1024 * 1024
HIT = "replicate-gateway; hit; ttl="
STORED = "replicate-gateway; fwd=miss; stored"


async def paint_lake(stack: Stack, *, key: str = "alpha", base: str | None = None, **given: Any) -> Reply:
    """Ask for the picture, and wait for it."""
    version = version_of(stack.upstream, "acme/painter")
    body = {"version": f"acme/painter:{version}", "input": LAKE | given}
    reply = await ask(stack, "POST", "/v1/predictions", key=key, json=body, headers={"Prefer": "wait"})
    assert reply.status == 201, reply.text
    assert reply.json["status"] == "succeeded"
    return reply


def is_ours(stack: Stack, link: str) -> bool:
    """Say whether a link is of a stored copy."""
    return link.startswith(f"{stack.origin}/outputs/")


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


async def objects_in(folder: Path) -> list[bytes]:
    """Read every object of a folder."""
    return await asyncio.to_thread(lambda: [path.read_bytes() for path in folder.rglob("*") if path.is_file()])


async def hit_link(it: CopyingGateway, **given: Any) -> str:
    """Paint the picture, let it be copied, and ask again: give the link that the hit shows."""
    await paint_lake(it.stack, **given)
    await it.settled(1)
    again = await paint_lake(it.stack, **given)
    assert again.headers["Cache-Status"].startswith(HIT)
    (link,) = again.json["output"]
    assert is_ours(it.stack, link)
    return str(link)


# How a copy is served


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


# Which links a body shows


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
    async with gateway_with_copies(open_gateway, upstream, outputs_url, outputs={"persist": "all"}) as it:
        made = await create(it.stack, model="acme/cinema", headers={"Prefer": "wait"})
        await it.settled(1)
        it.clock.advance(56 * 60)
        link = (await ask(it.stack, "GET", made.json["urls"]["get"])).json["output"]
        assert is_ours(it.stack, link)
        monkeypatch.setattr(outputs_service, "MAX_READERS_OF_TEAM", 1)
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


# What is copied, and when


async def test_only_shareable_outputs_are_copied_by_default(
    open_gateway: OpenGateway, upstream: Simulator, folder: Path
):
    """A picture from a random seed is never a hit; with `persist = "all"` it is copied too."""
    async with gateway_with_copies(open_gateway, upstream, folder / "outputs") as it:
        await paint_lake(it.stack, seed=None)
        await paint_lake(it.stack)
        await it.settled(1)
        assert await it.metric("outputs_stored_total") == 1
    async with gateway_with_copies(open_gateway, upstream, folder / "outputs", outputs={"persist": "all"}) as it:
        # What ended within the hour is caught up with.
        await it.settled(1)
        await paint_lake(it.stack, seed=None)
        await it.settled(2)


async def test_run_by_bare_version_id_is_copied(open_gateway: OpenGateway, upstream: Simulator, folder: Path):
    """The first request of a cold gateway names no model: its identity is known later, and then it is copied."""
    async with gateway_with_copies(open_gateway, upstream, folder / "outputs") as it:
        body = {"version": version_of(upstream, "acme/painter"), "input": LAKE}
        first = await ask(it.stack, "POST", "/v1/predictions", json=body, headers={"Prefer": "wait"})
        assert first.headers["Cache-Status"].endswith("detail=model-unknown")
        await it.settled(1)
        it.clock.advance(2 * HOUR)
        again = await ask(it.stack, "POST", "/v1/predictions", json=body, headers={"Prefer": "wait"})
        assert again.headers["Cache-Status"].startswith(HIT)
        assert (await ask(it.stack, "GET", again.json["output"][0], key=None)).body == PICTURE


async def test_slow_copy_delays_no_prediction(open_gateway: OpenGateway, upstream: Simulator, folder: Path):
    """The file host does not respond for a while: predictions end as usual, and the files are copied later."""
    async with gateway_with_copies(open_gateway, upstream, folder / "outputs") as it:
        upstream.faults.add(Fault("output_missing"))
        await paint_lake(it.stack)
        async for _ in attempts():
            if upstream.requests.count("outputs.get") >= 2:
                break
            it.clock.advance(5)
        assert await it.metric("outputs_pending") == 1
        upstream.faults.clear()
        while await it.metric("outputs_pending"):
            it.clock.advance(30)
        assert await it.metric("outputs_stored_total") == 1
        refused = await it.metric('outputs_not_stored_total{reason="refused"}')
        assert refused == upstream.requests.count("outputs.get") - 1


async def test_copy_that_fails_for_an_hour_is_given_up(open_gateway: OpenGateway, upstream: Simulator, folder: Path):
    """After that, upstream's link is dead and the result is no longer shared."""
    async with gateway_with_copies(open_gateway, upstream, folder / "outputs") as it:
        upstream.faults.add(Fault("output_missing"))
        await paint_lake(it.stack)
        while await it.metric("outputs_pending"):
            it.clock.advance(200)
        page = await metrics_of(it.stack)
        assert 'outputs_not_stored_total{reason="expired"} 1.0' in page
        assert upstream.requests.count("outputs.get") < 40
        again = await paint_lake(it.stack)
        assert again.headers["Cache-Status"] == STORED


async def test_pending_copies_are_made_after_a_restart(open_gateway: OpenGateway, upstream: Simulator, folder: Path):
    """The gateway stopped before it could copy; the next process does it while upstream still has the file."""
    async with gateway_with_copies(open_gateway, upstream, folder / "outputs") as it:
        upstream.faults.add(Fault("output_missing"))
        await paint_lake(it.stack)
        keys = it.stack.keys
    upstream.faults.clear()
    async with gateway_with_copies(open_gateway, upstream, folder / "outputs", keys=keys) as it:
        await it.settled(1)
        it.clock.advance(2 * HOUR)
        again = await paint_lake(it.stack)
        assert again.headers["Cache-Status"].startswith(HIT)
        assert (await ask(it.stack, "GET", again.json["output"][0], key=None)).body == PICTURE


async def test_files_at_any_depth_are_copied_and_other_texts_kept(
    open_gateway: OpenGateway, upstream: Simulator, folder: Path
):
    """In a model's own output format the files are copied and other texts are unchanged."""

    def output(job: Job) -> Any:
        film = job.host("film.mp4", FILM, "video/mp4")
        return {"z": [{"film": film}, film], "text": f"see {film}", "n": 3, "a": None}

    add_output(upstream, "acme/mixed", output)
    async with gateway_with_copies(open_gateway, upstream, folder / "outputs", outputs={"persist": "all"}) as it:
        made = await create(it.stack, model="acme/mixed", headers={"Prefer": "wait"})
        await it.settled(1)
        it.clock.advance(58 * 60)
        before, after = made.json["output"], (await ask(it.stack, "GET", made.json["urls"]["get"])).json["output"]
        link = after["z"][0]["film"]
        assert is_ours(it.stack, link)
        assert after == before | {"z": [{"film": link}, link]}
        assert (await ask(it.stack, "GET", link, key=None)).body == FILM


async def test_links_to_other_hosts_are_not_fetched(open_gateway: OpenGateway, upstream: Simulator, folder: Path):
    """A model may output any address: only upstream's hosts are fetched, and no name that resolves to a private
    network.
    """
    asked: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.read(1000))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    links = [
        f"http://localhost:{port}/a.png",
        f"https://localhost:{port}/b.png",
        f"https://127.0.0.2:{port}/c.png",
        f"{upstream.base_url}/account",
    ]
    add_output(upstream, "acme/sly", lambda _: links)
    async with (
        server,
        gateway_with_copies(
            open_gateway,
            upstream,
            folder / "outputs",
            outputs={"persist": "all"},
            upstream={"trusted_hosts": ["localhost", "127.0.0.2"]},
        ) as it,
    ):
        await create(it.stack, model="acme/sly", headers={"Prefer": "wait"})
        while 'outputs_not_stored_total{reason="untrusted"} 2.0' not in await metrics_of(it.stack):
            pass
        assert await objects_in(folder / "outputs") == []
    assert asked == []
    assert upstream.requests.count("account.get") == 0


# Room, age and need


async def test_file_over_the_store_limit_is_not_kept(open_gateway: OpenGateway, upstream: Simulator, folder: Path):
    """It is not read to its end, and it evicts nothing."""
    async with gateway_with_copies(
        open_gateway, upstream, folder / "outputs", outputs={"max_bytes": len(PICTURE) - 1}
    ) as it:
        await paint_lake(it.stack)
        while 'outputs_not_stored_total{reason="too_large"} 1.0' not in await metrics_of(it.stack):
            pass
        assert await it.metric("outputs_pending") == 0
        assert await objects_in(folder / "outputs") == []
        it.clock.advance(2 * HOUR)
        assert (await paint_lake(it.stack)).headers["Cache-Status"] == STORED


async def test_full_store_evicts_the_least_recently_used(open_gateway: OpenGateway, upstream: Simulator, folder: Path):
    """An evicted output is generated again when asked for; no caller sees a link to it."""
    bound = {"max_bytes": 2 * len(PICTURE) + 100}
    async with gateway_with_copies(open_gateway, upstream, folder / "outputs", outputs=bound) as it:
        link = await hit_link(it)
        await paint_lake(it.stack, seed=6)
        await it.settled(2)
        it.clock.advance(120)
        assert (await ask(it.stack, "GET", link, key=None)).status == 200
        it.clock.advance(120)
        await paint_lake(it.stack, seed=7)
        await it.settled(3)
        assert 'outputs_gone_total{reason="evicted"} 1.0' in await metrics_of(it.stack)
        kept = await objects_in(folder / "outputs")
        assert sum(map(len, kept)) <= bound["max_bytes"]
        assert PICTURE in kept
        it.clock.advance(2 * HOUR)
        statuses = [(await paint_lake(it.stack, seed=seed)).headers["Cache-Status"] for seed in (5, 6, 7)]
        assert [status.startswith(HIT) for status in statuses] == [True, False, True]


async def test_lost_object_is_fetched_again_while_upstream_has_it(
    open_gateway: OpenGateway, upstream: Simulator, folder: Path, log_scanner: LogScanner
):
    """Someone empties the folder: one 404, then bodies show upstream's link again, and a new copy is made."""
    async with gateway_with_copies(open_gateway, upstream, folder / "outputs") as it:
        link = await hit_link(it)
        prediction = link.split("/")[-2].split("-")[0]
        (path,) = [path for path in (folder / "outputs").rglob("*") if path.is_file()]
        path.write_bytes(PICTURE[:-1])
        upstream.faults.add(Fault("output_missing"))
        assert_problem(await ask(it.stack, "GET", link, key=None), 404, origin=None)
        assert 'outputs_gone_total{reason="lost"} 1.0' in await metrics_of(it.stack)
        (shown,) = (await ask(it.stack, "GET", f"/v1/predictions/{prediction}")).json["output"]
        assert shown.startswith(upstream.delivery_url)
        upstream.faults.clear()
        while await it.metric("outputs_pending"):
            it.clock.advance(61)
        assert (await ask(it.stack, "GET", link, key=None)).body == PICTURE
    log_scanner.errors.clear()


async def test_lost_object_without_an_upstream_file_is_not_shared(
    open_gateway: OpenGateway, upstream: Simulator, folder: Path, log_scanner: LogScanner
):
    """The next equal request is a new run."""
    async with gateway_with_copies(open_gateway, upstream, folder / "outputs") as it:
        link = await hit_link(it)
        it.clock.advance(2 * HOUR)
        (path,) = [path for path in (folder / "outputs").rglob("*") if path.is_file()]
        path.unlink()
        assert_problem(await ask(it.stack, "GET", link, key=None), 404, origin=None)
        assert (await paint_lake(it.stack)).headers["Cache-Status"] == STORED
    log_scanner.errors.clear()


async def test_expired_copies_are_deleted(open_gateway: OpenGateway, upstream: Simulator, folder: Path):
    """Shortly before, their results are no longer shared, so every link that was shown still works."""
    async with gateway_with_copies(
        open_gateway, upstream, folder / "outputs", outputs={"ttl_seconds": 3 * HOUR}, cache={"ttl_seconds": 9 * HOUR}
    ) as it:
        link = await hit_link(it)
        it.clock.advance(3 * HOUR - 400)
        assert (await paint_lake(it.stack)).headers["Cache-Status"].startswith(HIT)
        it.clock.advance(200)
        assert (await paint_lake(it.stack)).headers["Cache-Status"] == STORED
        reply = await ask(it.stack, "GET", link, key=None)
        assert reply.status == 200
        assert 0 < int(reply.headers["Cache-Control"].split("=")[1].split(",")[0]) <= 200
        await it.settled(2)
        it.clock.advance(220)
        assert_problem(await ask(it.stack, "GET", link, key=None), 404, origin=None)


async def test_unreferenced_objects_are_deleted(open_gateway: OpenGateway, upstream: Simulator, folder: Path):
    """When neither records nor cache need the bytes, they are deleted from the disk."""
    async with gateway_with_copies(open_gateway, upstream, folder / "outputs", cache={"ttl_seconds": 2 * HOUR}) as it:
        link = await hit_link(it)
        it.clock.advance(1.5 * HOUR)
        assert (await ask(it.stack, "GET", link, key=None)).status == 200
        it.clock.advance(0.6 * HOUR)
        async for _ in attempts():
            if not await objects_in(folder / "outputs"):
                break
            it.clock.advance(61)
        assert_problem(await ask(it.stack, "GET", link, key=None), 404, origin=None)
        assert await it.metric("outputs_deleted_total") == 1
        while await it.metric("outputs_bytes"):
            it.clock.advance(61)


async def test_removed_output_store_leaves_no_links_to_it(open_gateway: OpenGateway, upstream: Simulator, folder: Path):
    """`[outputs] url` is removed from the config: what upstream has deleted is generated again."""
    async with gateway_with_copies(open_gateway, upstream, folder / "outputs") as it:
        link = await hit_link(it)
        keys, clock = it.stack.keys, it.clock
    async with gateway_with_copies(open_gateway, upstream, None, clock=clock, keys=keys) as it:
        assert_problem(
            await ask(it.stack, "GET", "/outputs/" + link.partition("/outputs/")[2], key=None), 404, origin=None
        )
        hit = await paint_lake(it.stack)
        assert hit.headers["Cache-Status"].startswith(HIT)
        assert hit.json["output"][0].startswith(upstream.delivery_url)
        it.clock.advance(2 * HOUR)
        assert (await paint_lake(it.stack)).headers["Cache-Status"] == STORED
