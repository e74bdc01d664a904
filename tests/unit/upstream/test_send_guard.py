"""Without a valid lease nothing that acts is sent, whatever happened until the connection was open."""

import aiohttp
import pytest

from gateway.errors import UpstreamUnavailable
from gateway.runtime.clock import SystemClock
from gateway.runtime.live import LiveSettings
from gateway.upstream.pools import new_session
from gateway.upstream.replicate import ReplicateClient, UpstreamCredentials, UpstreamSettings
from gateway.upstream.send_guard import guarded_request
from tests.support.observer import RecordingObserver
from tests.support.raw_server import answer, raw_server


async def test_create_is_withheld_after_the_connection_is_open_and_reads_go_on() -> None:
    notes = RecordingObserver()
    may_send = True
    async with raw_server(answer(b"{}")) as server:
        request_class = guarded_request(lambda: may_send)
        async with new_session(10, request_class) as session:
            opened: list[str] = []
            trace = aiohttp.TraceConfig()

            async def lose_the_lease(*_: object) -> None:
                nonlocal may_send
                opened.append("connection")
                may_send = False

            trace.on_connection_create_end.append(lose_the_lease)
            trace.freeze()
            session._trace_configs.append(trace)
            credentials = LiveSettings(UpstreamCredentials("r8_x"))
            client = ReplicateClient(session, credentials, UpstreamSettings(base_url=server.url), SystemClock(), notes)
            with pytest.raises(UpstreamUnavailable, match="Nothing was sent"):
                await client.send("predictions.create", "POST", "/predictions", b"{}")
            assert opened == ["connection"]
            assert server.heads == []
            assert (await client.read("predictions.get", "/predictions/x")).is_ok
            may_send = True
    assert [outcome for _, outcome, _ in notes.of("upstream_answered")] == ["withheld", "200"]


async def test_create_is_sent_with_a_valid_lease() -> None:
    async with raw_server(answer(b"{}", status="201 Created")) as server:
        async with new_session(10, guarded_request(lambda: True)) as session:
            credentials = LiveSettings(UpstreamCredentials("r8_x"))
            settings = UpstreamSettings(base_url=server.url)
            client = ReplicateClient(session, credentials, settings, SystemClock(), RecordingObserver())
            assert (await client.send("predictions.create", "POST", "/predictions", b"{}")).status == 201
        assert len(server.heads) == 1
        assert server.heads[0].startswith(b"POST /predictions")


async def test_withheld_requests_do_not_open_the_breaker() -> None:
    async with raw_server(answer(b"{}")) as server, new_session(10, guarded_request(lambda: False)) as session:
        credentials = LiveSettings(UpstreamCredentials("r8_x"))
        settings = UpstreamSettings(base_url=server.url)
        client = ReplicateClient(session, credentials, settings, SystemClock(), RecordingObserver())
        for _ in range(settings.breaker_threshold + 1):
            with pytest.raises(UpstreamUnavailable, match="Nothing was sent"):
                await client.send("predictions.cancel", "POST", "/predictions/x/cancel")
        assert not client.is_failing
