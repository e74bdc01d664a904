"""What constraints.txt pins."""

import re
from pathlib import Path

TEXT = (Path(__file__).parents[2] / "constraints.txt").read_text()


def pinned_versions() -> dict[str, str]:
    """Return the version of each package, by its normalised name."""
    found = re.findall(r"^([\w.-]+)==(\S+)", TEXT, re.MULTILINE)
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in found}


def pinned_hashes() -> dict[str, int]:
    """Return how many hashes each package has, by its name as written."""
    entries = re.findall(r"^([\w.-]+)==.*\n((?: .*\n)*)", TEXT, re.MULTILINE)
    return {name: len(re.findall(r"--hash=sha256:[0-9a-f]{64}\b", lines)) for name, lines in entries}
