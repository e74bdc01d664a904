"""The simulator is asked what the recordings asked, and must answer in the same shape.

Values differ, of course. What else differs is in TOLERATED, with its reason; an entry that no recording needs fails.
"""

import json
import re
from typing import Any

import pytest

from gateway.simulator import Fault
from gateway.simulator.prediction import Prediction
from gateway.simulator.times import parse_time
from tests.support.cassettes import CASSETTES, interactions
from tests.support.simulator_api import find

# (location in the response, kind of difference, groups of responses): reason
TOLERATED: dict[tuple[str, str, str], str] = {
    ("urls.web", "extra", "create get cancel"): "the link to the web page is sent since 2025",
    ("output", "extra", "create"): "since 2025 an output that is not there yet is null; before, the key was left out",
    ("data_removed", "extra", "create get cancel"): "required by the API's description since 2025",
    ("urls.stream", "extra", "create"): "since July 2024 whatever can stream has the link, asked for or not",
    ("stream", "missing", "create"): "`stream: true` is ignored since July 2024, and no longer echoed",
    ("source", "extra", "get cancel"): "sent in reads since 2024",
    ("metrics.total_time", "extra", "get"): "sent since 2024",
    ("is_official", "extra", "model"): "newer than the recordings",
    ("weights_url", "extra", "model"): "newer than the recordings",
    ("created_at", "extra", "model"): "in one recording of 2024, in none of 2023",
    ("default_example.data_removed", "extra", "model"): "required by the API's description since 2025",
    ("default_example.source", "extra", "model"): "sent in reads since 2024",
    ("default_example.urls.web", "extra", "model"): "the link to the web page is sent since 2025",
    ("default_example.metrics.total_time", "extra", "model"): "sent since 2024",
    (
        "default_example.logs",
        "type",
        "model",
    ): "an example without logs has null in the database's shape; ours has none",
    ("", "order", "model"): "alphabetical in the recording of 2024, as ours in those of 2023",
    ("paper_url", "type", "model"): "our models have no papers",
    ("model", "extra", "get"): "the database's shape names the model since late 2023",
    ("allow", "extra", "model"): "models can be changed and deleted since 2025",
    ("content-type charset", "type", "create get cancel"): "the edge names the charset since 2024",
}
# Below these locations, the model determines the content.
OPAQUE = re.compile(r"(^|\.)(input|output|openapi_schema\.(paths|components|info))$")
HEADERS = ("preference-applied", "ratelimit-remaining", "ratelimit-reset", "allow", "vary")
used: set[tuple[str, str, str]] = set()


def group_of(method: str, path: str) -> str:
    """Return the groups of the table that a response belongs to."""
    if path.endswith("/cancel"):
        return "cancel"
    if path.endswith("/predictions"):
        return "create"
    if path.startswith("/predictions/"):
        return "get"
    return "model" if re.fullmatch(r"/models(/[^/]+/[^/]+)?", path) else "other"


def differences(ours: Any, theirs: Any, place: str = "") -> list[tuple[str, str]]:
    """Return the differences in shape of two bodies, as (location, kind)."""
    if OPAQUE.search(place):
        return []
    if type(ours) is not type(theirs):
        numbers = isinstance(ours, int | float) and isinstance(theirs, int | float)
        return [] if numbers else [(place, "type")]
    found: list[tuple[str, str]] = []
    if isinstance(ours, dict):
        dot = f"{place}." if place else ""
        found += [(dot + key, "extra") for key in ours if key not in theirs]
        found += [(dot + key, "missing") for key in theirs if key not in ours]
        both = [key for key in ours if key in theirs]
        if both != [key for key in theirs if key in ours]:
            found.append((place, "order"))
        for key in both:
            found += differences(ours[key], theirs[key], dot + key)
    elif isinstance(ours, list) and ours and theirs:
        found += differences(ours[0], theirs[0], f"{place}.*" if place else "*")
    return found


def tolerated(place: str, kind: str, group: str) -> bool:
    for entry in TOLERATED:
        if entry[0] == place and entry[1] == kind and group in entry[2].split():
            used.add(entry)
            return True
    return False


def compare(recorded: dict[str, Any], reply: Any) -> list[str]:
    group = group_of(recorded["method"], recorded["path"])
    wrong: list[str] = []
    if reply.status != recorded["status"]:
        return [f"status {reply.status}, recorded {recorded['status']}: {reply.raw[:300]!r}"]
    theirs = recorded["answer_headers"]
    for name in HEADERS:
        ours = reply.headers.get(name)
        if name == "vary" and theirs.get(name) in {None, "Accept-Encoding"}:
            continue  # the CDN's, sent or not along with compression
        if name == "allow" and ours is not None and name in theirs:
            extra = set(ours.split(", ")) - set(theirs[name].split(", "))
            missing = set(theirs[name].split(", ")) - set(ours.split(", "))
            if missing or (extra and not tolerated("allow", "extra", group)):
                wrong.append(f"allow: {ours}, recorded {theirs[name]}")
        elif ours != theirs.get(name):
            wrong.append(f"{name}: {ours}, recorded {theirs.get(name)}")
    ours_type, theirs_type = reply.headers["content-type"], theirs["content-type"]
    if ours_type.partition(";")[0] != theirs_type.partition(";")[0]:
        wrong.append(f"content-type: {ours_type}, recorded {theirs_type}")
    elif ours_type.lower() != theirs_type.lower() and not tolerated("content-type charset", "type", group):
        wrong.append(f"charset: {ours_type}, recorded {theirs_type}")
    if not recorded["answer"]:
        return [*wrong, *([f"body {reply.raw[:100]!r}, recorded none"] if reply.raw else [])]
    for place, kind in differences(reply.body, json.loads(recorded["answer"])):
        if not tolerated(place, kind, group):
            wrong.append(f"body: {place or 'the whole'}: {kind}")
    return wrong


def prepare(api: Any, name: str, number: int, recorded: dict[str, Any]) -> None:
    """Create the state that a recording depends on."""
    simulator = api.simulator
    if name == "run__invalid-token":
        api.token = "r8_revoked"
    if name == "predictions-get":
        # An old prediction, read first from the edge, and twelve days later from the database.
        simulator.faults.set(*([Fault("shape", value="edge")] if number == 0 else []))
        if number == 0:
            theirs = json.loads(recorded["answer"])
            model, version = find(simulator, "stability-ai/sdxl")
            old = Prediction(
                theirs["id"], "acme", model, version, theirs["input"], parse_time(theirs["created_at"][:26] + "Z")
            )
            old.status, old.output, old.log_parts = "succeeded", theirs["output"], [theirs["logs"]]
            old.source = "web"  # so that it is still there
            old.started_us = old.completed_us = parse_time("2023-08-16T18:57:12.170420Z")
            old.metrics = {"predict_time": 3.804328, "total_time": 3.9}
            simulator.world.keep(old)


def ask_again(recorded: dict[str, Any], names: dict[str, str]) -> tuple[str, dict[str, str]]:
    """Replace recorded ids in a request by those of the simulator."""
    path = recorded["path"]
    for theirs, ours in names.items():
        path = path.replace(theirs, ours)
    kept = {name: recorded["headers"][name] for name in ("content-type", "prefer") if name in recorded["headers"]}
    return path, kept


@pytest.mark.skipif(not CASSETTES, reason="the folder of recordings is not there")
@pytest.mark.parametrize("path", CASSETTES, ids=lambda path: path.stem)
async def test_recorded_request_gets_a_response_of_the_recorded_shape(start, path):
    """A client of the real service sees the same status, headers and fields."""
    account = "test" if path.stem == "models-create" else "acme"
    api = await start(tokens=(f"r8_recorded={account}",))
    names: dict[str, str] = {}
    for number, recorded in enumerate(interactions(path)):
        prepare(api, path.stem, number, recorded)
        api.simulator.world._buckets.clear()  # the recorded limits are those of a first request
        target, headers = ask_again(recorded, names)
        reply = await api.ask(recorded["method"], target, headers=headers, data=recorded["body"] or None)
        assert compare(recorded, reply) == [], f"{path.stem}[{number}] {recorded['method']} {recorded['path']}"
        if recorded["method"] == "POST" and recorded["status"] == 201 and "id" in json.loads(recorded["answer"]):
            names[json.loads(recorded["answer"])["id"]] = reply.body["id"]


@pytest.mark.skipif(not CASSETTES, reason="the folder of recordings is not there")
async def test_every_tolerated_difference_is_needed(start):
    """The table of tolerated differences has no outdated entry."""
    used.clear()
    for path in CASSETTES:
        await test_recorded_request_gets_a_response_of_the_recorded_shape(start, path)
    assert set(TOLERATED) - used == set()


# Recorded shapes, for checkouts without the recordings.
LEARNED: list[tuple[str, str, Any, dict[str, str], int, str, list[str]]] = [
    (
        "POST",
        "/models/meta/meta-llama-3-8b-instruct/predictions",
        {"input": {"prompt": "Please write a haiku about llamas"}},
        {"Prefer": "wait=10"},
        201,
        "processing",
        ["id", "model", "version", "input", "logs", "output", "data_removed", "error", "status", "created_at", "urls"],
    ),
    (
        "POST",
        "/predictions",
        {"version": "39ed52f2a78e934b3ba6e2a89f5b1c712de7dfea535525255b1aa35c5565e08b", "input": {"prompt": "a corgi"}},
        {},
        201,
        "starting",
        ["id", "model", "version", "input", "logs", "output", "data_removed", "error", "status", "created_at", "urls"],
    ),
    ("GET", "/models/mattt/empty", None, {}, 200, "", ["url", "owner", "name", "description", "visibility"]),
    ("GET", "/hardware", None, {}, 200, "", []),
    ("GET", "/files", None, {}, 200, "", ["next", "previous", "results"]),
]


@pytest.mark.parametrize(("method", "path", "body", "headers", "status", "state", "keys"), LEARNED)
async def test_responses_have_the_recorded_shapes(api, method, path, body, headers, status, state, keys):
    """Fields are in the order of the real service."""
    reply = await api.ask(method, path, json=body, headers=headers)
    assert reply.status == status
    if isinstance(reply.body, dict):
        assert list(reply.body)[: len(keys)] == keys
        assert reply.body.get("status", "") == state
    if path == "/hardware":
        assert list(reply.body[0]) == ["sku", "name"]
