"""What is tested here is built once for all tests, and not on the time of any of them."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.fixtures import upstream

__all__ = ["upstream"]

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built as the image builds it."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(folder)]
    subprocess.run([*command, str(ROOT)], check=True, capture_output=True, timeout=100)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="session")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh virtual environment far from the checkout, with the wheel and all that it may want."""
    folder = tmp_path_factory.mktemp("environment") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True, timeout=60)
    command = [sys.executable, "-m", "pip", "--python", str(folder / "bin" / "python"), "install", "-q"]
    wanted = f"{wheel}[speed,simulator,otel]"
    subprocess.run(
        [*command, "-c", str(ROOT / "constraints.txt"), wanted], check=True, capture_output=True, text=True, timeout=200
    )
    return folder
