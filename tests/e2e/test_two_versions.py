"""Two neighbouring versions serve from one PostgreSQL at the same time, as during a rolling update or after a rollback.

See docs/scaling.md, Updates.
"""

import asyncio
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import psycopg
import pytest

from gateway.simulator import Simulator
from tests.support.polling import attempts, until
from tests.support.postgres import new_database
from tests.support.rounds import split
from tests.support.serve_command import ServeCommand
from tests.support.simulator_models import hold_runs
from tests.support.upstream import version_of
from tests.support.versions import version_after, version_before


class Calls:
    """What a caller does who meets one version or the other."""

    def __init__(self, upstream: Simulator, *sessions: aiohttp.ClientSession) -> None:
        self._upstream = upstream
        self.sessions = sessions

    async def create(self, at: int, model: str = "acme/slow", **given: Any) -> dict[str, Any]:
        body = {"version": version_of(self._upstream, model), "input": given or {"duration": 20}}
        async with self.sessions[at].post("/v1/predictions", json=body) as response:
            assert response.status == 201, await response.text()
            return dict(await response.json())

    async def ends(self, at: int, prediction: dict[str, Any], status: str = "succeeded") -> None:
        async for _ in attempts():
            async with self.sessions[at].get(f"/v1/predictions/{prediction['id']}") as response:
                assert response.status == 200, await response.text()
                if (await response.json())["status"] == status:
                    return

    async def cancel(self, at: int, prediction: dict[str, Any]) -> None:
        async with self.sessions[at].post(f"/v1/predictions/{prediction['id']}/cancel") as response:
            assert response.status == 200, await response.text()

    async def stream(self, at: int, prediction: dict[str, Any]) -> bytes:
        path = urlsplit(prediction["urls"]["stream"]).path
        async with self.sessions[at].get(path, headers={"Accept": "text/event-stream"}) as response:
            assert response.status == 200, await response.text()
            return await response.read()


@pytest.mark.parametrize("version", split([version_before, version_after], [version_after]))
@pytest.mark.timeout(120)
async def test_neighbouring_versions_serve_together(
    upstream: Simulator, tmp_path: Path, version: Callable[[Path], Path]
):
    """Each follows, cancels and streams what the other has started, and goes on with it when that one stops."""
    url = await asyncio.to_thread(new_database)
    for name in ("today", "other"):
        (tmp_path / name).mkdir()
    today = ServeCommand(tmp_path / "today", upstream.base_url, upstream.token, store_url=url)
    other = ServeCommand(
        tmp_path / "other", upstream.base_url, upstream.token, store_url=url, key=today.key,
        path=str(await asyncio.to_thread(version, tmp_path / "code")),
    )  # fmt: skip
    await asyncio.to_thread(check_code, other)
    async with today.serving() as one, today.caller(one.origin) as first:
        calls = Calls(upstream, first)
        stop = asyncio.Event()
        calling = asyncio.create_task(keep_calling(calls, stop))
        async with other.serving() as two, other.caller(two.origin) as second:
            stop.set()
            await calling
            calls = Calls(upstream, first, second)
            for here, there in ((0, 1), (1, 0)):
                slow, cancelled = await calls.create(here), await calls.create(here, duration=600)
                story = await calls.create(here, "acme/storyteller", prompt=f"from {here}", duration=20)
                assert await calls.stream(there, story) == await calls.stream(here, story)
                await calls.cancel(there, cancelled)
                await calls.ends(here, cancelled, "canceled")
                await calls.ends(there, slow)
            go_on = hold_runs(upstream, "acme/slow")
            left = await calls.create(1, duration=2)
            two.signal(signal.SIGTERM)
            assert await two.ended() == 0
            go_on.set()
        await calls.ends(0, left)
        await until(lambda: all(each.terminal for each in upstream.predictions))
        async for _ in attempts():
            if await asyncio.to_thread(settled, url) == len(upstream.predictions):
                break
    for command in (today, other):
        assert [line for line in command.log.splitlines() if '"level":"ERROR"' in line.replace(" ", "")] == []
    # And back: a version that met a later schema starts on it again.
    async with today.serving() as one, today.caller(one.origin) as first:
        calls = Calls(upstream, first)
        await calls.ends(0, await calls.create(0))


async def keep_calling(calls: Calls, stop: asyncio.Event) -> None:
    """Create and wait for ends while the other version starts, and perhaps migrates the schema."""
    while not stop.is_set():
        await calls.ends(0, await calls.create(0, duration=2))


def check_code(command: ServeCommand) -> None:
    """Be sure that the command runs the other version."""
    code = "import gateway; print(gateway.__file__)"
    found = subprocess.run(
        [sys.executable, "-c", code], env=dict(command.environ()), capture_output=True, check=True, cwd=command.folder
    )
    assert found.stdout.decode().startswith(command.path)


def settled(url: str) -> int:
    """Count the runs whose costs are in the ledger. No run is open and nothing is reserved by then."""
    with psycopg.connect(url) as connection:
        row = connection.execute(
            "SELECT count(*) FILTER (WHERE state = 'ended'),"
            " (SELECT count(DISTINCT run_id) FROM ledger WHERE kind = 'spend') FROM runs"
        ).fetchone()
        assert row is not None
        return int(min(row))
