"""The demo as a user sees it: one command, a page in a real browser, commands to paste."""

import contextlib
import fcntl
import hashlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from blockbuster import blockbuster_ctx

from gateway.demo import demo as run_a_demo
from tests.support.node import CLIENTS, install_clients
from tests.support.ports import free_port
from tests.support.tools import absent, clean_environment, find_tool, require_tool

pytestmark = pytest.mark.timeout(120)

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "demo"
BUNDLE = BUILD / "dist" / "replicate.js"
KEY = re.compile(r"rgw_[a-z0-9]{12}_[0-9A-Za-z]{32}")
START_SECONDS = 30
LOOPBACK = {"127.0.0.1", "localhost"}


# --- A running demo -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Started:
    """A demo in its own process, with its output."""

    process: subprocess.Popen[str]
    said: str

    @property
    def page(self) -> str:
        return self._after("Page")

    @property
    def base_url(self) -> str:
        return self._after("Base URL")

    @property
    def origin(self) -> str:
        return self.base_url.removesuffix("/v1")

    @property
    def keys(self) -> dict[str, str]:
        found = re.findall(rf"^[ ]+(?:Keys[ ]+)?([a-z]+)[ ]+({KEY.pattern})$", self.said, re.MULTILINE)
        return dict(found)

    def line(self, start: str) -> str:
        (found,) = (line for line in self.said.splitlines() if line.startswith(start))
        return found

    def _after(self, word: str) -> str:
        match = re.search(rf"^\s+{word}\s+(\S+)", self.said, re.MULTILINE)
        assert match, self.said
        return match[1]


@contextlib.contextmanager
def started(port: int, folder: Path, **environ: str) -> Iterator[Started]:
    """Start the demo with its temporary files in a folder, and stop it."""
    process = begin(port, folder, **environ)
    try:
        yield Started(process, said_by(process))
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        assert process.stdout
        process.stdout.close()


def begin(port: int, folder: Path, **environ: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "gateway", "demo", "--port", str(port)],
        cwd=folder,
        env=clean_environment(**{"TMPDIR": str(folder), "PYTHONPATH": str(ROOT), **environ}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def said_by(process: subprocess.Popen[str]) -> str:
    """Read the start message."""
    assert process.stdout
    said = ""
    for line in process.stdout:
        said += line
        if line.startswith("Ctrl+C"):
            return said
    raise AssertionError(f"it ended with {process.wait()}; it said:\n{said}")


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def ask(method: str, url: str, body: Any = None, **headers: str) -> Answer:
    """Send a request without following redirects. `Host` can be set."""
    parts = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=10)
    with contextlib.closing(connection):
        data = None if body is None else json.dumps(body)
        spelled = {name.replace("_", "-"): value for name, value in headers.items()}
        if body is not None:
            spelled["Content-Type"] = "application/json"
        connection.request(method, parts.path or "/", data, spelled)
        response = connection.getresponse()
        return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Started]:
    """A demo shared by tests that do not change it; without Node, it has no npm client."""
    has_node = os.environ.get("CI") or (find_tool("npm") and find_tool("node"))
    bundle = str(build()) if has_node else ""
    with started(free_port(2), tmp_path_factory.mktemp("demo"), GATEWAY_DEMO_BUNDLE=bundle) as running:
        yield running


@pytest.fixture(scope="module")
def bundle() -> Path:
    """The npm client, bundled."""
    return build()


def build() -> Path:
    """Bundle the npm client like `make demo`, unless it exists."""
    npm = require_tool("npm")
    require_tool("node")
    wanted = hashlib.sha256()
    for name in ("package.json", "package-lock.json", "build.mjs"):
        wanted.update((BUILD / name).read_bytes())
    stamp = BUILD / "node_modules" / ".built-of"
    with (BUILD / ".build.lock").open("w") as lock:  # several workers of one test run share the folder
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not BUNDLE.is_file() or not stamp.is_file() or stamp.read_text() != wanted.hexdigest():
            for command in (["ci"], ["run", "build"]):
                done = subprocess.run(
                    [npm, *command], cwd=BUILD, capture_output=True, text=True, timeout=100, check=False
                )
                if done.returncode:
                    absent(f"npm {' '.join(command)} did not work in demo/: {done.stderr.strip()[-300:]}")
            stamp.write_text(wanted.hexdigest())
    return BUNDLE


def drive_command(scenario: str, address: str, **more: str) -> tuple[list[str], dict[str, str]]:
    install_clients()
    arguments = {"address": address, "playwright": str(CLIENTS), "chromium": require_tool("chromium"), **more}
    environ = clean_environment(ARGUMENTS=json.dumps(arguments))
    return [require_tool("node"), str(BUILD / "drive.mjs"), scenario], environ


def drive(scenario: str, address: str) -> Any:
    """Run a scenario in Chromium, and return its observations."""
    command, environ = drive_command(scenario, address)
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return json.loads(done.stdout.splitlines()[-1])


def prediction(demo: Started, seen: Any, team: str = "studio") -> Any:
    """Get the prediction that the page showed, with the team's key."""
    answer = ask("GET", f"{demo.base_url}/predictions/{seen['id']}", Authorization=f"Bearer {demo.keys[team]}")
    assert answer.status == 200, answer
    return answer.json


# --- The page in a browser ----------------------------------------------------------------------------------------


@pytest.mark.chromium
@pytest.mark.node
@pytest.mark.parametrize("way", ["fetch", "npm"])
def test_page_streams_a_text_and_draws_an_image(demo: Started, way: str) -> None:
    """A user opens the gateway's URL, presses both buttons, and sees the results."""
    seen = drive(way, f"{demo.origin}/")

    assert seen["address"] == demo.page, "the gateway's address leads to the page"
    text, image = seen["result"]["text"], seen["result"]["image"]
    for panel in (text, image):
        assert panel["status"] == "succeeded"
        assert panel["problem"] is None
        assert panel["team"] == "studio"
        assert re.fullmatch(r"rgt_.{4}….{4}", panel["key"]), "the key is shown shortened"
        assert panel["cache"].startswith("replicate-gateway; ")
        assert re.match(r"gateway;dur=[\d.]+", panel["server"])
        assert re.fullmatch(r"created in .+, .+ after .+, all done in .+", panel["measured"])
        assert panel["raw"] == prediction(demo, panel), "the JSON shown is the prediction"

    assert text["output"] == "".join(text["raw"]["output"])
    assert len(text["output"]) > 500
    assert image["image"]["source"] == image["raw"]["output"][0]
    assert (image["image"]["width"], image["image"]["height"]) == (512, 512)
    assert image["image"]["alt"] == image["raw"]["input"]["prompt"]

    assert seen["complaints"] == []
    hosts = {urllib.parse.urlsplit(url).hostname for url in seen["asked"]}
    assert hosts <= LOOPBACK, f"the page asked others: {hosts}"
    asked_npm = any(line.startswith("GET /v1/streams/") and "EventSource" not in line for line in text["requests"])
    assert asked_npm == (way == "npm"), "each way is the one that it says it is"


@pytest.mark.chromium
@pytest.mark.node
@pytest.mark.parametrize("scenario", ["cancel", "cancel_npm"])
def test_cancel_stops_text_and_image(demo: Started, scenario: str) -> None:
    """The text stops, the image is not created, and both are canceled at the gateway."""
    seen = drive(scenario, demo.page)

    text = seen["result"]["text"]
    assert text["status"] == "canceled"
    assert text["problem"] is None
    assert 20 < len(text["output"]) < 2000
    assert prediction(demo, text)["status"] == "canceled"
    image = seen["result"]["image"]
    assert (image["status"], image["problem"], image["image"]) == ("canceled", None, None)
    assert prediction(demo, image)["status"] == "canceled"
    assert seen["complaints"] == []


@pytest.mark.chromium
@pytest.mark.node
def test_other_team_gets_a_404_for_the_prediction(demo: Started) -> None:
    """The button requests the prediction as the second team."""
    seen = drive("other", demo.page)

    said = seen["result"]["said"]
    assert said.startswith("404 The requested resource could not be found.")
    assert "As it should be: to team lab, a prediction of team studio does not exist." in said
    assert prediction(demo, seen["result"]["text"])["status"] == "succeeded"


@pytest.mark.chromium
@pytest.mark.node
def test_page_can_use_the_second_team(demo: Started) -> None:
    """It gets a token of that team, and the run belongs to it."""
    seen = drive("second", demo.page)

    text = seen["result"]["text"]
    assert (text["team"], text["status"]) == ("lab", "succeeded")
    assert prediction(demo, text, "lab")["output"] == text["raw"]["output"]
    foreign = ask("GET", f"{demo.base_url}/predictions/{text['id']}", Authorization=f"Bearer {demo.keys['studio']}")
    assert foreign.status == 404
    assert seen["complaints"] == []


@pytest.mark.chromium
@pytest.mark.node
def test_open_page_renews_its_token(demo: Started) -> None:
    """The button works after ten minutes."""
    seen = drive("late", demo.page)

    first, second = seen["result"]["first"], seen["result"]["second"]
    assert first["status"] == second["status"] == "succeeded"
    assert first["key"] != second["key"]
    assert seen["complaints"] == []


@pytest.mark.chromium
@pytest.mark.node
def test_page_works_as_localhost(demo: Started) -> None:
    """That is a different origin."""
    seen = drive("fetch", demo.page.replace("127.0.0.1", "localhost"))

    assert seen["result"]["text"]["status"] == seen["result"]["image"]["status"] == "succeeded"
    assert seen["complaints"] == []


@pytest.mark.chromium
@pytest.mark.node
def test_without_a_bundle_the_page_does_not_offer_the_npm_client(tmp_path: Path) -> None:
    """As after `pip install`: the page works without it."""
    with started(free_port(2), tmp_path, GATEWAY_DEMO_BUNDLE="") as demo:
        assert "make demo" in demo.said
        seen = drive("offers", demo.page)

    assert seen["result"] == {"npm": False}
    assert seen["complaints"] == []


# --- Commands to paste --------------------------------------------------------------------------------------------


def paste(line: str, folder: Path) -> str:
    """Run a command in a shell with the packages of this Python."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["/bin/sh", "-c", line],
        cwd=folder,
        env=clean_environment() | {"PATH": path},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def test_curl_command_works(demo: Started, tmp_path: Path) -> None:
    """It prints a finished prediction."""
    require_tool("curl")
    answer = json.loads(paste(demo.line("curl "), tmp_path))

    assert answer["status"] == "succeeded"
    assert "about llamas" in "".join(answer["output"])


def test_hit_links_to_the_stored_copy_of_an_image(demo: Started) -> None:
    """The copy works after the simulator has deleted the original."""
    key = {"Authorization": f"Bearer {demo.keys['lab']}", "Prefer": "wait"}
    body = {"input": {"prompt": "a demo", "seed": 7}}
    path = f"{demo.base_url}/models/black-forest-labs/flux-schnell/predictions"
    deadline = time.monotonic() + 10
    link = ""
    while not link.startswith(f"{demo.origin}/outputs/"):
        assert time.monotonic() < deadline, link
        (link,) = ask("POST", path, body, **key).json["output"]
    picture = ask("GET", link)
    assert (picture.status, picture.headers["content-type"].partition("/")[0]) == (200, "image")


@pytest.mark.node
def test_node_command_works(demo: Started) -> None:
    """With the npm client installed, Node prints the text as it arrives."""
    build()

    assert "about llamas" in paste(demo.line("node "), BUILD)


def test_python_command_works(demo: Started, tmp_path: Path) -> None:
    """With the Python client installed, Python prints the text."""
    assert "about llamas" in paste(demo.line("REPLICATE_BASE_URL="), tmp_path)


# --- Permissions of the page -------------------------------------------------------------------------------------


def test_page_gets_no_key_of_a_team(demo: Started) -> None:
    """Its files and its token contain no key, and not the account's token."""
    scripts = ("page.js", "snippets.js", "tokens.js")
    got = [ask("GET", demo.page + name) for name in ("", *scripts, "page.css", "icon.svg", "demo.json")]
    got.append(ask("POST", f"{demo.page}token", {"team": "studio"}, Origin=demo.page.rstrip("/")))

    assert [answer.status for answer in got] == [200] * 6 + [201]
    for answer in got:
        assert not KEY.search(answer.body.decode())
        assert "r8_" not in answer.body.decode()


def test_pages_token_is_narrow(demo: Started) -> None:
    """It can run two models, from this page, for minutes."""
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


# --- Start and stop -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.chromium
@pytest.mark.node
def test_ctrl_c_stops_a_streaming_demo_and_cleans_up(tmp_path: Path, bundle: Path, number: signal.Signals) -> None:
    """It exits quickly without errors, and the temporary folder is deleted."""
    with started(free_port(2), tmp_path, GATEWAY_DEMO_BUNDLE=str(bundle)) as demo:
        assert [path.name[:13] for path in tmp_path.iterdir()] == ["gateway-demo-"]
        command, environ = drive_command("open", demo.page)
        browser = subprocess.Popen(command, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        try:
            assert browser.stdout
            assert browser.stdout.readline() == "streaming\n"
            began = time.monotonic()
            demo.process.send_signal(number)
            demo.process.wait(10)
            took = time.monotonic() - began
        finally:
            browser.communicate("over\n", timeout=30)
        assert demo.process.stdout
        rest = demo.process.stdout.read()

    assert demo.process.returncode == 0
    assert took < 3, f"it took {took:.1f} seconds"
    assert rest == ""
    assert list(tmp_path.iterdir()) == []


def test_second_signal_does_not_prevent_the_cleanup(tmp_path: Path) -> None:
    """Runners such as timeout and npm send a signal again."""
    for pause in (0.0, 0.001, 0.005, 0.02):
        with started(0, tmp_path) as demo:
            demo.process.send_signal(signal.SIGTERM)
            time.sleep(pause)  # the second signal comes at another point of the shutdown each time
            demo.process.send_signal(signal.SIGTERM)
            # The second signal may arrive when the process is exiting.
            assert demo.process.wait(10) in (0, -signal.SIGTERM)
        assert list(tmp_path.iterdir()) == []


def test_port_in_use_is_reported_in_a_sentence(tmp_path: Path) -> None:
    """No traceback, and nothing is left behind."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        process = begin(port, tmp_path)
        said, _ = process.communicate(timeout=START_SECONDS)

    assert process.returncode == 1
    assert said == (f"Error: Port {port} is in use; choose another with --port, or a free one with --port 0.\n")
    assert list(tmp_path.iterdir()) == []


def test_page_uses_a_free_port_if_its_own_is_in_use(tmp_path: Path) -> None:
    """The demo starts and prints the actual URL."""
    port = free_port(2)
    with socket.create_server(("127.0.0.1", port + 1)), started(port, tmp_path) as demo:
        assert demo.base_url == f"http://127.0.0.1:{port}/v1"
        assert demo.page != f"http://127.0.0.1:{port + 1}/"
        assert ask("GET", demo.page).status == 200
        answer = ask("GET", f"{demo.origin}/")

    assert (answer.status, answer.headers["location"]) == (302, demo.page)


def test_missing_bundle_is_reported_in_a_sentence(tmp_path: Path) -> None:
    """A wrong path in the variable is not ignored."""
    process = begin(0, tmp_path, GATEWAY_DEMO_BUNDLE="no/such.js")
    said, _ = process.communicate(timeout=START_SECONDS)

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
