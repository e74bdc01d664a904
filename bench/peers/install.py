"""Install what `bench.peers` measures: `python -m bench.peers.install`.

Each is installed in a folder of its own below `.bench/peers`, outside the gateway's environment, with the versions of
`bench/peers/litellm.txt` and `bench/peers/node/package.json`. nginx is the system's. What cannot be installed is left
out, and the reason is printed. LiteLLM needs about a gigabyte.
"""

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.processes import ROOT

SOURCE = Path(__file__).parent
TARGET = ROOT / ".bench" / "peers"
LITELLM = TARGET / "litellm" / "bin" / "litellm"
NODE = TARGET / "node"
_LAST_LINES = 3


def run_all(commands: Sequence[Sequence[str]], folder: Path) -> str | None:
    """Run commands in a folder; return the end of the first failing one's output."""
    for command in commands:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode:
            lines = (done.stderr or done.stdout).strip().splitlines()[-_LAST_LINES:]
            return f"{' '.join(command[:4])} … failed: {' / '.join(lines)}"
    return None


def install_node() -> str | None:
    """Install the packages of Node; return why they cannot be."""
    if shutil.which("npm") is None:
        return "npm is not installed"
    NODE.mkdir(parents=True, exist_ok=True)
    for each in (SOURCE / "node").iterdir():
        shutil.copy(each, NODE / each.name)
    return run_all([["npm", "install", "--no-audit", "--no-fund", "--no-package-lock", "--loglevel=error"]], NODE)


def install_litellm() -> str | None:
    """Install LiteLLM in an environment of its own; return why it cannot be."""
    TARGET.mkdir(parents=True, exist_ok=True)
    folder = TARGET / "litellm"
    pip = [str(folder / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "--quiet", "install"]
    commands = [[sys.executable, "-m", "venv", str(folder)], [*pip, "-r", str(SOURCE / "litellm.txt")]]
    return run_all(commands, TARGET)


def main() -> None:
    """Install everything that can be."""
    for name, install in (("Node's packages", install_node), ("LiteLLM", install_litellm)):
        reason = install()
        print(f"{name}: {reason or f'installed in {TARGET}'}", flush=True)


if __name__ == "__main__":
    main()
