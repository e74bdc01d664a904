"""Streams in a real Chromium, in a page of another origin than the gateway's, with a token that the page may show."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from gateway.simulator import Simulator
from tests.support.installation import Installation, install
from tests.support.pages import Site, visit_page
from tests.support.polling import attempts, until
from tests.support.simulator_models import hold_runs
from tests.support.stack import Stack, start_gateway
from tests.support.upstream import assert_upstream_saw_no_key, version_of

pytestmark = [pytest.mark.chromium, pytest.mark.node, pytest.mark.timeout(90)]

STORY = {"prompt": "a llama in the snow", "seed": 7, "max_tokens": 24}
TOLD_AT = 8


@pytest.fixture
async def gateway(upstream: Simulator, tmp_path: Path, site: Site, a_quiet_gateway: None) -> AsyncIterator[Stack]:
    """A gateway whose team alpha has pages at the listed origin."""
    async with start_gateway(upstream, tmp_path, teams={"alpha": {"origins": [site.listed]}}) as stack:
        yield stack
        assert_upstream_saw_no_key(stack)


@pytest.fixture
def installation(upstream: Simulator, tmp_path: Path, site: Site) -> Installation:
    """The same as a program, to be killed."""
    return install(upstream, tmp_path, ["alpha"], [site.listed])


async def token_for(origin: str, key: str, site: Site) -> str:
    """Mint a token for the page, as a backend would."""
    wanted = {"ttl_seconds": 300, "scopes": ["read", "predict"], "origins": [site.listed]}
    headers = {"Authorization": f"Bearer {key}"}
    async with (
        aiohttp.ClientSession(origin, headers=headers) as session,
        session.post("/gateway/tokens", json=wanted) as answer,
    ):
        assert answer.status == 201
        token: str = (await answer.json())["token"]
        return token


async def open_streams(stack: Stack) -> float:
    """Read how many streams callers have open."""
    async with aiohttp.ClientSession() as session, session.get(f"{stack.ops_url}/metrics") as answer:
        text = await answer.text()
    (line,) = (
        each for each in text.splitlines() if each.startswith('replicate_gateway_sse_streams{side="downstream"}')
    )
    return float(line.split(" ")[1])


async def test_npm_replicate_runs_and_streams_with_a_browser_token(
    gateway: Stack, upstream: Simulator, site: Site, tmp_path: Path
):
    """`run()` and `stream()` of the client; the page can stream what it created, without a key."""
    token = await token_for(gateway.origin, gateway.keys["alpha"], site)
    ref = f"acme/storyteller:{version_of(upstream, 'acme/storyteller')}"
    seen = await visit_page(
        site.listed,
        [
            ("run", {"ref": ref, "input": STORY}),
            ("stream", {"ref": ref, "input": STORY | {"seed": 8}}),
            ("stream", {"ref": "black-forest-labs/flux-schnell", "input": {"prompt": "a lake", "seed": 3}}),
        ],
        base_url=gateway.base_url,
        key=token,
        profile=tmp_path / "profile",
    )
    assert [each.get("error") for each in seen.results[:2]] == [None] * 2
    ran, streamed = (each["result"] for each in seen.results[:2])
    assert ran["text"] == "".join(upstream.predictions[0].output)
    assert streamed["text"] == "".join(upstream.predictions[1].output)
    assert streamed["events"].count("done") == 1
    streams = [each for each in seen.requests if "/v1/streams/" in each["url"]]
    assert [each["method"] for each in streams] == ["GET"], "a stream is a simple request: no preflight"
    assert not [each for each in seen.complaints if "CORS" in each]


async def test_event_source_survives_a_kill_of_the_gateway(
    installation: Installation, upstream: Simulator, site: Site, tmp_path: Path
):
    """`kill -9` in mid-stream and a new process on the same port: the page sees one text, nothing repeated or lost."""
    go_on = hold_runs(upstream, "acme/storyteller", after=TOLD_AT)
    async with installation.serving() as process:
        token = await token_for(installation.origin, installation.keys["alpha"], site)
        version = version_of(upstream, "acme/storyteller")
        visiting = asyncio.create_task(
            visit_page(
                site.listed,
                [("follow", {"version": version, "input": STORY, "tellAt": TOLD_AT})],
                base_url=installation.base_url,
                key=token,
                profile=tmp_path / "profile",
            )
        )
        await asyncio.wait(
            {visiting, reported := asyncio.create_task(site.reported("far-enough"))}, return_when="FIRST_COMPLETED"
        )
        reported.cancel()
        assert not visiting.done(), visiting.result()
        process.kill()
        await process.wait()
    said_by_then = len(upstream.predictions[0].output or ())
    assert upstream.predictions[0].completed_us is None
    read = upstream.requests.count("streams.get")
    async with installation.serving():
        # The page is back while the run goes on.
        await until(lambda: upstream.requests.count("streams.get") > read)
        go_on.set()
        seen = await visiting
    outcome: dict[str, Any] = seen.results[0]
    assert outcome.get("error") is None
    result = outcome["result"]
    assert result["opened"] >= 2
    assert result["lost"] >= 1
    events = result["events"]
    output = upstream.predictions[0].output
    assert 1 <= said_by_then < len(output), "the kill came in mid-stream"
    assert [each["data"] for each in events if each["type"] == "output"] == output
    ids = [tuple(map(int, each["id"].split(":"))) for each in events]
    assert ids == sorted(set(ids)), "each event once, and in order"
    assert [each["type"] for each in events].count("done") == 1
    assert events[-1]["type"] == "done"
    assert len(upstream.predictions) == 1
    for each in ("output.txt", "gateway.db", "gateway.db-wal"):
        logged = tmp_path / each
        ticket = next(url for url in (each["url"] for each in seen.requests) if "/streams/" in url).rpartition("/")[2]
        assert not logged.exists() or ticket.encode() not in logged.read_bytes()


async def test_page_that_closes_its_streams_leaves_none_open(
    gateway: Stack, upstream: Simulator, site: Site, tmp_path: Path
):
    """close(), abort(), cancel(), the client's signal: each connection ends while the page is open; none cancels a
    run.
    """
    hold_runs(upstream, "acme/storyteller", after=2)
    token = await token_for(gateway.origin, gateway.keys["alpha"], site)
    version = version_of(upstream, "acme/storyteller")
    given = {"version": version, "ref": f"acme/storyteller:{version}", "input": {"prompt": "hi"}}
    visiting = asyncio.create_task(
        visit_page(site.listed, [("leave", given)], base_url=gateway.base_url, key=token, profile=tmp_path / "profile")
    )
    reported = asyncio.create_task(site.reported("left"))
    await asyncio.wait({visiting, reported}, return_when="FIRST_COMPLETED")
    reported.cancel()
    assert not visiting.done(), visiting.result()
    async for _ in attempts():
        if not await open_streams(gateway):
            break
    site.released.set()
    seen = await visiting
    assert seen.results[0].get("error") is None
    assert seen.results[0]["result"] == [
        "EventSource.close()",
        "fetch: AbortError",
        "reader.cancel()",
        "stream: AbortError",
    ]
    assert upstream.requests.count("predictions.cancel") == 0
    assert len(upstream.predictions) == 4
    assert not any(each.terminal for each in upstream.predictions)
    assert seen.complaints == []
