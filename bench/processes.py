"""Servers in processes of their own, each on a chosen core; their CPU time and memory; the machine.

With two cores, servers under measurement run on one, and load and upstream on the other. With three or more, upstream
has its own.
"""

import asyncio
import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import IO, Any, NamedTuple

ROOT = Path(__file__).parents[1]
KEY = "rgw_benchbenchbe_" + "b" * 32
CLOSE_SECONDS = 15.0


def run_on_loop(work: Coroutine[Any, Any, Any]) -> None:
    """Run a coroutine to its end, on uvloop if it is installed."""
    try:
        import uvloop
    except ImportError:
        asyncio.run(work)
    else:
        uvloop.run(work)


def cores() -> list[int]:
    """Return the cores that this process may use; without an answer from the system, the first ones."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


_CORES = cores()
LOAD_CORE = _CORES[0]
SERVER_CORE = _CORES[1 % len(_CORES)]
UPSTREAM_CORE = _CORES[2] if len(_CORES) > 2 else LOAD_CORE


def pin(core: int, pid: int = 0) -> None:
    """Keep a process, this one by default, on a core, where the system can."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(pid, {core})


def raise_file_limit() -> int:
    """Allow as many open files as the hard limit has; return that."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


class Server(NamedTuple):
    """A server that runs."""

    origin: str
    pid: int
    said: Mapping[str, object]
    """The line of JSON that it printed when it was ready."""
    workers: tuple[int, ...] = ()
    """Further processes of it."""

    def cpu_seconds(self) -> float | None:
        """Return the CPU time that it and its workers have used."""
        used = [cpu_seconds(each) for each in (self.pid, *self.workers)]
        return None if None in used else sum(filter(None, used))


@contextmanager
def process(
    command: Sequence[str],
    core: int,
    *,
    environ: Mapping[str, str] | None = None,
    stderr: int | None = None,
    output: IO[bytes] | None = None,
    folder: Path = ROOT,
) -> Iterator[subprocess.Popen]:
    """Run a command on a core; stop it at the end. `output` is a file for all that it prints, instead of a pipe."""
    pipes: dict[str, Any] = {"stdout": output or subprocess.PIPE, "stdin": subprocess.DEVNULL}
    pipes["stderr"] = output or stderr
    with subprocess.Popen(list(command), cwd=folder, env={**os.environ, **(environ or {})}, **pipes) as started:
        pin(core, started.pid)
        try:
            yield started
        finally:
            started.terminate()
            try:
                started.wait(CLOSE_SECONDS)
            except subprocess.TimeoutExpired:
                started.kill()


@contextmanager
def part(module: str, *arguments: str, core: int, stderr: int | None = None) -> Iterator[Server]:
    """Run `python -m MODULE …`, which prints a line of JSON with its `origin` when it is ready."""
    with process([sys.executable, "-m", module, *arguments], core, stderr=stderr) as started:
        line = started.stdout.readline()
        if not line:
            raise SystemExit(f"python -m {module} {' '.join(arguments)} did not start")
        said = json.loads(line)
        yield Server(said["origin"], started.pid, said)


@contextmanager
def reader_of_a_pipe() -> Iterator[int]:
    """Yield a pipe's end to write to. A process reads from the other end, as a log collector does."""
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as collector:
        pin(LOAD_CORE, collector.pid)
        try:
            yield collector.stdin.fileno()
        finally:
            collector.stdin.close()
            collector.wait(CLOSE_SECONDS)


def _stat(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def cpu_seconds(pid: int) -> float | None:
    """Return the CPU time of a process, or `None` where the system does not tell."""
    try:
        fields = _stat(pid)
    except OSError:
        return None
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory_kib(pid: int) -> dict[str, int]:
    """Return the resident (`rss`) and the proportional memory (`pss`) of a process."""
    lines = (line.split() for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:])
    found = {fields[0]: int(fields[1]) for fields in lines}
    return {"rss": found["Rss:"], "pss": found["Pss:"]}


def open_files(pid: int) -> dict[str, int]:
    """Return how many sockets and other files a process has open."""
    found = {"sockets": 0, "files": 0}
    for each in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = str(each.readlink())
        except OSError:
            continue
        found["sockets" if target.startswith("socket:") else "files"] += 1
    return found


def threads(pid: int) -> int:
    """Return the number of threads of a process."""
    return int(_stat(pid)[17])


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())


def machine() -> dict[str, object]:
    """Describe the machine, and how busy it is before the measurement."""
    return {
        "cpu": _cpu_model(),
        "cores": len(_CORES),
        "python": platform.python_version(),
        "aiohttp": _version("aiohttp"),
        "uvloop": _version("uvloop"),
        "load": round(os.getloadavg()[0], 2),
        "at": time.strftime("%Y-%m-%d %H:%M", time.gmtime()),
    }
