"""When a process is known to have ended."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gateway.runtime.process_place import is_gone, own_place

pytestmark = pytest.mark.skipif(not Path("/proc/self/ns/pid").exists(), reason="only Linux says where a process runs")
_CODE = "from gateway.runtime.process_place import own_place; print(own_place(), flush=True); input()"


@contextmanager
def process() -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """Start a process; yield it and its place."""
    with subprocess.Popen([sys.executable, "-c", _CODE], stdin=-1, stdout=-1, text=True) as made:
        assert made.stdout is not None
        yield made, made.stdout.readline().strip()
        made.kill()


def test_process_that_runs_is_not_gone():
    assert own_place()
    assert not is_gone(own_place())
    with process() as (_, place):
        assert place != own_place()
        assert not is_gone(place)


def test_process_that_was_killed_is_gone():
    with process() as (made, place):
        made.kill()
        made.wait()
        assert is_gone(place)


def test_process_is_gone_if_another_has_its_id():
    machine, process_id, started = own_place().split(" ")
    assert is_gone(f"{machine} {process_id} {int(started) - 1}")


@pytest.mark.parametrize("place", ["", "machine", "machine x 1", "machine 0 1", "machine -1 1", "a b c d"])
def test_nothing_is_known_of_other_machines_and_other_forms(place: str):
    assert not is_gone(place)
    machine, _, rest = own_place().partition(" ")
    assert not is_gone(f"{machine}x {rest}")
    assert not is_gone(f"{machine} {place}")
