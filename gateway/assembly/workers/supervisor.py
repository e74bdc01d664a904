"""Starts the workers, restarts those that end, and passes signals on.

Each worker is a node of its own: a `gateway serve` on the same port (SO_REUSEPORT), whose ops listener is a Unix
socket. The supervisor has the port of operators (`gateway.http.ops.workers`). It uses no store.
"""

import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, closing, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from gateway.assembly.ports import shown_origin
from gateway.assembly.shutdown import SignalHandler
from gateway.assembly.workers import rules
from gateway.assembly.workers.link import WorkerLink, wait_until_ended, wait_until_serving
from gateway.config import Config
from gateway.http.ops.workers import WorkerOps, ops_app
from gateway.http.server import listen

logger = logging.getLogger(__name__)

_KILL_SECONDS: Final = 8.0
"""Added to the grace period, in which a worker ends by itself."""


class WorkerFailed(Exception):
    """A worker ended at the start, before any had served. It has printed why."""


class Worker:
    """One of the processes, through its restarts."""

    def __init__(self, number: int, ops_socket: Path) -> None:
        self.number = number
        self.ops_socket = ops_socket
        self.process: asyncio.subprocess.Process | None = None
        self.restarts = 0
        self.is_serving = False

    def signal(self, number: int) -> None:
        """Send a signal, if the process runs."""
        if self.process is not None and self.process.returncode is None:
            with suppress(ProcessLookupError):
                self.process.send_signal(number)


class Supervisor:
    """The workers of a gateway."""

    def __init__(self, config: Config, folder: Path, arguments: Sequence[str], environ: Mapping[str, str]) -> None:
        """Prepare the workers. `arguments` are those of `gateway serve`; `folder` is for their sockets."""
        self._arguments = arguments
        self._environ = environ
        self._grace_seconds = float(config.server.shutdown_grace_seconds)
        self._workers = [Worker(number, folder / f"{number}") for number in range(1, config.server.workers + 1)]
        self._stopping = asyncio.Event()

    def ops(self) -> Mapping[str, WorkerOps]:
        """Return where the workers serve operators, by their numbers."""
        return {str(each.number): WorkerOps(each.ops_socket, each.is_serving, each.restarts) for each in self._workers}

    async def run(self, stop: SignalHandler, on_serving: Callable[[], None]) -> None:
        """Run the workers until the signal to stop. Raise `WorkerFailed` if the first one does not start.

        The first one starts alone, so that it creates or migrates the store, and reports what is wrong once.
        """
        first = asyncio.Event()
        tasks = [asyncio.ensure_future(self._keep(self._workers[0], first))]
        stopped = asyncio.ensure_future(stop.wait())
        reloads = asyncio.ensure_future(self._pass_reloads(stop))
        begun = asyncio.ensure_future(first.wait())
        try:
            await asyncio.wait({stopped, begun, *tasks}, return_when=asyncio.FIRST_COMPLETED)
            if begun.done():
                tasks += [asyncio.ensure_future(self._keep(each, first)) for each in self._workers[1:]]
                on_serving()
            if not stopped.done():
                done, _ = await asyncio.wait({stopped, *tasks}, return_when=asyncio.FIRST_COMPLETED)
                for each in done - {stopped}:
                    each.result()
        finally:
            self._stopping.set()
            reloads.cancel()
            stopped.cancel()
            begun.cancel()
            await self._stop(tasks)

    async def _pass_reloads(self, stop: SignalHandler) -> None:
        while True:
            await stop.reload_asked.wait()
            stop.reload_asked.clear()
            for each in self._workers:
                each.signal(signal.SIGHUP)

    async def _stop(self, tasks: Sequence["asyncio.Future[None]"]) -> None:
        for each in self._workers:
            each.signal(signal.SIGTERM)
        _, late = await asyncio.wait(tasks, timeout=self._grace_seconds + _KILL_SECONDS)
        if late:
            for each in self._workers:
                each.signal(signal.SIGKILL)
            await asyncio.wait(late)

    async def _keep(self, worker: Worker, first: asyncio.Event) -> None:
        """Run a worker, again and again, until the supervisor stops."""
        loop = asyncio.get_running_loop()
        failures = 0
        while True:
            began = loop.time()
            status = await self._run_once(worker, first)
            if self._stopping.is_set():
                return
            if not first.is_set():
                raise WorkerFailed
            failures = 1 if loop.time() - began > rules.STEADY_SECONDS else failures + 1
            worker.restarts += 1
            pause = rules.pause(failures)
            fields = {"worker": worker.number, "status": status, "pause_seconds": pause}
            logger.error("a worker has ended and is started again", extra=fields)
            await asyncio.sleep(pause)

    async def _run_once(self, worker: Worker, first: asyncio.Event) -> int:
        """Run a worker to its end, and return its exit status."""
        own_end, its_end = socket.socketpair()
        with closing(own_end):
            with closing(its_end):
                worker.process = await asyncio.create_subprocess_exec(
                    sys.executable,
                    "-m",
                    "gateway",
                    "serve",
                    *self._arguments,
                    "--worker",
                    str(WorkerLink(its_end.fileno(), worker.ops_socket)),
                    env=self._environ,
                    pass_fds=[its_end.fileno()],
                    stdin=asyncio.subprocess.DEVNULL,
                )
            if self._stopping.is_set():
                worker.signal(signal.SIGTERM)
            worker.is_serving = await wait_until_serving(own_end)
            if worker.is_serving:
                first.set()
                if not await wait_until_ended(own_end):
                    logger.error("a worker hangs and is killed", extra={"worker": worker.number})
                    worker.signal(signal.SIGKILL)
                worker.is_serving = False
            return await worker.process.wait()


async def supervise(
    config: Config, arguments: Sequence[str], environ: Mapping[str, str], echo: Callable[[str], None]
) -> None:
    """Run `config.server.workers` gateways on one port until a signal to stop arrives.

    Raise `OSError` if a port is not available, `WorkerFailed` if the first gateway does not start.
    """
    stop = SignalHandler(float(config.server.shutdown_grace_seconds) + _KILL_SECONDS)
    stop.listen()
    async with _reserved_port(config) as port:
        with TemporaryDirectory(prefix="gateway-", ignore_cleanup_errors=True) as folder:
            overrides = {
                "GATEWAY__SERVER__PORT": str(port),
                "GATEWAY__SERVER__REUSE_PORT": "true",
                "GATEWAY__SERVER__WORKERS": "1",
            }
            supervisor = Supervisor(config, Path(folder), arguments, {**environ, **overrides})
            runner, ops_port = await listen(
                ops_app(supervisor.ops), config.ops.host, config.ops.port, grace_seconds=1.0
            )
            try:
                await supervisor.run(
                    stop,
                    lambda: echo(
                        f"replicate-gateway serves {shown_origin(config.server.host, port)}/v1; operators: "
                        f"{shown_origin(config.ops.host, ops_port)} (/dashboard, /metrics); "
                        f"{config.server.workers} workers"
                    ),
                )
            finally:
                await runner.cleanup()


@asynccontextmanager
async def _reserved_port(config: Config) -> AsyncIterator[int]:
    """Choose the port, and keep it from other programs. The socket does not listen, so it gets no connection."""
    host, port = config.server.host, config.server.port
    family, _, _, _, address = (await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM))[0]
    with closing(socket.socket(family, socket.SOCK_STREAM)) as reserved:
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        try:
            reserved.bind(address)
        except OSError as exc:
            raise OSError(
                exc.errno,
                f"error while attempting to bind on address ('{host}', {port}): {os.strerror(exc.errno or 0)}",
            ) from exc
        yield reserved.getsockname()[1]
