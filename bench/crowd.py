"""Upstream calls of a shared run: many callers create the same deterministic prediction and poll it until it ends.

    python -m bench.crowd [--callers 500] [--seconds 60] [--hertz 2]

Counts the upstream requests, compared with a single caller and a run of equal length. The last line is a JSON object.
"""

import argparse
import asyncio
import json
import tempfile
import time

import aiohttp

from bench.follow import SLOW
from bench.processes import KEY
from gateway.app import running
from gateway.config import from_mapping
from gateway.simulator import Simulator, SimulatorSettings

HEADERS = {"Authorization": f"Bearer {KEY}"}


async def caller(
    session: aiohttp.ClientSession, base: str, prompt: str, seconds: float, hertz: float
) -> tuple[str, int]:
    """Create a prediction and poll until it ends. Return its id and the number of polls."""
    body = {"version": SLOW, "input": {"duration": seconds, "prompt": prompt, "seed": 1}}
    async with session.post(f"{base}/predictions", json=body, headers=HEADERS) as response:
        prediction = await response.json()
    polls = 0
    while prediction["status"] not in ("succeeded", "failed", "canceled", "aborted"):
        await asyncio.sleep(1 / hertz)
        async with session.get(prediction["urls"]["get"], headers=HEADERS) as response:
            prediction = await response.json()
        polls += 1
    assert prediction["status"] == "succeeded", prediction["status"]
    return prediction["id"], polls


async def measure(callers: int, seconds: float, hertz: float) -> dict[str, object]:
    """Run a single caller, then all callers, and count requests."""
    rows: dict[str, object] = {"bench": "crowd", "callers": callers, "run_seconds": seconds, "hertz": hertz}
    with tempfile.TemporaryDirectory() as folder:
        connector = aiohttp.TCPConnector(limit=0)
        async with Simulator(SimulatorSettings()) as simulator, aiohttp.ClientSession(connector=connector) as session:
            config = from_mapping(
                {
                    "server": {"port": 0},
                    "ops": {"port": 0},
                    "upstream": {"base_url": simulator.base_url},
                    "store": {"url": f"sqlite:///{folder}/gateway.db"},
                    "teams": [{"name": "bench", "keys": [{"key_env": "BENCH_KEY"}]}],
                },
                {"REPLICATE_API_TOKEN": simulator.token, "BENCH_KEY": KEY},
            )
            async with running(config) as stack:
                for name, number in (("alone", 1), ("crowd", callers)):
                    simulator.requests.clear()
                    began = time.perf_counter()
                    done = await asyncio.gather(
                        *(caller(session, stack.base_url, name, seconds, hertz) for _ in range(number))
                    )
                    rows[name] = {
                        "seconds": round(time.perf_counter() - began, 2),
                        "ids": len({prediction_id for prediction_id, _ in done}),
                        "polls_answered": sum(polls for _, polls in done),
                        "upstream_creates": simulator.requests.count("*predictions.create"),
                        "upstream_reads": simulator.requests.count("*predictions.get"),
                    }
                    print(name, rows[name], flush=True)
    return rows


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--callers", type=int, default=500)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--hertz", type=float, default=2)
    options = parser.parse_args()
    print(json.dumps(asyncio.run(measure(options.callers, options.seconds, options.hertz))))


if __name__ == "__main__":
    main()
