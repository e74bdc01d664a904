"""Files of the demo page: static files of the package, and the bundle of the npm client if it was built.

The bundle is not committed. `npm run build` in the folder `demo/` of a checkout creates it. The environment variable
`GATEWAY_DEMO_BUNDLE` names another file; an empty value disables the npm client.
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
    "copy.js": "text/javascript",
    "facts.js": "text/javascript",
    "page.js": "text/javascript",
    "scenarios.js": "text/javascript",
    "snippets.js": "text/javascript",
    "tokens.js": "text/javascript",
    "icon.svg": "image/svg+xml",
    "sample.png": "image/png",
}
_CHECKOUT: Final = Path(__file__).parents[2]


class BundleMissing(Exception):
    """The bundle named by `GATEWAY_DEMO_BUNDLE` cannot be read."""


class Asset(NamedTuple):
    """A static file."""

    content_type: str
    body: bytes


def load() -> dict[str, Asset]:
    """Read all files, by name. Raise `BundleMissing` if the named bundle cannot be read."""
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
            raise BundleMissing(f"{BUNDLE_VARIABLE}: {named} cannot be read: {exc.strerror}.") from exc
    built = _CHECKOUT / "demo" / "dist" / NPM_CLIENT
    return built.read_bytes() if built.is_file() else None
