"""A stretch of an event log, as a store keeps it.

Writing one and reading it take about 10 ms for a MiB and belong in a thread; a part is a copy, which nobody changes.
"""

import zlib
from array import array
from itertools import accumulate
from operator import sub

import msgspec

_VERSION = 1


class _Dump(msgspec.Struct, array_like=True):
    dropped: int
    last_id: str | None
    dropped_id: str | None
    is_closed: bool
    outputs: int
    has_error: bool
    sizes: list[int]
    data: bytes


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """A stretch of a log as it was at one moment, up to its end then."""

    first: int
    """The number of its first event."""
    last_id: str | None
    dropped_id: str | None
    is_closed: bool
    outputs: int
    has_error: bool
    begin: int
    """Where its first event begins, and in `ends` where each ends, counted from the run's first byte."""
    ends: "array[int]"
    data: bytes

    @property
    def end(self) -> int:
        """The number of the event after its last."""
        return self.first + len(self.ends)

    def dump(self) -> bytes:
        """Write it for a store: a byte for the version, then compressed."""
        begins = (self.begin, *self.ends[:-1])
        content = _Dump(
            dropped=self.first,
            last_id=self.last_id,
            dropped_id=self.dropped_id,
            is_closed=self.is_closed,
            outputs=self.outputs,
            has_error=self.has_error,
            sizes=list(map(sub, self.ends, begins)),
            data=self.data,
        )
        return bytes([_VERSION]) + zlib.compress(msgspec.msgpack.encode(content), 1)

    @classmethod
    def load(cls, dumped: bytes, begin: int = 0) -> "Part":
        """Read what `dump` wrote, as if its first event began there. Raise `ValueError` for anything else."""
        if dumped[:1] != bytes([_VERSION]):
            raise ValueError("an event log of another version, or none")
        try:
            content = msgspec.msgpack.decode(zlib.decompress(dumped[1:]), type=_Dump)
        except (zlib.error, msgspec.MsgspecError) as exc:
            raise ValueError(f"not an event log: {exc}") from exc
        if min(content.sizes, default=1) < 1 or sum(content.sizes) != len(content.data):
            raise ValueError("not an event log: its sizes do not add up")
        ends = accumulate(content.sizes, initial=begin)
        next(ends)
        return cls(
            first=content.dropped,
            last_id=content.last_id,
            dropped_id=content.dropped_id,
            is_closed=content.is_closed,
            outputs=content.outputs,
            has_error=content.has_error,
            begin=begin,
            ends=array("Q", ends),
            data=content.data,
        )
