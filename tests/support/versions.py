"""Other versions of the gateway: the one before the last change of PostgreSQL's schema, and one with a later schema."""

import shutil
import subprocess
import tarfile
from io import BytesIO
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[2]
_MIGRATIONS = Path("gateway/store/postgres/migrations")
_NEXT = """
-- What a next version could bring: columns with defaults, and a table.
ALTER TABLE runs ADD COLUMN of_the_next_version TEXT NOT NULL DEFAULT 'unknown';
ALTER TABLE predictions ADD COLUMN of_the_next_version BIGINT NOT NULL DEFAULT 0;
CREATE TABLE things_of_the_next_version (id BIGINT PRIMARY KEY);
"""


def version_before(folder: Path) -> Path:
    """Write the gateway as it was before the last change of the schema to a folder, which is returned.

    Skip the test if git does not know it, as in an archive or a shallow clone.
    """
    changed = _git("log", "-1", "--format=%H", "--", str(_MIGRATIONS)).decode().strip()
    with tarfile.open(fileobj=BytesIO(_git("archive", f"{changed}^", "gateway"))) as archive:
        archive.extractall(folder, filter="data")
    return folder


def version_after(folder: Path) -> Path:
    """Write today's gateway with one migration more to a folder, which is returned."""
    shutil.copytree(_ROOT / "gateway", folder / "gateway", ignore=shutil.ignore_patterns("__pycache__"))
    number = len(list((_ROOT / _MIGRATIONS).iterdir())) + 1
    (folder / _MIGRATIONS / f"{number:04}_next.sql").write_text(_NEXT)
    return folder


def _git(*arguments: str) -> bytes:
    try:
        done = subprocess.run(["git", *arguments], cwd=_ROOT, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError) as exc:
        pytest.skip(f"git does not have the version before: {exc}")
    if not done.stdout.strip():
        pytest.skip("git does not have the version before")
    return done.stdout
