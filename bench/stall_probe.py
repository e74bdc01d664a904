"""A process that asks one URL again and again, and remembers the longest time that an answer took.

    python -m bench.stall_probe HOST PORT

A line on its input makes it write that time, in milliseconds, and start again.
"""

import asyncio
import contextlib
import socket
import sys
import threading
import time
from typing import Self
from urllib.parse import urlsplit

_REQUEST = b"GET /healthz HTTP/1.1\r\nHost: probe\r\n\r\n"
_PAUSE_SECONDS = 0.001
_PATIENCE_SECONDS = 300.0


class Probe:
    """Runs the process, and asks it."""

    def __init__(self, origin: str) -> None:
        parts = urlsplit(origin)
        self._where = (parts.hostname or "127.0.0.1", parts.port or 80)
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Self:
        host, port = self._where
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "bench.stall_probe", host, str(port),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        await self.worst_ms()
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()

    def start(self) -> None:
        """Forget what was seen so far."""
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(b"start\n")

    async def worst_ms(self) -> float:
        """Return the longest time since the start."""
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(b"read\n")
        return float(await asyncio.wait_for(self._process.stdout.readline(), _PATIENCE_SECONDS))


class _Watch:
    """The longest answer so far, and the one that is being waited for."""

    def __init__(self) -> None:
        self.worst = 0.0
        self.asked_at: float | None = None

    def reset(self) -> None:
        self.worst = 0.0
        if self.asked_at is not None:
            self.asked_at = time.perf_counter()


def _ask_for_ever(host: str, port: int, watch: _Watch) -> None:
    while True:
        with contextlib.suppress(OSError), socket.create_connection((host, port), timeout=_PATIENCE_SECONDS) as link:
            link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while True:
                watch.asked_at = time.perf_counter()
                link.sendall(_REQUEST)
                if not link.recv(65536):
                    break
                watch.worst = max(watch.worst, time.perf_counter() - watch.asked_at)
                watch.asked_at = None
                time.sleep(_PAUSE_SECONDS)
        time.sleep(0.01)


def main() -> None:
    """Ask, and answer the lines."""
    watch = _Watch()
    thread = threading.Thread(target=_ask_for_ever, args=(sys.argv[1], int(sys.argv[2]), watch), daemon=True)
    thread.start()
    for line in sys.stdin:
        if line.strip() == "start":
            watch.reset()
            continue
        since = watch.asked_at
        pending = time.perf_counter() - since if since is not None else 0.0
        print(f"{max(watch.worst, pending) * 1000:.3f}", flush=True)


if __name__ == "__main__":
    main()
