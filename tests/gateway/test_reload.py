"""Reloads of the config in the running gateway: what counts from the next request on, and what nobody notices."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from gateway.config import Config, ConfigError, Problem
from gateway.simulator import Simulator
from tests.support.clock import ManualClock
from tests.support.http_calls import PAGE, ask, metrics_of
from tests.support.issuers import provider
from tests.support.polling import until
from tests.support.samples import create, finished
from tests.support.secret_scanner import LogScanner
from tests.support.simulator_models import hold_runs
from tests.support.stack import OpenGateway, Stack, new_token, stack_config, start_gateway, start_upstream
from tests.support.stream_host import HI, open_stream, stream_host, stream_url
from tests.support.system_clocks import PausedClock

OTHER_PAGE = "https://other.example.com"
HEARTBEAT = b":\n\n"


class File:
    """The config as a reload finds it."""

    def __init__(self, upstream: Simulator, folder: Path) -> None:
        self._upstream = upstream
        self._folder = folder
        self.stack: Stack | None = None
        self.found: Config | ConfigError | None = None

    def read(self) -> Config:
        if isinstance(self.found, ConfigError):
            raise self.found
        assert self.found is not None
        return self.found

    def write(self, *, without: str | None = None, **sections: Any) -> None:
        """Write what the stack has, with other values. `without` names a team that has gone."""
        assert self.stack is not None
        config, _ = stack_config(self._upstream, self._folder, self.stack.keys, **sections)
        teams = tuple(team for team in config.teams if team.name != without)
        self.found = config.model_copy(update={"teams": teams})

    async def reload(self, **sections: Any) -> bool:
        """Write it and have it read."""
        await asyncio.to_thread(partial(self.write, **sections))
        return await self.take()

    async def take(self) -> bool:
        """Have it read."""
        assert self.stack is not None
        assert self.stack.running.reloading is not None
        return await self.stack.running.reloading.reload()


Opened = tuple[Stack, File]


@asynccontextmanager
async def opened(
    open_gateway: OpenGateway, upstream: Simulator, folder: Path, **sections: Any
) -> AsyncIterator[Opened]:
    file = File(upstream, folder)
    async with open_gateway(reread=file.read, **sections) as stack:
        file.stack = stack
        yield stack, file


@pytest.fixture
async def both(open_gateway: OpenGateway, upstream: Simulator, folder: Path) -> AsyncIterator[Opened]:
    """A gateway, and its config."""
    async with opened(open_gateway, upstream, folder) as made:
        yield made


async def status(stack: Stack, key: str, path: str = "/v1/models", **headers: str) -> int:
    return (await ask(stack, "GET", path, key=key, headers=headers)).status


async def state_of(stack: Stack, key: str | None = None) -> Any:
    return (await ask(stack, "GET", "/admin/config", key=key, base=stack.ops_url)).json


async def test_reload_applies_to_keys_with_the_next_request(
    open_gateway: OpenGateway, upstream: Simulator, folder: Path
):
    """A removed key is refused, a restricted one may do less, an added one works."""
    keys = [{"name": "web"}, {"name": "narrow"}]
    async with opened(open_gateway, upstream, folder, teams={"alpha": {"keys": keys}}) as (stack, file):
        for key in ("alpha", "alpha.web", "alpha.narrow"):
            assert await status(stack, key) == 200
        narrowed = [{"name": "narrow", "scopes": ["predict"]}]
        assert await file.reload(teams={"alpha": {"keys": narrowed}, "gamma": {}})
        assert await status(stack, "alpha") == 200
        assert await status(stack, "alpha.web") == 401
        assert await status(stack, "alpha.narrow") == 403
        assert file.found is not None
        assert isinstance(file.found, Config)
        gamma = file.found.team("gamma")
        assert gamma is not None
        assert gamma.keys[0].value is not None
        assert await status(stack, gamma.keys[0].value.get_secret_value()) == 200


async def test_invalid_config_changes_nothing_and_is_reported_in_full(both: Opened, log_scanner: LogScanner):
    """The gateway goes on as it was, operators see every problem, and the next valid config is loaded."""
    stack, file = both
    before = (await state_of(stack))["loaded_at"]
    file.found = ConfigError([Problem("server.port", "expected a number"), Problem("teams[0].name", "is missing")])
    assert not await file.take()
    reported = [crash for crash in log_scanner.errors if "the config is wrong" in crash]
    assert len(reported) == 2
    assert "server.port" in reported[0]
    assert "expected a number" in reported[0]
    log_scanner.errors.clear()
    state = await state_of(stack)
    assert state["loaded_at"] == before
    assert state["last_reload"]["result"] == "refused"
    assert state["last_reload"]["problems"][1] == {"path": "teams[0].name", "message": "is missing"}
    assert await status(stack, "alpha") == 200
    assert await file.reload()
    metrics = await metrics_of(stack)
    assert 'config_reloads_total{result="refused"} 1.0' in metrics
    assert 'config_reloads_total{result="taken"} 1.0' in metrics
    assert (await state_of(stack))["last_reload"]["result"] == "taken"


async def test_each_config_is_in_the_audit_log(both: Opened):
    """The one of the start, and each change with old and new values; a reload without a change is none."""
    stack, file = both

    async def recorded() -> list[Any]:
        reply = await ask(stack, "GET", f"{stack.ops_url}/admin/audit?action=config.loaded", key=None)
        return [(each["actor"], each["before"], each["after"]) for each in reply.json["results"]]

    assert await recorded() == [("config", None, None)]
    assert await file.reload(logs={"level": "debug"}, ops={"token_env": "KEY_BETA"})
    assert await file.reload(logs={"level": "debug"})
    assert await file.take()
    assert await file.reload()
    found = await recorded()
    assert found[0] == ("config", {"logs.level": '"debug"'}, {"logs.level": '"info"'})
    assert found[2][2]["ops.token"] == "(not shown)"
    assert [len(found), found[-1]] == [4, ("config", None, None)]


async def test_crash_while_reading_the_config_is_a_failed_reload(both: Opened, log_scanner: LogScanner):
    """Whatever is wrong with the file, the process goes on serving."""
    stack, file = both
    file.found = None
    assert not await file.take()
    assert any("reading the config crashed" in crash for crash in log_scanner.errors)
    log_scanner.errors.clear()
    assert await status(stack, "alpha") == 200


async def test_changes_that_need_a_restart_are_named_and_the_rest_applies(both: Opened):
    """No operator has to guess which part of a change is in effect."""
    stack, file = both
    assert await file.reload(server={"max_body_bytes": 100}, logs={"format": "json"}, outputs={"ttl_seconds": 7})
    last = (await state_of(stack))["last_reload"]
    assert last["needs_restart"] == ["outputs.ttl_seconds", "logs.format"]
    assert "server.max_body_bytes" in last["changed"]
    long = {"version": "a" * 64, "input": {"prompt": "x" * 200}}
    assert (await ask(stack, "POST", "/v1/predictions", json=long)).status == 413
    assert await file.reload()
    assert (await ask(stack, "POST", "/v1/predictions", json=long)).status != 413


async def test_new_body_limit_applies_to_bodies_of_unknown_length(both: Opened):
    """A caller who does not announce the length gets no further than others."""
    stack, file = both
    assert await file.reload(server={"max_body_bytes": 100})

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(10):
            yield b"x" * 50

    reply = await ask(stack, "POST", "/v1/predictions", data=chunks(), headers={"Content-Type": "application/json"})
    assert reply.status == 413


async def test_reload_adds_moves_and_removes_an_issuer(open_gateway: OpenGateway, upstream: Simulator, folder: Path):
    """With the next request, whatever was verified before."""
    teams = {name: {"origins": [PAGE]} for name in ("alpha", "beta")}
    async with provider() as issuer, opened(open_gateway, upstream, folder, teams=teams) as (stack, file):
        token = issuer.token()

        async def seen(path: str = "") -> int:
            return await status(stack, token, f"/v1/predictions{path}", Origin=PAGE)

        assert await seen() == 401
        assert await file.reload(teams=teams, issuers=[issuer.config()])
        made = (await create(stack, key=token, headers={"Origin": PAGE})).json["id"]
        assert await seen(f"/{made}") == 200
        assert await file.reload(teams=teams, issuers=[issuer.config(team="beta")])
        assert await seen(f"/{made}") == 404
        assert await file.reload(teams=teams, issuers=[issuer.config(scopes=["read"])])
        assert await seen() == 403
        assert await file.reload(teams=teams)
        assert await seen() == 401


async def test_new_limits_apply_at_once_and_keep_what_was_used(
    open_gateway: OpenGateway, upstream: Simulator, folder: Path
):
    """A lowered rate refuses, a raised one releases held creates; a reload resets no counter."""
    # No bucket fills meanwhile.
    sections = {"teams": {"alpha": {"requests_per_minute": 600}}, "clock": PausedClock()}
    async with opened(open_gateway, upstream, folder, **sections) as (stack, file):
        assert await status(stack, "alpha") == 200
        assert await file.reload(teams={"alpha": {"requests_per_minute": 1, "burst": 1}})
        assert [await status(stack, "alpha") for _ in range(3)][-1] == 429
        assert await file.reload(teams={"alpha": {"requests_per_minute": 1, "burst": 1}})
        assert await status(stack, "alpha") == 429
        assert await file.reload(teams={"alpha": {"requests_per_minute": 6000}})
        assert await status(stack, "alpha") == 200
        assert await file.reload(teams={"alpha": {}})
        reply = await ask(stack, "GET", "/v1/models")
        assert reply.status == 200
        assert "RateLimit" not in reply.headers


async def test_new_budgets_apply_at_once(both: Opened):
    """A budget below what is spent refuses the next run, but no hit."""
    stack, file = both
    first = await create(stack, model="acme/storyteller", prompt="hi", seed=7)
    await finished(stack, first.json["id"])
    assert await file.reload(
        teams={"alpha": {"budget_usd_per_day": 0.01}}, prices={"models": [{"model": "*", "usd_per_run": 1}]}
    )
    assert (await create(stack, model="acme/storyteller", prompt="ho", seed=8)).status == 402
    hit = await create(stack, model="acme/storyteller", prompt="hi", seed=7)
    assert (hit.status, hit.json["status"]) == (201, "succeeded")
    assert await file.reload(cache={"enabled": False})
    assert "hit" not in (await create(stack, model="acme/storyteller", prompt="hi", seed=7)).headers["Cache-Status"]


async def test_new_origins_apply_at_once(both: Opened):
    """To preflights, which carry no key, and to requests."""
    stack, file = both
    assert await file.reload(teams={"alpha": {"origins": [OTHER_PAGE]}})
    for method, key in (("OPTIONS", None), ("GET", "alpha")):
        allowed = await ask(stack, method, "/v1/models", key=key, headers={"Origin": OTHER_PAGE})
        assert allowed.headers["Access-Control-Allow-Origin"] == OTHER_PAGE
        refused = await ask(stack, method, "/v1/models", key=key, headers={"Origin": PAGE})
        assert "Access-Control-Allow-Origin" not in refused.headers


async def test_new_public_url_applies_to_links(both: Opened):
    """The next response uses it."""
    stack, file = both
    made = await create(stack)
    assert await file.reload(server={"public_url": "https://new.example.com"})
    body = (await ask(stack, "GET", f"/v1/predictions/{made.json['id']}")).json
    assert body["urls"]["get"].startswith("https://new.example.com/v1/")


async def test_open_streams_and_waits_survive_a_reload(both: Opened):
    """They end as if nothing had happened; upstream gets no second request."""
    stack, file = both
    go_on = [hold_runs(stack.upstream, model) for model in ("acme/storyteller", "acme/slow")]
    reported = await create(stack, model="acme/storyteller", prompt="hi")
    listening = asyncio.create_task(ask(stack, "GET", reported.json["urls"]["stream"], key=None))
    waiting = asyncio.create_task(create(stack, headers={"Prefer": "wait"}))
    await until(lambda: stack.upstream.requests.count("streams.get"))
    await until(lambda: stack.upstream.requests.count("predictions.create") == 2)
    assert await file.reload(streams={"max_per_team": 1, "heartbeat_seconds": 5}, cache={"memory_bytes": 1000})
    for each in go_on:
        each.set()
    assert b"event: done" in (await listening).body
    reply = await waiting
    assert (reply.status, reply.json["status"]) == (201, "succeeded")
    assert stack.upstream.requests.count("predictions.create") == 2


async def test_removed_team_is_shut_out_and_its_runs_go_on(both: Opened):
    """Its streams end and do not reopen; its runs end, and are there when the team comes back."""
    stack, file = both
    go_on = hold_runs(stack.upstream, "acme/storyteller")
    made = await create(stack, key="beta", model="acme/storyteller", prompt="hi")
    url = made.json["urls"]["stream"]
    listening = asyncio.create_task(ask(stack, "GET", url, key=None))
    await until(lambda: stack.upstream.requests.count("streams.get"))
    assert await file.reload(without="beta")
    ended = await listening
    assert b"event: done" not in ended.body
    assert ended.body.endswith(b"retry: 1000\n\n")
    assert (await ask(stack, "GET", url, key=None)).status == 404
    assert await status(stack, "beta") == 401
    assert await status(stack, "alpha", f"/v1/predictions/{made.json['id']}") == 404
    assert await file.reload()
    go_on.set()
    assert (await finished(stack, made.json["id"], key="beta"))["status"] == "succeeded"
    assert stack.upstream.requests.count("predictions.cancel") == 0
    usage = (await ask(stack, "GET", "/gateway/usage", key="beta")).json
    assert usage["total"]["predictions"]["run"] == 1


async def test_ops_token_can_be_rotated(open_gateway: OpenGateway, upstream: Simulator, folder: Path):
    """The old one stops, the new one works, and the listener is never open in between."""
    async with opened(open_gateway, upstream, folder) as (stack, file):
        (folder / "ops").write_text("the-very-first-token")
        assert await file.reload(ops={"token_file": str(folder / "ops")})
        assert (await ask(stack, "GET", "/admin/config", key=None, base=stack.ops_url)).status == 401
        changed = (await state_of(stack, "the-very-first-token"))["last_reload"]["changed"]
        assert changed[:2] == ["ops.token_file", "ops.token"]
        (folder / "ops").write_text("the-second-token")
        assert await file.reload(ops={"token_file": str(folder / "ops")})
        assert (await ask(stack, "GET", "/admin/config", key="the-very-first-token", base=stack.ops_url)).status == 401
        assert (await state_of(stack, "the-second-token"))["last_reload"]["changed"] == ["ops.token"]
        assert await file.reload()


async def test_account_token_can_be_rotated(folder: Path):
    """New requests carry the new token; runs in progress end normally."""
    first, second = new_token(), new_token()
    async with start_upstream(tokens=(first, second)) as upstream:
        file = File(upstream, folder)
        async with start_gateway(upstream, folder, reread=file.read, cache={"metadata_ttl_seconds": 0}) as stack:
            file.stack = stack
            assert await status(stack, "alpha") == 200
            (folder / "token").write_text(second)
            assert await file.reload(upstream={"token_file": str(folder / "token")}, cache={"metadata_ttl_seconds": 0})
            assert await status(stack, "alpha") == 200
            sent = [seen.headers["authorization"] for seen in upstream.requests if seen.operation == "models.list"]
            assert sent == [f"Bearer {first}", f"Bearer {second}"]


async def test_new_heartbeat_applies_at_once(open_gateway: OpenGateway, upstream: Simulator, folder: Path):
    """A shorter heartbeat, needed because of a proxy, does not wait for the long one to pass."""
    clock = ManualClock()
    async with (
        opened(open_gateway, upstream, folder, clock=clock, streams={"heartbeat_seconds": 3600}) as (stack, file),
        stream_host(upstream) as (_, _),
        open_stream(await stream_url(stack)) as caller,
    ):
        assert await caller.until(HI) == HI
        assert await file.reload(streams={"heartbeat_seconds": 1})
        while caller.body.count(HEARTBEAT) < 3:
            await clock.advance(1)
            await caller.more()


async def test_concurrent_reloads_run_one_after_another(both: Opened):
    """However often a signal is sent, each reload ends with the config that it has read."""
    stack, file = both
    file.write(server={"max_upload_bytes": 10})
    assert await asyncio.gather(*(file.take() for _ in range(5))) == [True] * 5
    metrics = await metrics_of(stack)
    assert 'config_reloads_total{result="taken"} 5.0' in metrics
