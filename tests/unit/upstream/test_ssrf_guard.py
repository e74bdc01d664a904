"""The guard between callers' URLs and the network, on real sockets."""

import asyncio
import socket
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver

from gateway.runtime.clock import SystemClock
from gateway.runtime.live import LiveSettings
from gateway.upstream.ssrf_guard import OwnThreads, guarded_connector, is_refusal
from gateway.upstream.webhooks import TransportSettings, WebhookSender
from gateway.webhooks.rules.deliveries import Result
from tests.support.fake_resolver import FakeResolver


@asynccontextmanager
async def receiver(host: str = "127.0.0.1") -> AsyncIterator[tuple[int, list[str]]]:
    """Open a receiver; give its port and the hosts that it was asked by."""
    seen: list[str] = []

    async def take(request: web.Request) -> web.Response:
        seen.append(request.host)
        return web.Response()

    app = web.Application()
    app.router.add_route("*", "/{rest:.*}", take)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, 0)
        await site.start()
        yield runner.addresses[0][1], seen
    finally:
        await runner.cleanup()


@asynccontextmanager
async def guarded(*, allow_private: bool = False, names: AbstractResolver | None = None):
    connector = guarded_connector(allow_private=allow_private, max_connections=4, resolver=names)
    async with aiohttp.ClientSession(connector=connector, trust_env=False) as session:
        yield session


async def refused(session: aiohttp.ClientSession, url: str) -> bool:
    with pytest.raises(aiohttp.ClientConnectorError) as failure:
        await session.get(url, allow_redirects=False)
    return is_refusal(failure.value)


@pytest.mark.parametrize("host", ["127.0.0.1", "[::ffff:127.0.0.1]", "localhost", "0.0.0.0"])
async def test_address_in_the_url_is_checked(host: str):
    """A caller who writes the machine's own address reaches nothing."""
    async with receiver() as (port, seen), guarded() as session:
        assert await refused(session, f"http://{host}:{port}/")
        assert not seen


async def test_name_that_resolves_to_a_private_address_is_refused():
    """A public name whose owner points it inside reaches nothing."""
    async with receiver() as (port, seen), guarded(names=FakeResolver(["127.0.0.1", "::1", "10.0.0.1"])) as session:
        assert await refused(session, f"http://hooks.example.com:{port}/")
        assert not seen


async def test_name_that_changes_after_the_lookup_is_refused():
    """Rebinding the name between two connections does not help: each is checked by the address it connects to."""
    names = FakeResolver(["127.0.0.1"], ["192.168.0.1"])
    async with receiver() as (port, seen), guarded(allow_private=True, names=names) as session:
        async with session.get(f"http://hooks.example.com:{port}/") as answer:
            assert answer.status == 200
        assert seen == [f"hooks.example.com:{port}"]
    names = FakeResolver(["169.254.169.254"])
    async with guarded(allow_private=True, names=names) as session:
        assert await refused(session, "http://hooks.example.com/")


async def test_private_networks_are_reached_where_allowed():
    """An installation whose receivers are inside works."""
    async with receiver() as (port, seen), guarded(allow_private=True) as session:
        async with session.get(f"http://127.0.0.1:{port}/") as answer:
            assert answer.status == 200
        assert seen


async def test_proxy_of_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch):
    """A proxy would connect where the guard cannot see."""
    async with receiver() as (port, seen):
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{port}")
        async with guarded() as session:
            assert await refused(session, "http://10.0.0.1/")
        assert not seen


async def test_system_resolver_is_the_default():
    """Without an own resolver the system is asked."""
    resolver = OwnThreads()
    found = await resolver.resolve("localhost", 80)
    assert {each["host"] for each in found} <= {"127.0.0.1", "::1"}
    assert found
    with pytest.raises(socket.gaierror):
        await resolver.resolve("no-such-name.invalid", 80)
    await resolver.close()


async def test_hanging_lookups_delay_no_others(monkeypatch: pytest.MonkeyPatch):
    """A team whose receivers' name server is silent fills its slots, twice over: other names are still found."""
    hang, look_up = threading.Event(), socket.getaddrinfo

    def silent(host: str, *args: Any, **kwargs: Any) -> Any:
        if host == "silent.example":
            hang.wait()
        return look_up("127.0.0.1", *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", silent)
    names = OwnThreads()
    waiting = [asyncio.create_task(names.resolve("silent.example", 1)) for _ in range(64)]
    try:
        (found, *_) = await names.resolve("receiver.example", 1)
        assert found["host"] == "127.0.0.1"
    finally:
        hang.set()
        await asyncio.gather(*waiting)
        await names.close()


async def test_open_connections_are_dropped_when_private_addresses_are_forbidden():
    """A reload that forbids them applies at once, also to receivers that were just talked to."""
    async with receiver() as (port, seen):
        url, usual = f"http://127.0.0.1:{port}/", TransportSettings(allow_private=True, allow_http=True)
        settings = LiveSettings(usual)
        sender = WebhookSender(settings, SystemClock())
        try:
            assert (await sender.send(url, {}, b"{}")).result is Result.DELIVERED
            settings.replace(TransportSettings(allow_private=False, allow_http=True))
            assert (await sender.send(url, {}, b"{}")).result is Result.REFUSED
            settings.replace(TransportSettings(allow_private=True, allow_http=False))
            assert (await sender.send(url, {}, b"{}")).result is Result.REFUSED
            settings.replace(usual)
            assert (await sender.send(url, {}, b"{}")).result is Result.DELIVERED
        finally:
            await sender.close()
        assert len(seen) == 2


async def test_connection_from_before_a_reload_is_closed_after_its_last_request():
    """A reload does not cut a delivery, and leaves no connection open until the shutdown."""
    received, may_answer, closed = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n{}")
        received.set()
        await may_answer.wait()
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        await reader.read()
        closed.set()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        settings = LiveSettings(TransportSettings(allow_private=True, allow_http=True))
        sender = WebhookSender(settings, SystemClock())
        sending = asyncio.create_task(sender.send(url, {}, b"{}"))
        await received.wait()
        settings.replace(TransportSettings(allow_private=False, allow_http=True))
        assert (await sender.send(url, {}, b"{}")).result is Result.REFUSED
        may_answer.set()
        assert (await sending).result is Result.DELIVERED
        await closed.wait()
        await sender.close()
