"""What holds for every test: gateway code never blocks the event loop, and log levels do not leak into other tests."""

import logging
from collections.abc import Iterator
from typing import Any

import pytest
from blockbuster import BlockBuster, blockbuster_ctx
from xdist.scheduler import LoadScopeScheduling


@pytest.fixture(autouse=True)
def no_blocking_calls() -> Iterator[BlockBuster]:
    """Fail a test in which code of the gateway blocks the event loop: a file read, a sleep, a socket, a lock."""
    with blockbuster_ctx("gateway") as detector:
        yield detector


@pytest.fixture(autouse=True)
def restored_log_levels() -> Iterator[None]:
    """Restore the log levels that a test changes, such as those of the command line."""
    loggers = (logging.getLogger(), logging.getLogger("gateway"))
    levels = [logger.level for logger in loggers]
    yield
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give a property test, which is a hundred tests in one, three times the time of a test."""
    for item in items:
        function = getattr(item, "obj", None)
        is_property = getattr(function, "is_hypothesis_test", False) or item.name == "runTest"
        if is_property and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(max(60.0, float(item.config.getini("timeout") or 0))))


class PackagingTogether(LoadScopeScheduling):
    """Give each test to the next free worker, but a module of tests/packaging as a whole: what it builds is built once.

    The marks of `--dist loadgroup` have no effect with pytest 9.2 and pytest-xdist 3.8 (pytest-xdist issue 1386).
    """

    def _split_scope(self, nodeid: str) -> str:
        return nodeid.partition("::")[0] if nodeid.startswith("tests/packaging/") else nodeid


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    """Called once, in the process that distributes the tests."""
    return PackagingTogether(config, log)
