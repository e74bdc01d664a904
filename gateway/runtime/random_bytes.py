"""Randomness for ids, fetched from the system in blocks: a system call for each id costs more than the id."""

import os

_BLOCK = 8192


class RandomPool:
    """Bytes that nobody can foresee, each given out once."""

    def __init__(self) -> None:
        self._block = b""
        self._at = 0

    def bytes(self, count: int) -> bytes:
        """Return `count` fresh bytes."""
        if self._at + count > len(self._block):
            self._block, self._at = os.urandom(_BLOCK + count), 0
        start = self._at
        self._at = start + count
        return self._block[start : self._at]
