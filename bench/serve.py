"""Servers of the throughput benchmarks: `bare` returns fixed bytes, `gateway` is a gateway with a simulator.

    python -m bench.serve bare METHOD PATH BYTES_FILE
    python -m bench.serve gateway [LOG_LEVEL]
    python -m bench.serve limited

`limited` is the gateway with every request rate set to a value that is never reached. Each prints a line of JSON when
it is ready, and runs until it is stopped.
"""

import asyncio
import json
import signal
import sys
import tempfile
from pathlib import Path

from aiohttp import web

from bench.load import KEY


async def bare(method: str, path: str, file: str) -> None:
    """Serve fixed bytes with one aiohttp handler."""
    body = Path(file).read_bytes()  # noqa: ASYNC240 - before serving

    async def answer(request: web.Request) -> web.Response:
        if request.can_read_body:
            await request.read()
        return web.Response(body=body, content_type="application/json")

    app = web.Application()
    app.router.add_route(method, path, answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(json.dumps({"origin": f"http://127.0.0.1:{runner.addresses[0][1]}"}), flush=True)
    await _until_stopped()
    await runner.cleanup()


RATE = {"requests_per_minute": 10**9, "burst": 10**9}
LIMITS = {**RATE, "per_user": RATE}


async def gateway(level: str = "", limits: dict[str, object] | None = None) -> None:
    """Run a gateway with one team, and a simulator in the same process. Polls and hits do not reach upstream.

    With a log level, it logs JSON to stderr like `gateway serve`.
    """
    from gateway import logs
    from gateway.app import running
    from gateway.config import from_mapping
    from gateway.simulator import Simulator, SimulatorSettings

    if level:
        logs.configure("json", level, [KEY], queued=True)
    with tempfile.TemporaryDirectory() as folder:
        async with Simulator(SimulatorSettings(speed=20)) as simulator:
            config = from_mapping(
                {
                    "server": {"port": 0},
                    "ops": {"port": 0},
                    "upstream": {"base_url": simulator.base_url},
                    "store": {"url": f"sqlite:///{folder}/gateway.db"},
                    "teams": [
                        {"name": "bench", "keys": [{"key_env": "BENCH_KEY", **(limits or {})}], **(limits or {})}
                    ],
                },
                {"REPLICATE_API_TOKEN": simulator.token, "BENCH_KEY": KEY},
            )
            async with running(config) as stack:
                print(json.dumps({"origin": stack.origin, "ops_url": stack.ops_url}), flush=True)
                await _until_stopped()


async def _until_stopped() -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await stop.wait()


def main() -> None:
    """Run a server, on uvloop if it is installed."""
    kind, *rest = sys.argv[1:]
    work = bare(*rest) if kind == "bare" else gateway(*rest, limits=LIMITS if kind == "limited" else None)
    try:
        import uvloop
    except ImportError:
        asyncio.run(work)
    else:
        uvloop.run(work)


if __name__ == "__main__":
    main()
