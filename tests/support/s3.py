"""An S3-compatible server for tests: moto's, in its own process."""

import atexit
import contextlib
import itertools
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.support.ports import free_port

CREDENTIALS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_REGION": "us-east-1"}
_PATIENCE = 30.0
_NUMBERS = itertools.count()


@contextlib.contextmanager
def s3_server() -> Iterator[str]:
    """Start a server on a free loopback port; yield its URL. Its data is lost when it ends."""
    port = free_port()
    command = [sys.executable, "-W", "ignore", "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, **CREDENTIALS}
    )
    url = f"http://127.0.0.1:{port}"
    try:
        _wait_for(url, process)
        yield url
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


def make_bucket(url: str, name: str) -> str:
    """Make a bucket; return the `[outputs] url` of a folder in it."""
    with urllib.request.urlopen(urllib.request.Request(f"{url}/{name}", method="PUT"), timeout=10):
        return f"s3://{name}/copies?endpoint={url}&region=us-east-1"


def _wait_for(url: str, process: "subprocess.Popen[bytes]") -> None:
    end = time.monotonic() + _PATIENCE
    while True:
        try:
            with urllib.request.urlopen(f"{url}/moto-api/", timeout=2):
                return
        except (urllib.error.URLError, OSError):
            if process.poll() is not None or time.monotonic() > end:
                raise
            time.sleep(0.05)  # between two attempts to reach a process that starts


@cache
def _server() -> str:
    """Return the server of this process."""
    stack = contextlib.ExitStack()
    url = stack.enter_context(s3_server())
    atexit.register(stack.close)
    return url


@pytest.fixture(scope="session")
def s3() -> str:
    """One server for all tests of this process, of whatever folder; each test makes its own bucket."""
    return _server()


@pytest.fixture(params=["folder", "bucket"])
def outputs_url(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The `[outputs] url`: a folder, then a bucket."""
    if request.param == "folder":
        return str(tmp_path / "outputs")
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    return make_bucket(request.getfixturevalue("s3"), f"bucket-{next(_NUMBERS)}")
