"""What is tested here is built once for all tests, and not on the time of any of them."""

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.fixtures import upstream
from tests.support.tools import absent

__all__ = ["upstream"]

ROOT = Path(__file__).parents[2]


def build_wheel(source: Path, folder: Path) -> Path:
    """Build a wheel with the packages of this environment, as the image does."""
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(folder)]
    subprocess.run([*command, str(source)], check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="session")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source archive, built as `make package` builds it."""
    folder = tmp_path_factory.mktemp("sdist")
    command = [Path(sys.executable).parent / "hatchling", "build", "-t", "sdist", "-d", folder]
    subprocess.run(command, check=True, capture_output=True, cwd=ROOT)
    (built,) = folder.glob("*.tar.gz")
    return built


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of the checkout."""
    return build_wheel(ROOT, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="session")
def released_wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of the source archive."""
    return build_wheel(sdist, tmp_path_factory.mktemp("released"))


@pytest.fixture(scope="session")
def environment(released_wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh virtual environment far from the checkout, with the released wheel and all that it may want.

    Every package must have a hash in constraints.txt, the wheel its own.
    """
    folder = tmp_path_factory.mktemp("environment") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    command = [sys.executable, "-m", "pip", "--python", str(folder / "bin" / "python"), "install", "-q"]
    digest = hashlib.sha256(released_wheel.read_bytes()).hexdigest()
    wanted = f"replicate-gateway[speed,simulator,otel] @ {released_wheel.as_uri()}#sha256={digest}"
    done = subprocess.run(
        [*command, "--require-hashes", "-c", str(ROOT / "constraints.txt"), wanted],
        check=False, capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode and "Could not find a version that satisfies" in done.stderr:
        absent(f"the package index does not have what constraints.txt names: {done.stderr[-500:]}")
    assert done.returncode == 0, done.stderr[-2000:]
    return folder
