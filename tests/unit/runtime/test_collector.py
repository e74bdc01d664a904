"""Settings of Python's collector of reference cycles."""

import gc
import weakref

import pytest

from gateway.runtime.collector import spare_long_lived_objects


@pytest.fixture
def defaults():
    """Restore the settings, which are the process's own."""
    yield
    gc.unfreeze()
    # As tests/conftest.py does.
    gc.collect()
    gc.freeze()


class Node:
    """An object that can be part of a cycle."""

    other: "Node | None" = None


def cycle() -> "weakref.ref[Node]":
    node = Node()
    node.other = Node()
    node.other.other = node
    return weakref.ref(node)


@pytest.mark.usefixtures("defaults")
def test_objects_of_the_start_are_left_alone_and_later_cycles_are_freed():
    """A process that serves for weeks must not keep what requests leave behind."""
    spare_long_lived_objects()
    assert gc.get_freeze_count() > 1000
    later = cycle()
    gc.collect()
    assert later() is None
    assert gc.isenabled()
