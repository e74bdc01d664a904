"""The configs of `docs/proxies.md` in a real nginx and Traefik: streams come through, and what breaks is found."""

import re
import tomllib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from gateway.simulator import Simulator
from tests.support.doc_blocks import blocks, replaced
from tests.support.polling import until
from tests.support.ports import free_port
from tests.support.proxies import DOCUMENT, Proxy, nginx, traefik
from tests.support.simulator_models import hold_runs
from tests.support.stack import Stack, start_gateway

pytestmark = pytest.mark.timeout(60)

PROXIES = {"nginx": nginx, "traefik": traefik}
STORY = {"prompt": "a llama in the snow", "seed": 7, "max_tokens": 24}
CACHE = "proxy_cache_path {folder}/cache keys_zone=streams:1m;"


@asynccontextmanager
async def serving(
    upstream: Simulator, folder: Path, port: int, *, own_port: int, **streams: float
) -> AsyncIterator[Stack]:
    """Start a gateway with the document's settings, to be reached at `port` through a proxy."""
    (settings,) = blocks(DOCUMENT, "In short", "toml")
    server = tomllib.loads(replaced(settings, {"https://gateway.example.com": f"https://127.0.0.1:{port}"}))["server"]
    async with start_gateway(upstream, folder, server=server | {"port": own_port}, streams=streams) as stack:
        yield stack


@asynccontextmanager
async def behind(
    upstream: Simulator, folder: Path, kind: str, *, streams: dict[str, float] | None = None, **how: Any
) -> AsyncIterator[tuple[Stack, Proxy]]:
    """Start a gateway and the proxy before it."""
    port = free_port()
    async with (
        serving(upstream, folder, port, own_port=0, **streams or {}) as stack,
        PROXIES[kind](folder, port, urlsplit(stack.origin).port, **how) as proxy,
    ):
        yield stack, proxy


@pytest.mark.parametrize("kind", PROXIES)
async def test_documented_config_passes_streams(upstream: Simulator, tmp_path: Path, kind: str):
    """The check passes, also after a silence of three heartbeats; upstream is not asked."""
    async with behind(upstream, tmp_path, kind, streams={"heartbeat_seconds": 1}) as (_, proxy):
        code, said = await proxy.check("--seconds", "3")
        assert code == 0, said
        assert "warning" not in said
        assert "none more than" in said
        assert f"links      {proxy.url}/v1\n" in said
        assert "version    HTTP/2 is offered\n" in said
        assert "silence    the stream survived 3 seconds" in said
        assert said.endswith("ok\n")
    assert not len(upstream.requests)


@pytest.mark.parametrize("kind", PROXIES)
async def test_prediction_streams_through_and_its_ticket_is_in_no_log(upstream: Simulator, tmp_path: Path, kind: str):
    """Events arrive as they are produced, at the link in the create's response. The proxy's logs contain requests
    but no ticket, also when the gateway is down and every request is an error.
    """
    port, own_port = free_port(), free_port()
    go_on = hold_runs(upstream, "acme/official-storyteller", after=2)
    async with PROXIES[kind](tmp_path, port, own_port) as proxy, proxy.session() as session:
        async with serving(upstream, tmp_path, port, own_port=own_port) as stack:
            headers = {"Authorization": f"Bearer {stack.keys['alpha']}"}
            body = {"input": STORY}
            path = "/v1/models/acme/official-storyteller/predictions"
            async with session.post(proxy.url + path, json=body, headers=headers) as answer:
                assert answer.status == 201
                url = (await answer.json())["urls"]["stream"]
            assert url.startswith(f"{proxy.url}/v1/streams/")
            async with session.get(url) as stream:
                assert "Content-Encoding" not in stream.headers
                early = await stream.content.readuntil(b"event: output")
                assert upstream.predictions[0].completed_us is None, "the first token is here while the model writes"
                go_on.set()
                whole = early + await stream.content.read()
            assert whole.count(b"event: output\n") == len(upstream.predictions[0].output)
            assert whole.count(b"event: done\n") == 1
        # As an output's: the ticket of another thing would do as well.
        copy = f"{proxy.url}/outputs/{'a' * 26}-0-{url[-52:]}/out.png"
        for address in (url, f"{proxy.url}/v1/files/rgws-{url[-52:]}", copy, f"{proxy.url}/healthz"):
            async with session.get(address) as answer:
                assert answer.status == 502
        await until(lambda: "502" in proxy.logs())
    logs = proxy.logs()
    assert path in logs or kind == "traefik", "other requests are logged"
    assert url[-52:] not in logs


@pytest.mark.parametrize(
    ("changes", "more", "name"),
    [
        ({"proxy_buffering off;": "proxy_buffering on; proxy_ignore_headers X-Accel-Buffering;"}, "", "buffered"),
        ({"gzip off;": "gzip on; gzip_types text/event-stream; gzip_proxied any;"}, "", "compressed"),
        (
            # nginx keeps nothing that it did not collect.
            {
                "proxy_buffering off;": "proxy_ignore_headers X-Accel-Buffering Cache-Control;",
                "proxy_cache off;": "proxy_cache streams; proxy_cache_valid 1m;",
            },
            CACHE,
            "cached",
        ),
        ({"access_log off;": "add_header Access-Control-Allow-Origin *; access_log off;"}, "", "cors"),
        ({"access_log off;": "proxy_hide_header Cache-Control; access_log off;"}, "", "cache-control"),
        ({'proxy_set_header Connection "";': 'proxy_set_header Last-Event-ID "";'}, "", "last-event-id"),
        ({"proxy_pass http://replicate_gateway;": "return 502;"}, "", "status"),
    ],
    ids=lambda each: each if isinstance(each, str) and each and " " not in each else "",
)
async def test_nginx_that_breaks_streams_is_found(
    upstream: Simulator, tmp_path: Path, changes: dict[str, str], more: str, name: str
):
    """One line of the config differs from the documented one: the check fails and says which."""
    more = more.format(folder=tmp_path)
    async with behind(upstream, tmp_path, "nginx", changes=changes, more=more) as (_, proxy):
        code, said = await proxy.check()
    assert code == 1, said
    assert f"\n{name}: " in f"\n{said}"
    assert "ok\n" not in said


async def test_nginx_without_stream_settings_passes_streams(upstream: Simulator, tmp_path: Path):
    """The gateway's own headers turn buffering off; the documented location is for what no header can say."""
    changes = {"proxy_buffering off;": "", "proxy_cache off;": "", "gzip off;": ""}
    async with behind(upstream, tmp_path, "nginx", changes=changes) as (_, proxy):
        code, said = await proxy.check()
    assert code == 0, said


async def test_nginx_with_defaults_gets_a_warning(upstream: Simulator, tmp_path: Path):
    """HTTP/1.0 to the gateway, HTTP/1.1 to browsers: it works, with a warning."""
    changes = {"proxy_http_version 1.1;": "", 'proxy_set_header Connection "";': "", "ssl http2;": "ssl;"}
    async with behind(upstream, tmp_path, "nginx", changes=changes) as (_, proxy):
        code, said = await proxy.check()
    assert code == 0, said
    assert "warning: http: the gateway receives HTTP/1.0" in said
    assert "warning: version: HTTP/2 is not offered" in said


async def test_nginx_with_a_short_timeout_is_found(upstream: Simulator, tmp_path: Path):
    """Its timeout is shorter than the pause between two heartbeats."""
    changes = {"proxy_read_timeout 120s;": "proxy_read_timeout 2s;"}
    async with behind(upstream, tmp_path, "nginx", changes=changes) as (_, proxy):
        code, said = await proxy.check("--seconds", "5")
    assert code == 1, said
    text = r"^cut: after [23] of 5 seconds of silence; a proxy times out before the first heartbeat"
    assert re.search(text, said, re.MULTILINE)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"service: gateway\n": "service: gateway\n      middlewares: [bad]\n",
             "  services:\n": "  middlewares:\n    bad:\n      buffering: {maxResponseBodyBytes: 9000}\n  services:\n"},
            "buffered: ",
        ),
        (
            {"service: gateway\n": "service: gateway\n      middlewares: [bad]\n",
             "  services:\n": "  middlewares:\n    bad:\n      compress: {}\n  services:\n"},
            "compressed: ",
        ),
        ({"writeTimeout: 0s": "writeTimeout: 4s"}, "cut: "),
        ({"passHostHeader: true": "passHostHeader: false"}, ""),
    ],
    ids=["buffered", "compressed", "cut", "host"],
)  # fmt: skip
async def test_traefik_that_breaks_streams_is_found(
    upstream: Simulator, tmp_path: Path, changes: dict[str, str], words: str
):
    """The middlewares and the timeout that the docs warn of; without Host, `public_url` keeps links right."""
    async with behind(upstream, tmp_path, "traefik", changes=changes, streams={"heartbeat_seconds": 1}) as (_, proxy):
        code, said = await proxy.check(*(("--seconds", "4") if words == "cut: " else ()))
    assert code == (1 if words else 0), said
    assert f"\n{words}" in f"\n{said}"


async def test_traefik_that_compresses_all_but_streams_passes(upstream: Simulator, tmp_path: Path):
    """As the docs say it may."""
    excluded = "compress: {excludedContentTypes: [text/event-stream]}"
    changes = {
        "service: gateway\n": "service: gateway\n      middlewares: [packed]\n",
        "  services:\n": f"  middlewares:\n    packed:\n      {excluded}\n  services:\n",
    }
    async with behind(upstream, tmp_path, "traefik", changes=changes) as (_, proxy):
        code, said = await proxy.check()
    assert code == 0, said


def test_readmes_short_config_is_part_of_the_full_one():
    """What is in the README is tested with the rest."""
    (short,), (whole,) = blocks(DOCUMENT, "In short", "nginx"), blocks(DOCUMENT, "nginx", "nginx")
    lines = {line.partition("#")[0].strip() for line in whole.splitlines()}
    assert set(short.splitlines()) <= lines
