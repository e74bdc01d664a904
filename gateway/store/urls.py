"""Which store a `[store] url` means."""

from urllib.parse import unquote, urlsplit

from gateway.store.interface import Store
from gateway.store.sqlite import SQLiteStore

_FORMS = "sqlite:///relative/path or sqlite:////absolute/path"


def open_store(url: str) -> Store:
    """Make the store of that url; it is opened by its `open`. Raises `ValueError` with what is wrong with the url."""
    parts = urlsplit(url)
    path = unquote(parts.path.removeprefix("/"))
    if parts.scheme != "sqlite" or parts.netloc or parts.query or parts.fragment or not url.startswith("sqlite:///"):
        raise ValueError(f"expected {_FORMS}; SQLite is the only store so far")
    if not path or path.endswith("/"):
        raise ValueError(f"names no file: expected {_FORMS}")
    if path == ":memory:":
        raise ValueError(f"a store in memory forgets what was acknowledged: expected {_FORMS}")
    return SQLiteStore(path)
