"""One round of the crash matrix: a mixed load, a kill, a restart, the callers' retries, and the questions afterwards.

The simulator lives on beside it and knows the truth about what was run; the database is read by the test as the command
line would read it.
"""

import asyncio
import contextlib
import os
import random
import secrets
import sqlite3
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import psycopg

from gateway.access.rules.api_keys import new_key
from gateway.simulator import Simulator
from gateway.simulator.models import schema
from gateway.simulator.models.job import Job, Program
from tests.support.polling import SECONDS, attempts
from tests.support.ports import free_port
from tests.support.stack import start_upstream

ROOT = Path(__file__).parents[2]


USD_PER_SECOND = "0.001525"


SEEDED, SEEDLESS, OFFICIAL = "acme/seeded", "acme/seedless", "acme/official"


TEAMS = ("alpha", "beta")


TERMINAL = {"succeeded", "failed", "canceled", "aborted"}


_AFTER_SECONDS = 0.3


_RETRY_PAUSE = 0.1


def add_models(upstream: Simulator) -> None:
    """Give the simulator models whose runs take as long as their input says."""

    async def run(job: Job) -> None:
        await job.wait(float(job.input["duration"]))
        job.give(f"{job.input['prompt']}, done")

    fields = {
        "prompt": schema.field("string", "Given back at the end", required=True),
        "duration": schema.field("number", "Seconds to take", default=0.2, minimum=0, maximum=3600),
    }
    seeded = {**fields, "seed": schema.seed_field()}
    for ref, inputs, official in ((SEEDED, seeded, False), (SEEDLESS, fields, False), (OFFICIAL, seeded, True)):
        program = Program(run, schema.model_schema(inputs, schema.TEXT), boot_seconds=0.02)
        upstream.world.registry.add_version(ref, program, official=official)


@contextlib.asynccontextmanager
async def crash_upstream() -> AsyncIterator[Simulator]:
    """Start a simulator for crashes: its answers to creates take a moment, so that there is one to die in."""
    async with start_upstream(
        speed=1.0, creates_per_minute=1_000_000, requests_per_minute=1_000_000, polls_per_minute=10_000_000
    ) as upstream:
        add_models(upstream)
        yield upstream


@dataclass
class Asked:
    """One create as a caller asks for it, and the response."""

    team: str
    path: str
    body: dict[str, Any]
    prompt: str
    shared: bool = False
    """Whether upstream is to run it once, however often it is asked for."""
    headers: dict[str, str] = field(default_factory=dict)
    after: float = 0.0
    """Seconds into the load at which it is asked."""
    cancel_after: float | None = None
    """Seconds after its answer at which the caller cancels."""
    follows: "Asked | None" = None
    """The caller whose end this one waits for before it asks, so as to hit its result."""
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the caller has its result, or an error."""
    ids: list[str] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    canceled: bool = False

    @property
    def key(self) -> str | None:
        """The idempotency key."""
        return self.headers.get("Idempotency-Key")


class Child:
    """A gateway in a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self.process = process
        self.log = log

    @property
    def is_dead(self) -> bool:
        """Whether it has ended."""
        return self.process.returncode is not None

    async def kill(self) -> None:
        """Kill it as it stands."""
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        await self.process.wait()


class Matrix:
    """A database, a port and an upstream, through all the crashes."""

    def __init__(self, upstream: Simulator, folder: Path, postgres: str | None = None) -> None:
        """Take the address of a database of PostgreSQL; without one, the database is a file."""
        self.upstream = upstream
        self.folder = folder
        self.database = folder / "gateway.db"
        self.postgres = postgres
        self.is_away = False
        """Whether the database may be away, so that callers get 503."""
        self.keys = {team: new_key(secrets.token_bytes).key for team in TEAMS}
        self.asked: list[Asked] = []
        self.children = 0
        self.port = free_port()
        teams = "".join(
            f'[[teams]]\nname = "{team}"\nscopes = ["read", "predict"]\nconcurrent_predictions = 500\n'
            f'budget_usd_per_day = 1000\n[[teams.keys]]\nname = "default"\n'
            f'key_env = "KEY_{team.upper()}"\n'
            for team in TEAMS
        )
        self.config = folder / "config.toml"
        self.config.write_text(
            f"[server]\nport = {self.port}\n[ops]\nport = 0\n"
            f'[upstream]\nbase_url = "{upstream.base_url}"\nadopt_wait_seconds = 4\ncreates_per_minute = 100000\n'
            f'[store]\nurl = "{postgres or f"sqlite:///{self.database}"}"\n'
            f'[[prices.models]]\nmodel = "acme/*"\nusd_per_second = {USD_PER_SECOND}\n{teams}'
        )

    @property
    def origin(self) -> str:
        """Where the gateway is, whenever it is."""
        return f"http://127.0.0.1:{self.port}"

    async def start(self, *point: str) -> Child:
        """Start a gateway, and wait until it serves."""
        self.children += 1
        log = self.folder / f"child{self.children}.log"
        environ = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG", "TMPDIR")}
        environ |= {f"KEY_{team.upper()}": key for team, key in self.keys.items()}
        environ |= {"REPLICATE_API_TOKEN": self.upstream.token, "PYTHONPATH": str(ROOT)}
        with log.open("wb") as out:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "tests.support.crash_child", str(self.config), *point),
                cwd=self.folder,
                env=environ,
                stdout=out,
                stderr=out,
            )
        child = Child(process, log)
        async with aiohttp.ClientSession() as session:
            async for _ in attempts():
                if child.is_dead:
                    break
                with contextlib.suppress(aiohttp.ClientError):
                    async with session.get(f"{self.origin}/healthz") as answer:
                        if answer.status == 200:
                            return child
        if child.is_dead and point and b"killed" in log.read_bytes():
            # The point lies on the way up.
            return child
        raise AssertionError(f"the gateway did not start:\n{log.read_text()}")

    def session(self) -> aiohttp.ClientSession:
        """Return a session of many connections, for all callers of one life of the gateway."""
        connector = aiohttp.TCPConnector(limit=0)
        return aiohttp.ClientSession(self.origin, connector=connector, timeout=aiohttp.ClientTimeout(total=SECONDS))

    def _headers(self, team: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.keys[team]}"}

    async def load(self, child: Child, orders: list[Asked], chaos: random.Random, kill_after: float | None) -> None:
        """Let every caller ask, poll and cancel until the gateway is dead or all have their answers."""
        async with self.session() as session:
            callers = [asyncio.create_task(self.call(session, asked)) for asked in orders]
            callers.append(asyncio.create_task(self.browse(session, chaos)))
            killer = asyncio.create_task(self._kill_after(child, kill_after))
            died = asyncio.create_task(child.process.wait())
            everybody = asyncio.gather(*callers)
            ends: set[asyncio.Future[Any]] = {died, everybody}
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            if not died.done():
                # What is left for the point to come by happens without callers: ends, cancels, searches.
                quiet = asyncio.create_task(self.quiet())
                await asyncio.wait({died, quiet}, return_when=asyncio.FIRST_COMPLETED)
                quiet.cancel()
                await asyncio.wait({died}, timeout=_AFTER_SECONDS)
            killer.cancel()
            died.cancel()
            await asyncio.gather(killer, died, return_exceptions=True)
            await child.kill()
            await everybody

    async def _kill_after(self, child: Child, seconds: float | None) -> None:
        if seconds is not None:
            await asyncio.sleep(seconds)
            await child.kill()

    async def call(self, session: aiohttp.ClientSession, asked: Asked) -> None:
        """Let one caller ask, poll and cancel."""
        await asyncio.sleep(asked.after)
        if asked.follows is not None:
            await asked.follows.ended.wait()
        try:
            await self._create_and_poll(session, asked)
        finally:
            asked.ended.set()

    async def _create_and_poll(self, session: aiohttp.ClientSession, asked: Asked) -> None:
        with contextlib.suppress(aiohttp.ClientError, TimeoutError):
            prediction_id = await self.create(session, asked)
            if prediction_id is None:
                return
            headers, path = self._headers(asked.team), f"/v1/predictions/{prediction_id}"
            if asked.cancel_after is not None:
                await asyncio.sleep(asked.cancel_after)
                async with session.post(f"{path}/cancel", headers=headers) as answer:
                    body = await answer.json()
                    asked.canceled = body["status"] == "canceled"
            for _ in range(40):
                async with session.get(path, headers=headers) as answer:
                    body = await answer.json()
                    if self.is_away and answer.status == 503:
                        await asyncio.sleep(0.2)
                        continue
                    assert answer.status == 200, f"a caller's own prediction gave {answer.status}"
                    assert not asked.canceled or body["status"] == "canceled", "a cancel was forgotten"
                    if body["status"] in TERMINAL:
                        return
                await asyncio.sleep(0.05)

    async def browse(self, session: aiohttp.ClientSession, chaos: random.Random) -> None:
        """List what there is: whatever a list shows is an id that somebody was given."""
        with contextlib.suppress(aiohttp.ClientError, TimeoutError):
            for _ in range(12):
                team = chaos.choice(TEAMS)
                async with session.get("/v1/predictions", headers=self._headers(team)) as answer:
                    results = (await answer.json()).get("results", ())
                seen = Asked(team, "", {}, "")
                seen.ids = [each["id"] for each in results]
                self.asked.append(seen)
                await asyncio.sleep(0.08)

    async def create(self, session: aiohttp.ClientSession, asked: Asked) -> str | None:
        """Ask once; return the id that was given."""
        headers = asked.headers | self._headers(asked.team)
        async with session.post(asked.path, json=asked.body, headers=headers) as answer:
            body = await answer.json()
            asked.statuses.append(answer.status)
            if answer.status >= 300:
                return None
            asked.ids.append(body["id"])
            return str(body["id"])

    async def retry(self, orders: list[Asked]) -> None:
        """Let those callers ask again who may: with a key, or for what upstream runs once anyway."""
        async with self.session() as session:
            await asyncio.gather(*(self._retry(session, each) for each in orders if each.key or each.shared))

    async def _retry(self, session: aiohttp.ClientSession, asked: Asked) -> None:
        known = list(asked.ids)
        async for _ in attempts(pause=_RETRY_PAUSE):
            prediction_id = await self.create(session, asked)
            status = asked.statuses[-1]
            if status not in (409, 429, 503, 504):
                break
        if asked.key is not None and known:
            assert prediction_id in known, f"a retry with its key gave another prediction ({status})"
        is_wanted = asked.body["input"]["duration"] != "long"
        assert (prediction_id is not None) == is_wanted, f"a retry came to {status}: {asked}"

    async def quiet(self) -> None:
        """Wait until nothing is open, here or upstream."""
        async for _ in attempts(pause=0.05):
            if all(each.terminal for each in self.upstream.predictions) and not self.open_runs():
                break

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """Read the database beside the gateway."""
        if self.postgres is not None:
            with psycopg.connect(self.postgres) as connection:
                return connection.execute(query.encode()).fetchall()
        with contextlib.closing(sqlite3.connect(f"file:{self.database}?mode=ro", uri=True, timeout=5)) as database:
            return database.execute(query).fetchall()

    def open_runs(self) -> list[tuple[Any, ...]]:
        """List what has not ended."""
        return self.rows("SELECT id, state, upstream_id FROM runs WHERE state IN ('intended', 'live')")
