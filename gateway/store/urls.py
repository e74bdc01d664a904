"""Create the store for a `[store] url`."""

from urllib.parse import unquote, urlsplit

from gateway.store.interface import Store
from gateway.store.sqlite import SQLiteStore

_FORMS = "sqlite:///relative/path or sqlite:////absolute/path"


def open_store(url: str) -> Store:
    """Create the store for a URL, not yet opened. Raise `ValueError` with a message if the URL is not valid."""
    parts = urlsplit(url)
    path = unquote(parts.path.removeprefix("/"))
    if parts.scheme != "sqlite" or parts.netloc or parts.query or parts.fragment or not url.startswith("sqlite:///"):
        raise ValueError(f"expected {_FORMS}; SQLite is the only store so far")
    if not path or path.endswith("/"):
        raise ValueError(f"has no file name: expected {_FORMS}")
    if path == ":memory:":
        raise ValueError(f"an in-memory store would lose acknowledged requests: expected {_FORMS}")
    return SQLiteStore(path)
