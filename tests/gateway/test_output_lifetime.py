"""Which output files are copied, and when copies are deleted."""

import asyncio
from pathlib import Path
from typing import Any

from gateway.simulator import Fault, Simulator
from gateway.simulator.models.job import Job
from tests.support.http_calls import ask, assert_problem, metrics_of
from tests.support.output_copies import HIT, HOUR, LAKE, PICTURE, hit_link, is_ours, objects_in, paint_lake
from tests.support.outputs import add_output, gateway_with_copies
from tests.support.polling import attempts
from tests.support.samples import create
from tests.support.secret_scanner import LogScanner
from tests.support.simulator_models import FILM
from tests.support.stack import OpenGateway
from tests.support.upstream import version_of

STORED = "replicate-gateway; fwd=miss; stored"


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
