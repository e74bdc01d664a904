"""A private PostgreSQL server for the tests of a process, and the data in it.

The server is taken from PATH, or from where Debian, Red Hat and Homebrew install it. It listens on a socket in a short
temporary folder and nowhere else. It syncs nothing, so it does not show what survives a crash of the machine.
"""

import atexit
import itertools
import os
import pwd
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import psycopg
import pytest

from gateway.store.postgres.connection import Address
from gateway.store.postgres.schema import open_schema

SUPPORTED = range(14, 19)
_PLACES = (
    "usr/lib/postgresql/*/bin",
    "usr/pgsql-*/bin",
    "opt/homebrew/opt/postgresql@*/bin",
    "usr/local/opt/postgresql@*/bin",
)
_SETTINGS = {
    "listen_addresses": "",
    "fsync": "off",
    "full_page_writes": "off",
    # Less to write, so that a busy disk does not hold up every commit.
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "wal_init_zero": "off",
    "synchronous_commit": "on",
    "max_connections": "80",
    "shared_buffers": "32MB",
    "autovacuum": "off",
    "max_wal_size": "256MB",
    "checkpoint_timeout": "1h",
    "logging_collector": "off",
}


class Server(NamedTuple):
    """A server that runs."""

    folder: Path
    process: "subprocess.Popen[bytes]"
    binaries: Path

    def url(self, database: str) -> str:
        """Return the address of one of its databases."""
        return f"postgresql://gateway@/{database}?host={self.folder}"

    def stop(self) -> None:
        """Stop the server at once, and delete its data."""
        self.process.send_signal(signal.SIGQUIT)
        self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


def binaries() -> Path | None:
    """Return the folder of the newest server of a supported version."""
    on_path = shutil.which("postgres")
    folders = [folder for place in _PLACES for folder in Path("/").glob(place)]
    folders += [Path(on_path).resolve().parent] if on_path else []
    found = [(version, folder) for folder in folders if (version := _version(folder)) in SUPPORTED]
    return max(found)[1] if found else None


def _version(folder: Path) -> int:
    if not (folder / "initdb").exists():
        return 0
    said = subprocess.run([folder / "postgres", "--version"], capture_output=True, text=True, check=False).stdout
    number = re.search(r"\b(\d+)", said)
    return int(number[1]) if number else 0


def installed() -> Path:
    """Return the folder of a server's programs. Skip the test where there is none, but fail it with CI=true."""
    folder = binaries()
    if folder is not None:
        return folder
    reason = "no PostgreSQL 14 to 18 on PATH or in /usr/lib/postgresql"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


@cache
def server() -> Server:
    """Return the server of this process."""
    made = _start(installed())
    atexit.register(made.stop)
    return made


def _start(binaries: Path) -> Server:
    return launch(binaries, new_data(binaries))


def new_data(binaries: Path, settings: Mapping[str, str] | None = None) -> Path:
    """Make the data of a server, and return its folder."""
    folder, as_user = as_server_user("pg")
    options = f"-U gateway -A trust -E UTF8 --locale=C --no-sync -D {folder / 'data'}".split()
    _run([*as_user, binaries / "initdb", *options])
    with (folder / "data" / "postgresql.conf").open("a") as config:
        config.writelines(f"{name} = '{value}'\n" for name, value in {**_SETTINGS, **(settings or {})}.items())
    return folder


def copied_data(of: Server) -> Path:
    """Make the data of a standby of a server, and return its folder."""
    folder, as_user = as_server_user("pg")
    options = f"-h {of.folder} -U gateway -D {folder / 'data'} -R -X stream -c fast --no-sync".split()
    _run([*as_user, of.binaries / "pg_basebackup", *options])
    return folder


def launch(binaries: Path, folder: Path) -> Server:
    """Start a server on its data."""
    command: list[str | Path] = [
        *_as_owner(folder),
        binaries / "postgres",
        "-D",
        folder / "data",
        "-c",
        f"unix_socket_directories={folder}",
    ]
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd="/", process_group=0)
    made = Server(folder, process, binaries)
    for _ in range(200):
        if (folder / ".s.PGSQL.5432").exists() and _answers(made):
            return made
        if process.poll() is not None:
            break
        time.sleep(0.05)
    said = (folder / "log").read_text()
    made.stop()
    pytest.fail(f"PostgreSQL did not start: {said}")


def _run(command: Sequence[str | Path]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/")
    if done.returncode:
        pytest.fail(f"{command} failed: {done.stderr}")


def as_server_user(prefix: str) -> tuple[Path, list[str]]:
    """Make a folder for a user that may run a server, which root may not. Return it and how to become that user."""
    # The path of a socket may have about a hundred characters, and pytest's folders are longer. In memory if they are:
    # a disk that others write to can hold up a commit for seconds.
    in_memory = os.environ.get("PYTEST_DEBUG_TEMPROOT") == "/dev/shm"
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir="/dev/shm" if in_memory else "/tmp"))
    if os.geteuid() == 0:
        user = pwd.getpwnam("nobody")
        os.chown(folder, user.pw_uid, user.pw_gid)
    return folder, _as_owner(folder)


def _as_owner(folder: Path) -> list[str]:
    """Return how root becomes the owner of a folder."""
    if os.geteuid() != 0:
        return []
    owner = folder.stat()
    return ["setpriv", f"--reuid={owner.st_uid}", f"--regid={owner.st_gid}", "--clear-groups"]


def _answers(server: Server) -> bool:
    try:
        psycopg.connect(server.url("postgres")).close()
    except psycopg.OperationalError:
        return False
    return True


_numbers = itertools.count(1)


def new_database() -> str:
    """Return the address of a new database with nothing in it."""
    name = f"contract{next(_numbers)}"
    with psycopg.connect(server().url("postgres"), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return server().url(name)


@cache
def database() -> str:
    """Return the address of a database with the store's schema."""
    url = new_database()
    open_schema(Address(url), create=True)
    return url


def emptied_database() -> str:
    """Return the address of the database, with nothing in its tables, as when it was new."""
    try:
        _emptier().execute(_emptying())
    except psycopg.OperationalError:  # a test has ended every connection
        _emptier.cache_clear()
        _emptier().execute(_emptying())
    return database()


@cache
def _emptier() -> psycopg.Connection:
    """Return a connection that is kept: one that has emptied the tables before takes a sixth of the server's time."""
    made = psycopg.connect(database(), autocommit=True, application_name="tests")
    atexit.register(made.close)
    return made


@cache
def _emptying() -> bytes:
    """Return statements that delete all rows: several times faster than TRUNCATE where there are few."""
    with psycopg.connect(database()) as connection:
        rows = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
    tables = sorted({str(name) for (name,) in rows} - {"schema_version", "pings"})
    before = ["SET session_replication_role = replica", "ALTER TABLE ledger ALTER COLUMN id RESTART"]
    after = ["UPDATE pings SET count = 0"]
    return "; ".join([*before, *(f'DELETE FROM "{name}"' for name in tables), *after]).encode()
