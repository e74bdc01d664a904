"""`gateway --version`: the version, and the commit if the build recorded one."""

from pathlib import Path

from gateway import __version__

COMMIT_FILE = Path(__file__).parents[1] / "commit.txt"
"""Written into wheels and source distributions by `hatch_build.py`; a checkout has none."""


def version(commit_file: Path = COMMIT_FILE) -> str:
    """Return the version, as `0.1.0` or `0.1.0 (3f2a9c1b04de)`."""
    try:
        commit = commit_file.read_text(encoding="utf-8").strip()
    except OSError:
        return __version__
    return f"{__version__} ({commit})" if commit else __version__
