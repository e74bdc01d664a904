"""How each peer is started, and how it is asked for a path of Replicate's API."""

import json
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from bench import installed
from bench.peers.install import LITELLM, NODE, SOURCE
from bench.processes import SERVER_CORE, Server, process

CHAT = json.dumps({"model": "bench", "messages": [{"role": "user", "content": "a bench in the park"}]}).encode()
_START_SECONDS = 120.0
_PORTKEY = NODE / "node_modules/@portkey-ai/gateway/build/start-server.js"


class Work(NamedTuple):
    """A request to Replicate's API, or to a server in front of it. `url` is a path where it is of Replicate's API."""

    url: str
    headers: Mapping[str, str]
    body: bytes | None


Ask = Callable[[Server, str, Work], Work | None]
"""Returns the request for some work, or `None` if a peer cannot do it. Arguments: the server, Replicate's address, the
work."""


class Peer(NamedTuple):
    """A peer."""

    name: str
    goal: str
    """How many times slower than the gateway it should be."""
    missing: Callable[[], str | None]
    """Returns why it cannot run here."""
    start: Callable[[str, Path], AbstractContextManager[Server]]
    """Starts it. Arguments: Replicate's address; an empty folder."""
    ask: Ask


def free_port() -> int:
    """Return a port that is free now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextmanager
def listening(
    command: list[str], port: int, folder: Path, environ: Mapping[str, str] | None = None
) -> Iterator[Server]:
    """Run a command that listens on a port; its output goes to a file."""
    with (
        (folder / "output.txt").open("wb") as output,
        process(command, SERVER_CORE, environ=environ, folder=folder, output=output) as started,
    ):
        _wait_for(port, started, folder / "output.txt")
        yield Server(f"http://127.0.0.1:{port}", started.pid, {})


def _wait_for(port: int, started: subprocess.Popen, output: Path) -> None:
    end = time.monotonic() + _START_SECONDS
    while time.monotonic() < end and started.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise SystemExit(f"{started.args[0]} does not listen: {output.read_text(errors='replace')[-300:]}")


def _plain(server: Server, _: str, work: Work) -> Work:
    return work._replace(url=server.origin + work.url)


# nginx


@contextmanager
def nginx(upstream: str, folder: Path, *, cached: bool = False) -> Iterator[Server]:
    """Run nginx in one process: a proxy, or one that caches."""
    ports = {"port": str(free_port()), "cache_port": str(free_port())}
    text = (SOURCE / "nginx.conf").read_text()
    for name, value in {**ports, "folder": str(folder), "upstream": urlsplit(upstream).netloc}.items():
        text = text.replace(f"@{name}@", value)
    (folder / "nginx.conf").write_text(text)
    command = [str(_nginx()), "-p", str(folder), "-c", str(folder / "nginx.conf")]
    with listening(command, int(ports["cache_port" if cached else "port"]), folder) as server:
        yield server


def _nginx() -> str | None:
    return shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/sbin")


# Node


@contextmanager
def node(script: str, upstream: str, folder: Path) -> Iterator[Server]:
    """Run a script of `bench/peers/node`."""
    with (
        (folder / "errors.txt").open("wb") as errors,
        process(
            ["node", script, upstream], SERVER_CORE, environ={"FAL_KEY": "bench"}, stderr=errors.fileno(), folder=NODE
        ) as started,
    ):
        line = started.stdout.readline()
        if not line:
            raise SystemExit(f"node {script} did not start: {(folder / 'errors.txt').read_text()[-300:]}")
        said = json.loads(line)
        yield Server(said["origin"], started.pid, said)


@contextmanager
def portkey(_: str, folder: Path) -> Iterator[Server]:
    """Run Portkey's gateway without its console."""
    port = free_port()
    with listening(["node", str(_PORTKEY), f"--port={port}", "--headless"], port, folder) as server:
        yield server


def _node_missing(package: str) -> str | None:
    if shutil.which("node") is None:
        return "node is not installed"
    return None if (NODE / "node_modules" / package).exists() else "not installed: python -m bench.peers.install"


def _ask_fal(server: Server, upstream: str, work: Work) -> Work:
    headers = {**work.headers, "x-fal-target-url": upstream + work.url}
    return work._replace(url=f"{server.origin}{server.said['route']}", headers=headers)


def _ask_portkey(server: Server, upstream: str, work: Work) -> Work | None:
    """Ask for a chat completion: Portkey's route for other APIs fails with a TypeError ("immutable") in 1.15.2."""
    if work.body is None:
        return None
    headers = {**work.headers, "x-portkey-provider": "openai", "x-portkey-custom-host": f"{upstream}/v1"}
    return Work(f"{server.origin}/v1/chat/completions", headers, CHAT)


# LiteLLM


@contextmanager
def litellm(upstream: str, folder: Path) -> Iterator[Server]:
    """Run LiteLLM's proxy with one worker, and pass-through endpoints."""
    port = free_port()
    (folder / "config.yaml").write_text((SOURCE / "litellm.yaml").read_text().replace("@upstream@", upstream))
    command = [str(LITELLM), "--config", str(folder / "config.yaml"), "--host", "127.0.0.1", "--port", str(port)]
    master_key = f"sk-{secrets.token_hex(32)}"  # it does not start without one
    environ = {
        "LITELLM_MASTER_KEY": master_key,
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "LITELLM_LOG": "ERROR",
        "LITELLM_TELEMETRY": "False",
    }
    with listening([*command, "--num_workers", "1"], port, folder, environ) as server:
        yield server._replace(said={"key": master_key})


def _ask_litellm(server: Server, _: str, work: Work) -> Work:
    return Work(server.origin + work.url, {**work.headers, "Authorization": f"Bearer {server.said['key']}"}, work.body)


PEERS = (
    Peer("aiohttp proxy", "above 1", lambda: None, lambda upstream, _: installed.proxy(upstream), _plain),
    Peer("nginx proxy", "", lambda: None if _nginx() else "nginx is not installed", nginx, _plain),
    Peer(
        "nginx cache", "", lambda: None if _nginx() else "nginx is not installed", partial(nginx, cached=True), _plain
    ),
    Peer(
        "http-proxy-middleware",
        "above 1",
        partial(_node_missing, "http-proxy-middleware"),
        partial(node, "http-proxy-middleware.mjs"),
        _plain,
    ),
    Peer("fal's proxy", "above 1", partial(_node_missing, "@fal-ai/server-proxy"), partial(node, "fal.mjs"), _ask_fal),
    Peer("Portkey", "10", partial(_node_missing, "@portkey-ai/gateway"), portkey, _ask_portkey),
    Peer(
        "LiteLLM",
        "10",
        lambda: None if LITELLM.exists() else "not installed: python -m bench.peers.install",
        litellm,
        _ask_litellm,
    ),
)
