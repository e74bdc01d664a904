"""Every block of the README, run as it is written, with the README's own config."""

import asyncio
import json
import re
import shlex
import tomllib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.config import from_mapping
from gateway.simulator import Simulator
from tests.support.doc_blocks import ROOT, all_blocks, blocks, changed, replaced
from tests.support.pages import Site, serve_site
from tests.support.readme import (
    LOCAL,
    README,
    RUN,
    ReadmeGateway,
    release_when_read,
    run_in_page,
    run_recipe,
    serve_readme,
)
from tests.support.tools import require_tool

pytestmark = pytest.mark.timeout(90)

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
DOCKERFILE = (ROOT / "Dockerfile").read_text()
CLAIMED: dict[tuple[str, str, int], Callable[..., Any]] = {}


def claims(heading: str, language: str, number: int = 0) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Mark the test that runs a block of the README."""

    def mark(test: Callable[..., Any]) -> Callable[..., Any]:
        CLAIMED[heading, language, number] = test
        return test

    return mark


def block(heading: str, language: str, number: int = 0) -> str:
    """Return a block of the README."""
    return blocks(README, heading, language)[number]


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


def test_every_block_of_the_readme_is_run_by_a_test():
    """An unused block would stop working unnoticed."""
    assert {(each.heading, each.language, each.number) for each in all_blocks(README)} == CLAIMED.keys()


def test_readme_is_short():
    """Longer text belongs into docs/."""
    assert len((ROOT / README).read_text().split()) <= 1500


@claims("replicate-gateway", "mermaid")
def test_the_diagram_is_a_flowchart():
    """GitHub draws it: each line is a node, an edge or both, and every node has a label."""
    first, *lines = block("replicate-gateway", "mermaid").splitlines()
    assert first == "flowchart LR"
    node = r'\w+(?:\["[^"]+"\]|\[\("[^"]+"\)\])?'
    for line in lines:
        assert re.fullmatch(rf'\s+{node}(?: (?:-->|---)(?:\|"[^"]+"\|)? {node})?', line), line
    text = "\n".join(lines)
    for name in re.findall(r"(?:^ *|[->|] )(\w+)", text, re.MULTILINE):
        assert re.search(rf"\b{name}\[", text), f"{name} has no label"


@claims("Try it", "sh")
async def test_two_commands_are_targets_of_the_makefile():
    """`gateway demo` itself is run by `test_demo.py`, and the other command runs this test."""
    lines = [line.partition("#")[0].split() for line in block("Try it", "sh").splitlines()]
    assert lines == [["make", "demo"], ["make", "test"]]
    for command, expected in zip(lines, ("bin/gateway demo", "-m pytest"), strict=True):
        require_tool("make")
        assert expected in await run_recipe(*command, "--dry-run", folder=ROOT)


@claims("Change two lines", "diff", 0)
async def test_changed_javascript_runs_in_node(gateway: ReadmeGateway, clients: Path, tmp_path: Path):
    """As it is after the change, with the package of the same name installed."""
    (tmp_path / "recipe.mjs").write_text(gateway.here(changed(block("Change two lines", "diff", 0))))
    (tmp_path / "node_modules").symlink_to(clients / "node_modules")
    printed = await run_recipe(require_tool("node"), "recipe.mjs", folder=tmp_path, **gateway.environ())
    assert printed == "".join(gateway.upstream.predictions[0].output) + "\n"


@claims("Change two lines", "diff", 1)
async def test_changed_python_runs(gateway: ReadmeGateway, tmp_path: Path):
    """As it is after the change."""
    (tmp_path / "recipe.py").write_text(gateway.here(changed(block("Change two lines", "diff", 1))))
    printed = await run_recipe("python", "recipe.py", folder=tmp_path, **gateway.environ())
    assert printed == "".join(gateway.upstream.predictions[0].output) + "\n"


@pytest.mark.parametrize("number", [0, 1])
def test_change_takes_two_lines(number: int):
    """As its heading says."""
    marks = [line[0] for line in block("Change two lines", "diff", number).splitlines() if line[:1] in ("+", "-")]
    assert marks == ["-", "+", "+"]


@claims(RUN, "sh", 0)
async def test_readme_installs_existing_extras(tmp_path: Path):
    """The environment is created for real; tests/packaging shows that the package can be installed."""
    stub = 'pip() { printf "%s\\n" "$VIRTUAL_ENV" "$@"; }\n'
    printed = await run_recipe(require_tool("bash"), "-ec", stub + block(RUN, "sh", 0), folder=tmp_path)
    environment, command, what = printed.split()
    assert (Path(environment), command) == (tmp_path / ".venv", "install")
    extras = re.fullmatch(r"\.\[(.+)\]", what)
    assert extras is not None
    assert set(extras[1].split(",")) <= PYPROJECT["project"]["optional-dependencies"].keys()


@claims(RUN, "toml")
@claims(RUN, "sh", 1)
def test_config_is_valid_and_a_key_is_created(gateway: ReadmeGateway):
    """`gateway check --upstream` reported no problem, and only the key was printed to stdout."""
    *_, ok, key = gateway.said.split()
    assert (ok, key) == ("ok", gateway.key)
    assert key.startswith("rgw_")
    assert "warning" not in gateway.said
    assert f"account    organization 'acme' at {gateway.upstream.base_url.split('/')[2]}" in gateway.said


@claims(RUN, "sh", 2)
@claims(RUN, "sh", 3)
async def test_prediction_is_run_once_and_then_served_from_the_cache(gateway: ReadmeGateway):
    """The second is a hit with its own id; usage counts it, and explain gives the reason."""
    recipe = gateway.here(block(RUN, "sh", 2))
    first = json.loads(await gateway.shell(recipe))
    head, _, body = (await gateway.shell(replaced(recipe, {"curl -s": "curl -si"}))).partition("\r\n\r\n")
    second = json.loads(body)
    assert (first["status"], second["status"]) == ("succeeded", "succeeded")
    assert first["output"] == second["output"]
    assert first["id"] != second["id"]
    (said,) = re.findall(r"^Cache-Status: (.+?)\r", head, re.MULTILINE)
    (shown,) = re.findall(r"`Cache-Status: ([^`]+ttl)=\d+`", " ".join((ROOT / README).read_text().split()))
    assert said.startswith(shown)
    assert len(gateway.upstream.predictions) == 1
    usage, limits, explained = re.split(
        r"^(?=\{)", await gateway.shell(gateway.here(block(RUN, "sh", 3), PREDICTION_ID=second["id"]).replace(
            "\ncurl", "\necho; curl")), flags=re.MULTILINE,
    )  # fmt: skip
    assert re.search(r"^acme +meta/meta-llama-3-8b-instruct +1 +0 +1 ", usage, re.MULTILINE), usage
    assert json.loads(limits)["limits"][0]["name"] == "budget_usd_per_day"
    assert (json.loads(explained)["source"], json.loads(explained)["reason"]) == ("hit", "seed")


async def test_operators_pages_have_the_urls_in_the_readme(gateway: ReadmeGateway):
    """The console and the metrics."""
    links = [
        gateway.here(link) for link in re.findall(r"<(http://127\.0\.0\.1:9464/\w+)>", (ROOT / README).read_text())
    ]
    assert len(links) == 2
    for link in links:
        assert (await gateway.shell(f"curl -sf -o /dev/null -w '%{{http_code}}' {link}")) == "200"


@pytest.mark.node
@pytest.mark.chromium
@claims("From a web page", "sh")
@claims("From a web page", "js")
async def test_page_streams_with_a_token_from_the_server(
    upstream: Simulator, tmp_path: Path, site: Site, clients: Path
):
    """The page shows the model's text; the same token is refused from any other origin."""
    recipe = replaced(block("From a web page", "js"), {'"Write a haiku"': '"Write a haiku", duration: 20'})
    async with serve_readme(upstream, tmp_path, site.listed) as gateway:
        seen, _ = await asyncio.gather(run_in_page(gateway, site, clients, recipe), release_when_read(gateway, site))
        assert seen["text"] == "".join(upstream.predictions[0].output)
        assert seen["complaints"] == []
        assert len(upstream.predictions) == 1


async def test_token_bound_to_origins_does_not_work_elsewhere(gateway: ReadmeGateway):
    """As the README says of `origins`, and of a token whose request leaves them out: it has the team's."""
    mint = gateway.here(block("From a web page", "sh"))
    create = replaced(gateway.here(block(RUN, "sh", 2)), {"-s ": "-s -o /dev/null -w '%{http_code}' "})
    create = create.replace(gateway.key, "$TOKEN")
    bound = json.loads(await gateway.shell(mint))["token"]
    without = json.loads(await gateway.shell(re.sub(r',\s*"origins": \[[^]]*\]', "", mint)))
    listed = tomllib.loads(block(RUN, "toml"))["teams"][0]["origins"]
    assert without["origins"] == listed
    at_home = create.replace("curl ", f"curl -H 'Origin: {listed[0]}' ")
    for token in (bound, without["token"]):
        assert await gateway.shell(create, TOKEN=token) == "403"
        assert await gateway.shell(at_home, TOKEN=token) == "201"


def test_the_same_config_listens_in_a_container_where_the_port_is_published(upstream: Simulator):
    """The image's variables set what differs there: the host, and the database on the volume."""
    image = dict(re.findall(r"(GATEWAY__\w+)=(\S+)", DOCKERFILE))
    loaded = from_mapping(tomllib.loads(block(RUN, "toml")), {"REPLICATE_API_TOKEN": upstream.token, **image})
    assert loaded.server.host == "0.0.0.0"
    assert f"EXPOSE {loaded.server.port} {loaded.ops.port}" in DOCKERFILE
    assert loaded.store.url == "sqlite:////data/gateway.db"
    assert "WORKDIR /data\nVOLUME /data\n" in DOCKERFILE


@claims("In a container", "sh")
async def test_docker_arguments_match_the_image(tmp_path: Path):
    """Without a container engine: the arguments are compared with the Dockerfile and the config."""
    stub = 'docker() { printf "%q " "$@"; echo; }\ncurl() { docker "$@"; }\n'
    script = stub + block("In a container", "sh")
    printed = await run_recipe(require_tool("bash"), "-euc", script, folder=tmp_path)
    build, run, execute, curl = (shlex.split(line) for line in printed.splitlines())
    assert build == ["build", "-t", "replicate-gateway", "."]
    assert (run[0], run[-1]) == ("run", "replicate-gateway")
    port = str(from_mapping(tomllib.loads(block(RUN, "toml")), {}, serving=False).server.port)
    assert run[run.index("-p") + 1] == f"127.0.0.1:{port}:{port}"
    mounts = [run[number + 1].split(":") for number, argument in enumerate(run) if argument == "-v"]
    (config_path,) = re.findall(r"GATEWAY_CONFIG=(\S+)", DOCKERFILE)
    assert ["gateway-data", "/data"] in mounts
    assert [f"{tmp_path}/config.toml", config_path, "ro"] in mounts
    assert run[run.index("-e") + 1] == "REPLICATE_API_TOKEN"
    name = run[run.index("--name") + 1]
    teams = [team["name"] for team in tomllib.loads(block(RUN, "toml"))["teams"]]
    assert execute == ["exec", name, "gateway", "keys", "create", teams[0], "--name", "server"]
    assert curl == ["-s", f"{LOCAL}/readyz"]
