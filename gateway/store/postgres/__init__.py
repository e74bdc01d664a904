"""The PostgreSQL store: needs the extra `postgres` (docs/architecture.md, Store)."""

from gateway.store.postgres.store import PostgresStore

__all__ = ["PostgresStore"]
