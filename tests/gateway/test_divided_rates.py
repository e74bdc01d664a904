"""Three gateways on one PostgreSQL hold to one limit together: of requests, and of the account's creates."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import aiohttp
import pytest

from gateway.simulator import Fault, Simulator
from tests.support.http_calls import metrics_of, until_metric
from tests.support.polling import attempts
from tests.support.postgres import emptied_database
from tests.support.session_calls import ask, create, open_session
from tests.support.stack import OpenGateway, Stack
from tests.support.upstream import creates, version_of

STORY = "acme/storyteller"


class Nodes:
    """Gateways on one database."""

    def __init__(self, open_gateway: OpenGateway, stack: AsyncExitStack, url: str) -> None:
        self._open, self._stack, self._url = open_gateway, stack, url
        self.stacks: list[Stack] = []
        self.sessions: list[aiohttp.ClientSession] = []
        self._closing: list[AsyncExitStack] = []

    async def open(self, count: int = 3, **config: Any) -> None:
        for _ in range(count):
            keys = dict(self.stacks[0].keys) if self.stacks else {}
            one = AsyncExitStack()
            self._stack.push_async_callback(one.aclose)
            self._closing.append(one)
            opened = self._open(store={"url": self._url}, keys=keys, **config)
            self.stacks.append(await one.enter_async_context(opened))
            self.sessions.append(await one.enter_async_context(open_session(self.stacks[-1])))

    async def close(self, index: int) -> None:
        """Shut a gateway down."""
        await self._closing[index].aclose()
        del self.stacks[index], self.sessions[index]

    async def shares(self) -> list[float]:
        """Return each gateway's share of the account's creates."""
        start = 'replicate_gateway_account_share{lane="creates"} '
        pages = await asyncio.gather(*map(metrics_of, self.stacks))
        return [
            float(line.removeprefix(start)) for page in pages for line in page.splitlines() if line.startswith(start)
        ]

    async def get_often(self, index: int, count: int, headers: dict[str, str]) -> list[int]:
        session = self.sessions[index]
        return [(await ask(session, "GET", "/v1/predictions", headers=headers)).status for _ in range(count)]

    async def create(self, index: int, seed: int) -> int:
        upstream = self.stacks[0].upstream
        given = {"prompt": "a llama", "seed": seed, "max_tokens": 1}
        return (await create(self.sessions[index], version_of(upstream, STORY), given)).status

    async def each_has(self, text: str) -> None:
        """Wait until the metrics of every gateway have a line."""
        await asyncio.gather(*(until_metric(stack, f"\nreplicate_gateway_{text}\n") for stack in self.stacks))


@pytest.fixture
def url() -> str:
    return emptied_database()


@pytest.fixture
async def nodes(open_gateway: OpenGateway, url: str) -> AsyncIterator[Nodes]:
    async with AsyncExitStack() as stack:
        yield Nodes(open_gateway, stack, url)


async def test_callers_have_their_request_rates_on_three_gateways_together(nodes: Nodes):
    """A user, whose burst is too small for shares, and a team, whose burst is not."""
    user = {"requests_per_minute": 30, "burst": 5}
    await nodes.open(teams={"alpha": {"requests_per_minute": 1200, "burst": 60, "per_user": user}})
    for limit, burst, headers in ((30, 5, {"Gateway-User": "ann"}), (1200, 60, {})):
        began = time.monotonic()
        statuses = await asyncio.gather(*(nodes.get_often(index, 2 * burst, headers) for index in range(3)))
        admitted = sum(each.count(200) for each in statuses)
        assert {status for each in statuses for status in each} == {200, 429}
        # Parts of tokens are in several places, and the team's burst was used by its user, too.
        assert 0.6 * burst <= admitted <= burst + limit / 60 * (time.monotonic() - began) + 1


async def test_gateways_share_the_accounts_creates(nodes: Nodes, upstream: Simulator):
    """Creates that wait on three gateways go upstream at the account's rate, and no faster."""
    await nodes.open(upstream={"creates_per_minute": 240}, teams={"alpha": {"max_wait_seconds": 60}})
    await nodes.each_has('account_rate_per_minute{lane="creates"} 240.0')
    began = time.monotonic()
    calls = [asyncio.create_task(nodes.create(number % 3, number)) for number in range(52)]
    async for _ in attempts():
        made, passed = creates(upstream), time.monotonic() - began
        assert made <= 40 + 4 * passed + 1
        if made == 52:
            break
    assert time.monotonic() - began >= (52 - 41) / 4
    assert await asyncio.gather(*calls) == [201] * 52
    shares = await nodes.shares()
    assert len(shares) == 3
    assert 0 < sum(shares) <= 1.0001
    # The share of one that shuts down goes to the others.
    await nodes.close(1)
    async for _ in attempts():
        if sum(shares := await nodes.shares()) > 0.9:
            break
    assert len(shares) == 2
    assert sum(shares) <= 1.0001


async def test_all_gateways_stop_when_upstream_refuses_one(nodes: Nodes, upstream: Simulator):
    """6 creates a minute and a burst of 1 are what the account has left, for all of them."""
    await nodes.open(teams={"alpha": {"max_wait_seconds": 0}})
    upstream.faults.add(Fault(name="throttle_low_credit", operation="*.create", times=1))
    assert await nodes.create(0, 1) == 429
    await nodes.each_has('account_rate_per_minute{lane="creates"} 6.0')
    await nodes.each_has('account_share{lane="creates"} 0.0')
    assert [await nodes.create(index, 2 + index) for index in range(3)] == [429] * 3
    assert creates(upstream) == 1
