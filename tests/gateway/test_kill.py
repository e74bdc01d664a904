"""`kill -9` at any moment: every id that was handed out resolves afterwards, and belongs to its team.

See docs/architecture.md, Invariants 9.
"""

import asyncio
import contextlib
import random
import signal
from dataclasses import dataclass, field

import aiohttp
import pytest

from gateway.simulator import Simulator
from tests.support.installation import TEAMS, Installation
from tests.support.polling import attempts
from tests.support.rounds import amounts
from tests.support.secret_scanner import SecretScanner
from tests.support.simulator_models import hold_runs
from tests.support.upstream import creates, version_of

WORKERS = 6


@dataclass
class Known:
    """What responses said: ids with their teams, and which of them were cancelled."""

    ids: dict[str, str] = field(default_factory=dict)
    canceled: set[str] = field(default_factory=set)
    files: dict[str, str] = field(default_factory=dict)
    sent: int = 0


async def work(installation: Installation, upstream: Simulator, known: Known, number: int) -> None:
    """Create, get, cancel, upload and wait, until the connection fails; record the responses."""
    team = TEAMS[number % len(TEAMS)]
    dice = random.Random(number)
    slow, quick = version_of(upstream, "acme/slow"), version_of(upstream, "replicate/hello-world")
    with contextlib.suppress(aiohttp.ClientError, ConnectionError):
        async with installation.caller(team) as session:
            while True:
                known.sent += 1
                is_slow = dice.random() < 0.5
                body = (
                    {"version": slow, "input": {"duration": 0}}
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
    """Every response still holds, for its team only."""
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


@pytest.mark.parametrize("rounds", amounts(4, 40))
async def test_every_returned_id_survives_kill_9(
    installation: Installation, upstream: Simulator, secret_scanner: SecretScanner, rounds: int
):
    """The process is killed several times in the middle of work; afterwards every id that a caller got is known."""
    go_on = hold_runs(upstream, "acme/slow")
    known = Known()
    dice = random.Random(20)
    for number in range(rounds):
        async with installation.serving() as process:
            await look_back(installation, known)
            before = len(known.ids)
            workers = [
                asyncio.create_task(work(installation, upstream, known, number * WORKERS + n)) for n in range(WORKERS)
            ]
            enough = before + 1 + dice.randrange(25)
            async for _ in attempts():
                if len(known.ids) >= enough:
                    break
            process.send_signal(signal.SIGKILL)
            await process.wait()
            await asyncio.gather(*workers)
    assert len(known.ids) > rounds
    assert known.canceled
    assert len(known.ids) <= creates(upstream) <= known.sent, "never a create more than callers asked for"
    async with installation.serving() as process:
        await look_back(installation, known)
        go_on.set()
        open_ids = {each: team for each, team in known.ids.items() if each not in known.canceled}
        await all_ended(installation, open_ids)
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0
    output = (installation.folder / "output.txt").read_text()
    assert "Traceback" not in output
    (installation.folder / "config.toml").unlink()
    secret_scanner.scan_folder(installation.folder)
    secret_scanner.scan_upstream_requests(upstream)


async def all_ended(installation: Installation, ids: dict[str, str]) -> None:
    """Runs are followed on after the restart: each comes to its end."""
    async with installation.caller("alpha") as alpha, installation.caller("beta") as beta:
        sessions = {"alpha": alpha, "beta": beta}
        waiting = dict(ids)
        async for _ in attempts(pause=0.1):
            if not waiting:
                break
            for each, team in list(waiting.items()):
                async with sessions[team].get(f"/v1/predictions/{each}") as response:
                    if (await response.json())["status"] in ("succeeded", "failed", "canceled"):
                        del waiting[each]
