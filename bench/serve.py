"""Reference servers of the benchmarks, in aiohttp.

    python -m bench.serve bare METHOD PATH BYTES_FILE [--log]
    python -m bench.serve proxy UPSTREAM

`bare` answers fixed bytes with one handler; with `--log`, aiohttp's access log is written to stderr. `proxy` relays
everything. `simulator` is the simulator without its rates. Each prints a line of JSON when it is ready, and runs until
it is stopped.
"""

import json
import logging
import sys
from pathlib import Path

import aiohttp
from aiohttp import web

from bench.processes import run_on_loop
from bench.stream_host import until_stopped

_RELAYED = ("Authorization", "Content-Type", "Prefer")


async def bare(method: str, path: str, file: str, log: str = "") -> None:
    """Serve fixed bytes with one aiohttp handler."""
    body = Path(file).read_bytes()  # noqa: ASYNC240 - before serving

    async def answer(request: web.Request) -> web.Response:
        if request.can_read_body:
            await request.read()
        return web.Response(body=body, content_type="application/json")

    app = web.Application()
    app.router.add_route(method, path, answer)
    logger = None
    if log:
        logging.basicConfig(level=logging.INFO, format="%(message)s")
        logger = logging.getLogger("aiohttp.access")
    await _serve(app, logger)


async def proxy(upstream: str) -> None:
    """Relay every request and response: the least that a proxy of aiohttp's can be."""
    session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))

    async def relay(request: web.Request) -> web.Response:
        body = await request.read() if request.can_read_body else None
        headers = {name: request.headers[name] for name in _RELAYED if name in request.headers}
        async with session.request(request.method, upstream + request.path_qs, data=body, headers=headers) as response:
            return web.Response(body=await response.read(), status=response.status, content_type=response.content_type)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", relay)
    async with session:
        await _serve(app)


async def simulator() -> None:
    """Run the simulator, fast and without rate limits."""
    from gateway.simulator import Simulator, SimulatorSettings

    unlimited = dict.fromkeys(("creates_per_minute", "requests_per_minute", "polls_per_minute"), 10**9)
    async with Simulator(SimulatorSettings(speed=20, **unlimited)) as running:
        print(
            json.dumps({"origin": running.base_url.removesuffix("/v1"), "delivery": running.delivery_url}), flush=True
        )
        await until_stopped()


async def _serve(app: web.Application, logger: logging.Logger | None = None) -> None:
    runner = web.AppRunner(app, access_log=logger, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, backlog=1024).start()
    print(json.dumps({"origin": f"http://127.0.0.1:{runner.addresses[0][1]}"}), flush=True)
    await until_stopped()
    await runner.cleanup()


def main() -> None:
    """Run a server, on uvloop if it is installed."""
    kind, *rest = sys.argv[1:]
    work = {"bare": bare, "proxy": proxy, "simulator": simulator}[kind](*rest)
    run_on_loop(work)


if __name__ == "__main__":
    main()
