"""What holds for every test: the event loop is never blocked by the gateway's own code."""

from collections.abc import Iterator

import pytest
from blockbuster import BlockBuster, blockbuster_ctx


@pytest.fixture(autouse=True)
def no_blocking_calls() -> Iterator[BlockBuster]:
    """Fail a test in which code of the gateway blocks the event loop: a file read, a sleep, a socket, a lock."""
    with blockbuster_ctx("gateway") as detector:
        yield detector
