"""Three real processes on one PostgreSQL, callers on all of them, and what one of them does in the middle of it.

The database notes who changes a run. At the end of a round, callers, upstream and the ledger must agree.
"""

import asyncio
import contextlib
import itertools
import random
import secrets
import sys
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import aiohttp
import psycopg

from gateway.access.rules.api_keys import new_key
from gateway.simulator import Simulator
from gateway.simulator.prediction import Prediction
from tests.support.polling import attempts, until
from tests.support.ports import free_port
from tests.support.simulator_models import hold_runs
from tests.support.stream_rounds import MODEL, Reading, check_streams, read_everywhere, request_of
from tests.support.tools import clean_environment
from tests.support.upstream import version_of
from tests.support.webhook_receiver import Receiver

_ROOT = Path(__file__).parents[2]
NODES = 3
USD_PER_SECOND = "0.001525"
_RUNNING = 2
TERMINAL = {"succeeded", "failed", "canceled", "aborted"}
_CONFIG = """
[server]
port = {port}
[ops]
port = {ops_port}
[upstream]
base_url = "{base_url}"
adopt_wait_seconds = 20
[store]
url = "{url}&application_name=node{number}"
[webhooks]
allow_http = true
allow_private_addresses = true
[[prices.models]]
model = "acme/*"
usd_per_second = {price}
[[cache.rules]]
model = "acme/slow"
mode = "seeded"
[[teams]]
name = "alpha"
scopes = ["read", "predict"]
concurrent_predictions = 500
budget_usd_per_day = 1000
keys = [{{ name = "default", key_env = "KEY_ALPHA" }}]
"""
_NOTES = """
CREATE TABLE notes (
    at DOUBLE PRECISION, app TEXT, run_id TEXT, owner_before BIGINT, owner BIGINT, is_state BOOLEAN
);
CREATE FUNCTION note_run() RETURNS TRIGGER LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO notes VALUES (
        extract(epoch FROM clock_timestamp()), current_setting('application_name'), NEW.id, OLD.owner, NEW.owner,
        (OLD.state, OLD.status, OLD.document, OLD.upstream_id) IS DISTINCT FROM
        (NEW.state, NEW.status, NEW.document, NEW.upstream_id)
    );
    RETURN NULL;
END
$$;
CREATE TRIGGER run_noted AFTER UPDATE ON runs FOR EACH ROW EXECUTE FUNCTION note_run();
CREATE TABLE joins (app TEXT, number BIGINT);
CREATE FUNCTION note_join() RETURNS TRIGGER LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO joins VALUES (current_setting('application_name'), NEW.number);
    RETURN NULL;
END
$$;
CREATE TRIGGER node_noted AFTER INSERT ON nodes FOR EACH ROW EXECUTE FUNCTION note_join();
"""


@dataclass
class Asked:
    """One create, and what became of it for its caller."""

    prompt: str
    is_shared: bool = False
    ids: list[str] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    node: int = 0
    hooked: bool = False
    finished: bool = False
    """Whether its caller saw the end on the connection on which it waited."""


class Node:
    """One of the processes."""

    def __init__(self, number: int, folder: Path, origin: str, ops_url: str) -> None:
        self.number = number
        self.folder = folder
        self.origin = origin
        self.ops_url = ops_url
        self.process: asyncio.subprocess.Process | None = None

    @property
    def log(self) -> Path:
        """What it has printed."""
        return self.folder / f"node{self.number}.txt"


class Cluster:
    """The processes, their database and their callers."""

    def __init__(self, upstream: Simulator, folder: Path, url: str, lease: float) -> None:
        self.upstream = upstream
        self.url = url
        self.lease = lease
        self.key = new_key(secrets.token_bytes).key
        self._environ = clean_environment(REPLICATE_API_TOKEN=upstream.token, PYTHONPATH=str(_ROOT), KEY_ALPHA=self.key)
        self.nodes = []
        for number in range(NODES):
            port, ops_port = free_port(), free_port()
            text = _CONFIG.format(
                port=port, ops_port=ops_port, base_url=upstream.base_url, url=url, number=number, price=USD_PER_SECOND
            )
            (folder / f"node{number}.toml").write_text(text)
            self.nodes.append(Node(number, folder, f"http://127.0.0.1:{port}", f"http://127.0.0.1:{ops_port}"))
        self.asked: list[Asked] = []
        self.readings: list[Reading] = []
        self.go_on = [hold_runs(upstream, model, after=2) for model in ("acme/slow", MODEL)]
        """Runs end after a test has set these."""
        self.resumed = 0
        """Readers that went on at another node."""

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run all processes; kill what is left of them at the end."""
        try:
            await self.start(0)
            await asyncio.to_thread(self._note)
            await asyncio.gather(*(self.start(number) for number in range(1, NODES)))
            yield
        except BaseException as exc:
            for node in self.nodes:
                if node.log.exists():
                    exc.add_note(f"node {node.number}: {node.log.read_text()[-3000:]}")
            raise
        finally:
            for node in self.nodes:
                await self.kill(node.number)

    def _note(self) -> None:
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(_NOTES)
            connection.execute("INSERT INTO joins SELECT 'node0', number FROM nodes")

    async def start(self, number: int) -> None:
        """Start a process, and wait until it is ready."""
        node = self.nodes[number]
        with node.log.open("ab") as output:
            node.process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "tests.support.node_child", str(node.folder / f"node{number}.toml"),
                str(self.lease), env=self._environ, cwd=_ROOT, stdin=asyncio.subprocess.DEVNULL, stdout=output,
                stderr=output,
            )  # fmt: skip
        async with aiohttp.ClientSession() as session:
            async for _ in attempts():
                assert node.process.returncode is None, node.log.read_text()[-2000:]
                with contextlib.suppress(aiohttp.ClientError):
                    async with session.get(f"{node.origin}/readyz") as response:
                        if response.status == 200:
                            return

    async def kill(self, number: int) -> None:
        """Kill a process, if it runs."""
        process = self.nodes[number].process
        if process is not None and process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    def signal(self, number: int, signal_: int) -> None:
        """Send a signal to a process."""
        process = self.nodes[number].process
        assert process is not None
        process.send_signal(signal_)

    def caller(self, number: int) -> aiohttp.ClientSession:
        """Return a session with a node."""
        return aiohttp.ClientSession(
            self.nodes[number].origin,
            headers={"Authorization": f"Bearer {self.key}"},
            connector=aiohttp.TCPConnector(limit=0),
        )

    def is_busy(self, asked: Sequence[Asked], node: int) -> bool:
        """Say whether what a node was asked for runs, and every stream has a reader on every node."""
        prompts = {each.prompt for each in asked if each.node == node}
        running = {each.input["prompt"] for each in self.upstream.predictions}
        return len(prompts & running) >= _RUNNING and all(each.has_begun for each in self.readings)

    async def rows(self, query: str) -> list[tuple[Any, ...]]:
        """Read the database beside the nodes."""

        def read() -> list[tuple[Any, ...]]:
            with psycopg.connect(self.url) as connection:
                return connection.execute(query.encode()).fetchall()

        return await asyncio.to_thread(read)


async def play(
    cluster: Cluster,
    receiver: Receiver,
    seed: int,
    victim: int,
    happens: Callable[[], Awaitable[None]],
    *,
    creates: int,
    streams: int = 2,
) -> None:
    """Let callers create, wait and read streams on all nodes, and something happen to one of them in the middle of it.

    Returns when every caller has got an answer, or has lost its connection to the victim, and streams have ended.
    Runs end after it has happened.
    """
    for go_on in cluster.go_on:
        go_on.clear()
    dice = random.Random(seed)
    version = version_of(cluster.upstream, "acme/slow")
    asked = []
    for number in range(creates):
        is_shared = dice.random() < 0.3
        prompt = f"{seed} {'shared ' + str(number % 4) if is_shared else number}"
        asked.append(Asked(prompt, is_shared, node=dice.randrange(NODES), hooked=dice.random() < 0.3))
    cluster.asked += asked
    sessions = [cluster.caller(number) for number in range(NODES)]
    try:
        tasks = [
            asyncio.create_task(_call(cluster, sessions, each, version, receiver, dice.random(), victim))
            for each in asked
        ]
        stories = [Asked(f"{seed} story {number}", node=number % NODES) for number in range(streams)]
        cluster.asked += stories
        readings = [[Reading(each.prompt, node) for node in range(NODES)] for each in stories]
        cluster.readings += itertools.chain(*readings)
        for each, readers in zip(stories, readings, strict=True):
            tasks.append(asyncio.create_task(_tell(cluster, sessions, each, readers, victim)))
        # In the middle of it: the victim has runs to follow, readers, and creates on their way.
        await until(lambda: cluster.is_busy(asked, victim))
        await asyncio.sleep(dice.uniform(0.0, 0.3))
        await happens()
        for go_on in cluster.go_on:
            go_on.set()
        await asyncio.gather(*tasks)
    finally:
        for session in sessions:
            await session.close()


async def _call(
    cluster: Cluster,
    sessions: list[aiohttp.ClientSession],
    asked: Asked,
    version: str,
    receiver: Receiver,
    chance: float,
    victim: int,
) -> None:
    await asyncio.sleep(chance * 0.6)
    body: dict[str, Any] = {
        "version": version,
        # At twenty times the speed: up to three seconds after they may end.
        "input": {"duration": 60 * chance, "prompt": asked.prompt},
    }
    if asked.is_shared:
        body["input"] |= {"duration": 20, "seed": 7}
    if asked.hooked:
        body["webhook"] = f"{receiver.url}/{len(cluster.asked)}"
        body["webhook_events_filter"] = ["completed"]
    headers = {"Prefer": "wait=60"} if chance < 0.3 else {}
    try:
        async with sessions[asked.node].post("/v1/predictions", json=body, headers=headers) as response:
            answer = await response.json()
            asked.statuses.append(response.status)
            if response.status < 300:
                asked.ids.append(answer["id"])
                asked.finished = answer["status"] in TERMINAL
    except (aiohttp.ClientError, TimeoutError):
        assert asked.node == victim, "a node that lives has cut a connection"


async def _tell(
    cluster: Cluster, sessions: list[aiohttp.ClientSession], asked: Asked, readings: list[Reading], victim: int
) -> None:
    """Create a run that streams, and read its stream on every node."""
    body = request_of(cluster.upstream, asked.prompt)
    try:
        async with sessions[asked.node].post("/v1/predictions", json=body) as response:
            answer = await response.json()
            asked.statuses.append(response.status)
            if response.status >= 300:
                return
    except (aiohttp.ClientError, TimeoutError):
        assert asked.node == victim, "a node that lives has cut a connection"
        return
    asked.ids.append(answer["id"])
    await read_everywhere(cluster, readings, answer["urls"]["stream"])


async def settled(cluster: Cluster, *, without: int | None = None) -> None:
    """Wait until everything that callers were told of has ended, on every node but one."""
    sessions = [cluster.caller(number) for number in range(NODES) if number != without]
    try:
        open_ids = {each for asked in cluster.asked for each in asked.ids}
        async for number in attempts(pause=0.1):
            for prediction in tuple(open_ids):
                async with sessions[number % len(sessions)].get(f"/v1/predictions/{prediction}") as response:
                    assert response.status == 200, f"{prediction} is lost: {response.status}"
                    if (await response.json())["status"] in TERMINAL:
                        open_ids.discard(prediction)
            if not open_ids:
                break
    finally:
        for session in sessions:
            await session.close()


async def check(cluster: Cluster, receiver: Receiver) -> None:
    """Compare what callers, upstream, receivers and the ledger say. Call when it is quiet."""
    async for _ in attempts(pause=0.2):
        is_over = all(each.terminal for each in cluster.upstream.predictions)
        if is_over and not await cluster.rows("SELECT id FROM runs WHERE state IN ('intended', 'live')"):
            break
    ran = Counter(each.input["prompt"] for each in cluster.upstream.predictions)
    assert {prompt: count for prompt, count in ran.items() if count > 1} == {}, "second runs"
    given = [each for asked in cluster.asked for each in asked.ids]
    known = {row[0] for row in await cluster.rows("SELECT id FROM predictions")}
    assert set(given) <= known, "lost ids"
    assert len(given) == len(set(given)), "an id was given twice"
    await check_streams(cluster.upstream, cluster.readings)
    cluster.resumed += sum(each.connections > 1 for each in cluster.readings)
    cluster.readings.clear()
    await _check_money(cluster)
    await _check_writers(cluster)
    await _check_webhooks(cluster, receiver)


async def _check_money(cluster: Cluster) -> None:
    lines: dict[str, list[int]] = defaultdict(list)
    query = "SELECT upstream_id, microusd FROM ledger LEFT JOIN runs ON runs.id = run_id WHERE ledger.kind = 'spend'"
    for upstream_id, microusd in await cluster.rows(query):
        lines[upstream_id].append(microusd)
    truth = {each.id: [_price(each)] for each in cluster.upstream.predictions}
    assert dict(lines) == truth, "the ledger differs from upstream's record"
    assert await cluster.rows("SELECT * FROM reservations") == []
    query = "SELECT * FROM meters WHERE open <> 0 OR held_milliseconds <> 0 OR held_microusd <> 0"
    assert await cluster.rows(query) == []


def _price(prediction: Prediction) -> int:
    seconds = 0 if prediction.status == "aborted" else prediction.metrics.get("predict_time", 0)
    return int((Decimal(str(seconds)) * Decimal(USD_PER_SECOND) * 10**6).to_integral_value())


async def _check_writers(cluster: Cluster) -> None:
    """What became of a run was written by its owner at that time, and by nobody else."""
    wrong = await cluster.rows(
        """
        SELECT notes.* FROM notes WHERE is_state
        AND NOT EXISTS (SELECT 1 FROM joins WHERE joins.app = notes.app AND joins.number = notes.owner)
        """
    )
    assert wrong == [], "a run was changed by a node that does not own it"


async def _check_webhooks(cluster: Cluster, receiver: Receiver) -> None:
    hooked = {asked.ids[0] for asked in cluster.asked if asked.hooked and asked.ids}
    await receiver.until(lambda: hooked <= {message.json["id"] for message in receiver.messages})
    ids: dict[str, set[str]] = defaultdict(set)
    for message in receiver.messages:
        ids[message.json["id"]].add(message.id)
    assert {each: found for each, found in ids.items() if len(found) > 1} == {}, "a copy with another webhook-id"
