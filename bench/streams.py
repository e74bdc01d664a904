"""Cost of open streams and latency of events, compared with a bare fan-out of the same bytes.

    python -m bench.streams [--streams 10000] [--rounds 3] [--seconds 8]

All readers get one event a second. `bare` is an aiohttp application that writes prebuilt bytes to all responses in a
loop, from its own timer. The gateway receives each event from an upstream in another process, stores it, and relays
it. Servers run on one core, in a new process each round; readers and upstream on another. Latency is the time from
creation of an event to its arrival at a reader. Each stream is an open file in two processes: the limit (`ulimit -n`)
is raised to the hard limit. Rounds alternate. The last line is a JSON object.
"""

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import contextmanager, suppress

import aiohttp
from aiohttp import web

from bench.processes import (
    KEY,
    LOAD_CORE,
    SERVER_CORE,
    UPSTREAM_CORE,
    cpu_seconds,
    memory_kib,
    process,
    raise_file_limit,
    run_on_loop,
)
from bench.rounds import Row, report, row
from bench.stream_host import serve_streams, until_stopped

_STORYTELLER = "acme/storyteller"
_PADDING = "x" * 60
_SPARE_FILES = 200


def event(number: int) -> bytes:
    """Encode an event of about 160 bytes that contains its creation time."""
    return f"event: output\nid: {int(time.time())}:{number}\ndata: {time.time():.6f} {_PADDING}\n\n".encode()


# The servers


async def bare() -> None:
    """Run the bare server, which writes each event to all responses in a loop."""
    responses: set[web.StreamResponse] = set()

    async def stream(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        responses.add(response)
        try:
            await asyncio.Event().wait()
        finally:
            responses.discard(response)
        return response

    async def tell() -> None:
        number = 0
        while True:
            await asyncio.sleep(1)
            data, number = event(number), number + 1
            for response in tuple(responses):
                with suppress(ConnectionError):
                    await response.write(data)

    app = web.Application()
    app.router.add_get("/stream", stream)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, backlog=1024).start()
    telling = asyncio.create_task(tell())
    print(json.dumps({"url": f"http://127.0.0.1:{runner.addresses[0][1]}/stream"}), flush=True)
    await until_stopped()
    telling.cancel()


async def upstream() -> None:
    """Run the upstream: the simulator, and a stream host that sends an event every second."""
    from gateway.simulator import SimulatorSettings

    async def stream(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        number = 0
        with suppress(ConnectionError):
            while True:
                await asyncio.sleep(1)
                await response.write(event(number))
                number += 1
        return response

    settings = SimulatorSettings()
    await serve_streams(settings, _STORYTELLER, stream)


async def gateway(base_url: str, token: str, version: str) -> None:
    """Run the gateway with one streaming prediction."""
    from gateway.app import running
    from gateway.config import from_mapping

    with tempfile.TemporaryDirectory() as folder:
        config = from_mapping(
            {
                "server": {"port": 0},
                "ops": {"port": 0},
                "upstream": {"base_url": base_url},
                "store": {"url": f"sqlite:///{folder}/gateway.db"},
                "streams": {"max_per_team": 20_000, "max_total": 20_000},
                "teams": [{"name": "bench", "keys": [{"key_env": "BENCH_KEY"}]}],
            },
            {"REPLICATE_API_TOKEN": token, "BENCH_KEY": KEY},
        )
        async with running(config) as stack:
            body = {"version": version, "input": {"prompt": "hi", "duration": 3600}}
            headers = {"Authorization": f"Bearer {KEY}"}
            async with (
                aiohttp.ClientSession(headers=headers) as session,
                session.post(f"{stack.base_url}/predictions", json=body) as response,
            ):
                made = await response.json()
            print(json.dumps({"url": made["urls"]["stream"]}), flush=True)
            await until_stopped()


# The subscribers


class Subscriber(asyncio.Protocol):
    """A connection that records the age of each event on arrival."""

    def __init__(self, request: bytes, ages: list[float], begun: list[int]) -> None:
        self._request = request
        self._ages = ages
        self._begun = begun

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Request the stream."""
        transport.write(self._request)  # type: ignore[attr-defined] # uvloop's transport is not an asyncio.Transport

    def data_received(self, data: bytes) -> None:
        """Parse the response head, then record each event."""
        now = time.time()
        if data.startswith(b"HTTP/1.1 200"):
            self._begun.append(1)
        _, *parts = data.split(b"\ndata: ")
        self._ages += [now - float(part[:17]) for part in parts]


async def subscribe(url: str, count: int, seconds: float) -> None:
    """Open the streams, report when they are open, listen for the given time, and report the age of events."""
    host, _, path = url.removeprefix("http://").partition("/")
    address, _, port = host.partition(":")
    request = f"GET /{path} HTTP/1.1\r\nHost: {host}\r\nAccept: text/event-stream\r\n\r\n".encode()
    ages: list[float] = []
    begun: list[int] = []
    loop = asyncio.get_running_loop()
    transports = []
    for at in range(0, count, 200):
        made = [
            loop.create_connection(lambda: Subscriber(request, ages, begun), address, int(port))
            for _ in range(min(200, count - at))
        ]
        transports += [transport for transport, _ in await asyncio.gather(*made)]
        while len(begun) < len(transports):  # noqa: ASYNC110 - filled by protocol callbacks
            await asyncio.sleep(0.01)
    await asyncio.sleep(2)
    print("open", flush=True)
    ages.clear()
    await asyncio.sleep(seconds)
    result = sorted(ages)
    said = {
        "events": len(result),
        "p50_ms": round(result[len(result) // 2] * 1000, 1),
        "p99_ms": round(result[len(result) * 99 // 100] * 1000, 1),
    }
    print(json.dumps(said), flush=True)
    for transport in transports:
        transport.abort()


# The measurement


@contextmanager
def part(core: int, *arguments: str):
    """Run a part of this benchmark in a process; yield the process and its first line, parsed as JSON."""
    with process([sys.executable, "-m", "bench.streams", *arguments], core) as started:
        yield started, json.loads(started.stdout.readline())


def measure(server: subprocess.Popen, url: str, count: int, seconds: float) -> dict[str, float]:
    """Open streams to a server, and measure its memory and CPU."""
    before = memory_kib(server.pid)["rss"]
    command = [sys.executable, "-m", "bench.streams", "subscribe", url, str(count), str(seconds)]
    with process(command, LOAD_CORE) as subscribers:
        if subscribers.stdout.readline() != b"open\n":
            raise SystemExit(f"{url}: the streams could not be opened")
        began, cpu = time.monotonic(), cpu_seconds(server.pid) or 0.0
        rss = memory_kib(server.pid)["rss"]
        said = json.loads(subscribers.stdout.readline())
        share = ((cpu_seconds(server.pid) or 0.0) - cpu) / (time.monotonic() - began)
    if said.pop("events") < count * (seconds - 2):
        raise SystemExit(f"{url}: events were lost")
    return {"kib_per_stream": round((rss - before) / count, 1), "cpu_percent": round(share * 100, 1)} | said


def rows(count: int, ours: Sequence[dict[str, float]], reference: Sequence[dict[str, float]]) -> list[Row]:
    """Return a row for each figure."""
    names = {"kib_per_stream": ("memory", "KiB"), "cpu_percent": ("CPU", "% of a core"), "p50_ms": ("p50", "ms")}
    names["p99_ms"] = ("p99", "ms")
    goals = {"kib_per_stream": "6 KiB more", "p99_ms": "1.5"}
    found = []
    for name, (label, unit) in names.items():
        mine, theirs = ([each[name] for each in samples] for samples in (ours, reference))
        # The CPU of few streams can be below what the system counts.
        against = [max(value, 0.1) for value in theirs]
        path, is_memory = f"{count:,} streams: {label}", name == "kib_per_stream"
        found.append(row(path, unit, mine, against, digits=1, goal=goals.get(name, ""), differs=is_memory))
    return found


def compare(counts: list[int], rounds: int, seconds: float) -> list[Row]:
    """Measure both servers in alternating rounds; return the rows."""
    table = []
    for count in counts:
        found: dict[str, list[dict[str, float]]] = {"bare": [], "gateway": []}
        for number in range(rounds):
            with part(SERVER_CORE, "bare") as (server, said):
                found["bare"].append(measure(server, said["url"], count, seconds))
            with (
                part(UPSTREAM_CORE, "upstream") as (_, up),
                part(SERVER_CORE, "gateway", up["base_url"], up["token"], up["version"]) as (server, said),
            ):
                found["gateway"].append(measure(server, said["url"], count, seconds))
            for name, measured in found.items():
                print(f"round {number + 1}  {count} streams  {name:<8} {measured[-1]}", flush=True)
        table += rows(count, found["gateway"], found["bare"])
    return table


def main() -> None:
    """Run the benchmark, or one of its parts."""
    most = raise_file_limit()
    parts = {"bare": bare, "upstream": upstream, "gateway": gateway}
    if len(sys.argv) > 1 and sys.argv[1] in parts:
        return run_on_loop(parts[sys.argv[1]](*sys.argv[2:]))
    if len(sys.argv) > 1 and sys.argv[1] == "subscribe":
        return run_on_loop(subscribe(sys.argv[2], int(sys.argv[3]), float(sys.argv[4])))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, nargs="+", default=[10_000])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=8, help="length of a round; at least 2")
    given = parser.parse_args()
    if max(given.streams) + _SPARE_FILES > most:
        raise SystemExit(
            f"{max(given.streams)} streams need more open files than the hard limit of {most} (ulimit -Hn)"
        )
    report("streams", compare(given.streams, given.rounds, given.seconds), seconds=given.seconds)
    return None


if __name__ == "__main__":
    main()
