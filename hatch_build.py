"""Records the commit in wheels and source distributions, for `gateway --version`.

The commit is that of the environment variable GATEWAY_COMMIT, else of the checkout that is built. What is built from
elsewhere keeps the record of its source distribution, if there is one.
"""

import os
import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

RECORD = "gateway/commit.txt"
_FORM = re.compile(r"[0-9a-f]{7,40}(-dirty)?")


class CommitHook(BuildHookInterface):
    """Adds `gateway/commit.txt`, without writing into the checkout."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add the record. An editable installation runs the checkout itself and gets none."""
        commit = _commit(Path(self.root))
        if version == "editable" or commit is None:
            return
        folder = self._folder = tempfile.TemporaryDirectory()
        record = Path(folder.name) / "commit.txt"
        record.write_text(f"{commit}\n", encoding="utf-8")
        build_data["force_include"][str(record)] = RECORD

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove the temporary file."""
        del version, build_data, artifact_path
        if folder := getattr(self, "_folder", None):
            folder.cleanup()


def _commit(root: Path) -> str | None:
    given = os.environ.get("GATEWAY_COMMIT", "").strip()
    if given:
        if not _FORM.fullmatch(given):
            raise ValueError("GATEWAY_COMMIT is not a commit: expected 7 to 40 hex digits")
        return given
    if not (root / ".git").exists():
        return None
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=30, check=True)  # noqa: S603 - a constant
    except (OSError, subprocess.SubprocessError):
        return None
    commit = done.stdout.strip()
    return commit if _FORM.fullmatch(commit) else None
