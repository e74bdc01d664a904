"""The recipes in docs/, run as written: in a shell, in Node and in a real Chromium, with the README's config."""

import asyncio
import contextlib
import json
import os
import re
import tomllib
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from gateway.config import from_mapping
from gateway.simulator import Simulator, load_faults
from tests.support.doc_blocks import ROOT, all_blocks, blocks, replaced
from tests.support.pages import Site, serve_site
from tests.support.polling import attempts, until
from tests.support.readme import (
    ORIGIN,
    ReadmeGateway,
    release_when_read,
    run_in_page,
    run_recipe,
    serve_readme,
    serving,
)
from tests.support.simulator_models import hold_runs
from tests.support.tools import require_tool

pytestmark = pytest.mark.timeout(90)

BROWSERS, KEYS, CACHING, DEPLOY = (f"docs/{name}.md" for name in ("browsers", "keys", "caching", "deploy"))
_STATE = "/var/lib/replicate-gateway"
_BACKUPS = "/var/backups"
WAYS = ("systemd", "docker", "kubernetes")
_STUBS = """
systemctl() { :; }
docker() {
  case "$1 $2" in
    "exec gateway") "${@:3}" ;;
    "cp gateway:/data/backup.db") cp backup.db "$3" ;;
    "run --rm") python3 -c "${@: -1}" ;;
  esac
}
kubectl() {
  case "$1" in
    exec) "${@:4}" ;;
    run) python3 -c 'import json, subprocess, sys
(given,) = (each for each in sys.argv if each.startswith("--overrides="))
spec = json.loads(given.partition("=")[2])["spec"]
subprocess.run(spec["containers"][0]["command"], check=True)' "$@" ;;
  esac
}
"""


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    """A server for a page whose script is written by the test."""
    async with serve_site(tmp_path / "bundle.js") as site:
        yield site


@pytest.fixture
async def gateway(upstream: Simulator, tmp_path: Path) -> AsyncIterator[ReadmeGateway]:
    """A gateway with the README's config, before the simulator."""
    async with serve_readme(upstream, tmp_path) as gateway:
        yield gateway


async def test_keys_are_created_listed_rotated_and_revoked(gateway: ReadmeGateway):
    """A key takes effect in the running gateway, and what the team may not do is refused."""
    lines = [line.partition("  #")[0] for line in _lines(blocks(KEYS, "Commands", "sh")[0])]
    create, limited, show, change, rotate, revoke, _ = lines
    key = (await gateway.shell(gateway.here(create))).strip()
    assert (await gateway.shell(limited)).startswith("rgw_")
    listed = await gateway.shell(show)
    assert re.search(r"^\S+ +acme +ci .* requests_per_minute=60,budget_usd_per_day=5 +cli:\S+$", listed, re.MULTILINE)
    (key_id,) = re.findall(r"^(\S+) +acme +web ", listed, re.MULTILINE)
    asked = f"curl -s -o /dev/null -w '%{{http_code}}' {gateway.origin}/gateway/limits -H 'Origin: {ORIGIN}' -H "
    assert await gateway.shell(f"{asked} 'Authorization: Bearer {key}'") == "200"
    assert "is changed" in await gateway.shell(replaced(change, {"KEY_ID": key_id}))
    new = (await gateway.shell(replaced(rotate, {"KEY_ID": key_id}))).strip()
    assert await gateway.shell(f"{asked} 'Authorization: Bearer {new}'") == "200"
    await gateway.shell(replaced(revoke, {"KEY_ID": key_id}))
    async for _ in attempts():
        if await gateway.shell(f"{asked} 'Authorization: Bearer {key}'") == "401":
            break
    (over_http,) = blocks(KEYS, "Over HTTP", "sh")
    made = json.loads(await gateway.shell(gateway.here(over_http.replace('"ci"', '"ci-2"')), OPS_TOKEN="none-is-set"))
    assert (made["limits"], made["key"][-4:]) == ({"budget_usd_per_day": 5}, made["last_four"])
    assert "key.created" in await gateway.shell("gateway audit --team acme --since 7d")
    (beyond,) = re.findall(r"`(--model '.+?')` is refused", (ROOT / KEYS).read_text())
    with pytest.raises(AssertionError, match="openai"):
        await gateway.shell(f"gateway keys create acme {beyond}")


async def test_cache_is_inspected_and_purged(gateway: ReadmeGateway):
    """The estimate says that the request would run; the commands count and delete cached results."""
    (estimate,) = blocks(CACHING, "Before and after", "sh")
    answer = json.loads(await gateway.shell(gateway.here(estimate)))
    assert (answer["result"], answer["reason"]) == ("run", "seed")
    said = await gateway.shell(blocks(CACHING, "How long", "sh")[0])
    assert re.fullmatch(r"results  0\nbytes    0\noldest   -\npurged 0\n", said)


async def test_first_request_of_the_deploy_page_is_answered(gateway: ReadmeGateway):
    """Ready, the team's name, and the model's output."""
    (recipe,) = blocks(DEPLOY, "First request", "sh")
    script = gateway.here(recipe).replace("\ncurl", "\necho; curl")
    ready, account, prediction = map(json.loads, filter(None, (await gateway.shell(script)).splitlines()))
    assert (ready["status"], account["username"], prediction["status"]) == ("ready", "acme", "succeeded")


@pytest.mark.parametrize("way", WAYS)
async def test_backup_is_restored(upstream: Simulator, tmp_path: Path, way: str):
    """The backup is made while the gateway serves; after the restore its key is valid and a later one unknown.

    Stubs take the place of systemd, the container engine and the cluster, and run their commands.
    """
    require_tool("sqlite3")
    state, backups = tmp_path / "state", tmp_path / "backups"
    state.mkdir()
    backups.mkdir()
    number = WAYS.index(way)
    back_up, restore = blocks(DEPLOY, "Back up", "sh")[number], blocks(DEPLOY, "Restore", "sh")[number]
    for place, here in ((_STATE, state), (_BACKUPS, backups)):
        back_up, restore = back_up.replace(place, str(here)), restore.replace(place, str(here))
    restore = restore.replace("/backup.db'", f"{state}/gateway-backup.db'").replace("65532", str(os.getuid()))
    async with serve_readme(upstream, state) as gateway:
        said = await gateway.shell(_STUBS + back_up)
        later = (await gateway.shell("gateway keys create acme --name later")).strip()
        assert gateway.process is not None
        gateway.process.kill()
        await gateway.process.wait()
    assert said == ("ok\n" if way == "systemd" else "")
    assert not (state / "backup.db").exists()
    await gateway.shell(_STUBS + restore)
    async with serving(gateway):
        asked = f"curl -s -o /dev/null -w '%{{http_code}}' {gateway.origin}/v1/predictions -H 'Authorization: Bearer "
        assert await gateway.shell(f"{asked}{gateway.key}'") == "200"
        assert await gateway.shell(f"{asked}{later}'") == "401"


def test_configs_on_the_pages_are_sound(tmp_path: Path):
    """Every TOML block in docs/ loads, combined with a team where it has none."""
    token = tmp_path / "token"
    token.write_text("r8_0123456789abcdefghij")
    more = [f"docs/{name}.md" for name in ("aliases", "commands", "simulator", "proxies")]
    for document in (KEYS, CACHING, DEPLOY, *more):
        for block in all_blocks(document):
            if block.language != "toml" or block.heading == "Faults":
                continue
            text = re.sub(r'token_file = "\S+"', f'token_file = "{token}"', block.text)
            if block.heading == "Keys in the config":
                text = '[[teams]]\nname = "acme"\n' + text
            data = {"teams": [{"name": "acme"}]} | tomllib.loads(text)
            from_mapping(data, {"REPLICATE_API_TOKEN": token.read_text(), "ACME_KEY": "rgw_" + "a" * 40})


def test_documented_faults_are_valid(tmp_path: Path):
    """As `gateway simulate --faults` reads them."""
    (tmp_path / "faults.toml").write_text(blocks("docs/simulator.md", "Faults", "toml")[0])
    assert [fault.name for fault in load_faults(tmp_path / "faults.toml")] == ["drop_after", "throttle"]


async def test_preflight_shows_whether_an_origin_is_listed(gateway: ReadmeGateway):
    """The check on the troubleshooting page, for a listed origin and for another one."""
    (recipe,) = blocks("docs/troubleshooting.md", "Failed to fetch in the browser", "sh")
    check = gateway.here(recipe)
    assert ORIGIN in await gateway.shell(check)
    with pytest.raises(AssertionError):
        await gateway.shell(replaced(check, {ORIGIN: "https://other.example.com"}))


@pytest.mark.node
async def test_token_route_returns_a_token_that_the_page_renews(gateway: ReadmeGateway, tmp_path: Path):
    """In Node: the route is called as a framework would, and the page's function calls it only when needed."""
    route, fresh = (blocks(BROWSERS, heading, "js")[0] for heading in ("A token route on your server", "Renew a token"))
    (tmp_path / "route.mjs").write_text(gateway.here(route))
    (tmp_path / "page.mjs").write_text(
        'import { POST } from "./route.mjs";\n'
        "let asked = 0;\nconst network = fetch;\n"
        "globalThis.fetch = (url, init) => {\n"
        '  if (url !== "/api/gateway-token") return network(url, init);\n'
        '  asked += 1;\n  return POST(new Request("https://app.example.com" + url, init));\n};\n'
        f"{fresh}\n"
        "const first = await freshToken();\nconst second = await freshToken();\n"
        "current.expires_at = new Date(Date.now() + 20_000).toISOString();\nawait freshToken();\n"
        "console.log(JSON.stringify({ first, same: first === second, asked }));\n"
    )
    printed = await run_recipe(require_tool("node"), "page.mjs", folder=tmp_path, **gateway.environ())
    seen = json.loads(printed)
    assert seen["first"].startswith("rgt_")
    assert (seen["same"], seen["asked"]) == (True, 2)


class Interrupted:
    """A proxy that can lose its connections, and answer once as one does whose gateway restarts."""

    def __init__(self, origin: str) -> None:
        self.origin = origin
        self.refusals = 0
        self.refused = 0
        self.passed = b""
        """What callers were sent."""
        self._open: set[asyncio.Transport] = set()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        if self.refused < self.refusals:
            self.refused += 1
            return web.Response(status=502, text="<h1>Bad Gateway</h1>", content_type="text/html")
        async with (
            aiohttp.ClientSession(auto_decompress=False) as session,
            session.request(
                request.method, self.origin + request.path_qs, headers=request.headers, data=await request.read()
            ) as response,
        ):
            headers = {name: value for name, value in response.headers.items() if name != "Transfer-Encoding"}
            answer = web.StreamResponse(status=response.status, headers=headers)
            await answer.prepare(request)
            assert isinstance(request.transport, asyncio.Transport)
            self._open.add(request.transport)
            with contextlib.suppress(ConnectionError):
                async for chunk in response.content.iter_any():
                    await answer.write(chunk)
                    self.passed += chunk
            self._open.discard(request.transport)
            return answer

    def interrupt(self) -> None:
        """Lose every connection; answer the next request with 502."""
        self.refusals += 1
        for transport in self._open:
            transport.abort()
        self._open.clear()


@pytest.mark.node
@pytest.mark.chromium
async def test_event_source_streams_to_a_page(upstream: Simulator, tmp_path: Path, site: Site, clients: Path):
    """With the token of the README's recipe: the page shows the model's text and logs no error."""
    (recipe,) = blocks(BROWSERS, "EventSource", "js")
    recipe = replaced(recipe, {'prompt: "Write a haiku"': 'prompt: "Write a haiku", duration: 20'})
    async with serve_readme(upstream, tmp_path, site.listed) as gateway:
        seen, _ = await asyncio.gather(run_in_page(gateway, site, clients, recipe), release_when_read(gateway, site))
    assert seen["text"] == "".join(upstream.predictions[0].output)
    assert seen["complaints"] == []
    assert len(upstream.predictions) == 1


@pytest.mark.node
@pytest.mark.chromium
async def test_event_source_resumes_after_a_proxys_error(
    upstream: Simulator, tmp_path: Path, site: Site, clients: Path
):
    """After a lost connection and a 502, where EventSource alone gives up, no word is missing."""
    (recipe,) = blocks(BROWSERS, "EventSource", "js")
    # Chromium comes back after three seconds, is refused, and the recipe comes back three seconds later.
    go_on = hold_runs(upstream, "meta/meta-llama-3-8b-instruct", after=6)
    recipe = replaced(recipe, {'prompt: "Write a haiku"': 'prompt: "Write a haiku", max_tokens: 40'})
    async with serve_readme(upstream, tmp_path, site.listed) as gateway:
        proxy = Interrupted(gateway.origin)
        app = web.Application()
        app.router.add_route("*", "/{rest:.*}", proxy.handle)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        here = f"http://127.0.0.1:{runner.addresses[0][1]}"
        # Links lead to where the page found the gateway, as behind any proxy.
        recipe = replaced(
            recipe, {"prediction.urls.stream": f'prediction.urls.stream.replace("{gateway.origin}", "{here}")'}
        )

        async def trouble() -> None:
            await until(lambda: proxy.passed.count(b"event: output") > 4)
            proxy.interrupt()
            await until(lambda: proxy.refused > 0)
            assert not upstream.predictions[0].terminal
            go_on.set()
            await until(lambda: b"event: done" in proxy.passed)
            await release_when_read(gateway, site)

        try:
            seen, _ = await asyncio.gather(run_in_page(gateway, site, clients, recipe, here), trouble())
        finally:
            await runner.cleanup()
    assert seen["text"] == "".join(upstream.predictions[0].output)
    assert sum("last_event_id=" in each["url"] for each in seen["requests"]) == 1


def _lines(block: str) -> list[str]:
    return [line for line in block.splitlines() if line]
