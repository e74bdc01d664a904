"""Create the store for a `[store] url`."""

from urllib.parse import unquote, urlsplit

from gateway.errors import StoreUnavailable
from gateway.store.interface import Store
from gateway.store.sqlite import SQLiteStore

_FORMS = "sqlite:///relative/path or sqlite:////absolute/path"


def open_store(url: str, password: str | None = None) -> Store:
    """Create the store for a URL, not yet opened. Raise `ValueError` with a message if the URL is not valid.

    Raise `StoreUnavailable` if what the store needs is not installed.
    """
    if url.startswith("postgresql:"):
        return _postgres(url, password)
    parts = urlsplit(url)
    path = unquote(parts.path.removeprefix("/"))
    if parts.scheme != "sqlite" or parts.netloc or parts.query or parts.fragment or not url.startswith("sqlite:///"):
        raise ValueError(f"expected {_FORMS}, or postgresql://user@host/database")
    if not path or path.endswith("/"):
        raise ValueError(f"has no file name: expected {_FORMS}")
    if path == ":memory:":
        raise ValueError(f"an in-memory store would lose acknowledged requests: expected {_FORMS}")
    return SQLiteStore(path)


def _postgres(url: str, password: str | None) -> Store:
    try:
        # The extra `postgres` is needed only where the store is one.
        from gateway.store.postgres import PostgresStore  # noqa: PLC0415
    except ImportError as exc:
        raise StoreUnavailable(
            "PostgreSQL needs the extra postgres: pip install '.[postgres]' in a checkout."
        ) from exc
    return PostgresStore(url, password)
