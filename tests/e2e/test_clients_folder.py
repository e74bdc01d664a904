"""The folder of the npm clients, and the rule for tools that are absent."""

import json
import re

import pytest

from tests.support.node import CLIENTS
from tests.support.tools import require_tool


def test_every_npm_package_has_an_exact_version():
    """A test run next year uses the same clients as today."""
    wanted = json.loads((CLIENTS / "package.json").read_text())
    for name, version in (wanted["dependencies"] | wanted["optionalDependencies"]).items():
        assert re.fullmatch(r"(npm:[@\w/-]+@)?\d+\.\d+\.\d+", version), name


def test_lock_file_names_no_registry():
    """Packages are identified by their hashes; the registry is the installer's choice."""
    lock = json.loads((CLIENTS / "package-lock.json").read_text())
    packages = {path: package for path, package in lock["packages"].items() if path}
    assert len(packages) > 20
    for path, package in packages.items():
        assert "resolved" not in package, path
        assert package["integrity"].startswith("sha512-"), path


@pytest.mark.parametrize(("ci", "outcome"), [(None, pytest.skip.Exception), ("true", pytest.fail.Exception)])
def test_absent_tool_is_a_skip_here_and_a_failure_in_ci(
    monkeypatch: pytest.MonkeyPatch, ci: str | None, outcome: type[BaseException]
):
    """A contributor without Node runs the rest; CI never passes by skipping."""
    monkeypatch.delenv("CI", raising=False)
    if ci is not None:
        monkeypatch.setenv("CI", ci)
    with pytest.raises(outcome, match="no-such-tool is not installed"):
        require_tool("no-such-tool")
