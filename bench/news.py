"""How late does a node learn what another node knows?

    python -m bench.news [--runs 200] [--streams 100] [--every 0.25] [--seconds 8]

Two gateways in processes of their own serve from one PostgreSQL; a third process is upstream. Both nodes are asked for
the same run at the same time:

- `end`: two callers wait for a run that node A follows, one on each node. The figure is by how much the answer of node
  B comes later than that of node A.
- `stream`: readers on both nodes read streams of runs that node A follows. The figure is the age of an
  event when it arrives.
- `told`: what the nodes themselves measure, from an event until the database has passed on the news of it.

The database syncs nothing, so commits take less than on a real disk. All processes share all cores. The last
line is a JSON object.
"""

import argparse
import asyncio
import json
import os
import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import aiohttp
from aiohttp import web

from bench.processes import KEY, cpu_seconds, process, raise_file_limit, run_on_loop
from bench.rounds import MACHINE
from bench.stream_host import serve_streams, until_stopped
from tests.support.postgres import new_database

_MODEL = "acme/storyteller"
_PADDING = "x" * 60
_AT_ONCE = 20
_HEADERS = {"Authorization": f"Bearer {KEY}"}
_UNLIMITED = 600_000


# The processes


async def upstream(every: str) -> None:
    """Run the simulator, and a host of streams with an event every few hundredths of a second or more."""
    from gateway.simulator import SimulatorSettings

    async def stream(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        with suppress(ConnectionError):
            for number in range(10_000):
                await asyncio.sleep(float(every))
                event = f"event: output\nid: {int(time.time())}:{number}\ndata: {time.time():.6f} {_PADDING}\n\n"
                await response.write(event.encode())
        return response

    settings = SimulatorSettings(speed=20.0, creates_per_minute=_UNLIMITED, requests_per_minute=_UNLIMITED)
    await serve_streams(settings, _MODEL, stream)


async def node(database: str, base_url: str, token: str) -> None:
    """Run a gateway on the database."""
    from gateway.app import running
    from gateway.config import from_mapping

    config = from_mapping(
        {
            "server": {"port": 0},
            "ops": {"port": 0},
            "upstream": {
                "base_url": base_url,
                "creates_per_minute": _UNLIMITED,
                "requests_per_minute": _UNLIMITED,
            },
            "store": {"url": database},
            "teams": [{"name": "bench", "keys": [{"key_env": "BENCH_KEY"}]}],
        },
        {"REPLICATE_API_TOKEN": token, "BENCH_KEY": KEY},
    )
    async with running(config) as stack:
        print(json.dumps({"url": stack.base_url, "ops": stack.ops_url, "pid": os.getpid()}), flush=True)
        await until_stopped()


@contextmanager
def part(*arguments: str) -> Iterator[Mapping[str, Any]]:
    """Run a part of this benchmark in a process; yield its first line, parsed as JSON."""
    with process([sys.executable, "-m", "bench.news", *arguments], None) as started:
        assert started.stdout is not None
        line = started.stdout.readline()
        if not line:
            raise SystemExit(f"{arguments[0]} did not start")
        yield json.loads(line)


# The measurements


async def create(
    session: aiohttp.ClientSession, url: str, version: str, seed: int, duration: float = 20.0, **headers: str
) -> dict:
    """Create a prediction of a run that equal requests share."""
    given = {"prompt": "a llama", "seed": seed, "max_tokens": 4, "duration": duration}
    body = {"version": f"{_MODEL}:{version}", "input": given}
    async with session.post(f"{url}/predictions", json=body, headers=headers) as response:
        if response.status != 201:
            raise SystemExit(f"{url} answered {response.status}: {await response.text()}")
        return await response.json()


async def late_end(session: aiohttp.ClientSession, urls: Sequence[str], version: str, seed: int) -> float:
    """Return by how many milliseconds the answer of the second node comes later than that of the first."""
    await create(session, urls[0], version, seed)

    async def waited(url: str) -> float:
        body = await create(session, url, version, seed, Prefer="wait=60")
        if body["status"] != "succeeded":
            raise SystemExit(f"{url}: the run is {body['status']}")
        return time.perf_counter()

    first, second = await asyncio.gather(*map(waited, urls))
    return (second - first) * 1000


async def ends(urls: Sequence[str], version: str, count: int) -> list[float]:
    """Measure ends of so many runs, some at a time."""
    gate = asyncio.Semaphore(_AT_ONCE)
    async with aiohttp.ClientSession(headers=_HEADERS, connector=aiohttp.TCPConnector(limit=0)) as session:

        async def one(seed: int) -> float:
            async with gate:
                return await late_end(session, urls, version, seed)

        return await asyncio.gather(*map(one, range(count)))


async def ages(url: str, seconds: float, found: list[float]) -> None:
    """Read a stream, and record the age of each event in milliseconds."""
    ends_at = time.monotonic() + seconds
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        async for chunk in response.content.iter_any():
            now = time.time()
            _, *parts = chunk.split(b"\ndata: ")
            found += [(now - float(each[:17])) * 1000 for each in parts]
            if time.monotonic() > ends_at:
                return


async def streams(urls: Sequence[str], version: str, count: int, seconds: float) -> list[list[float]]:
    """Measure the ages of events on each node."""
    found: list[list[float]] = [[] for _ in urls]
    async with aiohttp.ClientSession(headers=_HEADERS, connector=aiohttp.TCPConnector(limit=0)) as session:
        made = [await create(session, urls[0], version, 10_000 + number, duration=3_600.0) for number in range(count)]
    reading = [
        ages(f"{url}/{each['urls']['stream'].partition('/v1/')[2]}", seconds + 2.0, found[at])
        for each in made
        for at, url in enumerate(urls)
    ]
    clearing = asyncio.get_running_loop().call_later(2.0, lambda: [each.clear() for each in found])
    await asyncio.gather(*reading)
    clearing.cancel()
    return found


async def told(ops: Sequence[str]) -> dict[str, float]:
    """Return what the nodes measured of news: the bounds below which half and 99 % of it are, in milliseconds."""
    counts: dict[float, float] = {}
    async with aiohttp.ClientSession() as session:
        for each in ops:
            async with session.get(f"{each}/metrics") as response:
                text = await response.text()
            for bound, value in re.findall(r'news_seconds_bucket\{le="([^"]+)"\} (\S+)', text):
                counts[float(bound)] = counts.get(float(bound), 0.0) + float(value)
    most = max(counts.values(), default=0.0)
    bounds = {share: min(at for at, count in counts.items() if count >= most * share) for share in (0.5, 0.99)}
    return {"messages": most, "p50_below_ms": bounds[0.5] * 1000, "p99_below_ms": bounds[0.99] * 1000}


def summary(values: Sequence[float]) -> dict[str, float]:
    """Return the median and the 99th percentile of milliseconds."""
    result = sorted(values)
    figures = {"p50_ms": result[len(result) // 2], "p99_ms": result[len(result) * 99 // 100]}
    return {"count": len(result)} | {name: round(each, 1) for name, each in figures.items()}


async def measure(
    given: argparse.Namespace, urls: Sequence[str], ops: Sequence[str], pids: Sequence[int], version: str
) -> dict:
    """Measure everything, and return it by name."""
    found: dict[str, object] = {"end": summary(await ends(urls, version, given.runs))}
    began, before = time.monotonic(), [cpu_seconds(pid) or 0.0 for pid in pids]
    owner, other = await streams(urls, version, given.streams, given.seconds)
    took = time.monotonic() - began
    shares = [round(((cpu_seconds(pid) or 0.0) - used) / took * 100) for pid, used in zip(pids, before, strict=True)]
    found |= {
        "stream_owner": summary(owner) | {"cpu_percent": shares[0]},
        "stream_other": summary(other) | {"cpu_percent": shares[1]},
        "told": await told(ops),
    }
    return found


def main() -> None:
    """Run the benchmark, or one of its parts."""
    raise_file_limit()
    parts = {"upstream": upstream, "node": node}
    if len(sys.argv) > 1 and sys.argv[1] in parts:
        return run_on_loop(parts[sys.argv[1]](*sys.argv[2:]))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--streams", type=int, default=100)
    parser.add_argument("--every", type=float, default=0.25, help="seconds between two events of a stream")
    parser.add_argument("--seconds", type=float, default=8.0)
    given = parser.parse_args()
    database = new_database()
    with ExitStack() as stack:
        up = stack.enter_context(part("upstream", str(given.every)))
        nodes = [stack.enter_context(part("node", database, up["base_url"], up["token"])) for _ in range(2)]
        urls, ops, pids = ([each[name] for each in nodes] for name in ("url", "ops", "pid"))
        found = asyncio.run(measure(given, urls, ops, pids, up["version"]))
    for name, figures in found.items():
        print(f"{name:<14} {figures}", flush=True)
    print(json.dumps({"bench": "news", "machine": MACHINE} | found))
    return None


if __name__ == "__main__":
    main()
