"""Read secrets from environment variables and files. Error messages never contain a value."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

_MOST_BYTES: Final = 65_536
_SHOWN_NAME: Final = re.compile(r"[A-Z][A-Z0-9_]{0,63}")


class SecretMissing(Exception):
    """A secret cannot be read; the message says why."""


def from_environment(name: str, environ: Mapping[str, str]) -> str:
    """Read a secret from an environment variable."""
    # An unusual name may be the secret itself, written into the wrong setting.
    shown = f"variable {name}" if _SHOWN_NAME.fullmatch(name) else "variable given here"
    value = environ.get(name)
    if value is None:
        raise SecretMissing(f"the environment {shown} is not set")
    if not value.strip():
        raise SecretMissing(f"the environment {shown} is empty")
    return _usable(value, f"the environment {shown}")


def from_file(path: Path) -> str:
    """Read a secret from a file that contains only the secret."""
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
    except OSError as problem:
        raise SecretMissing(f"the file cannot be read: {problem.strerror or type(problem).__name__}") from None
    if len(content) > _MOST_BYTES:
        raise SecretMissing("the file is too large to be a secret")
    text = content.decode("utf-8", "replace")
    if not text.strip():
        raise SecretMissing("the file is empty")
    return _usable(text, "the file")


def _usable(value: str, where: str) -> str:
    value = value.strip()
    if not value.isascii() or not value.isprintable() or " " in value:
        raise SecretMissing(f"{where} does not contain a key or token (printable ASCII without spaces)")
    return value
