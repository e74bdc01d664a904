"""Consecutive events of an event log, in the form that the store holds.

`dump` and `load` take about 10 ms per MiB, so large chunks belong in a thread. A chunk is an immutable copy.
"""

import zlib
from array import array
from collections.abc import Iterator
from itertools import accumulate
from operator import sub

import msgspec

from gateway.streams.rules.sse import Event, read_event

_VERSION = 1
_SMALLEST_WINDOW, _LARGEST_WINDOW = 9, 15
"""Bits of the number of bytes that are searched for repetitions."""


class _Dump(msgspec.Struct, array_like=True):
    dropped: int
    last_id: str | None
    dropped_id: str | None
    is_closed: bool
    outputs: int
    has_error: bool
    sizes: list[int]
    data: bytes


class LogChunk(msgspec.Struct, frozen=True, kw_only=True):
    """The events of a log from `first` to its end, and the log's state, at one moment."""

    first: int
    """The number of the first event."""
    last_id: str | None
    dropped_id: str | None
    is_closed: bool
    outputs: int
    has_error: bool
    begin: int
    """Offset of the first event from the run's first byte. `ends` has the offset of each event's end."""
    ends: "array[int]"
    data: bytes

    @property
    def end(self) -> int:
        """The number of the event after the last."""
        return self.first + len(self.ends)

    def events_from(self, number: int) -> Iterator[Event]:
        """Return the events from the one with this number on, which must not come before `first`."""
        index = number - self.first
        begin = self.ends[index - 1] if index > 0 else self.begin
        for end in self.ends[index:]:
            yield read_event(self.data[begin - self.begin : end - self.begin])
            begin = end

    def dump(self) -> bytes:
        """Serialize the chunk: one byte for the version, then compressed MessagePack."""
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
        return bytes([_VERSION]) + _compressed(msgspec.msgpack.encode(content))

    @classmethod
    def load(cls, dumped: bytes, begin: int = 0) -> "LogChunk":
        """Read a dump; `begin` becomes the offset of its first event. Raise `ValueError` if the dump is invalid."""
        if dumped[:1] != bytes([_VERSION]):
            raise ValueError("not an event log, or one of another version")
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


def _compressed(data: bytes) -> bytes:
    """Compress, with memory of about the size of the data.

    The default, which is 256 KiB of cleared memory, takes twenty times longer than a few events themselves.
    """
    window = min(max(len(data).bit_length(), _SMALLEST_WINDOW), _LARGEST_WINDOW)
    # The second number is of the table of the repetitions that are searched for: twice the window.
    compressor = zlib.compressobj(1, zlib.DEFLATED, window, max(1, window - 7))
    return compressor.compress(data) + compressor.flush()
