"""A real Prometheus that scrapes a gateway, and the queries of the dashboards as Grafana would ask them."""

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import yaml

from tests.support.polling import attempts
from tests.support.ports import free_port
from tests.support.tools import clean_environment, require_tool

ROOT = Path(__file__).parents[2]
RULES = ROOT / "grafana/alerts/replicate-gateway.rules.yml"
DASHBOARDS = {path.stem: path for path in sorted((ROOT / "grafana/dashboards").glob("*.json"))}
SCRAPE_SECONDS = 0.5
RANGE = "10m"

Labels = frozenset[tuple[str, str]]


@dataclass(frozen=True)
class Query:
    """One query of a panel."""

    dashboard: str
    panel: str
    expr: str

    def asked(self) -> str:
        """Return the expression as Grafana sends it, with every variable set to all."""
        text = self.expr.replace("$__rate_interval", RANGE).replace("$__range", RANGE)
        return re.sub(r"\$(team|target|job|instance|node)\b", ".*", text)

    def __str__(self) -> str:
        return f"{self.dashboard}: {self.panel}"


def queries() -> Iterator[Query]:
    """Yield all queries of all dashboards, those of annotations too."""
    for name, path in DASHBOARDS.items():
        dashboard = json.loads(path.read_text())
        for annotation in dashboard["annotations"]["list"]:
            yield Query(name, f"annotation {annotation['name']}", annotation["expr"])
        for panel in dashboard["panels"]:
            for target in panel.get("targets", ()):
                yield Query(name, panel["title"], target["expr"])


class Prometheus:
    """A running Prometheus."""

    def __init__(self, origin: str, session: aiohttp.ClientSession) -> None:
        self._origin = origin
        self._session = session

    async def ask(self, what: str, **parameters: str) -> Any:
        """Call its API; fail if the query is invalid."""
        async with self._session.get(f"{self._origin}/api/v1/{what}", params=parameters) as response:
            answer = json.loads(await response.read())
        assert answer["status"] == "success", f"{parameters}: {answer.get('error')}"
        return answer["data"]

    async def query(self, expr: str, at: float | None = None) -> dict[Labels, float]:
        """Return the value of each series."""
        data = await self.ask("query", query=expr, **({"time": repr(at)} if at is not None else {}))
        return {
            frozenset((name, value) for name, value in each["metric"].items()): float(each["value"][1])
            for each in data["result"]
        }

    async def number(self, expr: str, at: float | None = None) -> float | None:
        """Return the only value; `None` if there is no series."""
        found = await self.query(expr, at)
        assert len(found) <= 1, found
        return next(iter(found.values()), None)

    async def until(self, expr: str, expected: float) -> None:
        """Wait until a query has this one value."""
        async for _ in attempts():
            if await self.number(expr) == expected:
                break


@contextlib.asynccontextmanager
async def start_prometheus(ops_url: str, folder: Path) -> AsyncIterator[Prometheus]:
    """Start a Prometheus that scrapes a gateway, with the rules of the repository."""
    program = require_tool("prometheus")
    config = {
        "global": {
            "scrape_interval": f"{int(SCRAPE_SECONDS * 1000)}ms",
            "scrape_timeout": f"{int(SCRAPE_SECONDS * 1000)}ms",
            "evaluation_interval": "1s",
        },
        "rule_files": [str(RULES)],
        "scrape_configs": [
            {"job_name": "replicate-gateway", "static_configs": [{"targets": [urlsplit(ops_url).netloc]}]}
        ],
    }
    path = folder / "prometheus.yml"
    path.write_text(yaml.safe_dump(config))
    port = free_port()
    with (folder / "prometheus.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            program,
            f"--config.file={path}",
            f"--storage.tsdb.path={folder / 'tsdb'}",
            f"--web.listen-address=127.0.0.1:{port}",
            stdout=log,
            stderr=log,
            env=clean_environment(),
        )
    try:
        async with aiohttp.ClientSession() as session:
            origin = f"http://127.0.0.1:{port}"
            await _ready(process, session, origin)
            yield Prometheus(origin, session)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def _ready(process: asyncio.subprocess.Process, session: aiohttp.ClientSession, origin: str) -> None:
    async for _ in attempts():
        assert process.returncode is None, "Prometheus did not start"
        with contextlib.suppress(aiohttp.ClientConnectionError):
            async with session.get(f"{origin}/-/ready") as response:
                if response.status == 200:
                    return
