"""What holds for every test: gateway code never blocks the event loop, and log levels do not leak into other tests.

It also keeps the suite short: files in memory, tests that wait beside tests that compute, and a small heap.
"""

import gc
import logging
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web_app
from blockbuster import blockbuster_ctx
from xdist.scheduler import LoadScopeScheduling

from tests.support.order import mixed

# Importing `jsonschema` compiles 38 grammars for the syntax of IRIs if this package is installed, as another needs it.
# That takes each worker two seconds, and no test checks an IRI.
sys.modules["rfc3987_syntax"] = None  # type: ignore[assignment]

_MEMORY = Path("/dev/shm")
_ENOUGH_BYTES = 4 * 2**30
_SETS_UP_FOR_ITS_MODULE = (
    "tests/packaging/",
    "tests/contract/test_postgres_failover.py",
    "tests/e2e/test_dashboard.py",
    "tests/e2e/test_demo",
)


def pytest_configure(config: pytest.Config) -> None:
    """Keep the tests' folders in memory where there is room: stores sync each write, and wait for the disk.

    No test is about what survives a crash of the machine. `--basetemp` and `PYTEST_DEBUG_TEMPROOT` name another place.
    """
    if config.option.basetemp is None and os.access(_MEMORY, os.W_OK):
        may_run_programs = not os.statvfs(_MEMORY).f_flag & os.ST_NOEXEC
        if may_run_programs and shutil.disk_usage(_MEMORY).free >= _ENOUGH_BYTES:
            os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(_MEMORY))


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Spare the garbage collector the thousands of tests and modules, which stay until the end."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.collect()
        gc.freeze()
        gc.enable()


@pytest.fixture(scope="session", autouse=True)
def no_blocking_calls() -> Iterator[None]:
    """Fail a test in which code of the gateway blocks the event loop: a file read, a sleep, a socket, a lock.

    For the whole session, because replacing 58 functions and restoring them takes longer than many tests.
    """
    with blockbuster_ctx("gateway"):
        yield


@pytest.fixture(autouse=True)
def restored_log_levels() -> Iterator[None]:
    """Restore the log levels that a test changes, such as those of the command line."""
    loggers = (logging.getLogger(), logging.getLogger("gateway"))
    levels = [logger.level for logger in loggers]
    yield
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


@pytest.fixture(autouse=True)
def released_applications() -> Iterator[None]:
    """Release the gateways of a test: aiohttp keeps the last 1,024 pairs of a handler and its applications.

    A process that serves has few. Here they would be a thousand gateways, which the garbage collector goes through.
    """
    yield
    web_app._cached_build_middleware.cache_clear()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Give a property test, which is a hundred tests in one, three times the time of a test. Mix tests for workers.

    The time of a test that is marked is at least that of the others, which is longer in CI.
    """
    usual = float(config.getini("timeout") or 0)
    for item in items:
        function = getattr(item, "obj", None)
        is_property = getattr(function, "is_hypothesis_test", False) or item.name == "runTest"
        marker = item.get_closest_marker("timeout")
        wanted = float(marker.args[0]) if marker is not None else 60.0 if is_property else usual
        if wanted < usual or (is_property and marker is None):
            item.add_marker(pytest.mark.timeout(max(wanted, usual)), append=False)
    if hasattr(config, "workerinput"):
        places = mixed([item.nodeid for item in items])
        items.sort(key=lambda item: places[item.nodeid])


class ModulesTogether(LoadScopeScheduling):
    """Give each test to the next free worker, but some modules as a whole: what they set up is set up once.

    They come first. The marks of `--dist loadgroup` have no effect with pytest 9.2 and pytest-xdist 3.8 (pytest-xdist
    issue 1386).
    """

    def _split_scope(self, nodeid: str) -> str:
        return nodeid.partition("::")[0] if nodeid.startswith(_SETS_UP_FOR_ITS_MODULE) else nodeid


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    """Called once, in the process that distributes the tests."""
    return ModulesTogether(config, log)
