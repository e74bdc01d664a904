"""`gateway check`: the summary of a valid config, and its probes."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from click.testing import CliRunner

from gateway.cli import main
from gateway.commands import check as check_module
from tests.support.checked import OPS, TOKEN, check
from tests.support.records import make_store

OUTPUTS = """
[outputs]
url = "{url}"
[[teams]]
name = "acme"
"""


@contextmanager
def upstream(
    status: int, body: bytes, headers: dict[str, str] | None = None
) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Answer every request alike; record path and authorization."""
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


def test_valid_config_is_summarized(folder):
    """Listeners, upstream, store and limits of each team, and an ok for scripts. Nothing is created."""
    result = check()
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "listens    http://127.0.0.1:8080 (links use the request's Host)",
        "operators  http://127.0.0.1:9464 (token required)",
        "upstream   api.replicate.com (600 creates, 3000 other calls per minute)",
        "outputs    not copied",
        "team       acme",
        "  scopes   read, predict, files",
        "  models   acme/*",
        "  origins  https://app.example.com",
        "  limits   requests_per_minute 1000000, budget_usd_per_day 200",
        "  limits   for each address: requests_per_minute 60",
        "  keys     in the config: web",
        "team       research",
        "  scopes   read, predict, files",
        "  models   all",
        "  limits   none",
        "  keys     in the config: none",
        "store      sqlite:///gateway.db (does not exist yet; `gateway serve` creates it)",
        "ok",
    ]
    assert result.stderr == ""
    assert [path.name for path in folder.iterdir()] == ["config.toml"]


def test_problems_are_listed_in_the_order_of_their_lines(folder):
    """As one mends them, whatever the order of the sections is."""
    config = '[[teams]]\nname = "a"\nbudget_usd_per_day = -1\n[cache]\nmax_age_secnds = 1\n[server]\nport = -1\n'
    result = check(config=config)
    assert result.exit_code == 1
    *problems, last = result.stderr.splitlines()
    assert [line.partition(" ")[0] for line in problems] == [f"config.toml:{line}" for line in (3, 5, 7)]
    assert last == "3 problems found. No change was made."


@pytest.mark.usefixtures("folder")
def test_limits_of_cost_tags_are_summarized_and_an_unknown_tag_is_an_error():
    """The error has the line of the tag."""
    text = "[tags]\nkeys = ['project']\n[[teams]]\nname = 'acme'\n[teams.per_tag]\nproject.budget_usd_per_day = 5\n"
    lines = check(config=text + "'project:a' = {}\n").stdout.splitlines()
    assert {"  limits   for tag project: budget_usd_per_day 5", "  limits   for tag project:a: none"} <= set(lines)
    wrong = 'config.toml:7  teams "acme" per_tag."team:a": there is no tag team: the keys are project'
    assert wrong in check(config=text + "'team:a' = {}\n").stderr


def test_what_workers_may_use_together_is_shown(folder):
    """Bounds in the config are for each process."""
    config = '[server]\nworkers = 3\n[store]\nurl = "postgresql://g@/none?host=/none"\n'
    (line,) = [each for each in check(config=config).stdout.splitlines() if each.startswith("workers")]
    assert line == (
        "workers    3 processes; bounds are for each, so together cache.memory_bytes 192 MiB, cache.followed_bytes "
        "192 MiB, limits.max_bodies_bytes 384 MiB, limits.max_responses_bytes 288 MiB, 30 connections to the database"
    )


def test_listeners_are_shown_as_urls(folder):
    """IPv6 addresses in brackets, port 0 as a free port."""
    result = check(
        config='[server]\nhost = "::1"\nport = 0\npublic_url = "https://g.example.com/v1"\n[[teams]]\nname = "a"'
    )
    assert "listens    http://[::1]:(a free port) (links use https://g.example.com)" in result.stdout


def test_warnings_do_not_fail_the_check(folder):
    """The exit code is 0."""
    result = check(config='[server]\npublic_url = "http://g.example.com"')
    assert result.exit_code == 0
    assert [line.split(": ")[:2] for line in result.stderr.splitlines()] == [
        ["warning", "config.toml:2  server.public_url"],
        ["warning", "teams"],
    ]
    assert result.stdout.endswith("ok\n")


def test_upstream_check_names_the_account(folder):
    """The token works, and the store can be opened."""
    body = json.dumps({"type": "organization", "username": "acme", "name": "Acme"}).encode()
    with upstream(200, body) as (base_url, asked):
        result = check("--upstream", base_url=base_url)
    assert result.exit_code == 0, result.output
    assert asked == [("/v1/account", f"Bearer {TOKEN}")]
    assert "account    organization 'acme' at 127.0.0.1:" in result.stdout
    assert "store      sqlite:///gateway.db (does not exist yet" in result.stdout
    assert result.stdout.endswith("ok\n")
    assert [path.name for path in folder.iterdir()] == ["config.toml"]
    make_store(folder)
    assert "store      sqlite:///gateway.db (exists)" in check("--upstream", base_url=base_url).output


def test_store_in_a_folder_that_does_not_exist_is_refused_with_its_line(folder):
    """A mistyped path or a volume that is not mounted would begin with an empty ledger."""
    result = check(store_url=f"sqlite:///{folder}/data/gateway.db")
    assert result.exit_code == 1
    assert f"config.toml:7  store.url: The store's file cannot be opened: there is no folder {folder}/data." in (
        result.stderr
    )
    assert [path.name for path in folder.iterdir()] == ["config.toml"]


def test_warnings_have_lines_and_names(folder):
    """As problems have. A setting that the environment replaces is one of them."""
    text = '[server]\nport = 8081\n[[teams]]\nname = "acme"\nbudget_usd_per_day = 5\n[[teams.keys]]\nname = "web"\n'
    text += f'sha256 = "{"ab" * 32}"\nbudget_usd_per_day = 7\n'
    Path("config.toml").write_text(text)
    environ = {"REPLICATE_API_TOKEN": TOKEN, "GATEWAY_CONFIG": "", "GATEWAY__SERVER__PORT": "8082"}
    result = CliRunner().invoke(main, ["check"], env=environ)
    assert result.exit_code == 0
    assert result.stderr.splitlines() == [
        "warning: config.toml:2  server.port: is replaced by the environment variable GATEWAY__SERVER__PORT",
        (
            'warning: config.toml:9  teams "acme" keys "web" budget_usd_per_day: '
            "7 is above the team's 5, which is reached first"
        ),
    ]


def test_reader_that_has_enough_ends_the_check_quietly(folder):
    """`gateway check | head -1`."""
    check()
    script = f"'{sys.executable}' -m gateway check | head -1"
    environ = os.environ | {"REPLICATE_API_TOKEN": TOKEN, "OPS": OPS, "PYTHONPATH": str(Path(__file__).parents[3])}
    for _ in range(3):
        done = subprocess.run(
            ["sh", "-c", script], env=environ, cwd=folder, capture_output=True, text=True, check=False
        )
        assert (done.stdout.count("\n"), done.stderr) == (1, "")


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
def test_upstream_error_is_reported_in_a_sentence(folder, status, body, words):
    """Exit code 1 and no ok, whatever the response."""
    with upstream(status, body) as (base_url, _):
        result = check("--upstream", base_url=base_url)
    assert result.exit_code == 1
    assert words in result.stderr
    assert "ok" not in result.stdout.splitlines()


def test_token_does_not_follow_a_redirect(folder):
    """It is sent to the configured host only."""
    with upstream(200, b"{}") as (elsewhere, asked), upstream(307, b"", {"Location": elsewhere}) as (base_url, _):
        result = check("--upstream", base_url=base_url)
    assert result.exit_code == 1
    assert "redirects (307); the token is not sent to another host" in result.stderr
    assert asked == []


def test_unreachable_upstream_is_reported_in_a_sentence(folder):
    """Refused connections and unknown hosts."""
    with upstream(200, b"") as (base_url, _):
        pass
    result = check("--upstream", base_url=base_url)
    assert result.exit_code == 1
    assert "cannot be reached" in result.stderr
    assert "Traceback" not in result.output


def test_hanging_upstream_times_out(folder, monkeypatch):
    """The check ends within its time-out."""
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


def test_unusable_store_is_reported_in_a_sentence(folder):
    """A missing or read-only folder is found before the start."""
    (folder / "file").write_text("")
    body = json.dumps({"type": "user", "username": "me"}).encode()
    with upstream(200, body) as (base_url, _):
        result = check("--upstream", base_url=base_url, store_url="sqlite:///file/gateway.db")
    assert result.exit_code == 1
    assert "config.toml:7  store.url: The store's file cannot be opened: there is no folder file." in result.stderr
    assert "account    user 'me'" in result.stdout
    assert "Traceback" not in result.output


def test_no_secret_is_shown(folder):
    """The output can be pasted into a ticket."""
    with upstream(200, json.dumps({"type": "user", "username": TOKEN}).encode()) as (base_url, _):
        result = check("--upstream", base_url=base_url)
    assert TOKEN not in result.output
    assert OPS not in result.output


def test_health_probe_of_a_running_gateway(folder):
    """For health checks of containers: exit code and one line, without curl or token."""
    with upstream(200, b"{}") as (url, asked):
        port = url.rpartition(":")[2]
        config = f'[server]\nhost = "0.0.0.0"\nport = {port}'
        assert check("--health", config=config).output == "ok\n"
        assert check("--health", f"{url}/readyz").exit_code == 0
        assert [path for path, _ in asked] == ["/healthz", "/readyz"]
    result = check("--health", config=config)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith(f"Error: 127.0.0.1:{port} does not respond: ")


def test_health_probe_fails_unless_the_response_is_200(folder):
    """An invalid URL is a usage error."""
    with upstream(503, b"{}") as (url, _):
        result = check("--health", f"{url}/readyz")
    assert (result.exit_code, result.stderr) == (1, f"Error: {url.removeprefix('http://')}/readyz responded with 503\n")
    assert check("--health", "ftp://x").exit_code == 2
    assert check("--health", config="[server]\nport = 0").exit_code == 2


def test_bucket_without_its_library_is_reported(folder, monkeypatch):
    """With the extra and the command that installs it."""
    monkeypatch.setitem(sys.modules, "obstore", None)
    monkeypatch.delitem(sys.modules, "gateway.store.objects.bucket", raising=False)
    result = check(config=OUTPUTS.format(url="s3://bucket"))
    assert result.exit_code == 1
    assert (
        "outputs.url: a bucket needs the extra s3: pip install 'WHEEL[s3]', or '.[s3]' in a checkout" in result.output
    )


def test_read_only_output_store_is_reported_in_a_sentence(folder):
    """The check finds it, not the first lost file."""
    Path("file").write_text("")
    with upstream(200, json.dumps({"type": "user", "username": "acme"}).encode()) as (url, _):
        reported = OUTPUTS.format(url="file/outputs") + f'[upstream]\nbase_url = "{url}"\n'
        result = check("--upstream", config=reported)
        assert result.exit_code == 1
        assert "outputs: The output store's disk returned an error: Not a directory." in result.output
        result = check("--upstream", config=reported.replace("file/outputs", "outputs"))
        assert result.exit_code == 0, result.output
        assert "outputs    outputs is writable" in result.output
