"""The process of `gateway demo`."""

import contextlib
import fcntl
import hashlib
import http.client
import json
import re
import signal
import subprocess
import sys
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.node import CLIENTS, install_clients
from tests.support.tools import absent, clean_environment, require_tool

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "demo"
BUNDLE = BUILD / "dist" / "replicate.js"
KEY = re.compile(r"rgw_[a-z0-9]{12}_[0-9A-Za-z]{32}")
LOOPBACK = {"127.0.0.1", "localhost"}


@dataclass(frozen=True)
class Started:
    """A demo in its own process, with its output."""

    process: subprocess.Popen[str]
    said: str

    @property
    def page(self) -> str:
        return self._after("Page")

    @property
    def usage(self) -> str:
        return self._after("Console")

    @property
    def base_url(self) -> str:
        return self._after("Base URL")

    @property
    def origin(self) -> str:
        return self.base_url.removesuffix("/v1")

    @property
    def keys(self) -> dict[str, str]:
        found = re.findall(rf"^[ ]+(?:Keys[ ]+)?([a-z]+)[ ]+({KEY.pattern})$", self.said, re.MULTILINE)
        return dict(found)

    def line(self, start: str) -> str:
        (found,) = (line for line in self.said.splitlines() if line.startswith(start))
        return found

    def _after(self, word: str) -> str:
        match = re.search(rf"^\s+{word}\s+(\S+)", self.said, re.MULTILINE)
        assert match, self.said
        return match[1]


@contextlib.contextmanager
def started(port: int, folder: Path, *options: str, **environ: str) -> Iterator[Started]:
    """Start the demo with its temporary files in a folder, and stop it."""
    process = begin(port, folder, *options, **environ)
    try:
        yield Started(process, said_by(process))
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        try:
            process.wait()
        finally:
            process.kill()
            process.wait()
        assert process.stdout
        process.stdout.close()


def begin(port: int, folder: Path, *options: str, **environ: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "gateway", "demo", "--port", str(port), *options],
        cwd=folder,
        env=clean_environment(**{"TMPDIR": str(folder), "PYTHONPATH": str(ROOT), **environ}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def said_by(process: subprocess.Popen[str]) -> str:
    """Read the start message."""
    assert process.stdout
    said = ""
    for line in process.stdout:
        said += line
        if line.startswith("Ctrl+C"):
            return said
    raise AssertionError(f"it ended with {process.wait()}; it said:\n{said}")


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def ask(method: str, url: str, body: Any = None, **headers: str) -> Answer:
    """Send a request without following redirects. `Host` can be set."""
    parts = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc)
    with contextlib.closing(connection):
        data = None if body is None else json.dumps(body)
        spelled = {name.replace("_", "-"): value for name, value in headers.items()}
        if body is not None:
            spelled["Content-Type"] = "application/json"
        connection.request(method, parts.path or "/", data, spelled)
        response = connection.getresponse()
        return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())


def build() -> Path:
    """Bundle the npm client like `make demo`, unless it exists."""
    npm = require_tool("npm")
    require_tool("node")
    wanted = hashlib.sha256()
    for name in ("package.json", "package-lock.json", "build.mjs"):
        wanted.update((BUILD / name).read_bytes())
    stamp = BUILD / "node_modules" / ".built-of"
    with (BUILD / ".build.lock").open("w") as lock:  # several workers of one test run share the folder
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not BUNDLE.is_file() or not stamp.is_file() or stamp.read_text() != wanted.hexdigest():
            for command in (["ci"], ["run", "build"]):
                done = subprocess.run(
                    [npm, *command], cwd=BUILD, capture_output=True, text=True, timeout=100, check=False
                )
                if done.returncode:
                    absent(f"npm {' '.join(command)} did not work in demo/: {done.stderr.strip()[-300:]}")
            stamp.write_text(wanted.hexdigest())
    return BUNDLE


def drive_command(scenario: str, address: str, **more: str) -> tuple[list[str], dict[str, str]]:
    install_clients()
    arguments = {"address": address, "playwright": str(CLIENTS), "chromium": require_tool("chromium"), **more}
    environ = clean_environment(ARGUMENTS=json.dumps(arguments))
    return [require_tool("node"), str(BUILD / "drive.mjs"), scenario], environ
