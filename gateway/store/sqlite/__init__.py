"""The SQLite store: one file, one thread that writes and one that reads (docs/architecture.md, Store)."""

from gateway.store.sqlite.store import SQLiteStore

__all__ = ["SQLiteStore"]
