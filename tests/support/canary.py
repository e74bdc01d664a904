"""Canaries: secrets of the running test, searched for in everything that leaves the gateway.

See docs/architecture.md, Invariants 1.

The fixtures of `conftest.py` tell the canaries which secrets there are; answers, log records, metric pages, databases
and upstream's requests are brought here to be looked through. So every edge test is a canary test.
"""

import json
import logging
import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from gateway.simulator import Simulator

_SHOWN = 60


class Canaries:
    """The secrets of one test, by what they are."""

    def __init__(self) -> None:
        self._secrets: dict[bytes, str] = {}
        self.found: list[str] = []

    def clear(self) -> None:
        self._secrets, self.found = {}, []

    def add(self, what: str, secret: str) -> None:
        """Search for a secret from now on."""
        self._secrets[secret.encode()] = what

    def look_through(self, where: str, data: bytes) -> None:
        """Fail if a secret is in there."""
        for secret, what in self._secrets.items():
            if secret in data:
                at = data.index(secret)
                text = data[max(0, at - _SHOWN) : at] + b"[HERE]" + data[at + len(secret) : at + len(secret) + _SHOWN]
                # Kept as well, because a failure inside of a handler of logs would be swallowed.
                self.found.append(f"{what} is in {where}: {text!r}")
                raise AssertionError(self.found[-1])

    def look_through_reply(self, status: int, headers: Iterable[tuple[str, str]], body: bytes) -> None:
        head = "\n".join(f"{name}: {value}" for name, value in headers)
        self.look_through(f"an answer ({status})", head.encode("utf-8", "surrogateescape") + b"\n\n" + body)

    def look_through_folder(self, folder: Path) -> None:
        """Look through every byte of every file: a database keeps deleted rows, and a journal beside it."""
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                self.look_through(f"the file {path.name}", path.read_bytes())

    def look_through_upstream(self, upstream: Simulator) -> None:
        """Nothing of a caller's may have arrived, and the token only in the API's Authorization header."""
        for seen in upstream.requests:
            headers = dict(seen.headers)
            authorization = headers.pop("authorization", None)
            wanted = f"Bearer {upstream.token}" if seen.origin == "api" else None
            assert authorization == wanted, f"{seen.operation} on {seen.origin} came with another Authorization"
            lines = [seen.method, seen.path, seen.query, seen.body, *(f"{n}: {v}" for n, v in headers.items())]
            self.look_through(f"upstream's {seen.operation}", "\n".join(lines).encode("utf-8", "surrogateescape"))


CANARIES = Canaries()
"""Those of the test that runs."""


class Listener(logging.Handler):
    """Hears every record of every logger, looks for canaries, and keeps what tells of a crash."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.crashes: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        text = "\n".join([record.getMessage(), _fields(record)])
        if record.exc_info and record.exc_info[0] is not None:
            text += "".join(traceback.format_exception(*record.exc_info))
        # The simulator's own trouble with callers who hang up is not the gateway's.
        if "/gateway/simulator/" in text and "/gateway/edge/" not in text:
            return
        if record.levelno >= logging.ERROR or "Traceback" in text:
            self.crashes.append(f"{record.name}: {text}")
        try:
            CANARIES.look_through(f"a log line of {record.name}", text.encode("utf-8", "surrogateescape"))
        except AssertionError as exc:
            self.crashes.append(str(exc))


_PLAIN = frozenset(vars(logging.makeLogRecord({})))


def _fields(record: logging.LogRecord) -> str:
    fields: dict[str, Any] = {name: value for name, value in vars(record).items() if name not in _PLAIN}
    return json.dumps(fields, default=str)
