"""Static files of the page. They load nothing from other hosts, and nothing is inline."""

from importlib import resources
from typing import Final, NamedTuple

PAGE: Final = "gateway.dashboard"

MISSING: Final = "missing.html"
"""Page that is shown if the extra is not installed."""

_FILES: Final = {
    MISSING: "text/html",
    "page.css": "text/css",
    "live.js": "text/javascript",
    "page.js": "text/javascript",
    "refresh.js": "text/javascript",
    "icon.svg": "image/svg+xml",
}


class Asset(NamedTuple):
    """A static file."""

    content_type: str
    body: bytes


def load() -> dict[str, Asset]:
    """Read all files, by name."""
    folder = resources.files(PAGE) / "page"
    return {name: Asset(kind, (folder / name).read_bytes()) for name, kind in _FILES.items()}
