"""The demo as a user sees it: one command, a page in a real browser, commands to paste."""

import json
import os
import re
import subprocess
import sys
import urllib.parse
from pathlib import Path
from typing import Any

import pytest

from tests.support.demo import BUILD, LOOPBACK, Started, ask, build, drive_command, started
from tests.support.ports import free_port
from tests.support.tools import clean_environment, require_tool

pytestmark = pytest.mark.timeout(120)


def drive(scenario: str, address: str) -> Any:
    """Run a scenario in Chromium, and return its observations."""
    command, environ = drive_command(scenario, address)
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return json.loads(done.stdout.splitlines()[-1])


def prediction(demo: Started, seen: Any, team: str = "studio") -> Any:
    """Get the prediction that the page showed, with the team's key."""
    answer = ask("GET", f"{demo.base_url}/predictions/{seen['id']}", Authorization=f"Bearer {demo.keys[team]}")
    assert answer.status == 200, answer
    return answer.json


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
    with started(free_port(5), tmp_path, GATEWAY_DEMO_BUNDLE="") as demo:
        assert "make demo" in demo.said
        seen = drive("offers", demo.page)

    assert seen["result"] == {"npm": False}
    assert seen["complaints"] == []


@pytest.mark.chromium
@pytest.mark.node
def test_page_begins_with_results(demo: Started) -> None:
    """They come from the cache, and the console is a link away."""
    seen = drive("first", demo.page)["result"]
    for panel in (seen["text"], seen["image"]):
        assert panel["status"] == "succeeded"
        assert panel["raw"]["input"]["seed"] == 41
        assert "hit" in panel["cache"] or "collapsed" in panel["cache"]
    assert "three sleepy llamas" in seen["text"]["output"]
    assert seen["image"]["image"]["width"] > 0
    assert seen["usage"] == demo.usage


@pytest.mark.chromium
@pytest.mark.node
def test_scenarios_show_what_else_happens(demo: Started) -> None:
    """An error, a file as input, a joined run, a used-up budget, a webhook."""
    seen = drive("scenarios", demo.page)
    said = {name: "\n".join(lines) for name, lines in seen["result"]["outcomes"].items()}

    assert "status: failed" in said["error"]
    assert "division by zero" in said["error"]
    assert "status: succeeded" in said["file"]
    assert seen["result"]["pictures"] == [160, 320]
    assert "collapsed" in said["joined"]
    assert "Both predictions have the same output." in said["joined"]
    assert said["budget"].startswith("402 ")
    assert re.search(r"status: succeeded\nEvery delivery had a valid signature\.$", said["webhook"])
    # The browser itself reports the 402.
    assert [text for text in seen["complaints"] if "402" not in text] == []


@pytest.mark.chromium
@pytest.mark.node
def test_copy_buttons_fill_the_clipboard(demo: Started) -> None:
    seen = drive("copy", demo.page)["result"]
    assert seen["base"] == demo.base_url
    assert f'fetch("{demo.base_url}"' in seen["code"]


def test_own_commands_work_when_pasted(demo: Started, tmp_path: Path) -> None:
    """The gateway's command line, with the demo's config."""
    export, listed, usage, create = (
        demo.line("export GATEWAY_CONFIG="),
        *(next(line for line in demo.said.splitlines() if f"gateway {command}" in line)
          for command in ("keys list", "usage --by model", "keys create")),
    )  # fmt: skip
    said = paste(f"{export}\n{listed}\n{usage}", tmp_path)
    assert "studio" in said
    assert "black-forest-labs/flux-schnell" in said
    key = paste(f"{export}\n{create} 2>/dev/null", tmp_path).strip()
    assert ask("GET", f"{demo.base_url}/account", Authorization=f"Bearer {key}").json["username"] == "studio"


def paste(line: str, folder: Path) -> str:
    """Run a command in a shell with the packages of this Python."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["/bin/sh", "-c", line],
        cwd=folder,
        env=clean_environment() | {"PATH": path},
        capture_output=True,
        text=True,
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
    link = ""
    while not link.startswith(f"{demo.origin}/outputs/"):  # until it is stored
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
