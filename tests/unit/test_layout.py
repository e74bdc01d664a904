"""Rules of the layout: sizes of files, names of classes, imports between tests (CONTRIBUTING, Layout)."""

import ast
from collections import defaultdict
from pathlib import Path

TESTS = Path(__file__).parents[1]
ROOT = TESTS.parent
MOST_LINES = 400
CODE = ("gateway", "bench", "grafana", "tests")
STILL_LONG = {
    "tests/support/fakes.py",
    "tests/support/machine.py",
    "tests/unit/predictions/test_other_nodes.py",
    "tests/unit/streams/test_nodes.py",
    "tests/unit/throttling/test_upstream_limiter.py",
}
"""Files that are to be split."""
OWN_NAMES = ("config", "simulator", "store/postgres", "store/sqlite")
"""Folders with class names of their own: sections of the config, Replicate's side, and the parts of each engine."""
IN_SEVERAL_FOLDERS = {
    "Asset": "a static file of the demo's page; one of the console",
    "Created": "outcome of a create, for those that wait for it; result of a create",
    "Described": "what an upload states about its file; what a schema states about a target",
    "Entry": "cached metadata; a cache entry; a line of the ledger",
    "Event": "a webhook event; a block of a stream",
    "Files": "files of an output; records of uploaded files",
    "Attempt": "of a job for a run; of a reload",
    "Finding": "result of `check --stream`; result of `check`",
    "Found": "a readable copy; cached metadata",
    "Granted": "a reservation; a share of a rate",
    "Hit": "the record of a hit; the rule that allows one",
    "Kind": "type of a metric; prediction or training",
    "Lane": "one of the account's rates; one of the store's connections",
    "Listener": "of the events of a prediction; of a stream",
    "Live": "live settings; current activity on the console",
    "OutputFetcher": "a port and its adapter",
    "OutputInputs": "a port and its service",
    "Part": "a line of a charge; a range of bytes",
    "Policy": "of access; of sharing",
    "Reader": "of an event stream, by a client; from upstream",
    "Reading": "a store that is copied; a stream that is checked",
    "Refused": "outcome of a create, for those that wait for it; of the step that starts a run; the exceeded limit",
    "Rule": "for prices; for sharing",
    "Spool": "an upload; an output",
    "Taken": "a place in the webhook queue; a token of a divided rate",
    "Usage": "of a run; of a team, key or user",
    "Worker": "a thread of the store; a process of `serve --workers`",
}


def product() -> list[Path]:
    found = (path for folder in CODE for path in (ROOT / folder).rglob("*") if path.suffix in {".py", ".js"})
    return [path for path in found if "node_modules" not in path.parts]


def test_no_file_is_too_long_to_read():
    """A file that has become short enough leaves the list."""
    lengths = {path.relative_to(ROOT).as_posix(): len(path.read_text().splitlines()) for path in product()}
    assert {name for name, lines in lengths.items() if lines > MOST_LINES} == STILL_LONG


def test_class_names_are_unique_or_listed():
    """Private classes are not imported by others."""
    folders = defaultdict(list)
    for path in (ROOT / "gateway").rglob("*.py"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                folders[node.name].append(path.parent.relative_to(ROOT / "gateway").as_posix())
    twice = {name for name, places in folders.items() if len(set(places)) < len(places)}
    assert not twice, "two classes of one folder"
    shared = {
        name
        for name, places in folders.items()
        if sum(not f"{place}/".startswith(tuple(f"{own}/" for own in OWN_NAMES)) for place in places) > 1
    }
    assert shared == IN_SEVERAL_FOLDERS.keys()


def test_no_test_imports_a_test_file_or_a_conftest():
    """What tests share is in tests/support."""
    found = []
    for path in TESTS.rglob("*.py"):
        if "node_modules" in path.parts:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for name in names:
                last = name.rpartition(".")[2]
                if name.startswith("tests.") and (last.startswith("test_") or last == "conftest"):
                    found.append(f"{path.relative_to(TESTS)}: {name}")
    assert not found
