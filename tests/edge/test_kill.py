"""`kill -9` at any moment: every id that was handed out resolves afterwards, and belongs to its team (design 2.9)."""

import asyncio
import contextlib
import random
import secrets
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest

from gateway.core.keys import new_key
from gateway.simulator import Simulator
from tests.edge.canary import Canaries
from tests.support.tools import clean_environment
from tests.support.upstream import creates, version_of

ROUNDS = 12
WORKERS = 6
TEAMS = ("alpha", "beta")
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
[[teams]]
name = "alpha"
keys = [{{ name = "default", key_env = "KEY_ALPHA" }}]
[[teams]]
name = "beta"
keys = [{{ name = "default", key_env = "KEY_BETA" }}]
"""


@dataclass
class Known:
    """What callers were told: ids with their teams, and which of them were cancelled."""

    ids: dict[str, str] = field(default_factory=dict)
    canceled: set[str] = field(default_factory=set)
    files: dict[str, str] = field(default_factory=dict)
    sent: int = 0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass
class Installation:
    """A gateway as it is installed: a config, an environment, a port."""

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
            async with asyncio.timeout(10), aiohttp.ClientSession() as session:
                while True:
                    assert process.returncode is None, (self.folder / "output.txt").read_text()[-2000:]
                    with contextlib.suppress(aiohttp.ClientError):
                        async with session.get(f"{self.origin}/healthz"):
                            break
                    await asyncio.sleep(0.02)
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    def caller(self, team: str) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(self.origin, headers={"Authorization": f"Bearer {self.keys[team]}"})


@pytest.fixture
def installation(upstream: Simulator, tmp_path: Path, canaries: Canaries) -> Installation:
    """A gateway to be started and killed, with two teams."""
    port, ops_port = free_port(), free_port()
    keys = {team: new_key(secrets.token_bytes).key for team in TEAMS}
    for team, key in keys.items():
        canaries.add(f"the key of {team}", key)
    text = _CONFIG.format(port=port, ops_port=ops_port, base_url=upstream.base_url, folder=tmp_path)
    (tmp_path / "config.toml").write_text(text)
    environ = clean_environment(
        REPLICATE_API_TOKEN=upstream.token,
        PYTHONPATH=str(Path(__file__).parents[2]),
        **{f"KEY_{team.upper()}": key for team, key in keys.items()},
    )
    return Installation(tmp_path, f"http://127.0.0.1:{port}", keys, environ)


async def work(installation: Installation, upstream: Simulator, known: Known, number: int) -> None:
    """Create, get, cancel, upload and wait, until the line goes dead; note what was told."""
    team = TEAMS[number % len(TEAMS)]
    dice = random.Random(number)
    slow, quick = version_of(upstream, "acme/slow"), version_of(upstream, "replicate/hello-world")
    with contextlib.suppress(aiohttp.ClientError, ConnectionError):
        async with installation.caller(team) as session:
            while True:
                known.sent += 1
                is_slow = dice.random() < 0.5
                body = (
                    {"version": slow, "input": {"duration": 20}}
                    if is_slow
                    else {"version": quick, "input": {"text": "x"}}
                )
                headers = {"Prefer": "wait=1"} if not is_slow and dice.random() < 0.3 else {}
                async with session.post("/v1/predictions", json=body, headers=headers) as response:
                    assert response.status in (201, 202), await response.text()
                    made = (await response.json())["id"]
                known.ids[made] = team
                async with session.get(f"/v1/predictions/{made}") as response:
                    assert response.status == 200
                if is_slow and dice.random() < 0.6:
                    async with session.post(f"/v1/predictions/{made}/cancel") as response:
                        if response.status == 200 and (await response.json())["status"] == "canceled":
                            known.canceled.add(made)
                if dice.random() < 0.2:
                    form = aiohttp.FormData()
                    form.add_field("content", b"hello", filename="a.txt", content_type="text/plain")
                    async with session.post("/v1/files", data=form) as response:
                        if response.status == 201:
                            known.files[(await response.json())["id"]] = team


async def look_back(installation: Installation, known: Known) -> None:
    """Everything that was told still holds, for its team, and for nobody else."""
    async with installation.caller("alpha") as alpha, installation.caller("beta") as beta:
        sessions = {"alpha": alpha, "beta": beta}

        async def check(path: str, team: str, status: str | None) -> None:
            for name, session in sessions.items():
                async with session.get(path) as response:
                    assert response.status == (200 if name == team else 404), f"{path} of {team}, asked by {name}"
                    if name == team and status is not None:
                        assert (await response.json())["status"] == status

        await asyncio.gather(
            *(
                check(f"/v1/predictions/{each}", team, "canceled" if each in known.canceled else None)
                for each, team in known.ids.items()
            ),
            *(check(f"/v1/files/{each}", team, None) for each, team in known.files.items()),
        )


@pytest.mark.timeout(90)
async def test_every_id_that_was_handed_out_survives_any_kill(
    installation: Installation, upstream: Simulator, canaries: Canaries
):
    """A machine loses its process twelve times in the middle of work; no caller's id is ever unknown afterwards."""
    known = Known()
    dice = random.Random(20)
    for number in range(ROUNDS):
        async with installation.serving() as process:
            await look_back(installation, known)
            before = len(known.ids)
            workers = [
                asyncio.create_task(work(installation, upstream, known, number * WORKERS + n)) for n in range(WORKERS)
            ]
            while len(known.ids) < before + 1 + dice.randrange(25):
                await asyncio.sleep(dice.random() * 0.01)
            process.send_signal(signal.SIGKILL)
            await process.wait()
            await asyncio.gather(*workers)
    assert len(known.ids) > ROUNDS
    assert known.canceled
    assert len(known.ids) <= creates(upstream) <= known.sent, "never a create more than callers asked for"
    async with installation.serving() as process:
        await look_back(installation, known)
        open_ids = {each: team for each, team in known.ids.items() if each not in known.canceled}
        await all_ended(installation, open_ids)
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(10):
            assert await process.wait() == 0
    output = (installation.folder / "output.txt").read_text()
    assert "Traceback" not in output
    (installation.folder / "config.toml").unlink()
    canaries.look_through_folder(installation.folder)
    canaries.look_through_upstream(upstream)


async def all_ended(installation: Installation, ids: dict[str, str]) -> None:
    """Runs are followed on after the restart: each comes to its end."""
    async with installation.caller("alpha") as alpha, installation.caller("beta") as beta, asyncio.timeout(25):
        sessions = {"alpha": alpha, "beta": beta}
        waiting = dict(ids)
        while waiting:
            for each, team in list(waiting.items()):
                async with sessions[team].get(f"/v1/predictions/{each}") as response:
                    if (await response.json())["status"] in ("succeeded", "failed", "canceled"):
                        del waiting[each]
            await asyncio.sleep(0.1)
