"""Search everything that leaves the gateway for the secrets of the running test.

See docs/architecture.md, Invariants 1. The fixtures of `tests/gateway/conftest.py` add the secrets; responses, log
records, the metrics page, the database and the requests that upstream received are scanned. So every whole-gateway test
also checks that no secret leaks.
"""

import json
import logging
import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from gateway.simulator import Simulator

_SHOWN = 60


class SecretScanner:
    """The secrets of one test, with a description of each."""

    def __init__(self) -> None:
        self._secrets: dict[bytes, str] = {}
        self._sent: set[bytes] = set()
        self._stored: set[bytes] = set()
        self.found: list[str] = []

    def clear(self) -> None:
        self._secrets, self._sent, self._stored, self.found = {}, set(), set(), []

    def add(self, what: str, secret: str, *, is_sent: bool = False, is_stored: bool = False) -> None:
        """Search for a secret from now on. `is_sent`: requests to upstream may contain it; `is_stored`: files may."""
        self._secrets[secret.encode()] = what
        if is_sent:
            self._sent.add(secret.encode())
        if is_stored:
            self._stored.add(secret.encode())

    def scan(self, where: str, data: bytes, *, is_request: bool = False, is_file: bool = False) -> None:
        """Fail if `data`, or a request to upstream, contains a secret."""
        for secret, what in self._secrets.items():
            is_expected = (is_request and secret in self._sent) or (is_file and secret in self._stored)
            if secret in data and not is_expected:
                at = data.index(secret)
                text = data[max(0, at - _SHOWN) : at] + b"[HERE]" + data[at + len(secret) : at + len(secret) + _SHOWN]
                # Kept as well, because logging swallows exceptions raised in a handler.
                self.found.append(f"{what} is in {where}: {text!r}")
                raise AssertionError(self.found[-1])

    def scan_reply(self, status: int, headers: Iterable[tuple[str, str]], body: bytes) -> None:
        head = "\n".join(f"{name}: {value}" for name, value in headers)
        self.scan(f"an answer ({status})", head.encode("utf-8", "surrogateescape") + b"\n\n" + body)

    def scan_folder(self, folder: Path) -> None:
        """Scan every byte of every file: a database keeps deleted rows, and has a journal beside it."""
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                self.scan(f"the file {path.name}", path.read_bytes(), is_file=True)

    def scan_upstream_requests(self, upstream: Simulator) -> None:
        """Fail if upstream received a secret of a caller, or the token outside the API's Authorization header."""
        for seen in upstream.requests:
            headers = dict(seen.headers)
            authorization = headers.pop("authorization", None)
            wanted = f"Bearer {upstream.token}" if seen.origin == "api" else None
            assert authorization == wanted, f"{seen.operation} on {seen.origin} came with another Authorization"
            lines = [seen.method, seen.path, seen.query, seen.body, *(f"{n}: {v}" for n, v in headers.items())]
            self.scan(
                f"upstream's {seen.operation}", "\n".join(lines).encode("utf-8", "surrogateescape"), is_request=True
            )


SCANNER = SecretScanner()
"""The scanner of the running test."""


class LogScanner(logging.Handler):
    """Scans every log record for secrets and keeps those that report an error."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.errors: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        text = "\n".join([record.getMessage(), _fields(record)])
        if record.exc_info and record.exc_info[0] is not None:
            text += "".join(traceback.format_exception(*record.exc_info))
        # Errors of the simulator about clients that disconnect are not the gateway's.
        if "/gateway/simulator/" in text and "/gateway/http/" not in text:
            return
        if record.levelno >= logging.ERROR or "Traceback" in text:
            self.errors.append(f"{record.name}: {text}")
        try:
            SCANNER.scan(f"a log line of {record.name}", text.encode("utf-8", "surrogateescape"))
        except AssertionError as exc:
            self.errors.append(str(exc))


_PLAIN = frozenset(vars(logging.makeLogRecord({})))


def _fields(record: logging.LogRecord) -> str:
    fields: dict[str, Any] = {name: value for name, value in vars(record).items() if name not in _PLAIN}
    return json.dumps(fields, default=str)
