"""An installed gateway with a fixed port, for tests that kill and restart its process."""

import asyncio
import contextlib
import secrets
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from gateway.access.rules.api_keys import new_key
from gateway.simulator import Simulator
from tests.support.polling import attempts
from tests.support.ports import free_port
from tests.support.tools import clean_environment

_ROOT = Path(__file__).parents[2]
_CONFIG = """
[server]
port = {port}
[ops]
port = {ops_port}
[upstream]
base_url = "{base_url}"
[store]
url = "sqlite:///{folder}/gateway.db"
[logs]
level = "debug"
"""
_TEAM = """
[[teams]]
name = "{team}"
scopes = ["read", "predict", "files", "tokens"]
origins = [{origins}]
keys = [{{ name = "default", key_env = "KEY_{variable}" }}]
"""


@dataclass
class Installation:
    """The config, environment and port of a gateway."""

    folder: Path
    origin: str
    keys: dict[str, str]
    environ: dict[str, str]

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[asyncio.subprocess.Process]:
        with (self.folder / "output.txt").open("ab") as output:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "gateway", "serve", "--config", str(self.folder / "config.toml"),
                env=self.environ, stdin=asyncio.subprocess.DEVNULL, stdout=output, stderr=output,
            )  # fmt: skip
        try:
            async with aiohttp.ClientSession() as session:
                async for _ in attempts():
                    assert process.returncode is None, (self.folder / "output.txt").read_text()[-2000:]
                    with contextlib.suppress(aiohttp.ClientError):
                        async with session.get(f"{self.origin}/healthz"):
                            break
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    def caller(self, team: str) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(self.origin, headers={"Authorization": f"Bearer {self.keys[team]}"})

    @property
    def base_url(self) -> str:
        """The base for clients, with `/v1`."""
        return f"{self.origin}/v1"


def install(upstream: Simulator, folder: Path, teams: Sequence[str], origins: Sequence[str] = ()) -> Installation:
    """Write the config of a gateway for a simulator, with a key for each team. `origins` are the teams'."""
    port, ops_port = free_port(), free_port()
    keys = {team: new_key(secrets.token_bytes).key for team in teams}
    text = _CONFIG.format(port=port, ops_port=ops_port, base_url=upstream.base_url, folder=folder)
    listed = ", ".join(f'"{origin}"' for origin in origins)
    text += "".join(_TEAM.format(team=team, variable=team.upper(), origins=listed) for team in teams)
    (folder / "config.toml").write_text(text)
    environ = clean_environment(
        REPLICATE_API_TOKEN=upstream.token,
        PYTHONPATH=str(_ROOT),
        **{f"KEY_{team.upper()}": key for team, key in keys.items()},
    )
    return Installation(folder, f"http://127.0.0.1:{port}", keys, environ)


TEAMS = ("alpha", "beta")
