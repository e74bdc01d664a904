"""PostgreSQL goes away and comes back, at the start or later. The gateway answers meanwhile, and recovers by itself."""

import asyncio
import signal
from collections.abc import Iterator

import aiohttp
import psycopg
import pytest

from gateway.app import StoppedEarly, running
from gateway.assembly.shutdown import SignalHandler
from gateway.errors import StoreUnavailable
from gateway.simulator import Simulator
from tests.support.access_log import create_story
from tests.support.http_calls import ask, assert_problem, metrics_of
from tests.support.polling import attempts
from tests.support.ports import free_port
from tests.support.postgres import emptied_database, server
from tests.support.postgres_proxy import Cut, Proxy, every, proxy
from tests.support.samples import create
from tests.support.secret_scanner import LogScanner
from tests.support.stack import OpenGateway, stack_config
from tests.support.upstream import creates


@pytest.fixture
def url() -> str:
    return emptied_database()


@pytest.fixture
def between(url: str) -> Iterator[Proxy]:
    """A proxy between the gateway and PostgreSQL."""
    with proxy(server().folder, every(Cut.PASSED)) as made:
        yield made


async def answer(url: str) -> tuple[int, str, str | None]:
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        return response.status, await response.text(), response.headers.get("Retry-After")


async def test_start_waits_for_the_database(open_gateway: OpenGateway, url: str, between: Proxy) -> None:
    """It lives and says what it waits for, on both ports. When the database is there, it serves."""
    between.is_away = True
    ports = {"server": {"port": free_port()}, "ops": {"port": free_port()}}
    public, ops = (f"http://127.0.0.1:{section['port']}" for section in ports.values())
    opening = open_gateway(store={"url": between.url(url)}, **ports)
    starting = asyncio.ensure_future(opening.__aenter__())
    async for _ in attempts():
        try:
            status, said, _ = await answer(f"{public}/readyz")
        except aiohttp.ClientError:
            continue
        break
    assert (status, str(between.folder) in said, "waits for its store" in said) == (503, False, True)
    status, said, _ = await answer(f"{ops}/readyz")
    assert (status, "cannot be reached" in said, str(between.folder) in said) == (503, True, True)
    assert (await answer(f"{public}/healthz"))[0] == (await answer(f"{ops}/healthz"))[0] == 200
    status, said, retry_after = await answer(f"{public}/v1/predictions")
    assert (status, retry_after) == (503, "5")
    _, said, _ = await answer(f"{ops}/metrics")
    assert "replicate_gateway_ready 0.0" in said
    assert 'replicate_gateway_degraded{cause="database"} 1.0' in said
    between.is_away = False
    stack = await starting
    assert (await ask(stack, "GET", "/readyz", key=None)).status == 200
    assert (await create(stack)).status == 201
    await opening.__aexit__(None, None, None)


async def test_start_that_waits_can_be_stopped(upstream: Simulator, tmp_path, url: str, between: Proxy) -> None:
    between.is_away = True
    config, _ = stack_config(upstream, tmp_path, store={"url": between.url(url)})
    stop = SignalHandler(60, leave=lambda _: None)
    stop.signalled(signal.SIGTERM)
    with pytest.raises(StoppedEarly):
        async with running(config, stop=stop):
            pass


async def test_start_that_cannot_succeed_ends(upstream: Simulator, tmp_path, url: str) -> None:
    """A wrong user is not waited for: nobody would look."""
    config, _ = stack_config(upstream, tmp_path, store={"url": url.replace("gateway@", "nobody@")})
    with pytest.raises(StoreUnavailable, match="does not exist"):
        async with running(config):
            pass


async def test_outage_degrades_and_heals(
    open_gateway: OpenGateway, url: str, between: Proxy, log_scanner: LogScanner
) -> None:
    """The process stays in the load balancer. What is in memory is served; what must be recorded gets 503."""
    async with open_gateway(store={"url": between.url(url)}) as stack:
        made = (await create_story(stack, wait=True)).json
        assert (await ask(stack, "GET", f"/v1/predictions/{made['id']}")).json["status"] == "succeeded"
        between.is_away = True
        between.cut_all()
        assert_problem(await create(stack), 503, origin=None)
        ready = await ask(stack, "GET", "/readyz", key=None)
        assert (ready.status, ready.json["status"]) == (200, "degraded")
        assert "cannot be reached" in ready.json["checks"]["store"]
        metrics = await metrics_of(stack)
        assert "replicate_gateway_ready 1.0" in metrics
        assert 'replicate_gateway_degraded{cause="database"} 1.0' in metrics
        assert (await ask(stack, "GET", f"/v1/predictions/{made['id']}")).json["status"] == "succeeded"
        between.is_away = False
        async for _ in attempts():
            if (await create(stack)).status == 201:
                break
        assert (await ask(stack, "GET", "/readyz", key=None)).json["status"] == "ready"
    # Work in the background says what it could not do.
    log_scanner.errors.clear()


async def test_connections_that_end_one_by_one_fail_no_request(
    open_gateway: OpenGateway, upstream: Simulator, url: str
) -> None:
    """As when an operator or a proxy ends them: each create is recorded once and sent once."""
    async with (
        open_gateway(store={"url": url}) as stack,
        await psycopg.AsyncConnection.connect(url, autocommit=True) as connection,
    ):

        async def end_one() -> None:
            await connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid() ORDER BY random() LIMIT 1"
            )

        replies = []
        for _ in range(15):
            reply, *_ = await asyncio.gather(create(stack), end_one(), end_one())
            replies.append(reply)
        assert {each.status for each in replies} == {201}
        assert creates(upstream) == len({each.json["id"] for each in replies}) == 15
