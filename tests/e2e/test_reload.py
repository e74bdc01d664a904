"""SIGHUP and the real process: what is wrong changes nothing, what is right counts, and nobody who waits notices."""

import asyncio
import json
import signal
from pathlib import Path
from typing import Any

import aiohttp

from gateway.simulator import Simulator
from tests.support.polling import attempts, until
from tests.support.serve_command import ServeCommand, ServingProcess
from tests.support.simulator_models import hold_runs
from tests.support.upstream import creates, version_of

LONG = aiohttp.ClientTimeout(total=None)


async def last_reload(gateway: ServingProcess) -> dict[str, Any]:
    async with aiohttp.ClientSession() as session, session.get(f"{gateway.ops_url}/admin/config") as answer:
        found: dict[str, Any] = (await answer.json())["last_reload"] or {}
        return found


async def reloaded(gateway: ServingProcess, result: str) -> dict[str, Any]:
    before = await last_reload(gateway)
    gateway.signal(signal.SIGHUP)
    async for _ in attempts():
        if (found := await last_reload(gateway)) != before:
            break
    assert found["result"] == result, found
    return found


def lines_of(installed: ServeCommand) -> list[dict[str, Any]]:
    return [json.loads(line) for line in installed.log.splitlines() if line.startswith("{")]


async def test_reload_with_waiting_and_streaming_callers(upstream: Simulator, tmp_path: Path):
    """One caller waits and one streams through a bad config and a good one; both get their end from one process."""
    installed = ServeCommand(tmp_path, upstream.base_url, upstream.token)
    slow, story = version_of(upstream, "acme/slow"), version_of(upstream, "acme/storyteller")
    go_on = [hold_runs(upstream, model) for model in ("acme/slow", "acme/storyteller")]
    async with installed.serving() as gateway, installed.caller(gateway.origin) as alpha:
        asked = {"version": story, "input": {"prompt": "a"}}
        reported = await (await alpha.post("/v1/predictions", json=asked)).json()
        listening = await alpha.get(reported["urls"]["stream"], timeout=LONG)
        assert (await listening.content.readline()).startswith(b":")
        wait = {"version": slow, "input": {"duration": 2}}
        waiting = asyncio.create_task(alpha.post("/v1/predictions", json=wait, headers={"Prefer": "wait=60"}))
        await until(lambda: creates(upstream) >= 2)

        path = installed.configure()
        good = path.read_text()
        bad = 'max_body_bytes = -1\npubic_url = "https://a.example.com"\nport = 0\n'
        path.write_text(good.replace("port = 0\n", bad, 1).replace("KEY_ALPHA", "KEY_OF_NOBODY"))
        refused = await reloaded(gateway, "refused")
        problems = [problem["path"] for problem in refused["problems"]]
        assert problems == ["server.max_body_bytes", "server.pubic_url", "teams[0].keys[0].key_env"]
        assert (await alpha.get("/v1/models")).status == 200

        body = {"version": slow, "input": {"note": "x" * 2000}}
        path.write_text(good.replace("port = 0\n", "port = 1\nmax_body_bytes = 1000\n", 1))
        taken = await reloaded(gateway, "taken")
        assert taken["changed"] == ["server.max_body_bytes"]
        assert taken["needs_restart"] == ["server.port"]
        assert (await alpha.post("/v1/predictions", json=body)).status == 413

        for each in go_on:
            each.set()
        answer = await waiting
        assert (answer.status, (await answer.json())["status"]) == (201, "succeeded")
        assert b"event: done" in await listening.content.read()
        gateway.signal(signal.SIGTERM)
        assert await gateway.ended() == 0
    assert creates(upstream) == 2
    lines = lines_of(installed)
    told_wrong = [(line["path"], line["level"]) for line in lines if line["message"] == "the config is wrong"]
    assert told_wrong == [(path, "ERROR") for path in problems]
    differences = [line for line in lines if "old" in line]
    assert [(line["path"], line["old"], line["new"], line["level"]) for line in differences] == [
        ("server.port", "0", "1", "WARNING"),
        ("server.max_body_bytes", "16777216", "1000", "INFO"),
    ]
    assert installed.key not in installed.log
    assert upstream.token not in installed.log


async def test_log_level_changes_with_the_reload(upstream: Simulator, tmp_path: Path):
    """An operator turns request lines on and off without a restart; both changes are logged."""
    installed = ServeCommand(tmp_path, upstream.base_url, upstream.token)
    async with installed.serving() as gateway, installed.caller(gateway.origin) as alpha:
        path = installed.configure()
        usual = path.read_text()
        path.write_text(usual.replace('format = "json"', 'format = "json"\nlevel = "warning"'))
        await reloaded(gateway, "taken")
        await alpha.get("/v1/models", headers={"X-Request-Id": "not-logged"})
        path.write_text(usual + "[metrics]\ntop_targets = 7\n")
        assert (await reloaded(gateway, "taken"))["changed"] == ["metrics.top_targets", "logs.level"]
        await alpha.get("/v1/models", headers={"X-Request-Id": "logged"})
        gateway.signal(signal.SIGTERM)
        assert await gateway.ended() == 0
    lines = lines_of(installed)
    assert [line["new"] for line in lines if line.get("path") == "logs.level"] == ['"warning"', '"info"']
    assert [line["request_id"] for line in lines if "request_id" in line] == ["logged"]


async def test_concurrent_signals_do_no_harm(upstream: Simulator, tmp_path: Path):
    """Scripts that send too many of them reload once or twice, and the process goes on serving."""
    installed = ServeCommand(tmp_path, upstream.base_url, upstream.token)
    async with installed.serving() as gateway, installed.caller(gateway.origin) as alpha:
        for _ in range(50):
            gateway.signal(signal.SIGHUP)
        await reloaded(gateway, "taken")
        assert (await alpha.get("/v1/models")).status == 200
        gateway.signal(signal.SIGTERM)
        gateway.signal(signal.SIGHUP)
        assert await gateway.ended() == 0
