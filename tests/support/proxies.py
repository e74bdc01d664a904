"""Real proxies before a gateway: nginx and Traefik with the configs of `docs/proxies.md`."""

import asyncio
import contextlib
import ssl
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

import aiohttp

from tests.support.doc_blocks import ROOT, blocks, replaced
from tests.support.polling import attempts
from tests.support.tools import clean_environment, make_certificate, require_tool

DOCUMENT = "docs/proxies.md"
_NGINX = """
daemon off;
worker_processes 1;
user root;
pid {folder}/nginx.pid;
error_log {folder}/error.log info;
events {{ worker_connections 256; }}
http {{
    access_log {folder}/access.log;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    {more}
    {recipe}
}}
"""


@dataclass(frozen=True)
class Proxy:
    """A proxy that runs, at an address with TLS."""

    url: str
    certificate: Path
    folder: Path

    def logs(self) -> str:
        """Return everything that it has logged."""
        return "".join(each.read_text(errors="replace") for each in sorted(self.folder.glob("*.log")))

    def session(self) -> aiohttp.ClientSession:
        """Return a session that trusts its certificate; to be closed by its user."""
        context = ssl.create_default_context(cafile=str(self.certificate))
        return aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context))

    async def check(self, *arguments: str) -> tuple[int, str]:
        """Run `gateway check --stream` through it; return the exit code and what was said."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "gateway", "check", "--stream", self.url, *arguments,
            env=clean_environment(SSL_CERT_FILE=str(self.certificate), PYTHONPATH=str(ROOT)),
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        said, _ = await process.communicate()
        assert process.returncode is not None
        return process.returncode, said.decode()


@asynccontextmanager
async def nginx(
    folder: Path, port: int, gateway_port: int, changes: Mapping[str, str] | None = None, more: str = ""
) -> AsyncIterator[Proxy]:
    """Run nginx with the document's config, but for the addresses and `changes`; `more` goes before it."""
    program = require_tool("nginx")
    certificate, key = make_certificate(folder)
    (recipe,) = blocks(DOCUMENT, "nginx", "nginx")
    places = {
        "127.0.0.1:8080": f"127.0.0.1:{gateway_port}",
        "listen 443 ssl": f"listen 127.0.0.1:{port} ssl",
        "/etc/ssl/gateway.example.com.pem": str(certificate),
        "/etc/ssl/gateway.example.com.key": str(key),
        "/var/log/nginx/error.log": str(folder / "error.log"),
    }
    text = _NGINX.format(folder=folder, recipe=replaced(recipe, places | dict(changes or {})), more=more)
    config = folder / "nginx.conf"
    config.write_text(text)
    proxy = Proxy(f"https://127.0.0.1:{port}", certificate, folder)
    async with _running([program, "-c", str(config), "-p", str(folder)], proxy):
        yield proxy


@asynccontextmanager
async def traefik(
    folder: Path, port: int, gateway_port: int, changes: Mapping[str, str] | None = None
) -> AsyncIterator[Proxy]:
    """Run Traefik with the document's two files, but for the addresses and `changes`."""
    program = require_tool("traefik")
    certificate, key = make_certificate(folder)
    static, dynamic = blocks(DOCUMENT, "Traefik", "yaml")
    (folder / "gateway.yml").write_text(
        replaced(
            dynamic,
            {
                "http://127.0.0.1:8080": f"http://127.0.0.1:{gateway_port}",
                "Host(`gateway.example.com`)": "Host(`127.0.0.1`)",
                "/etc/ssl/gateway.example.com.pem": str(certificate),
                "/etc/ssl/gateway.example.com.key": str(key),
            }
            | {old: new for old, new in (changes or {}).items() if old in dynamic},
        )
    )
    config = folder / "traefik.yml"
    config.write_text(
        replaced(
            static,
            {'":443"': f'"127.0.0.1:{port}"', "/etc/traefik/gateway.yml": str(folder / "gateway.yml")}
            | {old: new for old, new in (changes or {}).items() if old in static},
        )
        + "global: {checkNewVersion: false, sendAnonymousUsage: false}\n"
    )
    proxy = Proxy(f"https://127.0.0.1:{port}", certificate, folder)
    async with _running([program, f"--configFile={config}"], proxy):
        yield proxy


@asynccontextmanager
async def _running(command: Sequence[str], proxy: Proxy) -> AsyncIterator[None]:
    said = proxy.folder / "output.log"
    with said.open("ab") as output:
        process = await asyncio.create_subprocess_exec(
            *command, env=clean_environment(), stdin=asyncio.subprocess.DEVNULL, stdout=output, stderr=output
        )
    try:
        async with proxy.session() as session:
            async for _ in attempts():
                assert process.returncode is None, said.read_text()[-2000:]
                # Traefik listens before it has read its routes and its certificate.
                with contextlib.suppress(aiohttp.ClientError):
                    async with session.get(f"{proxy.url}/healthz") as answer:
                        if answer.status != HTTPStatus.NOT_FOUND:
                            break
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()
