"""The page's own files, as they are served. Nothing in them is anybody else's, and nothing is inline."""

from importlib import resources
from typing import Final, NamedTuple

PAGE: Final = "gateway.dashboard"

MISSING: Final = "missing.html"
"""What stands for all pages while the extra is not installed."""

_FILES: Final = {
    MISSING: "text/html",
    "page.css": "text/css",
    "page.js": "text/javascript",
    "icon.svg": "image/svg+xml",
}


class Asset(NamedTuple):
    """A file as it is served."""

    content_type: str
    body: bytes


def load() -> dict[str, Asset]:
    """Read all, by name."""
    folder = resources.files(PAGE) / "page"
    return {name: Asset(kind, (folder / name).read_bytes()) for name, kind in _FILES.items()}
