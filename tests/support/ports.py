"""Free ports for programs that must be given one before they start.

A port that the kernel picks (bind to 0, close) can be taken at once by any outgoing connection. So these are below the
kernel's ephemeral range, each worker of a test run has a range of its own, and no port is given twice.
"""

import itertools
import os
import socket

_FIRST, _PER_WORKER = 20_000, 600
_worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
# Another test run on the same machine most likely begins elsewhere in the range.
_numbers = itertools.count(os.getpid() % _PER_WORKER)


def free_port(count: int = 1) -> int:
    """Return a free loopback port; with `count`, the first of so many free ports in a row."""
    for _ in range(_PER_WORKER):
        port = _FIRST + _worker % 20 * _PER_WORKER + next(_numbers) % (_PER_WORKER - count)
        if all(_is_free(port + n) for n in range(count)):
            for _ in range(count - 1):
                next(_numbers)
            return port
    raise AssertionError("no free port")


def _is_free(port: int) -> bool:
    try:
        with socket.create_server(("127.0.0.1", port)):
            return True
    except OSError:
        return False
