"""The lines of the access log, as records."""

import logging
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.http_calls import Reply, ask
from tests.support.stack import Stack
from tests.support.upstream import version_of


async def create_story(stack: Stack, *, wait: bool = False, **given: Any) -> Reply:
    """Create a prediction whose model is known from the start."""
    version = f"acme/storyteller:{version_of(stack.upstream, 'acme/storyteller')}"
    body = {"version": version, "input": {"prompt": "a"} | given}
    return await ask(stack, "POST", "/v1/predictions", json=body, headers={"Prefer": "wait"} if wait else {})


class AccessLog(logging.Handler):
    """The records of the access log, as dictionaries of their fields."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[dict[str, Any]] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a record."""
        plain = vars(logging.makeLogRecord({}))
        self.lines.append({name: value for name, value in vars(record).items() if name not in plain})

    def of(self, route: str) -> dict[str, Any]:
        """Return the only line of a route."""
        (line,) = [line for line in self.lines if line["route"] == route]
        return line


@pytest.fixture
def access_log() -> Iterator[AccessLog]:
    """Collect the access log during a test."""
    handler = AccessLog()
    logging.getLogger("gateway.access").addHandler(handler)
    yield handler
    logging.getLogger("gateway.access").removeHandler(handler)
