"""Shared by the throughput benchmarks: servers in separate processes on core 1, load from core 0, alternating rounds.

`wrk` generates the load if it is installed, else a small asyncio client. The result names the generator.
"""

import asyncio
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

SERVER_CORE, LOAD_CORE = "1", "0"
KEY = "rgw_benchbenchbe_" + "b" * 32


def pinned(core: str, command: Sequence[str]) -> list[str]:
    """Return the command, pinned to a core if the machine has taskset and more than one core."""
    if shutil.which("taskset") and (os.cpu_count() or 1) > 1:
        return ["taskset", "-c", core, *command]
    return list(command)


@contextmanager
def server(*arguments: str):
    """Run `python -m bench.serve …` and yield its first line, parsed as JSON."""
    command = pinned(SERVER_CORE, [sys.executable, "-m", "bench.serve", *arguments])
    # The log goes to a pipe with a reader, as with a log collector.
    collector = (
        subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
        if arguments[:1] == ("gateway",) and arguments[1:]
        else None
    )
    pipes = {"stdout": subprocess.PIPE, "stdin": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, stderr=collector and collector.stdin, **pipes) as process:
        try:
            yield json.loads(process.stdout.readline())
        finally:
            process.terminate()
            if collector is not None:
                collector.stdin.close()
                collector.wait(timeout=10)


def rate(url: str, *, headers: Mapping[str, str], body: bytes | None = None, seconds: float, connections: int) -> float:
    """Return the successful requests per second."""
    if shutil.which("wrk"):
        return _wrk(url, headers, body, seconds, connections)
    return asyncio.run(_client(url, headers, body, seconds, connections))


def loader() -> str:
    """Return the name of the load generator."""
    return "wrk" if shutil.which("wrk") else "asyncio client"


def _wrk(url: str, headers: Mapping[str, str], body: bytes | None, seconds: float, connections: int) -> float:
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds:g}s"]
    with tempfile.TemporaryDirectory() as folder:
        if body is not None:
            script = Path(folder) / "post.lua"
            script.write_text(f'wrk.method = "POST"\nwrk.body = {json.dumps(body.decode())}\n')
            command += ["-s", str(script)]
        for name, value in headers.items():
            command += ["-H", f"{name}: {value}"]
        out = subprocess.run(
            pinned(LOAD_CORE, [*command, url]), capture_output=True, text=True, check=True, timeout=seconds + 30
        ).stdout
    if bad := re.search(r"Non-2xx or 3xx responses: (\d+)", out):
        raise SystemExit(f"{bad[1]} answers of {url} were no success")
    found = re.search(r"Requests/sec:\s+([\d.]+)", out)
    assert found is not None, out
    return float(found[1])


async def _client(url: str, headers: Mapping[str, str], body: bytes | None, seconds: float, connections: int) -> float:
    import aiohttp

    done, end = 0, time.perf_counter() + seconds

    async def ask(session: aiohttp.ClientSession) -> None:
        nonlocal done
        while time.perf_counter() < end:
            async with session.request("GET" if body is None else "POST", url, data=body) as response:
                await response.read()
                assert response.status < 300, response.status
                done += 1

    connector = aiohttp.TCPConnector(limit=connections)
    async with aiohttp.ClientSession(connector=connector, headers=dict(headers)) as session:
        await asyncio.gather(*(ask(session) for _ in range(connections)))
    return done / seconds


def compare(contenders: Mapping[str, dict], *, rounds: int, seconds: float, connections: int) -> dict[str, object]:
    """Load each server in alternating rounds. Return medians, and ratios to `bare` per round."""
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(rounds):
        for name, ask in contenders.items():
            measured = rate(**ask, seconds=seconds, connections=connections)
            rates[name].append(measured)
            print(f"round {number + 1}  {name:<8} {measured:>10.0f} requests/s", flush=True)
    ratios = [mine / bare for mine, bare in zip(rates["gateway"], rates["bare"], strict=True)]
    return {
        "load": loader(),
        "connections": connections,
        "rounds": rounds,
        **{f"{name}_per_second": round(statistics.median(values)) for name, values in rates.items()},
        "ratio": round(statistics.median(ratios), 3),
        "ratio_min": round(min(ratios), 3),
        "ratio_max": round(max(ratios), 3),
    }
