"""`gateway check`: what a sound config means, and what asking shows."""

import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from gateway.cli import main
from gateway.commands import check as check_module

TOKEN = "r8_0123456789abcdefghijklmnopqrstuvwxyz0"
OPS = "ops-token-ops-token"
CONFIG = """
[ops]
token_env = "OPS"
[upstream]
base_url = "{base_url}"
[store]
url = "{store_url}"
[[teams]]
name = "acme"
models = ["acme/*"]
origins = ["https://app.example.com"]
requests_per_minute = 1000000
budget_usd_per_day = 200
per_address = {{ requests_per_minute = 60 }}
keys = [{{ name = "web", sha256 = "{digest}" }}]
[[teams]]
name = "research"
"""

OUTPUTS = """
[outputs]
url = "{url}"
[[teams]]
name = "acme"
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def check(*arguments: str, config: str = "", base_url: str = "https://api.replicate.com", **settings: str) -> Result:
    settings = {"store_url": "sqlite:///gateway.db", "digest": "ab" * 32, **settings}
    Path("config.toml").write_text(config or CONFIG.format(base_url=base_url, **settings))
    environ = {"REPLICATE_API_TOKEN": TOKEN, "OPS": OPS, "GATEWAY_CONFIG": ""}
    return CliRunner().invoke(main, ["check", *arguments], env=environ, prog_name="gateway")


@contextmanager
def upstream(
    status: int, body: bytes, headers: dict[str, str] | None = None
) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Answer every request so; keep path and authorization of each."""
    asked: list[tuple[str, str]] = []

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append((self.path, self.headers["Authorization"]))
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_sound_config_is_summed_up(folder):
    """Listeners, upstream, store and each team's limits at a glance, and an ok for scripts; nothing is created."""
    result = check()
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "listens    http://127.0.0.1:8080 (links use the request's Host)",
        "operators  http://127.0.0.1:9464 (token required)",
        "upstream   api.replicate.com (600 creates, 3000 other calls per minute)",
        "store      sqlite:///gateway.db",
        "outputs    not copied",
        (
            "team       acme: scopes read, predict, files; models acme/*; origins https://app.example.com; "
            "requests_per_minute 1000000; budget_usd_per_day 200; per address: requests_per_minute 60; "
            "keys in the config: web"
        ),
        "team       research: scopes read, predict, files; all models; no limits; keys in the config: none",
        "ok",
    ]
    assert result.stderr == ""
    assert [path.name for path in folder.iterdir()] == ["config.toml"]


def test_listeners_are_shown_as_they_are_called(folder):
    """IPv6 in brackets, a port of 0 as any."""
    result = check(
        config='[server]\nhost = "::1"\nport = 0\npublic_url = "https://g.example.com/v1"\n[[teams]]\nname = "a"'
    )
    assert "listens    http://[::1]:(a free port) (links use https://g.example.com)" in result.stdout


def test_what_is_doubtful_is_warned_of_and_passes(folder):
    """Exit code 0: a warning stops nothing."""
    result = check(config='[server]\npublic_url = "http://g.example.com"')
    assert result.exit_code == 0
    assert [line.split(": ")[:2] for line in result.stderr.splitlines()] == [
        ["warning", "server.public_url"],
        ["warning", "teams"],
    ]
    assert result.stdout.endswith("ok\n")


def test_asking_upstream_names_the_account(folder):
    """The token is one that works, and one sees whose; the store can be opened."""
    body = json.dumps({"type": "organization", "username": "acme", "name": "Acme"}).encode()
    with upstream(200, body) as (base_url, asked):
        result = check("--upstream", base_url=base_url)
    assert result.exit_code == 0, result.output
    assert asked == [("/v1/account", f"Bearer {TOKEN}")]
    assert "account    organization 'acme' at 127.0.0.1:" in result.stdout
    assert "store      sqlite:///gateway.db works" in result.stdout
    assert result.stdout.endswith("ok\n")


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (401, b'{"detail": "no"}', "refused the token (401)"),
        (403, b"", "refused the token (403)"),
        (500, b"<html>", "responded with 500 instead of an account"),
        (200, b"<html>", "did not return an account: check base_url"),
        (200, b"[]", "did not return an account"),
        (200, b'{"username": 5}', "did not return an account"),
        (200, b"[" * 70_000, "did not return an account"),
    ],
)
def test_an_upstream_that_is_not_well_is_told_in_a_sentence(folder, status, body, words):
    """Exit code 1 and no ok, whatever it answers."""
    with upstream(status, body) as (base_url, _):
        result = check("--upstream", base_url=base_url)
    assert result.exit_code == 1
    assert words in result.stderr
    assert "ok" not in result.stdout.splitlines()


def test_the_token_is_not_sent_on_by_a_redirect(folder):
    """The token goes to the configured address only."""
    with upstream(200, b"{}") as (elsewhere, asked), upstream(307, b"", {"Location": elsewhere}) as (base_url, _):
        result = check("--upstream", base_url=base_url)
    assert result.exit_code == 1
    assert "redirects (307); the token is not sent to another host" in result.stderr
    assert asked == []


def test_an_upstream_that_is_away_is_told_in_a_sentence(folder):
    """Refused connections, unknown hosts."""
    with upstream(200, b"") as (base_url, _):
        pass
    result = check("--upstream", base_url=base_url)
    assert result.exit_code == 1
    assert "cannot be reached" in result.stderr
    assert "Traceback" not in result.output


def test_an_upstream_that_hangs_is_not_waited_for(folder, monkeypatch):
    """The check ends in time."""
    monkeypatch.setattr(check_module, "_DEADLINE_SECONDS", 0.05)
    gate = threading.Event()

    class Hangs(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            gate.wait(10)

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hangs)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        result = check("--upstream", base_url=f"http://127.0.0.1:{server.server_port}")
    finally:
        gate.set()
        server.shutdown()
        thread.join()
        server.server_close()
    assert result.exit_code == 1
    assert "did not respond within" in result.stderr


def test_a_store_that_cannot_be_opened_is_told_in_a_sentence(folder):
    """A folder that is not there or not writable is found before the start."""
    (folder / "file").write_text("")
    body = json.dumps({"type": "user", "username": "me"}).encode()
    with upstream(200, body) as (base_url, _):
        result = check("--upstream", base_url=base_url, store_url="sqlite:///file/gateway.db")
    assert result.exit_code == 1
    assert "store: " in result.stderr
    assert "account    user 'me'" in result.stdout
    assert "Traceback" not in result.output


def test_no_secret_is_shown(folder):
    """The output can be pasted into a ticket."""
    with upstream(200, json.dumps({"type": "user", "username": TOKEN}).encode()) as (base_url, _):
        result = check("--upstream", base_url=base_url)
    assert TOKEN not in result.output
    assert OPS not in result.output


def test_a_gateway_that_serves_is_asked_whether_it_is_alive(folder):
    """What a container's health check runs: exit code 0 or 1 and one line, without curl; the token is not needed."""
    with upstream(200, b"{}") as (url, asked):
        port = url.rpartition(":")[2]
        config = f'[server]\nhost = "0.0.0.0"\nport = {port}'
        assert check("--health", config=config).output == "ok\n"
        assert check("--health", f"{url}/readyz").exit_code == 0
        assert [path for path, _ in asked] == ["/healthz", "/readyz"]
    result = check("--health", config=config)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith(f"Error: 127.0.0.1:{port} does not respond: ")


def test_a_gateway_that_is_not_well_is_told_by_the_exit_code(folder):
    """An answer alone is not enough; what is no URL is said at once."""
    with upstream(503, b"{}") as (url, _):
        result = check("--health", f"{url}/readyz")
    assert (result.exit_code, result.stderr) == (1, f"Error: {url.removeprefix('http://')}/readyz responded with 503\n")
    assert check("--health", "ftp://x").exit_code == 2
    assert check("--health", config="[server]\nport = 0").exit_code == 2


def test_a_bucket_without_its_library_is_told_before_the_gateway_starts(folder, monkeypatch):
    """The extra is named, with the command that brings it."""
    monkeypatch.setitem(sys.modules, "obstore", None)
    monkeypatch.delitem(sys.modules, "gateway.store.objects.bucket", raising=False)
    result = check(config=OUTPUTS.format(url="s3://bucket"))
    assert result.exit_code == 1
    assert "outputs.url: a bucket needs the extra s3: pip install 'replicate-gateway[s3]'" in result.output


def test_an_output_store_that_cannot_be_written_is_told_in_a_sentence(folder):
    """Found out by asking, not by the first file that is lost."""
    Path("file").write_text("")
    with upstream(200, json.dumps({"type": "user", "username": "acme"}).encode()) as (url, _):
        told = OUTPUTS.format(url="file/outputs") + f'[upstream]\nbase_url = "{url}"\n'
        result = check("--upstream", config=told)
        assert result.exit_code == 1
        assert "outputs: The output store's disk cannot be used: Not a directory." in result.output
        result = check("--upstream", config=told.replace("file/outputs", "outputs"))
        assert result.exit_code == 0, result.output
        assert "outputs    outputs is writable" in result.output
