"""External programs that a test needs: the test is skipped where one is absent, and fails where CI is set."""

import functools
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import pytest

_NAMES = {
    "chromium": ("chromium", "chromium-browser", "google-chrome"),
}


def find_tool(name: str) -> str | None:
    """Return the path of a program, under any of the names it goes by; None if it is not installed."""
    # Servers are in /usr/sbin, and programs from packages are beside this Python.
    places = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", str(Path(sys.executable).parent)))
    return next((path for each in _NAMES.get(name, (name,)) if (path := shutil.which(each, path=places))), None)


def require_tool(name: str) -> str:
    """Return the path of a program. Without it the test is skipped, or fails where the variable CI is set."""
    path = find_tool(name)
    if path is None:
        absent(f"{name} is not installed")
    return path


def absent(reason: str) -> NoReturn:
    """End the test because something it needs is absent: a skip, or a failure with CI set."""
    if os.environ.get("CI"):
        pytest.fail(f"{reason}; with CI set nothing is skipped", pytrace=False)
    pytest.skip(reason)


def clean_environment(**more: str) -> dict[str, str]:
    """Return an environment without proxies and tokens, with only what a program needs to start."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
    return kept | more


@functools.cache
def make_certificate(folder: Path) -> tuple[Path, Path]:
    """Make a certificate for 127.0.0.1 and its key."""
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    subprocess.run(
        [
            require_tool("openssl"),
            *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2"),
            *("-keyout", str(key), "-out", str(certificate)),
        ],
        check=True,
        capture_output=True,
    )
    return certificate, key
