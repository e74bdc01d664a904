"""The servers of the throughput benches: `bare` answers fixed bytes, `gateway` is the real thing before a simulator.

    python -m bench.serve bare METHOD PATH BYTES_FILE
    python -m bench.serve gateway [LOG_LEVEL]
    python -m bench.serve limited

`limited` is the gateway with every request rate set, so high that none is reached. Each prints one line of JSON when
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
    """An aiohttp application with one handler, which returns the same bytes to all."""
    body = Path(file).read_bytes()  # noqa: ASYNC240 - before it serves

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
    """A gateway with one team, its simulator in the same process: neither poll nor hit reaches upstream.

    With a level it keeps its log as `gateway serve` does, in JSON on stderr.
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
    """Run one server, on uvloop where there is one."""
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
