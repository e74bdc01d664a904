"""What the page is made of: its own files, which are in the package, and the npm client, which may have been built.

The bundle of the npm client is nobody's to commit: `npm run build` in the checkout's folder `demo/` makes it, and there
it is found. `GATEWAY_DEMO_BUNDLE` names another one; set to nothing, it says that none is wanted.
"""

import os
from importlib import resources
from pathlib import Path
from typing import Final, NamedTuple

BUNDLE_VARIABLE: Final = "GATEWAY_DEMO_BUNDLE"
NPM_CLIENT: Final = "replicate.js"
INDEX: Final = "index.html"

_OWN: Final = {
    INDEX: "text/html",
    "page.css": "text/css",
    "page.js": "text/javascript",
    "snippets.js": "text/javascript",
    "icon.svg": "image/svg+xml",
}
_CHECKOUT: Final = Path(__file__).parents[2]


class BundleMissing(Exception):
    """The bundle that the environment names cannot be read."""


class Asset(NamedTuple):
    """A file as it is served."""

    content_type: str
    body: bytes


def load() -> dict[str, Asset]:
    """Read everything, by name. Raise `BundleMissing` if a bundle is named and cannot be had."""
    folder = resources.files("gateway.demo") / "page"
    found = {name: Asset(kind, (folder / name).read_bytes()) for name, kind in _OWN.items()}
    bundle = _bundle()
    return found if bundle is None else {**found, NPM_CLIENT: Asset("text/javascript", bundle)}


def _bundle() -> bytes | None:
    named = os.environ.get(BUNDLE_VARIABLE)
    if named == "":
        return None
    if named is not None:
        try:
            return Path(named).read_bytes()
        except OSError as exc:
            raise BundleMissing(f"{BUNDLE_VARIABLE} names {named}, which cannot be read: {exc.strerror}.") from exc
    built = _CHECKOUT / "demo" / "dist" / NPM_CLIENT
    return built.read_bytes() if built.is_file() else None
