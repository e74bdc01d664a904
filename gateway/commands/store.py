"""`gateway store`: move to another database, and migrate the schema."""

# ruff: noqa: PLC0415 - heavy modules are imported where they are used
import os
import time
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from gateway.commands.common import CONFIG_OPTION, actor, examples, load_config, plain_errors

if TYPE_CHECKING:
    from gateway.store.copying import Writing

_EVERY_SECONDS: Final = 2.0


@click.group()
def store() -> None:
    """Copy a store to another database, or migrate its schema."""


@store.command()
@CONFIG_OPTION
def migrate(config_path: Path | None) -> None:
    """Bring the store's schema up to date, or create it.

    `gateway serve` does the same at its start. This command does it before, for example with a user of the database
    that may change tables. A change of the schema is in the audit log.
    """
    config = load_config(config_path)
    with plain_errors():
        from gateway.store.urls import migrate_store

        migration = migrate_store(*config.store.address, by=actor())
        if migration.is_new:
            click.echo(f"Created a new store at {config.store.url}.", err=True)
        click.echo(
            "The schema is up to date."
            if migration.is_new or migration.before == migration.after
            else f"Migrated the schema from version {migration.before} to {migration.after}."
        )


@store.command(
    epilog=examples("gateway store copy sqlite:///gateway.db postgresql://gateway@db/gateway --password-env PGPASSWORD")
)
@click.argument("source", metavar="SOURCE")
@click.argument("target", metavar="TARGET")
@click.option("--password-env", metavar="NAME", help="Environment variable with PostgreSQL's password.")
@click.option(
    "--password-file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    metavar="FILE",
    help="File with PostgreSQL's password.",
)
def copy(source: str, target: str, password_env: str | None, password_file: Path | None) -> None:
    """Copy a store to a new one: SQLite to PostgreSQL, or back.

    SOURCE and TARGET are addresses as in [store] url: sqlite:///path and postgresql://user@host/database. Stop the
    gateway first. The source stays as it is. The target must be empty; if anything fails or differs, it stays empty.
    Outputs in a folder or bucket are not moved, and need not be. The audit log of the target says who copied it.
    """
    with plain_errors():
        from gateway.store import copying
        from gateway.store.urls import shown

        password = _password(password_env, password_file)
        began = time.monotonic()
        if _engine(source) == _engine(target):
            raise click.UsageError(
                "one of the two must be sqlite:///path, and the other postgresql://user@host/database"
            )
        origin = copying.CopySource(actor(), time.time(), shown(source))
        with _locked(source, password, create=False) as before, _locked(target, password, create=True) as after:
            copied = copying.copy(before, after, _Progress().show, origin)
        for table, count in copied.rows.items():
            click.echo(f"{table:16} {count:>12,}")
        for kind, microusd in sorted(copied.ledger_microusd.items()):
            click.echo(f"ledger, {kind:14} {microusd / 1e6:>14,.6f} USD, equal on both sides")
        if copied.replaced:
            click.echo(
                f"{copied.replaced} records had NUL characters, which PostgreSQL does not store: now ?", err=True
            )
        seconds = time.monotonic() - began
        click.echo(
            f"Copied {sum(copied.rows.values()):,} records in {seconds:.0f} s. Set [store] url to the target. "
            "Do not start a gateway on the source again: both would follow the same runs.",
            err=True,
        )


class _Progress:
    """Prints how far a copy is, for each table once and then every few seconds."""

    def __init__(self) -> None:
        self._table = ""
        self._shown_at = 0.0

    def show(self, table: str, done: int, total: int) -> None:
        """Print a line, unless the last one of this table is recent and this is not the end."""
        now = time.monotonic()
        if table == self._table and now - self._shown_at < _EVERY_SECONDS and done < total:
            return
        self._table, self._shown_at = table, now
        click.echo(f"{table}: {done:,} of {total:,}", err=True)


def _engine(url: str) -> str:
    from gateway.config.values import store_url

    return store_url(url).partition(":")[0]


def _password(env: str | None, file: Path | None) -> str | None:
    if env is not None:
        if env not in os.environ:
            raise click.UsageError(f"--password-env: {env} is not set")
        return os.environ[env]
    return None if file is None else file.read_text().strip()


def _locked(url: str, password: str | None, *, create: bool) -> "AbstractContextManager[Writing]":
    from gateway.store.urls import lock_store

    return lock_store(url, password, create=create)
