"""Create the store for a `[store] url`."""

import re
from contextlib import AbstractContextManager
from pathlib import Path
from urllib.parse import unquote, urlsplit

from gateway.domain.audit import Actor
from gateway.errors import StoreUnavailable
from gateway.store.copying import Writing
from gateway.store.interface import Store
from gateway.store.sql.migration import Migration
from gateway.store.sqlite import SQLiteStore
from gateway.store.sqlite.bulk import locked_file, migrate_file

_MISSING = "PostgreSQL needs the extra postgres: pip install 'WHEEL[postgres]', or '.[postgres]' in a checkout."
_AFTER_USER = re.compile("[:?#]")
_PARAMETERS = re.compile("[?#]")
_FORMS = "sqlite:///relative/path or sqlite:////absolute/path"


def open_store(url: str, password: str | None = None, listen_url: str | None = None) -> Store:
    """Create the store for a URL, not yet opened. Raise `ValueError` with a message if the URL is not valid.

    With a pooler at `url`, `listen_url` is the address of the database itself. Raise `StoreUnavailable` if what the
    store needs is not installed.
    """
    if url.startswith("postgresql:"):
        return _postgres(url, password, listen_url)
    return SQLiteStore(_path(url))


def migrate_store(url: str, password: str | None = None, listen_url: str | None = None, *, by: Actor) -> Migration:
    """Bring the schema of the store up to date, or create it, as a change of `by`.

    Raise `ValueError` or `StoreUnavailable`.
    """
    if url.startswith("postgresql:"):
        return _migrated_database(listen_url or url, password, by)
    return migrate_file(Path(_path(url)), by)


def shown(url: str) -> str:
    """Return an address without password and parameters, which can be secrets."""
    scheme, _, rest = url.partition("://")
    place, slash, path = rest.partition("/")
    # As PostgreSQL reads it: what is before the first `@` is user and password, in which `?` and `#` are allowed.
    user, at, host = place.partition("@") if "@" in place else ("", "", place)
    host, *parameters = _PARAMETERS.split(host, maxsplit=1)
    end = "" if parameters else slash + _PARAMETERS.split(path, maxsplit=1)[0]
    return f"{scheme}://{_AFTER_USER.split(user, maxsplit=1)[0]}{at}{host}{end}"


def lock_store(url: str, password: str | None = None, *, create: bool) -> AbstractContextManager[Writing]:
    """Lock the store of a URL against writes, to copy it: with `create` as the target, else as the source.

    Raise `ValueError` or `StoreUnavailable`.
    """
    if url.startswith("postgresql:"):
        return _locked_database(url, password, create=create)
    return locked_file(Path(_path(url)), create=create)


def _path(url: str) -> str:
    parts = urlsplit(url)
    path = unquote(parts.path.removeprefix("/"))
    if parts.scheme != "sqlite" or parts.netloc or parts.query or parts.fragment or not url.startswith("sqlite:///"):
        raise ValueError(f"expected {_FORMS}, or postgresql://user@host/database")
    if not path or path.endswith("/"):
        raise ValueError(f"has no file name: expected {_FORMS}")
    if path == ":memory:":
        raise ValueError(f"an in-memory store would lose acknowledged requests: expected {_FORMS}")
    return path


def _postgres(url: str, password: str | None, listen_url: str | None) -> Store:
    try:
        # The extra `postgres` is needed only where the store is one.
        from gateway.store.postgres import PostgresStore  # noqa: PLC0415
    except ImportError as exc:
        raise StoreUnavailable(_MISSING) from exc
    return PostgresStore(url, password, listen_url=listen_url)


def _locked_database(url: str, password: str | None, *, create: bool) -> AbstractContextManager[Writing]:
    try:
        from gateway.store.postgres.bulk import locked_database  # noqa: PLC0415
        from gateway.store.postgres.connection import Address  # noqa: PLC0415
    except ImportError as exc:
        raise StoreUnavailable(_MISSING) from exc
    return locked_database(Address(url, password), create=create)


def _migrated_database(url: str, password: str | None, by: Actor) -> Migration:
    try:
        from gateway.store.postgres.connection import Address  # noqa: PLC0415
        from gateway.store.postgres.schema import open_schema  # noqa: PLC0415
    except ImportError as exc:
        raise StoreUnavailable(_MISSING) from exc
    return open_schema(Address(url, password), create=True, by=by)
