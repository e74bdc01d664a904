"""A bounded log of one run's events, and cursors into it.

A cursor is the number of the next event to read: 0 is the run's first event, `end` the first that is not in the log
yet. Numbers do not change when events are dropped from the front. So the state of a reader is one integer, and readers
do not affect each other. A cursor *is behind* if its event was dropped; `read` refuses it.

The bytes of all events are in one buffer, with 8 bytes per event for its end. A log holds at most `max_bytes` of
events, or only its newest event if that is longer, so a new event can always be read once.

For the store, a log is divided into chunks (`log_chunk`): `chunk_from` copies the newest events, and `from_chunks`
builds the log again, with the same event numbers.
"""

import re
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Sequence

import msgspec

from gateway.streams.rules.log_chunk import LogChunk
from gateway.streams.rules.sse import Event, is_done, read_event

OUTPUT, ERROR = "output", "error"
_ID = re.compile(r"([0-9]{1,15}):([0-9]{1,15})")
_LINE_ENDS = (b"\n"[0], b"\r"[0])
LONG = 256 * 1024
"""Bytes of an event that is not parsed again, and written in pieces."""


class Dropped(msgspec.Struct, frozen=True):
    """Events after the one with that id were dropped, or may have been: a reader would miss them."""


class Unknown(msgspec.Struct, frozen=True):
    """No event of this log has that id, and no dropped event can have had it."""


class Behind(LookupError):
    """The event at the cursor was dropped."""


def order(event_id: str) -> tuple[int, int] | None:
    """Parse `<unix s>:<n>` into a pair that sorts in the order of the events. `None` for an id of another form."""
    match = _ID.fullmatch(event_id)
    return (int(match[1]), int(match[2])) if match else None


class EventLog:
    """The events of one run, newest last. It holds bytes only, and does not know its readers."""

    __slots__ = (
        "_base",
        "_buffer",
        "_dropped_id",
        "_ends",
        "_first",
        "_head",
        "_last_id",
        "_long_ids",
        "has_error",
        "is_closed",
        "max_bytes",
        "outputs",
    )

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.is_closed = False
        """Whether the log is complete: `done` was appended, or `close` was called."""
        self.outputs = 0
        """Number of `output` events so far, dropped ones included."""
        self.has_error = False
        """Whether there was an `error` event, dropped ones included."""
        self._buffer = bytearray()
        self._base = 0
        # The end of each event, as an offset from the run's first byte. Entries before `_head` are of dropped events.
        self._ends = array("Q")
        self._head = 0
        self._first = 0
        self._last_id: str | None = None
        self._dropped_id: str | None = None  # the highest id among dropped events
        # The ids of long events, by the events' ends.
        self._long_ids: dict[int, str | None] = {}

    @property
    def end(self) -> int:
        """The cursor after the newest event, which is the number of events so far."""
        return self._first + len(self._ends) - self._head

    @property
    def dropped(self) -> int:
        """Number of events dropped from the front, which is the cursor of the oldest event in the log."""
        return self._first

    @property
    def size(self) -> int:
        """Bytes of events in the log."""
        return len(self._buffer)

    @property
    def last_id(self) -> str | None:
        """The newest id of an event: the one to resume upstream's stream after."""
        return self._last_id

    def append(self, event: Event) -> int:
        """Append an event and return its number. Raise `ValueError` if the log is closed, or the event is empty."""
        if self.is_closed:
            raise ValueError("the log is closed")
        if not event.raw:
            raise ValueError("the event is empty")
        number = self.end
        self._buffer += event.raw
        self._ends.append(self._base + len(self._buffer))
        if len(event.raw) > LONG:
            self._long_ids[self._ends[-1]] = event.id
        if event.id:
            self._last_id = event.id
        self.outputs += event.name == OUTPUT
        self.has_error |= event.name == ERROR
        self.is_closed = is_done(event)
        self._drop()
        return number

    def close(self) -> None:
        """Mark the log complete without a `done` event."""
        self.is_closed = True

    def start(self) -> int:
        """Return the cursor of the run's first event. It is behind once any event was dropped."""
        return 0

    def after(self, last_event_id: str) -> int | Dropped | Unknown:
        """Return the cursor after the event with that id.

        An id that is not in the log is `Dropped` if it is that of a dropped event or sorts before one. If ids cannot be
        compared, it is `Dropped` once any event with an id was dropped. Otherwise it is `Unknown`: it is from another
        log (a replay, another run), invented, or of an event that is not in this log yet. Guessing a position by the
        order of ids could skip or repeat events, so the caller decides. If several events have the id, the first
        counts, so that none is skipped.
        """
        number = self._find(last_event_id)
        if number is not None:
            return number + 1
        if self._dropped_id is None or not last_event_id:
            return Unknown()
        wanted, dropped = order(last_event_id), order(self._dropped_id)
        return Dropped() if wanted is None or dropped is None or wanted <= dropped else Unknown()

    def has(self, event_id: str) -> bool:
        """Return whether an event with that id is in the log, or may have been dropped from it."""
        return not isinstance(self.after(event_id), Unknown)

    def is_behind(self, cursor: int) -> bool:
        """Return whether the event at the cursor was dropped."""
        return cursor < self._first

    def read(self, cursor: int, limit_bytes: int) -> tuple[bytes, int]:
        """Return the bytes of complete events from the cursor on, and the cursor after them.

        Returns at most `limit_bytes`, but at least one event if there is one. At the end of the log, returns no bytes
        and the same cursor. Raise `Behind` if the cursor is behind, `ValueError` if it is out of range.
        """
        if cursor < 0 or cursor > self.end:
            raise ValueError(f"cursor {cursor} is not in 0..{self.end}")
        if cursor < self._first:
            raise Behind(f"event {cursor} has been dropped; the oldest is {self._first}")
        if cursor == self.end:
            return b"", cursor
        index = self._head + cursor - self._first
        begin = self._begin(index)
        upto = max(index + 1, bisect_right(self._ends, begin + limit_bytes, index))
        with memoryview(self._buffer) as view:
            data = bytes(view[begin - self._base : self._ends[upto - 1] - self._base])
        return data, cursor + upto - index

    def chunk_from(self, cursor: int) -> LogChunk:
        """Copy the events from the cursor on, or all events in the log if it is behind."""
        first = max(cursor, self._first)
        index = self._head + first - self._first
        begin = self._begin(index)
        with memoryview(self._buffer) as view:
            data = bytes(view[begin - self._base :])
        return LogChunk(
            first=first,
            last_id=self._last_id,
            dropped_id=self._dropped_id,
            is_closed=self.is_closed,
            outputs=self.outputs,
            has_error=self.has_error,
            begin=begin,
            ends=self._ends[index:],
            data=data,
        )

    @classmethod
    def from_chunks(cls, dumps: Sequence[bytes], max_bytes: int) -> "EventLog":
        """Build a log from the dumps of its chunks, at least one, in order. Event numbers stay the same.

        Raise `ValueError` for an invalid dump, or a gap between chunks.
        """
        log = cls(max_bytes)
        for number, dump in enumerate(dumps):
            chunk = LogChunk.load(dump, log._base + len(log._buffer))
            if number == 0:
                log._first = chunk.first
            elif chunk.first != log.end:
                raise ValueError(f"not an event log: a chunk starts at {chunk.first}, expected {log.end}")
            log._buffer += chunk.data
            log._ends += chunk.ends
            if len(chunk.data) > LONG:
                log._note_long(log.end - len(chunk.ends))
            log._last_id = chunk.last_id
            log._dropped_id = chunk.dropped_id
            log.is_closed = chunk.is_closed
            log.outputs = chunk.outputs
            log.has_error = chunk.has_error
            log._drop()
        return log

    def _begin(self, index: int) -> int:
        return self._ends[index - 1] if index > self._head else self._base

    def _drop(self) -> None:
        """Drop events from the front until the rest fits, or only the newest is left."""
        excess = len(self._buffer) - self.max_bytes
        if excess <= 0:
            return
        # The last event to drop: the first that ends at or after the excess bytes, but never the newest.
        last = min(bisect_right(self._ends, self._base + excess - 1, self._head), len(self._ends) - 2)
        if last < self._head:
            return
        for index in range(self._head, last + 1):
            if event_id := self._id_at(index):
                self._dropped_id = _later(self._dropped_id, event_id)
            self._long_ids.pop(self._ends[index], None)
        dropped_bytes = self._ends[last] - self._base
        del self._buffer[:dropped_bytes]
        self._base += dropped_bytes
        self._first += last + 1 - self._head
        self._head = last + 1
        if self._head * 2 > len(self._ends):  # amortized: removing entries one by one would be quadratic
            del self._ends[: self._head]
            self._head = 0

    def _note_long(self, number: int) -> None:
        """Note the ids of long events from the event with that number on."""
        for index in range(self._head + number - self._first, len(self._ends)):
            if self._ends[index] - self._begin(index) > LONG:
                self._long_ids[self._ends[index]] = self._id_at(index)

    def _id_at(self, index: int) -> str | None:
        end = self._ends[index]
        if end in self._long_ids:
            return self._long_ids[end]
        return read_event(bytes(self._buffer[self._begin(index) - self._base : end - self._base])).id

    def _find(self, event_id: str) -> int | None:
        """Return the number of the first event with this id.

        Searches the bytes instead of parsing every event, because logs are long. Ids that were not UTF-8 are not found.
        """
        wanted = event_id.encode("utf-8", "replace")
        if not wanted:
            return None
        low = 0
        for end, long_id in self._long_ids.items():
            index = bisect_left(self._ends, end, self._head)
            if (found := self._find_between(event_id, wanted, low, self._begin(index) - self._base)) is not None:
                return found
            if long_id == event_id:
                return self._first + index - self._head
            low = end - self._base
        return self._find_between(event_id, wanted, low, len(self._buffer))

    def _find_between(self, event_id: str, wanted: bytes, low: int, high: int) -> int | None:
        found = (self._find_line(event_id, prefix + wanted, low, high) for prefix in (b"id: ", b"id:"))
        return min((number for number in found if number is not None), default=None)

    def _find_line(self, event_id: str, line: bytes, low: int, high: int) -> int | None:
        """Return the first event that has this line and whose last `id` line it is, so that it is the event's id."""
        at = self._buffer.find(line, low, high)
        while at >= 0:
            after = at + len(line)
            begins = at == low or self._buffer[at - 1] in _LINE_ENDS
            if begins and after < len(self._buffer) and self._buffer[after] in _LINE_ENDS:
                index = bisect_right(self._ends, self._base + at, self._head)
                if self._id_at(index) == event_id:
                    return self._first + index - self._head
                after = self._ends[index] - self._base
            at = self._buffer.find(line, after, high)
        return None


def _later(one: str | None, other: str) -> str:
    """Return the id that sorts later. An id that cannot be compared counts as the latest."""
    if one is None:
        return other
    before, after = order(one), order(other)
    if before is None or after is None:
        return one if before is None else other
    return max((before, one), (after, other))[1]
