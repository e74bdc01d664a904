"""The systemd unit: systemd itself finds nothing wrong with it, and calls it well protected."""

import configparser
import subprocess
from pathlib import Path

import pytest

from gateway.config import Config
from tests.support.tools import require_tool

UNIT = Path(__file__).parents[2] / "deploy" / "replicate-gateway.service"
# Of 10, in tenths: what systemd calls "OK". It was 1.2 when this was written.
EXPOSURE = "20"


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The unit, its program replaced by one that is there."""
    path = tmp_path / UNIT.name
    path.write_text(UNIT.read_text().replace("/opt/replicate-gateway/bin/gateway", "/bin/true"))
    return path


def test_systemd_accepts_the_unit(installed):
    """Every directive is known and in its place."""
    done = subprocess.run(
        [require_tool("systemd-analyze"), "verify", installed], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_unit_is_well_sandboxed(installed):
    """A gateway that is broken into reaches neither the system nor the token's file."""
    command = [require_tool("systemd-analyze"), "security", "--offline=yes", f"--threshold={EXPOSURE}", installed]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-500:] + done.stderr


def test_unit_has_time_for_a_clean_shutdown():
    """And the token comes from where the docs say."""
    unit = configparser.ConfigParser(strict=False, interpolation=None, delimiters="=")
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read_string(UNIT.read_text())
    service = unit["Service"]
    assert float(service["TimeoutStopSec"]) > Config().server.shutdown_grace_seconds + 5
    name, _, _ = service["LoadCredential"].partition(":")
    for place in (UNIT, UNIT.parents[1] / "docs" / "deploy.md"):
        assert f"/run/credentials/replicate-gateway.service/{name}" in place.read_text()
