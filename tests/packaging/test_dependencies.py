"""Dependencies: the ranges admit no version with a known vulnerability, and constraints.txt is within the ranges."""

import itertools
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.support.constraints import TEXT, pinned_hashes, pinned_versions

ROOT = Path(__file__).parents[2]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
PINNED = {name: Version(version) for name, version in pinned_versions().items()}
RUNTIME = [*PROJECT["project"]["dependencies"], *itertools.chain(*PROJECT["project"]["optional-dependencies"].values())]
GROUPS = [text for group in PROJECT["dependency-groups"].values() for text in group if isinstance(text, str)]
# The last version with a known vulnerability: aiohttp CVE-2026-54278, PyJWT CVE-2026-32597.
VULNERABLE = {"aiohttp": "3.14.2", "pyjwt": "2.11.0"}


@pytest.mark.parametrize(("name", "version"), VULNERABLE.items())
def test_no_vulnerable_version_is_admitted(name, version):
    """Whoever installs without the constraints gets a corrected one too."""
    (requirement,) = (each for text in RUNTIME if canonicalize_name((each := Requirement(text)).name) == name)
    assert version not in requirement.specifier
    assert PINNED[canonicalize_name(name)] > Version(version)


@pytest.mark.parametrize("text", [*RUNTIME, *GROUPS, *PROJECT["build-system"]["requires"]])
def test_what_is_tested_is_within_the_ranges(text):
    """A range that excludes the tested version would be untested."""
    requirement = Requirement(text)
    assert PINNED[canonicalize_name(requirement.name)] in requirement.specifier


def test_every_package_has_hashes_and_no_address():
    """What was not listed is refused, whatever index it comes from."""
    hashes = pinned_hashes()
    assert len(hashes) == len(PINNED)
    assert all(hashes.values()), {name for name, count in hashes.items() if not count}
    assert "://" not in TEXT
    assert "--index" not in TEXT
    assert "--find-links" not in TEXT


def test_pip_of_the_constraints_checks_hashes_of_constraints():
    """Older ones refuse packages whose version is a range; so pip is installed first."""
    assert PINNED["pip"] >= Version("26.3")
    for name in ("Makefile", "Dockerfile"):
        assert "sed -n '/^pip==/," in (ROOT / name).read_text()
