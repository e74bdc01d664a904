"""Fixtures of the log."""

import logging
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    root, gateway = logging.getLogger(), logging.getLogger("gateway")
    before = root.handlers[:], root.level, gateway.level
    yield
    root.handlers[:], root.level, gateway.level = before
    root.setLevel(before[1])
    gateway.setLevel(before[2])
    logging.captureWarnings(capture=False)
