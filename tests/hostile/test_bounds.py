"""Every cache, queue and buffer has a bound in bytes, or one for each team; a run of large inputs shows that it holds.

Memory is that of a gateway in a process of its own, as the kernel counts it.
"""

import asyncio
import json
import random
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from gateway.simulator import Fault, Simulator
from tests.support.hostile import bomb, data_uri
from tests.support.http_calls import ask, connection, metrics_of, raw_request
from tests.support.installation import Installation, install
from tests.support.memory import MIB, peak_bytes, resident_bytes
from tests.support.polling import attempts, stable
from tests.support.samples import create, finished
from tests.support.stack import OpenGateway, Stack
from tests.support.upstream import version_of

pytestmark = [
    pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning"),
    pytest.mark.timeout(60),
]


needs_proc = pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")


SLACK = 64 * MIB
"""What a process may need beside its caches: buffers of requests in progress, and what the allocator keeps."""


@dataclass(frozen=True)
class Measured:
    """A gateway in a process of its own."""

    session: aiohttp.ClientSession
    pid: int
    upstream: Simulator
    installed: Installation

    async def create(self, given: dict[str, Any], *, wait: int = 30, **more: Any) -> int:
        """Create a prediction, and wait so many seconds for its end; return the status."""
        body = {"version": version_of(self.upstream, "acme/storyteller"), "input": given, **more}
        headers = {"Content-Type": "application/json", "Prefer": f"wait={wait}"}
        async with self.session.post("/v1/predictions", data=json.dumps(body), headers=headers) as response:
            await response.read()
            return response.status


@asynccontextmanager
async def measured(upstream: Simulator, folder: Path, settings: str = "") -> AsyncIterator[Measured]:
    """Start a gateway and let it do each thing once."""
    installed: Installation = install(upstream, folder, ["alpha"])
    config = installed.folder / "config.toml"
    text = config.read_text().replace('level = "debug"', 'level = "warning"') + settings
    config.write_text(text)
    async with installed.serving() as process, installed.caller("alpha") as session:
        gateway = Measured(session, process.pid, upstream, installed)
        assert await gateway.create({"prompt": "first", "file": data_uri(MIB, 0)}) == 201
        yield gateway


@needs_proc
async def test_predictions_with_large_inputs_are_kept_by_bytes(upstream: Simulator, tmp_path: Path) -> None:
    """Files of some MiB, written as data URIs, are Replicate's normal way; their number may be anything."""
    settings = f"\n[cache]\nmemory_bytes = {8 * MIB}\n"
    async with measured(upstream, tmp_path, settings) as gateway:
        before = resident_bytes(gateway.pid)
        for first in range(1, 25, 6):
            made = [
                gateway.create({"prompt": "hi", "file": data_uri(2 * MIB, number)})
                for number in range(first, first + 6)
            ]
            assert await asyncio.gather(*made) == [201] * 6
        grown = resident_bytes(gateway.pid) - before
        assert grown <= 8 * MIB + SLACK, f"{grown / MIB:.0f} MiB more after 24 creates of 2.7 MiB"


@needs_proc
@pytest.mark.long
@pytest.mark.timeout(240)
@pytest.mark.parametrize("given", [{}, {"duration": 3000.0}], ids=["ended", "in progress"])
async def test_a_hundred_large_creates_stay_within_the_documented_memory(
    upstream: Simulator, tmp_path: Path, given: dict[str, Any]
) -> None:
    """Of docs/performance.md, What the gateway may use: the process, predictions, documents, bodies, responses."""
    async with measured(upstream, tmp_path) as gateway:
        for first in range(1, 101, 4):
            made = [
                gateway.create({"prompt": "hi", "file": data_uri(6 * MIB, number), **given}, wait=1)
                for number in range(first, first + 4)
            ]
            assert set(await asyncio.gather(*made)) <= {201, 202}
        most = (90 + 64 + 64 + 5 * 4 * 8 + 256) * MIB + SLACK
        assert peak_bytes(gateway.pid) <= most, f"{peak_bytes(gateway.pid) / MIB:.0f} MiB"


@needs_proc
@pytest.mark.long
async def test_refused_addresses_are_not_kept(upstream: Simulator, tmp_path: Path) -> None:
    """A webhook that is too long is refused, and leaves nothing behind."""
    async with measured(upstream, tmp_path) as gateway:
        before = resident_bytes(gateway.pid)
        for number in range(24):
            webhook = f"https://receiver.example.com/{number}/" + "x" * 4 * MIB
            assert await gateway.create({"prompt": "hi"}, webhook=webhook) == 422
        grown = resident_bytes(gateway.pid) - before
        assert grown <= SLACK, f"{grown / MIB:.0f} MiB more after 24 refusals"


@needs_proc
@pytest.mark.long
async def test_bodies_in_progress_are_bounded(upstream: Simulator, tmp_path: Path) -> None:
    """Fifty small requests that are large once they are unpacked do not take the memory of all of them at once."""
    body = {"version": version_of(upstream, "acme/storyteller"), "input": {"prompt": "x" * 8 * MIB}}
    packed = bomb(json.dumps(body).encode())
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    async with measured(upstream, tmp_path) as gateway:
        before = resident_bytes(gateway.pid)

        async def send() -> None:
            async with gateway.session.post("/gateway/estimate", data=packed, headers=headers) as response:
                await response.read()

        await asyncio.gather(*(send() for _ in range(50)))
        grown = peak_bytes(gateway.pid) - before
        assert grown <= 256 * MIB + SLACK, f"{grown / MIB:.0f} MiB more at the most"


async def gauge(stack: Stack, name: str) -> float:
    """Read a gauge."""
    lines = (await metrics_of(stack)).splitlines()
    return next(float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"replicate_gateway_{name} "))


async def test_caches_reach_their_bounds_and_stay_there(open_gateway: OpenGateway) -> None:
    """What is shown, metadata, and the events of finished runs: each has its own setting."""
    bound = 60_000
    settings = {
        "cache": {"memory_bytes": bound, "metadata_max_bytes": bound},
        "streams": {"kept_log_bytes": bound, "max_log_bytes": 10_000},
    }
    async with open_gateway(**settings) as stack:
        most = dict.fromkeys(("shown_bytes", "recent_bytes", "metadata_cache_bytes", "kept_log_bytes"), 0.0)
        for number in range(40):
            made = await create(stack, model="acme/storyteller", prompt=f"{number} " + "x" * 2000)
            stream = ask(stack, "GET", made.json["urls"]["stream"], key=None)
            search = ask(stack, "GET", f"/v1/search?query={number}")
            await asyncio.gather(finished(stack, made.json["id"]), stream, search)
            for name in most:
                most[name] = max(most[name], await gauge(stack, name))
        assert {name: round(value) for name, value in most.items() if value > bound} == {}
        # What is shown is kept as long as its prediction is, which has half of the memory.
        assert {name: round(value) for name, value in most.items() if value < bound / 6} == {}


async def test_a_page_of_a_list_is_bounded_in_bytes(gateway: Stack) -> None:
    """Fewer results, and a link to the rest: all are there, each once."""
    made = []
    for number in range(26):
        reply = await create(gateway, model="acme/storyteller", prompt="hi", file=data_uri(700_000, number))
        made.append(reply.json["id"])
    listed: list[str] = []
    url: str | None = "/v1/predictions"
    while url is not None:
        page = await ask(gateway, "GET", url)
        assert len(page.body) <= 16 * MIB, f"{len(page.body) / MIB:.0f} MiB"
        assert page.json["results"]
        listed += [each["id"] for each in page.json["results"]]
        url = page.json["next"]
    assert listed == made[::-1]


@pytest.mark.parametrize(("bodies", "refused"), [(900_000, 429), (2_500_000, 503)], ids=["of a team", "of all"])
async def test_large_bodies_are_bounded_in_sum(open_gateway: OpenGateway, bodies: int, refused: int) -> None:
    """Bodies that are being read take so much memory in all; half of it is one team's. Small ones are always read."""
    limit = 2_000_000
    async with open_gateway(limits={"max_bodies_bytes": limit}) as stack, AsyncExitStack() as opened:
        head = (
            f"POST /gateway/estimate HTTP/1.1\r\nHost: gateway.test\r\nAuthorization: Bearer {stack.keys['alpha']}\r\n"
            "Content-Type: application/json\r\nContent-Length: 3000000\r\n\r\n"
        ).encode()
        _, writer = await opened.enter_async_context(connection(stack))
        writer.write(head + b" " * min(bodies, limit - 10))
        await writer.drain()
        async for _ in attempts():
            if await gauge(stack, "request_body_bytes") >= min(bodies, limit) - 70_000:
                break
        large = {"version": "a/b", "input": {"prompt": "x" * 300_000}}
        reply = await ask(stack, "POST", "/gateway/estimate", json=large)
        assert reply.status == refused
        assert reply.headers["Retry-After"] == "1"
        small = {"version": version_of(stack.upstream, "acme/storyteller"), "input": {"prompt": "x" * 30_000}}
        assert (await ask(stack, "POST", "/gateway/estimate", json=small)).status == 200
        await opened.aclose()
        await until_gauge(stack, "request_body_bytes", 0)
        large["version"] = small["version"]
        assert (await ask(stack, "POST", "/gateway/estimate", json=large)).status == 200


async def test_responses_that_nobody_takes_are_bounded(open_gateway: OpenGateway) -> None:
    """A team's clients that read nothing keep as many bytes as its half; its other requests wait, then get a 429."""
    size, limit = 8_000_000, 70_000_000
    settings = {"limits": {"max_responses_bytes": limit}, "teams": {"alpha": {"max_wait_seconds": 0.2}}}
    async with open_gateway(**settings) as stack, AsyncExitStack() as opened:
        made = await create(stack, model="acme/storyteller", prompt="hi", file=data_uri(size * 3 // 4, 1))
        path = f"/v1/predictions/{made.json['id']}"
        small = await create(stack, model="acme/storyteller", prompt="hi")
        others = await create(stack, key="beta", model="acme/storyteller", prompt="hi")
        await until_gauge(stack, "response_bytes", 0)
        for _ in range(12):
            _, writer = await opened.enter_async_context(connection(stack))
            writer.write(raw_request("GET", path, key=stack.keys["alpha"]))
        await until_gauge(stack, "response_bytes", 3 * size, 0.1 * size)
        refused = await ask(stack, "GET", path)
        assert (refused.status, refused.headers["Retry-After"]) == (429, "1")
        assert (await ask(stack, "GET", f"/v1/predictions/{small.json['id']}")).status == 200
        assert (await ask(stack, "GET", f"/v1/predictions/{others.json['id']}", key="beta")).status == 200
        assert (await ask(stack, "GET", "/v1/predictions", key="beta")).status == 200
        await until_gauge(stack, "response_bytes", 3 * size, 0.1 * size)
        await opened.aclose()
        await until_gauge(stack, "response_bytes", 0)
        assert len((await ask(stack, "GET", path)).json["input"]["file"]) > 0.99 * size


async def test_client_that_takes_nothing_is_disconnected(open_gateway: OpenGateway) -> None:
    """Then another gets the memory that its response took."""
    settings = {"server": {"body_idle_seconds": 1}, "limits": {"max_responses_bytes": 40_000_000}}
    async with open_gateway(**settings) as stack:
        made = await create(stack, model="acme/storyteller", prompt="hi", file=data_uri(6_000_000, 1))
        path = f"/v1/predictions/{made.json['id']}"
        async with connection(stack) as (_, writer):
            writer.write(raw_request("GET", path, key=stack.keys["alpha"]))
            await until_gauge(stack, "response_bytes", 8_000_000, 800_000)
            assert (await ask(stack, "GET", path)).status == 200
            await until_gauge(stack, "response_bytes", 0)


async def test_create_is_answered_without_room_for_its_output(open_gateway: OpenGateway) -> None:
    """A hit on a large result is shown as starting, like any create; a poll shows the rest when there is room."""
    settings = {"limits": {"max_responses_bytes": 1_000_000}, "teams": {"alpha": {"max_wait_seconds": 0.2}}}
    async with open_gateway(**settings) as stack, AsyncExitStack() as opened:
        given: dict[str, Any] = {"prompt": "hi", "seed": 7, "file": data_uri(6_000_000, 1)}
        first = await create(stack, model="acme/storyteller", headers={"Prefer": "wait"}, **given)
        assert first.json["status"] == "succeeded"
        _, writer = await opened.enter_async_context(connection(stack))
        writer.write(raw_request("GET", f"/v1/predictions/{first.json['id']}", key=stack.keys["alpha"]))
        await until_gauge(stack, "response_bytes", 8_000_000, 800_000)
        second = await create(stack, model="acme/storyteller", headers={"Prefer": "wait"}, **given)
        assert (second.status, second.json["status"], second.json["output"]) == (201, "starting", None)
        assert (second.json["input"], second.headers["Location"]) == ({}, second.json["urls"]["get"])
        await opened.aclose()
        assert (await ask(stack, "GET", f"/v1/predictions/{second.json['id']}")).json["status"] == "succeeded"


async def test_compressed_metadata_has_room_too(open_gateway: OpenGateway) -> None:
    """Whatever the coding: a client that takes nothing keeps a response that is counted."""
    upstream_text = random.Random(1).randbytes(8_000_000).hex()
    async with open_gateway() as stack:
        stack.upstream.faults.set(Fault("error", "models.search", status=200, value=upstream_text))
        for coding in ("deflate", "gzip"):
            async with connection(stack) as (_, writer):
                head = [("Accept-Encoding", coding)]
                writer.write(raw_request("QUERY", "/v1/models", head, b"red", key=stack.keys["alpha"]))
                await until_gauge(stack, "response_bytes", 9_100_000, 900_000)
            await until_gauge(stack, "response_bytes", 0)


async def test_creates_that_nobody_reads_leave_room_for_others(open_gateway: OpenGateway) -> None:
    """Hits cost nothing: a team's large creates are refused when its clients have not taken their responses."""
    async with open_gateway(limits={"max_responses_bytes": 40_000_000}) as stack, AsyncExitStack() as opened:
        given: dict[str, Any] = {"prompt": "hi", "seed": 7, "file": data_uri(6_000_000, 1)}
        body = {"version": version_of(stack.upstream, "acme/storyteller"), "input": given}
        await create(stack, model="acme/storyteller", headers={"Prefer": "wait"}, **given)
        await create(stack, key="beta", model="acme/storyteller", prompt="hi")
        head, data = [("Content-Type", "application/json")], json.dumps(body).encode()
        for number in range(3):
            _, writer = await opened.enter_async_context(connection(stack))
            writer.write(raw_request("POST", "/v1/predictions", head, data, key=stack.keys["alpha"]))
            await until_gauge(stack, "response_bytes", 8_000_000, 100_000)
            await until_gauge(stack, 'waiters{kind="response"}', number)
        assert (await ask(stack, "GET", "/v1/predictions", key="beta")).status == 200
        assert (await create(stack, model="acme/storyteller", **given)).status == 429
        assert (await create(stack, model="acme/storyteller", prompt="hi")).status == 201
        await opened.aclose()
        await until_gauge(stack, "response_bytes", 0)
        assert (await create(stack, model="acme/storyteller", **given)).status == 201


async def test_large_creates_that_end_together_stay_within_the_bound(open_gateway: OpenGateway) -> None:
    """Those for whose responses there is no room get short ones, and nothing is counted beyond the team's half."""
    settings = {"limits": {"max_responses_bytes": 40_000_000}, "teams": {"alpha": {"max_wait_seconds": 0.5}}}
    async with open_gateway(**settings) as stack, AsyncExitStack() as opened:
        readers = []
        for number in range(5):
            given = {"prompt": "hi", "duration": 20.0, "file": data_uri(6_000_000, number)}
            body = {"version": version_of(stack.upstream, "acme/storyteller"), "input": given}
            head = [("Content-Type", "application/json"), ("Prefer", "wait=60")]
            reader, writer = await opened.enter_async_context(connection(stack))
            writer.write(
                raw_request("POST", "/v1/predictions", head, json.dumps(body).encode(), key=stack.keys["alpha"])
            )
            readers.append(reader)
        heads = [await reader.readuntil(b"\r\n\r\n") for reader in readers]
        assert all(head.startswith(b"HTTP/1.1 201 ") for head in heads)
        sizes = sorted(int(head.split(b"Content-Length: ")[1].split(b"\r")[0]) for head in heads)
        assert sizes[-1] > 8_000_000
        assert sizes[-2] < 2000
        await until_gauge(stack, "response_bytes", 8_000_000, 100_000)


@needs_proc
async def test_many_reads_of_large_predictions_stay_within_the_bound(upstream: Simulator, tmp_path: Path) -> None:
    """Sixty-four clients ask for one of 8 MB at the same time, and take nothing: few documents are in memory."""
    settings = f"\n[cache]\nmemory_bytes = {MIB}\n[limits]\nmax_responses_bytes = {64 * MIB}\n"
    async with measured(upstream, tmp_path, settings) as gateway, AsyncExitStack() as opened:
        assert await gateway.create({"prompt": "hi", "file": data_uri(6 * MIB, 1)}) == 201
        async with gateway.session.get("/v1/predictions") as listed:
            path = f"/v1/predictions/{(await listed.json())['results'][0]['id']}"
        before = resident_bytes(gateway.pid)
        host, _, port = gateway.installed.origin.removeprefix("http://").partition(":")
        for _ in range(64):
            _, writer = await asyncio.open_connection(host, int(port))
            opened.callback(writer.close)
            writer.write(raw_request("GET", path, key=gateway.installed.keys["alpha"]))
        peak = await stable(lambda: peak_bytes(gateway.pid), 2.0)
        assert peak - before <= 64 * MIB + SLACK, f"{(peak - before) / MIB:.0f} MiB more"


async def until_gauge(stack: Stack, name: str, value: float, tolerance: float = 0.0) -> None:
    async for _ in attempts():
        if abs(await gauge(stack, name) - value) <= tolerance:
            break
