"""Settings of the C library's allocator."""

import ctypes
import sys

_M_MMAP_THRESHOLD, _M_ARENA_MAX = -3, -8  # malloc.h
_LARGE = 256 * 1024
_ARENAS = 2


def return_freed_memory() -> None:
    """Have glibc return the memory of large freed blocks to the system at once. Without glibc, do nothing.

    By default the first freed block of some megabytes makes glibc take all later ones of that size from its heap, where
    smaller blocks keep them from being returned: bodies of 8 MB can leave several times their size behind. Each thread
    also gets a heap of its own.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGE)
        mallopt(_M_ARENA_MAX, _ARENAS)
