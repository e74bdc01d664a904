"""Random bytes for ids, read from the system in blocks. One system call per id would cost more than the rest of it."""

import os

_BLOCK = 8192


class RandomPool:
    """A source of cryptographically random bytes. Each byte is returned once."""

    def __init__(self) -> None:
        self._block = b""
        self._at = 0

    def bytes(self, count: int) -> bytes:
        """Return `count` new bytes."""
        if self._at + count > len(self._block):
            self._block, self._at = os.urandom(_BLOCK + count), 0
        start = self._at
        self._at = start + count
        return self._block[start : self._at]
