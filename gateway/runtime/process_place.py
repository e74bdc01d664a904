"""Where a process runs, so that another process on the same machine can know that it has ended.

A place names the machine and its boot, the namespace of process ids, the id, and when the process started. Ids are used
again, so the start time decides. Only Linux says all of that; elsewhere a place is empty.
"""

import os
import socket
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

_PROC = Path("/proc")
_START_TIME = 19
"""Number of the field in `/proc/PID/stat`, counted from the one after the name."""


class _Place(NamedTuple):
    """The parts of a place."""

    machine: str
    process: int
    started: str


def own_place() -> str:
    """Return the place of this process; empty if the system does not say. Reads files."""
    process = os.getpid()
    try:
        return " ".join((_machine(), str(process), _started(process)))
    except OSError:
        return ""


def is_gone(place: str) -> bool:
    """Say whether the process at a place is known to have ended. False if that is not known. Reads files."""
    try:
        found = _parsed(place)
        if found is None or found.machine != _machine():
            return False
        with suppress(PermissionError):
            # It asks for the process and sends nothing. Another user's process is there, too.
            os.kill(found.process, 0)
        return _started(found.process) != found.started
    except ProcessLookupError:
        return True
    except OSError:
        return False


def _parsed(place: str) -> _Place | None:
    machine, _, rest = place.partition(" ")
    process, _, started = rest.partition(" ")
    return _Place(machine, int(process), started) if process.isdecimal() and int(process) > 0 else None


def _machine() -> str:
    boot = (_PROC / "sys/kernel/random/boot_id").read_text().strip()
    spaces = (str((_PROC / "self/ns" / each).readlink()) for each in ("pid", "time"))
    return "/".join((socket.gethostname(), boot, *spaces))


def _started(process: int) -> str:
    """Return when a process started, in ticks since the boot. Raise `OSError`."""
    # The name is in parentheses, and can have some of its own.
    fields = (_PROC / str(process) / "stat").read_text().rpartition(")")[2].split()
    return fields[_START_TIME]
