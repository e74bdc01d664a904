"""The memory of another process, as the kernel counts it."""

import os
from pathlib import Path

MIB = 1024 * 1024


def resident_bytes(pid: int) -> int:
    """Return what a process holds in memory now."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def peak_bytes(pid: int) -> int:
    """Return the most that a process has held in memory."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
