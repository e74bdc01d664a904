"""What stalled uploads of one team cost another: latency of its polls and creates, with and without them.

    python -m bench.stalled_uploads [--uploads 150] [--rounds 5] [--requests 200]

The reference is the same gateway in the same run, without uploads. Rounds alternate. An upload sends 1000 bytes of a
megabyte, then nothing; one that the gateway gives up is begun again. The last line is a JSON object.
"""

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import aiohttp

from gateway.simulator import Simulator, SimulatorSettings
from tests.support.installation import Installation, install

_FORM = b'--b\r\nContent-Disposition: form-data; name="content"; filename="a.bin"\r\n\r\n'
_MODEL = "acme/official-storyteller"
_PART_BYTES = 1000
_RETRY_SECONDS = 5.0
_PAUSE_SECONDS = 0.12


async def stall(installed: Installation, number: int) -> None:
    """Hold an upload open. Sizes differ, so that no two uploads can be of equal content."""
    host, port = installed.origin.removeprefix("http://").split(":")
    head = (
        f"POST /v1/files HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {installed.keys['alpha']}\r\n"
        f"Content-Type: multipart/form-data; boundary=b\r\nContent-Length: {10**6 + number * 20_000}\r\n\r\n"
    ).encode()
    while True:
        reader, writer = await asyncio.open_connection(host, int(port))
        with suppress(OSError):
            writer.write(head + _FORM + b"x" * _PART_BYTES)
            await writer.drain()
            await reader.read()
        writer.close()
        await asyncio.sleep(_RETRY_SECONDS)


@asynccontextmanager
async def stalled(installed: Installation, count: int) -> AsyncIterator[None]:
    """Hold `count` uploads of the team alpha open."""
    tasks = [asyncio.create_task(stall(installed, number)) for number in range(count)]
    await asyncio.sleep(1.0)
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0.5)


async def measure(session: aiohttp.ClientSession, requests: int, first: int) -> dict[str, list[float]]:
    """Return the seconds that each create and each poll of the team beta took."""
    taken: dict[str, list[float]] = {"create": [], "poll": []}
    for number in range(first, first + requests):
        began = time.perf_counter()
        body = {"input": {"prompt": "hi", "seed": number}}
        async with session.post(f"/v1/models/{_MODEL}/predictions", json=body) as response:
            made = await response.json()
            assert response.status == 201, made
        taken["create"].append(time.perf_counter() - began)
        began = time.perf_counter()
        async with session.get(f"/v1/predictions/{made['id']}") as response:
            await response.read()
            assert response.status == 200
        taken["poll"].append(time.perf_counter() - began)
        # Below the account's rate of creates, which would hold them.
        await asyncio.sleep(_PAUSE_SECONDS)
    return taken


def summary(seconds: list[float]) -> dict[str, float]:
    """Return the median and the 99th percentile, in milliseconds."""
    percentiles = statistics.quantiles(seconds, n=100)
    return {"p50_ms": round(percentiles[49] * 1000, 2), "p99_ms": round(percentiles[98] * 1000, 2)}


async def run(uploads: int, rounds: int, requests: int) -> dict[str, object]:
    """Run the rounds against one gateway."""
    without: dict[str, list[float]] = {"create": [], "poll": []}
    beside: dict[str, list[float]] = {"create": [], "poll": []}
    with tempfile.TemporaryDirectory() as folder:
        async with Simulator(SimulatorSettings(speed=20)) as simulator:
            installed = install(simulator, Path(folder), ["alpha", "beta"])
            config = installed.folder / "config.toml"
            config.write_text(config.read_text().replace('level = "debug"', 'level = "warning"'))
            async with installed.serving(), installed.caller("beta") as session:
                await measure(session, requests, 0)
                for number in range(1, rounds + 1):
                    for name, seconds in (await measure(session, requests, 2 * number * requests)).items():
                        without[name] += seconds
                    async with stalled(installed, uploads):
                        taken = await measure(session, requests, (2 * number + 1) * requests)
                    for name, seconds in taken.items():
                        beside[name] += seconds
    return {
        kind: {
            "without": summary(without[kind]),
            "with_uploads": summary(beside[kind]),
            "p99_ratio": round(summary(beside[kind])["p99_ms"] / summary(without[kind])["p99_ms"], 2),
        }
        for kind in ("create", "poll")
    }


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--uploads", type=int, default=150)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=200)
    options = parser.parse_args()
    result = asyncio.run(run(options.uploads, options.rounds, options.requests))
    print(json.dumps({"bench": "stalled_uploads", "uploads": options.uploads, **result}))


if __name__ == "__main__":
    main()
