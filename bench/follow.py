"""Delay from the end of a run upstream to the response of `Prefer: wait`.

    python -m bench.follow [--runs 5] [--durations 0.3 1 5 30]

Measured with the gateway, which polls, and with the simulator directly, which knows its own end. Both run in one
process with one clock. The last line is a JSON object with delays in seconds.
"""

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from datetime import datetime

import aiohttp

from bench.processes import KEY
from gateway.app import running
from gateway.config import from_mapping
from gateway.simulator import Simulator, SimulatorSettings

SLOW = "b4186a5171ad62e0d7679fcc8ad62fb99b1881ec9211e494283b2c4c082b4b5c"


async def delay(session: aiohttp.ClientSession, base: str, key: str, duration: float, number: int, upstream) -> float:
    """Run once, and return the delay of the response in seconds."""
    body = {"version": SLOW, "input": {"duration": duration, "prompt": f"{base} {number}"}}
    headers = {"Authorization": f"Bearer {key}", "Prefer": "wait=60"}
    async with session.post(f"{base}/predictions", json=body, headers=headers) as response:
        answer = await response.json()
        answered_at = time.time()
    assert answer["status"] in ("succeeded", "processing"), answer["status"]
    # Like Replicate, the simulator omits completed_at in the response of a sync wait; a later read has it.
    token, url = upstream
    while not answer.get("completed_at"):
        async with session.get(f"{url}/predictions/{answer['id']}", headers={"Authorization": f"Bearer {token}"}) as r:
            answer = await r.json()
    ended_at = datetime.fromisoformat(answer["completed_at"]).timestamp()
    return max(0.0, answered_at - ended_at)


async def measure(durations: list[float], runs: int) -> dict[str, object]:
    """Run each duration `runs` times with gateway and simulator, alternating."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        async with Simulator(SimulatorSettings()) as simulator, aiohttp.ClientSession() as session:
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
                upstream = (simulator.token, simulator.base_url)
                for duration in durations:
                    through, direct = [], []
                    for number in range(runs):
                        one = delay(session, stack.base_url, KEY, duration, number, upstream)
                        other = delay(session, simulator.base_url, simulator.token, duration, number, upstream)
                        mine, theirs = await asyncio.gather(one, other)
                        through.append(mine)
                        direct.append(theirs)
                    row = {
                        "run_seconds": duration,
                        "gateway": round(statistics.median(through), 4),
                        "direct": round(statistics.median(direct), 4),
                        "share_of_run": round(statistics.median(through) / duration, 4),
                    }
                    print(row, flush=True)
                    rows.append(row)
    return {"bench": "follow", "runs": runs, "delays": rows}


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--durations", type=float, nargs="+", default=[0.3, 1, 5, 30])
    options = parser.parse_args()
    print(json.dumps(asyncio.run(measure(options.durations, options.runs))))


if __name__ == "__main__":
    main()
