"""`gateway serve` in its own process, with a config and an environment."""

import asyncio
import contextlib
import re
import secrets
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from gateway.access.rules.api_keys import new_key
from tests.support.tools import clean_environment

_ROOT = Path(__file__).parents[2]
_SERVES = re.compile(r"serves (http://\S+)/v1; operators: (http://\S+)")
ACCOUNT_TOKEN = "r8_0123456789abcdefghijklmnopqrstuvwxyz0"
_CONFIG = """
[server]
port = 0
{server}
[ops]
port = 0
[upstream]
base_url = "{base_url}"
[store]
url = "{store_url}"
[logs]
format = "json"
[[teams]]
name = "alpha"
keys = [{{ name = "default", key_env = "KEY_ALPHA" }}]
"""


@dataclass
class ServingProcess:
    """A running gateway process."""

    process: asyncio.subprocess.Process
    origin: str
    ops_url: str

    def signal(self, number: int) -> None:
        """Send a signal."""
        self.process.send_signal(number)

    async def ended(self) -> int:
        """Wait for the exit; return the exit code."""
        return await self.process.wait()


@dataclass
class ServeCommand:
    """The files and arguments that a gateway is started with."""

    folder: Path
    base_url: str
    token: str
    server: str = ""
    store_url: str | None = None
    arguments: Sequence[str] = ()
    command: Sequence[str] = (sys.executable, "-m", "gateway")
    path: str = str(_ROOT)
    key: str = field(default_factory=lambda: new_key(secrets.token_bytes).key)

    @property
    def log(self) -> str:
        """The processes' stderr."""
        return (self.folder / "log.txt").read_text()

    def environ(self) -> Mapping[str, str]:
        """The environment of the process."""
        more = {"PYTHONPATH": self.path} if self.path else {}
        return clean_environment(REPLICATE_API_TOKEN=self.token, KEY_ALPHA=self.key, **more)

    def configure(self) -> Path:
        """Write the config."""
        path = self.folder / "config.toml"
        store_url = self.store_url or f"sqlite:///{self.folder}/gateway.db"
        path.write_text(_CONFIG.format(store_url=store_url, base_url=self.base_url, server=self.server))
        return path

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[ServingProcess]:
        """Start the process, wait until it serves or has ended, and end it on exit."""
        config = self.configure()
        with (self.folder / "log.txt").open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *self.command, "serve", "--config", str(config), *self.arguments,
                env=self.environ(), cwd=self.folder,
                stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=log,
            )  # fmt: skip
        assert process.stdout is not None
        try:
            line = (await process.stdout.readline()).decode()
            found = _SERVES.search(line)
            assert found is not None, line + self.log[-2000:]
            yield ServingProcess(process, found[1], found[2])
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    def caller(self, origin: str) -> aiohttp.ClientSession:
        """Return a session that calls as team alpha."""
        return aiohttp.ClientSession(origin, headers={"Authorization": f"Bearer {self.key}"})


async def run_serve(folder: Path, config: str, **variables: str) -> tuple[int, str, str]:
    """Run `gateway serve` until it ends by itself. Return its exit code and what it has written."""
    (folder / "config.toml").write_text(config)
    environ = clean_environment(REPLICATE_API_TOKEN=ACCOUNT_TOKEN, PYTHONPATH=str(_ROOT), **variables)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "gateway", "serve", env=environ, cwd=folder,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()
