"""How long does the worst input keep everybody else waiting?

    python -m bench.stall [--only NAME] [--patience 60]

A gateway in a process of its own is sent hostile bodies (compressed: a few KiB on the wire), and answers of an upstream
that are hostile too, one after the other. Meanwhile another process asks `/healthz` again and again; the longest time
that an answer took is the stall. `quiet_ms` is the same without any input. That time is right on a machine that does
nothing else. `held_ms` and `step_ms` are right on any: CPU time, as the gateway itself measures it
(`bench/stall_gateway.py`).

The last line is one JSON object: the worst stall, and a table by input.
"""

import argparse
import asyncio
import json
import os
import secrets
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from bench.stall_gateway import MARK
from bench.stall_probe import Probe
from bench.stall_upstream import DOCUMENTS, MODELS, HostileUpstream
from gateway.access.rules.api_keys import new_key
from tests.support.hostile import VALUES, bomb, data_uri, keys, marks, string

LIMIT_MS = 50.0
SIZE = 12_000_000
"""Bytes of a body; some kinds are longer in JSON's escapes, and `max_body_bytes` is 16 MiB."""
SDXL = b"39ed52f2a78e934b3ba6e2a89f5b1c712de7dfea535525255b1aa35c5565e08b"
_CONFIG = """
[server]
port = 0
[ops]
port = 0
[upstream]
base_url = "{base_url}"
[store]
url = "sqlite:///{folder}/gateway.db"
[logs]
level = "error"
[[teams]]
name = "bench"
keys = [{{ name = "default", key_env = "BENCH_KEY" }}]
"""


def create(value: bytes) -> bytes:
    """Write a create whose input is the value."""
    return b'{"version":"%b","input":{"x":%b}}' % (SDXL, value)


def _of_kind(name: str) -> Callable[[], bytes]:
    return lambda: create(VALUES[name](SIZE))


# Quadratic ones are small: at full size they would take hours.
BODIES: dict[str, Callable[[], bytes]] = {
    "a plain text": lambda: create(string("x" * SIZE)),
    "a data URI of 8 MB": lambda: create(json.dumps(data_uri(8_000_000, 1)).encode()),
    "20,000 combining marks in a link": lambda: create(string("http://a" + marks(20_000) + "/v1/files/abcdefghij")),
    "20,000 combining marks in a webhook": lambda: (
        b'{"version":"%b","input":{},"webhook":%b}' % (SDXL, string("https://a" + marks(20_000)))
    ),
    "many unknown fields": lambda: b'{"version":"%b","input":{},%b' % (SDXL, keys(SIZE)[1:]),
    "a letter escaped": lambda: create(b'"\\u0041' + b"x" * SIZE + b'"'),
    **{
        name: _of_kind(name)
        for name in (
            "many short links", "many file links", "many small strings", "many numbers", "many keys",
            "many empty objects", "nested arrays", "nested objects", "lone surrogates in a string",
            "various lone surrogates", "pairs of surrogates", "escapes in a string", "line ends in a string",
            "backslashes in a string", "percent slashes in a link", "commas in a string", "many large exponents",
            "an integer of many digits",
            "many data URIs", "a folded data URI", "deep and wide", "one key again and again", "white space",
        )
    },
}  # fmt: skip


CREATED = (
    "a plain text", "pairs of surrogates", "backslashes in a string", "percent slashes in a link", "a folded data URI",
    "white space",
)  # fmt: skip
"""Bodies that are within the limits. They are sent as creates, too, with an `Idempotency-Key`."""
CREATES = "/v1/predictions"


@dataclass(frozen=True)
class Row:
    """What one input did."""

    stall_ms: float
    held_ms: float
    step_ms: float
    seconds: float
    status: int | str
    wire_bytes: int


@dataclass(frozen=True)
class Gateway:
    """A gateway in a process of its own."""

    origin: str
    key: str
    process: asyncio.subprocess.Process

    async def worst(self) -> dict[str, float]:
        """Return the worst CPU times since the last question."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(b"\n")
        while not (line := await self.process.stdout.readline()).startswith(MARK.encode()):
            assert line
        found: dict[str, float] = json.loads(line.removeprefix(MARK.encode()))
        return found

    def session(self, patience: float) -> aiohttp.ClientSession:
        """Call it with the key."""
        timeout = aiohttp.ClientTimeout(total=patience)
        return aiohttp.ClientSession(self.origin, headers={"Authorization": f"Bearer {self.key}"}, timeout=timeout)


@asynccontextmanager
async def gateway(base_url: str) -> AsyncIterator[Gateway]:
    """Start one before an upstream."""
    key = new_key(secrets.token_bytes).key
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "config.toml"
        config.write_text(_CONFIG.format(base_url=base_url, folder=folder))
        environ = {**os.environ, "REPLICATE_API_TOKEN": "r8_" + "t" * 37, "BENCH_KEY": key}
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "bench.stall_gateway", "serve", "--config", str(config),
            env=environ, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert process.stdout is not None
        try:
            line = (await asyncio.wait_for(process.stdout.readline(), 30)).decode()
            origin = next(word for word in line.split() if word.startswith("http://")).rstrip(";").removesuffix("/v1")
            yield Gateway(origin, key, process)
        finally:
            process.kill()
            await process.wait()


async def send(target: Gateway, body: bytes, patience: float, path: str = "/gateway/estimate") -> tuple[int | str, int]:
    """Ask for an estimate of a body, or create; return the status and what went over the wire."""
    packed = bomb(body)
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    if path == CREATES:
        headers["Idempotency-Key"] = secrets.token_hex(8)
    try:
        async with target.session(patience) as session, session.post(path, data=packed, headers=headers) as response:
            await response.read()
            return response.status, len(packed)
    except (TimeoutError, aiohttp.ClientError) as exc:
        return type(exc).__name__, len(packed)


async def follow(target: Gateway, name: str, patience: float) -> tuple[int | str, int]:
    """Create a prediction of which upstream says hostile things; poll it, list it, read its stream, see its end."""
    body = {"version": SDXL.decode(), "input": {"kind": name, "seed": 1}}
    try:
        async with target.session(patience) as session:
            async with session.post("/v1/predictions", json=body) as response:
                made = await response.json()
                status = response.status
            reads = [made["urls"]["get"], "/v1/predictions", made["urls"]["get"]]
            if "stream" in made["urls"]:
                reads.append(made["urls"]["stream"])
            if name == MODELS:
                reads += ["/v1/models", "/v1/models"]
            await asyncio.sleep(3)
            # By now the version's model is known, and its schema is asked for.
            async with session.post("/v1/predictions", json=body) as response:
                await response.read()
            for url in reads:
                async with session.get(url) as response:
                    await response.read()
            return status, 0
    except (TimeoutError, aiohttp.ClientError, KeyError) as exc:
        return type(exc).__name__, 0


async def measure(patience: float, only: str | None) -> dict[str, object]:
    """Send every input, each to a gateway that is quiet again."""
    table: dict[str, Row] = {}
    async with HostileUpstream() as upstream:
        async with gateway(upstream.base_url) as target, Probe(target.origin) as probe:
            await send(target, create(b'"first"'), patience)
            probe.start()
            await asyncio.sleep(3)
            quiet = await probe.worst_ms()
            for name, make in BODIES.items():
                if only in (None, name):
                    table[name] = await _row(probe, target, send(target, make(), patience))
                    _print(name, table[name])
        for kind in CREATED:
            name = f"create: {kind}"
            if only in (None, name):
                async with gateway(upstream.base_url) as target, Probe(target.origin) as probe:
                    await send(target, create(b'"first"'), patience)
                    table[name] = await _row(probe, target, send(target, BODIES[kind](), patience, CREATES))
                    _print(name, table[name])
        for kind in DOCUMENTS:
            name = f"upstream: {kind}"
            if only in (None, name):
                # Each has a gateway of its own: what one prediction says is shown, listed and kept for a while.
                async with gateway(upstream.base_url) as target, Probe(target.origin) as probe:
                    await send(target, create(b'"first"'), patience)
                    table[name] = await _row(probe, target, follow(target, kind, patience))
                    _print(name, table[name])
    if not table:
        raise SystemExit(f"no such input: {only}")
    worst = max(table, key=lambda name: table[name].held_ms)
    return {
        "bench": "stall",
        "limit_ms": LIMIT_MS,
        "quiet_ms": round(quiet, 1),
        "worst_ms": table[worst].held_ms,
        "worst": worst,
        "over_limit": sum(row.held_ms > LIMIT_MS for row in table.values()),
        "inputs": {name: vars(row) for name, row in table.items()},
    }


async def _row(probe: Probe, target: Gateway, work: Coroutine[None, None, tuple[int | str, int]]) -> Row:
    probe.start()
    await target.worst()
    began = time.perf_counter()
    status, wire = await work
    seconds = time.perf_counter() - began
    await asyncio.sleep(0.2)
    return Row(
        round(await probe.worst_ms(), 1),
        **await target.worst(),
        seconds=round(seconds, 2),
        status=status,
        wire_bytes=wire,
    )


def _print(name: str, row: Row) -> None:
    mark = "" if row.held_ms <= LIMIT_MS else "  <-- over the limit"
    figures = f"{row.stall_ms:>9.1f} ms {row.held_ms:>7.1f} ms {row.step_ms:>7.1f} ms"
    print(f"{name:<44} {figures}  {row.status!s:>5}  {row.wire_bytes:>9} bytes{mark}", flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="one input, by its name")
    parser.add_argument("--patience", type=float, default=60, help="seconds after which an input is given up")
    arguments = parser.parse_args()
    print(json.dumps(asyncio.run(measure(arguments.patience, arguments.only))))


if __name__ == "__main__":
    main()
