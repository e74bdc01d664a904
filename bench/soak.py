"""Mixed load for an hour: what the process holds at the beginning and at the end.

    python -m bench.soak [--minutes 60] [--workers 20] [--every 10] [--folder DIR]

Callers create, poll, wait, hit, join, cancel, stream, list, upload and download, with pauses, against a gateway with
the simulator as upstream. `begin` is measured before the load, `warm` after a tenth of it, `end` after it, when all
runs have ended and idle connections have closed: memory, tasks, threads, sockets and other open files. `kept_mib` is
what the gateway keeps in memory on purpose, up to bounds. `curve` has a sample for every EVERY seconds. Exits with 1 if
a response was not as expected. The last line is a JSON object.
"""

import argparse
import asyncio
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import aiohttp

from bench.installed import HEADERS, ask, gateway
from bench.processes import UPSTREAM_CORE, Server, memory_kib, open_files, part, raise_file_limit, run_on_loop, threads
from bench.rounds import report, row, run

_TEXT, _IMAGE = "acme/official-storyteller", "black-forest-labs/flux-schnell"
_TASKS_FILE = "tasks.json"
_PAUSE_SECONDS = 0.2
_POLL_SECONDS = 0.1
_UPLOAD_BYTES = 200_000
_EXAMPLES = 5
_GAUGES = ("runs_followed", "sse_streams", "waiters", "upstream_connections", "transfers")
_KEPT = ("recent_bytes", "shown_bytes", "followed_bytes", "live_log_bytes", "kept_log_bytes", "metadata_cache_bytes")
"""What is kept in memory on purpose, up to a bound: docs/performance.md, What the gateway may use."""
_TERMINAL = {"succeeded", "failed", "canceled", "aborted"}
_SECTIONS = '[outputs]\nurl = "{folder}/outputs"\npersist = "all"\n'


class Unexpected(Exception):
    """A response was not as expected."""


class Caller:
    """The actions of callers."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session
        self._chaos = random.Random(1)
        self._seed = 0

    async def hit(self) -> None:
        """Create one of a few predictions, which are cached after the first time."""
        await self._create(_TEXT, {"seed": self._chaos.randrange(10)}, "wait")

    async def poll(self) -> None:
        """Create a prediction and poll it until it ends."""
        made = await self._create(_TEXT, {"seed": self._fresh()})
        while made["status"] not in _TERMINAL:
            await asyncio.sleep(_POLL_SECONDS)
            made = await self._json("GET", f"/v1/predictions/{made['id']}", 200)

    async def wait(self) -> None:
        """Create a prediction and wait for its end."""
        made = await self._create(_TEXT, {"seed": self._fresh()}, "wait")
        if made["status"] != "succeeded":
            raise Unexpected(f"waited, and the prediction is {made['status']}")

    async def join(self) -> None:
        """Create a prediction three times at once."""
        seed = self._fresh()
        await asyncio.gather(*(self._create(_TEXT, {"seed": seed}, "wait") for _ in range(3)))

    async def cancel(self) -> None:
        """Create a long prediction and cancel it."""
        made = await self._create(_TEXT, {"seed": self._fresh(), "duration": 600})
        done = await self._json("POST", f"/v1/predictions/{made['id']}/cancel", 200)
        if done["status"] not in _TERMINAL:
            raise Unexpected(f"cancelled, and the prediction is {done['status']}")

    async def stream(self) -> None:
        """Create a prediction and read its stream, to the end or not."""
        made = await self._create(_TEXT, {"seed": self._fresh()})
        leaves, received = self._chaos.random() < 0.2, b""
        async with self._session.get(made["urls"]["stream"]) as response:
            async for chunk in response.content.iter_any():
                received += chunk
                if leaves:
                    return
        if b"event: done" not in received:
            raise Unexpected("a stream ended without `done`")

    async def list(self) -> None:
        """Get the first page of the list, and a model."""
        await self._json("GET", "/v1/predictions", 200)
        await self._json("GET", f"/v1/models/{_IMAGE}", 200)

    async def upload(self) -> None:
        """Upload a file, read its record, and delete it."""
        form = aiohttp.FormData()
        form.add_field("content", self._chaos.randbytes(_UPLOAD_BYTES), filename="a.bin")
        made = await self._json("POST", "/v1/files", 201, data=form)
        await self._json("GET", f"/v1/files/{made['id']}", 200)
        async with self._session.delete(f"/v1/files/{made['id']}") as response:
            await self._expect(response, 204)

    async def download(self) -> None:
        """Create a picture and download it from the gateway."""
        made = await self._create(_IMAGE, {"seed": self._fresh()}, "wait")
        for url in made["output"]:
            async with self._session.get(url) as response:
                await self._expect(response, 200)
                await response.read()

    def _fresh(self) -> int:
        self._seed += 1
        return 1000 + self._seed

    async def _create(self, model: str, given: dict[str, object], prefer: str = "") -> dict:
        body = {"input": {"prompt": "a bench in the park", **given}}
        headers = {"Prefer": prefer} if prefer else {}
        return await self._json("POST", f"/v1/models/{model}/predictions", 201, json=body, headers=headers)

    async def _json(self, method: str, path: str, status: int, **given) -> dict:
        async with self._session.request(method, path, **given) as response:
            await self._expect(response, status)
            return await response.json()

    async def _expect(self, response: aiohttp.ClientResponse, status: int) -> None:
        if response.status != status:
            text = (await response.text(errors="replace"))[:300]
            raise Unexpected(f"{response.method} {response.url.path}: {response.status}, expected {status}: {text}")


WEIGHTS = {
    "hit": 30,
    "poll": 15,
    "wait": 15,
    "join": 5,
    "cancel": 5,
    "stream": 10,
    "list": 5,
    "upload": 5,
    "download": 5,
}


class Soak:
    """The load and what it found."""

    def __init__(self, server: Server, folder: Path) -> None:
        self._server = server
        self._tasks_file = folder / _TASKS_FILE
        self._began = time.monotonic()
        self.done: Counter[str] = Counter()
        self.errors: Counter[str] = Counter()
        self.examples: list[str] = []
        self.curve: list[dict[str, float]] = []

    async def work(self, caller: Caller, until: float, chaos: random.Random) -> None:
        """Act until the time is over."""
        names, weights = list(WEIGHTS), list(WEIGHTS.values())
        while time.monotonic() < until:
            (name,) = chaos.choices(names, weights)
            action: Callable[[], Awaitable[None]] = getattr(caller, name)
            try:
                await action()
            except (Unexpected, aiohttp.ClientError, TimeoutError) as error:
                self.errors[name] += 1
                if len(self.examples) < _EXAMPLES:
                    self.examples.append(f"{name}: {type(error).__name__}: {error}")
            else:
                self.done[name] += 1
            await asyncio.sleep(chaos.random() * 2 * _PAUSE_SECONDS)

    async def sample(self) -> dict[str, float]:
        """Measure the gateway's process."""
        pid = self._server.pid
        memory, files = memory_kib(pid), open_files(pid)
        found: dict[str, float] = {
            "seconds": round(time.monotonic() - self._began, 1),
            "rss_mib": round(memory["rss"] / 1024, 1),
            "pss_mib": round(memory["pss"] / 1024, 1),
            "tasks": await self._tasks(),
            "threads": threads(pid),
            **files,
        }
        metrics = (await asyncio.to_thread(ask, f"{self._server.said['ops']}/metrics", {}))[1].decode()
        for line in metrics.splitlines():
            name = line.partition(" ")[0].partition("{")[0].removeprefix("replicate_gateway_")
            if name in _GAUGES + _KEPT and line.startswith("replicate_gateway_"):
                found[name] = found.get(name, 0) + float(line.rpartition(" ")[2])
        found["kept_mib"] = round(sum(found.get(name, 0) for name in _KEPT) / 2**20, 1)
        return found

    async def watch(self, every: float) -> None:
        """Sample until cancelled."""
        while True:
            await asyncio.sleep(every)
            self.curve.append(await self.sample())
            print(json.dumps(self.curve[-1]).strip("{}"), flush=True)

    async def until_quiet(self, begin: dict[str, float], longest: float) -> dict[str, float]:
        """Wait until the gateway follows no run and has no more sockets than at the beginning; return the sample."""
        last = time.monotonic() + longest
        while True:
            found = await self.sample()
            is_quiet = not found["runs_followed"] and found["sockets"] <= begin["sockets"]
            if is_quiet or time.monotonic() > last:
                return found
            await asyncio.sleep(0.5)

    async def _tasks(self) -> int:
        """Ask the process for the number of its tasks."""
        self._tasks_file.unlink(missing_ok=True)
        os.kill(self._server.pid, signal.SIGUSR1)
        for _ in range(100):
            await asyncio.sleep(0.05)
            if self._tasks_file.exists() and (text := self._tasks_file.read_text()):
                return int(text)
        raise SystemExit("the gateway does not answer a signal")


async def measure(given: argparse.Namespace, folder: Path, server: Server) -> Soak:
    """Put the load on the gateway."""
    soak, seconds = Soak(server, folder), given.minutes * 60
    begin = await soak.sample()
    until = time.monotonic() + seconds
    timeout = aiohttp.ClientTimeout(total=90)
    connector = aiohttp.TCPConnector(limit=0)
    watching = asyncio.create_task(soak.watch(given.every))
    async with aiohttp.ClientSession(server.origin, headers=HEADERS, timeout=timeout, connector=connector) as session:
        caller = Caller(session)
        workers = [soak.work(caller, until, random.Random(number)) for number in range(given.workers)]
        warm = asyncio.create_task(_later(seconds / 10, soak.sample))
        await asyncio.gather(*workers)
    watching.cancel()
    soak.curve = [begin, await warm, *soak.curve, await soak.until_quiet(begin, given.settle)]
    return soak


async def _later(seconds: float, call: Callable[[], Awaitable[dict[str, float]]]) -> dict[str, float]:
    await asyncio.sleep(seconds)
    return await call()


async def serve(path: str) -> None:
    """Serve like `gateway serve`, and write the number of tasks to a file at SIGUSR1."""
    from gateway import app, logs
    from gateway.config import load
    from gateway.runtime.allocator import return_freed_memory

    return_freed_memory()
    config = load(Path(path), os.environ, serving=True)
    logs.configure(config.logs.format, config.logs.level, config.secret_values(), queued=True)
    target = Path(path).parent / _TASKS_FILE
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGUSR1, lambda: target.write_text(str(len(asyncio.all_tasks()))))
    await app.serve(config, reread=partial(load, Path(path), os.environ, serving=True), echo=partial(print, flush=True))


def main() -> None:
    """Run the benchmark, or the gateway that it starts."""
    if sys.argv[1:2] == ["serve"]:
        run_on_loop(serve(sys.argv[2]))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--workers", type=int, default=20)
    parser.add_argument("--every", type=float, default=10, help="seconds between two samples")
    parser.add_argument("--settle", type=float, default=60, help="most seconds to wait at the end until all is quiet")
    parser.add_argument("--folder", type=Path, help="where the store is; by default a temporary folder")
    given = parser.parse_args()
    raise_file_limit()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=given.folder)))
        upstream = stack.enter_context(part("bench.serve", "simulator", core=UPSTREAM_CORE))
        sections = _SECTIONS.format(folder=folder)
        server = stack.enter_context(
            gateway(upstream.origin, sections=sections, folder=folder, command=("-m", "bench.soak", "serve"))
        )
        soak = asyncio.run(measure(given, folder, server))
    begin, warm, *curve, end = soak.curve
    units = dict.fromkeys(("rss_mib", "pss_mib", "kept_mib"), "MiB")
    table = [
        row(f"soak: {name}, end / {label}", units.get(name, ""), [end[name]], [max(sample[name], 0.1)], digits=1)
        for label, sample in (("begin", begin), ("warm", warm))
        for name in ("rss_mib", "pss_mib", "kept_mib", "tasks", "threads", "sockets", "files")
    ]
    report(
        "soak", table, minutes=given.minutes, begin=begin, warm=warm, end=end, done=dict(soak.done),
        errors=dict(soak.errors), examples=soak.examples, curve=curve,
    )  # fmt: skip
    if soak.errors:
        raise SystemExit(f"{sum(soak.errors.values())} actions failed; the first: {soak.examples[0]}")


if __name__ == "__main__":
    run(main)
