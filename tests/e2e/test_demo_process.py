"""`gateway demo`: what its server gives away, how it starts and ends."""

import re
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from blockbuster import blockbuster_ctx

from gateway.demo import demo as run_a_demo
from tests.support.demo import KEY, LOOPBACK, Started, ask, begin, drive_command, started
from tests.support.ports import free_port

pytestmark = pytest.mark.timeout(120)


def test_page_gets_no_key_of_a_team(demo: Started) -> None:
    """Its files and its token contain no key, and not the account's token."""
    scripts = ("page.js", "copy.js", "facts.js", "scenarios.js", "snippets.js", "tokens.js")
    got = [ask("GET", demo.page + name) for name in ("", *scripts, "page.css", "icon.svg", "sample.png", "demo.json")]
    got.append(ask("POST", f"{demo.page}token", {"team": "studio"}, Origin=demo.page.rstrip("/")))

    assert [answer.status for answer in got] == [200] * 11 + [201]
    for answer in got:
        assert not KEY.search(answer.body.decode(errors="replace"))
        assert b"r8_" not in answer.body


def test_pages_token_is_narrow(demo: Started) -> None:
    """It can run the page's models, from this page, for minutes."""
    origin = demo.page.rstrip("/")
    token = ask("POST", f"{demo.page}token", {"team": "studio"}, Origin=origin).json["token"]
    bearer = {"Authorization": f"Bearer {token}"}

    assert ask("GET", f"{demo.base_url}/predictions", Origin=origin, **bearer).status == 200
    assert ask("GET", f"{demo.base_url}/predictions", **bearer).status == 403, "not from elsewhere"
    assert ask("GET", f"{demo.base_url}/predictions", Origin="http://evil.example", **bearer).status == 403
    assert ask("GET", f"{demo.base_url}/files", Origin=origin, **bearer).status == 403, "no files"
    minting = ask("POST", f"{demo.origin}/gateway/tokens", {"ttl_seconds": 60}, Origin=origin, **bearer)
    assert minting.status == 403, "no tokens"
    other = ask("POST", f"{demo.base_url}/models/stability-ai/sdxl/predictions", {"input": {}}, Origin=origin, **bearer)
    assert other.status == 403, "no other model"


@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        ({}, {"team": "studio"}, 403),
        ({"Origin": "http://evil.example"}, {"team": "studio"}, 403),
        ({"Origin": "null"}, {"team": "studio"}, 403),
        ({"Origin": "page", "Host": "evil.example"}, {"team": "studio"}, 421),
        ({"Origin": "page"}, {"team": "nobody"}, 422),
        ({"Origin": "page"}, ["studio"], 422),
        ({"Origin": "page"}, {"team": "studio", "scopes": ["files"]}, 422),
        ({"Origin": "page"}, {"team": "x" * 2000}, 413),
    ],
)
def test_other_origins_get_no_token(demo: Started, headers: dict[str, str], body: Any, status: int) -> None:
    """Another site in the visitor's browser cannot get a token from the demo's server."""
    if headers.get("Origin") == "page":
        headers = headers | {"Origin": demo.page.rstrip("/")}

    answer = ask("POST", f"{demo.page}token", body, **headers)

    assert answer.status == status
    assert b"rgt_" not in answer.body
    assert "access-control-allow-origin" not in answer.headers


def test_content_security_policy_allows_this_machine_only(demo: Started) -> None:
    """And no inline code."""
    answer = ask("GET", demo.page)
    policy = answer.headers["content-security-policy"]

    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    named = re.findall(r"https?://([^\s;:/]+)", policy)
    assert set(named) <= LOOPBACK
    assert not re.search(rb"https?://(?!www\.w3\.org/2000/svg)", answer.body)
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.chromium
@pytest.mark.node
def test_ctrl_c_stops_a_streaming_demo_and_cleans_up(tmp_path: Path, demo_bundle: Path, number: signal.Signals) -> None:
    """It exits without errors while a stream is open, has listed the requests, and the temporary folder is deleted."""
    with started(free_port(5), tmp_path, GATEWAY_DEMO_BUNDLE=str(demo_bundle)) as demo:
        assert [path.name[:13] for path in tmp_path.iterdir()] == ["gateway-demo-"]
        command, environ = drive_command("open", demo.page)
        browser = subprocess.Popen(command, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        try:
            assert browser.stdout
            assert browser.stdout.readline() == "streaming\n"
            demo.process.send_signal(number)
            demo.process.wait()
        finally:
            browser.communicate("over\n")
        assert demo.process.stdout
        rest = demo.process.stdout.read()

    assert demo.process.returncode == 0
    listed = rest.splitlines()
    assert listed
    assert all(re.match(r"\d\d:\d\d:\d\d  (GET|POST|OPTIONS|run ended) ", line) for line in listed), rest
    assert list(tmp_path.iterdir()) == []


def test_second_signal_does_not_prevent_the_cleanup(tmp_path: Path) -> None:
    """Runners such as timeout and npm send a signal again."""
    for pause in (0.0, 0.001, 0.005, 0.02):
        with started(0, tmp_path) as demo:
            demo.process.send_signal(signal.SIGTERM)
            time.sleep(pause)  # the second signal comes at another point of the shutdown each time
            demo.process.send_signal(signal.SIGTERM)
            # The second signal may arrive when the process is exiting.
            assert demo.process.wait() in (0, -signal.SIGTERM)
        assert list(tmp_path.iterdir()) == []


def test_port_in_use_is_reported_in_a_sentence(tmp_path: Path) -> None:
    """No traceback, and nothing is left behind."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        process = begin(port, tmp_path)
        said, _ = process.communicate()

    assert process.returncode == 1
    advice = "choose another with --port N (make demo PORT=N), or a free one with --port 0"
    assert said == f"Error: Port {port} is in use; {advice}.\n"
    assert list(tmp_path.iterdir()) == []


def test_page_uses_a_free_port_if_its_own_is_in_use(tmp_path: Path) -> None:
    """The demo starts and prints the actual URL."""
    port = free_port(5)
    with socket.create_server(("127.0.0.1", port + 1)), started(port, tmp_path) as demo:
        assert demo.base_url == f"http://127.0.0.1:{port}/v1"
        assert demo.page != f"http://127.0.0.1:{port + 1}/"
        assert ask("GET", demo.page).status == 200
        answer = ask("GET", f"{demo.origin}/")

    assert (answer.status, answer.headers["location"]) == (302, demo.page)


def test_missing_bundle_is_reported_in_a_sentence(tmp_path: Path) -> None:
    """A wrong path in the variable is not ignored."""
    process = begin(0, tmp_path, GATEWAY_DEMO_BUNDLE="no/such.js")
    said, _ = process.communicate()

    assert process.returncode == 1
    assert said == "Error: GATEWAY_DEMO_BUNDLE: no/such.js cannot be read: No such file or directory.\n"


async def test_demo_runs_within_a_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`async with demo() as running` uses free ports and does not block the event loop."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with blockbuster_ctx():
        async with run_a_demo() as running, aiohttp.ClientSession() as session:
            async with session.get(running.page_url) as page:
                assert page.status == 200
            origin = running.page_url.rstrip("/")
            async with session.post(f"{origin}/token", json={"team": "lab"}, headers={"Origin": origin}) as minted:
                assert minted.status == 201
            for team, key in running.keys.items():
                async with session.get(
                    f"{running.base_url}/account", headers={"Authorization": f"Bearer {key}"}
                ) as account:
                    assert (await account.json())["username"] == team

    assert list(tmp_path.iterdir()) == []


def test_data_is_kept_for_the_next_start(tmp_path: Path) -> None:
    """Keys, addresses and predictions: what was copied into an `.env` still works."""
    port, folder = free_port(5), tmp_path / "kept"
    seen = []
    for _ in range(2):
        with started(port, tmp_path, "--data", str(folder)) as demo:
            bearer = {"Authorization": f"Bearer {demo.keys['studio']}"}
            body = {"input": {"prompt": "kept", "seed": 5, "max_tokens": 4}}
            path = f"{demo.base_url}/models/meta/meta-llama-3-8b-instruct/predictions"
            answer = ask("POST", path, body, Prefer="wait", **bearer)
            seen.append((demo.keys, demo.base_url, demo.page, demo.usage))
    assert seen[0] == seen[1]
    assert "hit" in answer.headers["cache-status"]
    assert (folder.stat().st_mode & 0o777) == 0o700
    assert not KEY.search((folder / "config.toml").read_text())


def test_pages_of_development_servers_may_call_the_gateway(tmp_path: Path) -> None:
    """Vite's port under both names, and an origin of one's own."""
    with started(free_port(5), tmp_path, "--origin", "http://localhost:4999") as demo:
        for origin in ("http://localhost:5173", "http://127.0.0.1:3000", "http://localhost:4999"):
            answer = ask("OPTIONS", f"{demo.base_url}/predictions", Origin=origin, Access_Control_Request_Method="POST")
            assert answer.headers["access-control-allow-origin"] == origin
        foreign = ask("OPTIONS", f"{demo.base_url}/predictions", Origin="http://evil.example",
                      Access_Control_Request_Method="POST")  # fmt: skip
        assert "access-control-allow-origin" not in foreign.headers


def test_webhook_without_a_signature_is_refused(demo: Started) -> None:
    """The receiver is on loopback, but other programs are there too."""
    assert ask("POST", f"{demo.page}hook?team=studio", {"id": "x", "status": "succeeded"}).status == 401
    assert ask("POST", f"{demo.page}webhook", {}, Origin="http://evil.example").status == 403


def test_usage_page_has_budgets(demo: Started) -> None:
    """The link of the demo page leads to something to see."""
    page = ask("GET", demo.usage).body.decode()
    for team in ("studio", "lab", "trial"):
        assert team in page
