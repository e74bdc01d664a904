"""Dependencies: the ranges admit no version with a known vulnerability, and constraints.txt is within the ranges."""

import itertools
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
PINNED = {
    canonicalize_name(name): Version(version)
    for name, version in re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
}
RUNTIME = [*PROJECT["project"]["dependencies"], *itertools.chain(*PROJECT["project"]["optional-dependencies"].values())]
# The last version with a known vulnerability: aiohttp CVE-2026-54278, PyJWT CVE-2026-32597.
VULNERABLE = {"aiohttp": "3.14.2", "pyjwt": "2.11.0"}


@pytest.mark.parametrize(("name", "version"), VULNERABLE.items())
def test_no_vulnerable_version_is_admitted(name, version):
    """Whoever installs without the constraints gets a corrected one too."""
    (requirement,) = (each for text in RUNTIME if canonicalize_name((each := Requirement(text)).name) == name)
    assert version not in requirement.specifier
    assert PINNED[canonicalize_name(name)] > Version(version)


@pytest.mark.parametrize("text", [*RUNTIME, *PROJECT["dependency-groups"]["dev"], *PROJECT["build-system"]["requires"]])
def test_what_is_tested_is_within_the_ranges(text):
    """A range that excludes the tested version would be untested."""
    requirement = Requirement(text)
    assert PINNED[canonicalize_name(requirement.name)] in requirement.specifier
