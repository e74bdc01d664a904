"""A crowd: hundreds or a thousand callers of one deterministic request cost upstream what one does."""

import asyncio
import resource
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.support.rounds import amounts
from tests.support.session_calls import (
    CREATED,
    STORY,
    TERMINAL,
    ask,
    cancel,
    create,
    finished,
    get,
    open_session,
    versioned_model,
)
from tests.support.stack import Stack, start_gateway, start_upstream
from tests.support.upstream import creates, reads

_AT_ONCE = 100


@pytest.fixture(autouse=True)
def enough_files() -> Iterator[None]:
    """Callers, gateway and upstream are one process here, each with an end of every connection."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 8192 if hard == resource.RLIM_INFINITY else min(hard, 8192)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def _created(session: aiohttp.ClientSession, version: str, given: Any, **headers: str) -> Any:
    reply = await create(session, version, given, **headers)
    assert reply.status in (201, 202), reply.json
    return reply.json


async def _waits(session: aiohttp.ClientSession, version: str, given: Any) -> Any:
    body = await _created(session, version, given, Prefer="wait=60")
    return body if body["status"] in TERMINAL else await finished(session, body["id"])


async def _polls(session: aiohttp.ClientSession, version: str, given: Any) -> Any:
    body = await _created(session, version, given)
    while body["status"] not in TERMINAL:
        await asyncio.sleep(0.5)  # the clients' own pace
        body = await get(session, body["id"])
    return body


async def _streams(session: aiohttp.ClientSession, version: str, given: Any) -> Any:
    body = await _created(session, version, given)
    async with aiohttp.ClientSession() as nobody, nobody.get(body["urls"]["stream"]) as response:
        text = await response.text()
    assert "event: done\n" in text
    assert "\ndata: {}\n" in text
    return await finished(session, body["id"])


def _spread(number: int) -> Callable[[aiohttp.ClientSession, str, Any], Awaitable[Any]]:
    return (_waits, _polls, _waits, _polls, _streams)[number % 5]


async def _each(work: Callable[[Any], Awaitable[None]], items: list[Any]) -> None:
    gate = asyncio.Semaphore(_AT_ONCE)

    async def one(item: Any) -> None:
        async with gate:
            await work(item)

    await asyncio.gather(*(one(item) for item in items))


async def _reads_of_one(stack: Stack, given: Any) -> int:
    before = reads(stack.upstream)
    async with stack.caller() as alone:
        await _polls(alone, versioned_model(stack), given)
    return reads(stack.upstream) - before


@pytest.mark.parametrize("crowd", amounts(300, 1000))
async def test_many_equal_callers_cost_upstream_one_run(tmp_path: Path, crowd: int):
    """They wait, poll and stream at once: one create, the reads of one run; each has its own id and links."""
    async with start_upstream() as upstream, start_gateway(upstream, tmp_path) as stack:
        given = STORY | {"duration": 40.0}
        alone = await _reads_of_one(stack, given | {"seed": 1})
        assert creates(upstream) == 1
        before = reads(upstream)
        async with open_session(stack) as session:
            bodies = await asyncio.gather(
                *(_spread(number)(session, versioned_model(stack), given) for number in range(crowd))
            )
            assert creates(upstream) == 2
            assert reads(upstream) - before <= alone * 1.2 + 5
            assert upstream.requests.count("streams.get") <= 1
            assert len(upstream.predictions) == 2
            assert {body["status"] for body in bodies} == {"succeeded"}
            assert len({body["id"] for body in bodies}) == crowd
            assert len({body["urls"]["stream"] for body in bodies}) == crowd
            assert len({str(body["output"]) for body in bodies}) == 1
            asked = upstream.requests.count(origin="api")

            async def try_links(body: Any) -> None:
                urls = body["urls"]
                assert urls["get"] == f"{stack.base_url}/predictions/{body['id']}"
                async with session.get(urls["get"]) as response:
                    assert (await response.json())["id"] == body["id"]
                async with session.post(urls["cancel"]) as response:
                    # It has ended: a cancel changes nothing.
                    assert (response.status, (await response.json())["status"]) == (200, "succeeded")

            await _each(try_links, bodies)

            async def try_stream(body: Any) -> None:
                async with session.get(body["urls"]["stream"], headers={"Authorization": ""}) as response:
                    assert (await response.text()).endswith("data: {}\n\n")

            await _each(try_stream, bodies[::20])
            assert upstream.requests.count(origin="api") == asked
            assert upstream.requests.count("streams.get") <= 1
            assert upstream.requests.count("*.cancel") == 0
            team = (await ask(session, "GET", CREATED)).json
            assert len(team["results"]) == 100
            assert team["next"] is not None


@pytest.mark.timeout(40)
async def test_polls_of_hundreds_of_callers_cost_upstream_nothing(tmp_path: Path):
    """Three hundred clients poll twice a second for two seconds; upstream sees the polls of one run."""
    settings = {"creates_per_minute": 60_000, "requests_per_minute": 600_000}
    async with start_upstream(**settings) as upstream, start_gateway(upstream, tmp_path) as stack:
        given = STORY | {"duration": 40.0}
        alone = await _reads_of_one(stack, given | {"seed": 1})
        before = reads(upstream)
        async with open_session(stack) as session:
            bodies = await asyncio.gather(*(_polls(session, versioned_model(stack), given) for _ in range(300)))
        assert {body["status"] for body in bodies} == {"succeeded"}
        assert creates(upstream) == 2
        assert reads(upstream) - before <= alone * 1.2 + 5


async def test_different_requests_at_once_are_separate_runs(tmp_path: Path):
    """Twenty seeds, ten callers each: twenty creates, and no caller gets another's output."""
    async with start_upstream() as upstream, start_gateway(upstream, tmp_path) as stack, open_session(stack) as session:
        seeds = [number % 20 for number in range(200)]
        replies = await asyncio.gather(
            *(
                create(session, versioned_model(stack), STORY | {"seed": seed, "max_tokens": 16}, Prefer="wait")
                for seed in seeds
            )
        )
        by_seed: dict[int, set[str]] = {}
        for seed, reply in zip(seeds, replies, strict=True):
            assert reply.json["input"]["seed"] == seed
            by_seed.setdefault(seed, set()).add(str(reply.json["output"]))
        assert {len(outputs) for outputs in by_seed.values()} == {1}
        assert creates(upstream) == 20


async def test_reader_that_disconnects_stops_no_run(tmp_path: Path):
    """A page closes in the middle of a stream; the run goes on for it and for all others."""
    async with start_upstream() as upstream, start_gateway(upstream, tmp_path) as stack, open_session(stack) as session:
        given = STORY | {"duration": 20.0}
        first, second = [(await create(session, versioned_model(stack), given)).json for _ in range(2)]
        async with aiohttp.ClientSession() as page, page.get(first["urls"]["stream"]) as response:
            await response.content.readany()
        assert (await finished(session, second["id"]))["status"] == "succeeded"
        assert (await cancel(session, first["id"]))["status"] == "succeeded"
        assert upstream.requests.count("*.cancel") == 0
