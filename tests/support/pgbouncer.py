"""A private PgBouncer in transaction mode, in front of the server of `tests.support.postgres`."""

import atexit
import os
import shutil
import subprocess
import time
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest

from tests.support.postgres import as_server_user, server

_PLACES = ("/usr/sbin/pgbouncer", "/opt/homebrew/bin/pgbouncer", "/usr/local/bin/pgbouncer")
_PORT = 6432
# Fewer connections to the server than a store has, so that transactions of one client meet several of them.
_CONFIG = """
[databases]
* = host={server}
[pgbouncer]
listen_addr =
listen_port = {port}
unix_socket_dir = {folder}
auth_type = trust
auth_file = {folder}/users
pool_mode = transaction
default_pool_size = 3
server_round_robin = 1
max_client_conn = 100
logfile = {folder}/log
"""


def pooled(url: str) -> str:
    """Return the address through PgBouncer of a database of the server. Skip the test where none is installed."""
    return f"postgresql://gateway@{urlsplit(url).path}?host={_folder()}&port={_PORT}"


@cache
def _folder() -> Path:
    found = shutil.which("pgbouncer") or next((each for each in _PLACES if Path(each).exists()), None)
    if found is None:
        reason = "no PgBouncer on PATH or in /usr/sbin"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    folder, as_user = as_server_user("pb")
    (folder / "users").write_text('"gateway" ""\n')
    (folder / "ini").write_text(_CONFIG.format(server=server().folder, folder=folder, port=_PORT))
    process = subprocess.Popen(
        [*as_user, found, "-q", folder / "ini"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/"
    )
    atexit.register(_stop, process, folder)
    url = f"postgresql://gateway@/postgres?host={folder}&port={_PORT}"
    for _ in range(200):
        try:
            psycopg.connect(url).close()
        except psycopg.OperationalError:
            time.sleep(0.05)
        else:
            return folder
    pytest.fail(f"PgBouncer did not start: {(folder / 'log').read_text()}")


def _stop(process: "subprocess.Popen[bytes]", folder: Path) -> None:
    process.kill()
    process.wait()
    shutil.rmtree(folder, ignore_errors=True)
