"""The end of the real process: waiting requests are answered, readers are asked to reconnect, and runs continue."""

import asyncio
import json
import signal
from pathlib import Path

import aiohttp

from gateway.simulator import Simulator
from tests.support.polling import attempts, until
from tests.support.serve_command import ServeCommand, ServingProcess
from tests.support.upstream import creates, version_of

SLOW = {"input": {"duration": 2000}}


def installation(upstream: Simulator, folder: Path, *server: str) -> ServeCommand:
    return ServeCommand(folder, upstream.base_url, upstream.token, server="\n".join(server))


async def status_of(url: str) -> int:
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        return answer.status


async def until_not_ready(gateway: ServingProcess) -> None:
    async for _ in attempts():
        if await status_of(f"{gateway.ops_url}/readyz") == 503:
            break


async def test_shutdown_answers_waiters_ends_streams_and_exits_0(upstream: Simulator, tmp_path: Path):
    """A waiting caller gets what is known, a reader gets an end, the process exits with 0, and the runs go on."""
    installed = installation(upstream, tmp_path)
    slow, story = version_of(upstream, "acme/slow"), version_of(upstream, "acme/storyteller")
    async with installed.serving() as gateway, installed.caller(gateway.origin) as alpha:
        asked = {"version": story, "input": {"prompt": "a", "duration": 2000}}
        reported = await (await alpha.post("/v1/predictions", json=asked)).json()
        listening = await alpha.get(reported["urls"]["stream"], timeout=aiohttp.ClientTimeout(total=None))
        assert (await listening.content.readline()).startswith(b":")
        waiting = asyncio.create_task(
            alpha.post("/v1/predictions", json={"version": slow, **SLOW}, headers={"Prefer": "wait=60"})
        )
        await until(lambda: creates(upstream) >= 2)
        gateway.signal(signal.SIGTERM)
        answer = await waiting
        known = await answer.json()
        assert (answer.status, known["status"]) == (202, "starting")
        # It ends as a stream does, not as a connection that broke; and not with what would mean the work is over.
        rest = await listening.content.read()
        assert b"event: done" not in rest
        assert rest.endswith(b"retry: 1000\n\n")
        assert await gateway.ended() == 0
    lines = [json.loads(line) for line in installed.log.splitlines()]
    assert [line["message"] for line in lines if line["logger"] == "gateway.app"][-2:] == ["stopping", "stopped"]
    assert not [line for line in lines if line["level"] in ("WARNING", "ERROR", "CRITICAL")]

    async with installed.serving() as gateway, installed.caller(gateway.origin) as alpha:
        for prediction in (reported["id"], known["id"]):
            body = await (await alpha.get(f"/v1/predictions/{prediction}")).json()
            assert body["status"] in ("starting", "processing")
            assert (await alpha.post(f"/v1/predictions/{prediction}/cancel")).status == 200
        # Upstream is asked by whoever follows the runs: this process has taken them up.
        await until(lambda: upstream.requests.count("predictions.cancel") >= 2)
        gateway.signal(signal.SIGINT)
        assert await gateway.ended() == 0
    assert creates(upstream) == 2


async def test_drain_serves_requests_and_a_second_signal_ends_it(upstream: Simulator, tmp_path: Path):
    """Load balancers see in time that it stops; a second Ctrl-C ends it at once, and the exit code says so."""
    installed = installation(upstream, tmp_path, "drain_seconds = 3600", "shutdown_grace_seconds = 3600")
    slow = version_of(upstream, "acme/slow")
    async with installed.serving() as gateway, installed.caller(gateway.origin) as alpha:
        gateway.signal(signal.SIGTERM)
        await until_not_ready(gateway)
        assert await status_of(f"{gateway.origin}/readyz") == 503
        assert await status_of(f"{gateway.origin}/healthz") == 200
        assert (await alpha.post("/v1/predictions", json={"version": slow, **SLOW})).status == 201
        gateway.signal(signal.SIGTERM)
        assert await gateway.ended() == 128 + signal.SIGTERM
    assert "stopped at once by a second signal" in installed.log


async def test_stalled_body_does_not_delay_shutdown(upstream: Simulator, tmp_path: Path):
    """A caller who stopped in the middle of a body is disconnected when the grace period is over."""
    installed = installation(upstream, tmp_path, "shutdown_grace_seconds = 0.3")
    async with installed.serving() as gateway:
        host, _, port = gateway.origin.removeprefix("http://").partition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        head = f"POST /v1/predictions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {installed.key}\r\n"
        writer.write(f"{head}Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n{{".encode())
        await writer.drain()
        async for _ in attempts():
            if "http_requests_in_flight 1.0" in await metrics_of(gateway):
                break
        gateway.signal(signal.SIGTERM)
        assert await gateway.ended() == 0
        await reader.read()
        writer.close()


async def metrics_of(gateway: ServingProcess) -> str:
    async with aiohttp.ClientSession() as session, session.get(f"{gateway.ops_url}/metrics") as answer:
        return await answer.text()
