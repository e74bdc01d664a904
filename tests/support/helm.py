"""Helm, as the program or as its library, and the schemas of Kubernetes."""

import functools
import importlib.util
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

from tests.support.tools import absent, find_tool

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy/helm"
RELEASE = ("gw", "prod")
# In a process of its own: the library has a runtime with threads and signal handlers.
_LIBRARY = """
import json, sys
import helm_python
action, chart, values, name, namespace = sys.argv[1:]
values = json.loads(values)
if action == "lint":
    report = helm_python.lint(chart, values, strict=True, namespace=namespace)
    found = [f"{each['path']}: {each['error']}" for each in report["messages"] if each["severity"] > 1]
    print(*found, *report["errors"], sep="\\n", end="")
    sys.exit(bool(found or report["errors"]))
try:
    with helm_python.Chart.load(chart) as loaded:
        print(*loaded.render(values, name=name, namespace=namespace).values(), sep="\\n---\\n")
except helm_python.HelmError as exc:
    sys.exit(str(exc))
"""


def _run(action: str, values: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    name, namespace = RELEASE
    if program := find_tool("helm"):
        with tempfile.NamedTemporaryFile("w", suffix=".json") as given:
            json.dump(values, given)
            given.flush()
            command = [program, "lint", "--strict"] if action == "lint" else [program, "template", name]
            command += [str(CHART), "--namespace", namespace, "-f", given.name]
            return subprocess.run(command, capture_output=True, text=True, check=False)
    if importlib.util.find_spec("helm_python") is None:
        absent("neither helm nor its library (the dependency group kubernetes) is installed")
    command = [sys.executable, "-c", _LIBRARY, action, str(CHART), json.dumps(values), name, namespace]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def lint(values: dict[str, Any]) -> str:
    """Return what Helm's linter finds; empty if nothing is wrong."""
    done = _run("lint", values)
    return "" if done.returncode == 0 else done.stdout + done.stderr


def refusal(values: dict[str, Any]) -> str:
    """Return why the chart cannot be rendered with these values."""
    done = _run("template", values)
    assert done.returncode != 0, done.stdout[-2000:]
    return done.stderr


@functools.cache
def _rendered(values: str) -> str:
    done = _run("template", json.loads(values))
    assert done.returncode == 0, done.stderr
    return done.stdout


def render(**values: Any) -> dict[str, dict[str, Any]]:
    """Render the chart; return its documents by kind and what their names add to that of the release."""
    found = {}
    for document in yaml.safe_load_all(_rendered(json.dumps(values))):
        # The notes are text.
        if isinstance(document, dict) and "kind" in document:
            rest = document["metadata"]["name"].removeprefix(f"{RELEASE[0]}-replicate-gateway")
            found[document["kind"] + rest] = document
    return found


def against_kubernetes(document: dict[str, Any], version: str) -> None:
    """Check a document against the schema of a version of Kubernetes; unknown fields fail too."""
    if importlib.util.find_spec("kubernetes_validate") is None:
        absent("kubernetes-validate (the dependency group kubernetes) is not installed")
    import kubernetes_validate  # noqa: PLC0415 - an optional tool

    kubernetes_validate.validate(document, version, strict=True)
