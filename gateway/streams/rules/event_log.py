"""What a run's stream has said: a bounded log of events, whole and in order, and cursors into it.

A cursor is the number of the event that comes next: 0 is the first that the run ever had, `end` is the one that has
not come yet. Numbers never change, whatever is dropped from the front, so a reader costs one integer and no two
readers touch each other. A cursor that points at a dropped event *is behind*: there is no honest way to go on from it
here, and `read` refuses it.

The bytes of all events lie one after the other in one buffer, and beside it 8 bytes for the end of each. What a log
holds is at most `max_bytes` of events, or its newest event alone if that is longer: what has just come can always be
read once.

For a store a log is cut into parts (`streams/rules/log_chunk.py`): `part` copies what is new, `joined` puts the parts
together again, under the same numbers.
"""

import re
from array import array
from bisect import bisect_right
from collections.abc import Sequence

import msgspec

from gateway.streams.rules.log_chunk import Part
from gateway.streams.rules.sse import Event, is_done, read_event

OUTPUT, ERROR = "output", "error"
_ID = re.compile(r"([0-9]{1,15}):([0-9]{1,15})")
_LINE_ENDS = (b"\n"[0], b"\r"[0])


class Gone(msgspec.Struct, frozen=True):
    """What came after that event was here, or may have been, and has been dropped: a reader would miss some of it."""


class Unknown(msgspec.Struct, frozen=True):
    """No event of this log has that id, and none that was dropped could have had it."""


class Behind(LookupError):
    """The cursor points at an event that has been dropped."""


def order(event_id: str) -> tuple[int, int] | None:
    """Read `<unix s>:<n>` as a pair that compares as the events came. `None` for an id of another form."""
    match = _ID.fullmatch(event_id)
    return (int(match[1]), int(match[2])) if match else None


class EventLog:
    """The events of one run, newest at the end. Holds bytes only: it knows no readers and waits for nothing."""

    __slots__ = (
        "_base",
        "_buffer",
        "_dropped_id",
        "_ends",
        "_first",
        "_head",
        "_last_id",
        "has_error",
        "is_closed",
        "max_bytes",
        "outputs",
    )

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.is_closed = False
        """Whether the end was said: `done` was appended, or `close` was called. Nothing comes after it."""
        self.outputs = 0
        """How many `output` events there have been: what a result has beyond them is still to be said."""
        self.has_error = False
        """Whether there has been an `error`."""
        self._buffer = bytearray()
        self._base = 0
        # Of each event kept, where it ends, counted from the run's first byte. Those before `_head` are dropped ones.
        self._ends = array("Q")
        self._head = 0
        self._first = 0
        self._last_id: str | None = None
        self._dropped_id: str | None = None  # the highest of the ids that are gone

    @property
    def end(self) -> int:
        """The cursor of a reader who has seen everything: how many events there have been."""
        return self._first + len(self._ends) - self._head

    @property
    def dropped(self) -> int:
        """How many events have been dropped from the front; it is also the cursor of the oldest that is kept."""
        return self._first

    @property
    def size(self) -> int:
        """How many bytes of events are held."""
        return len(self._buffer)

    @property
    def last_id(self) -> str | None:
        """The newest id that was given: what to ask upstream to go on after."""
        return self._last_id

    def append(self, event: Event) -> int:
        """Add an event at the end and return its number. Raise `ValueError` after the end was said."""
        if self.is_closed:
            raise ValueError("nothing comes after the end of a stream")
        if not event.raw:
            raise ValueError("an event has at least one byte")
        number = self.end
        self._add(event.raw)
        if event.id:
            self._last_id = event.id
        self.outputs += event.name == OUTPUT
        self.has_error |= event.name == ERROR
        self.is_closed = is_done(event)
        self._drop()
        return number

    def close(self) -> None:
        """Say that nothing more comes, though no `done` was appended."""
        self.is_closed = True

    def start(self) -> int:
        """Return the cursor of a reader who wants the whole. It is behind as soon as anything has been dropped."""
        return 0

    def after(self, last_event_id: str) -> int | Gone | Unknown:
        """Return the cursor of a reader who has seen the event of that id, and all before it.

        An id that is not here is `Gone` if it is that of a dropped event or older than one; where ids cannot be
        compared, as soon as any was dropped. Else it is `Unknown`: it is from another log (a replay, another run),
        made up, or of an event that has not come to this log yet. What to do then is the caller's to decide; guessing
        a place by order would hide a loss, or say everything twice. Of events that share an id the first counts, so
        that none is missed.
        """
        number = self._find(last_event_id)
        if number is not None:
            return number + 1
        if self._dropped_id is None or not last_event_id:
            return Unknown()
        asked, dropped = order(last_event_id), order(self._dropped_id)
        return Gone() if asked is None or dropped is None or asked <= dropped else Unknown()

    def has(self, event_id: str) -> bool:
        """Say whether an event of that id is here, or may have been."""
        return not isinstance(self.after(event_id), Unknown)

    def is_behind(self, cursor: int) -> bool:
        """Say whether the event at the cursor has been dropped."""
        return cursor < self._first

    def read(self, cursor: int, limit_bytes: int) -> tuple[bytes, int]:
        """Return the bytes of whole events from the cursor on, and the cursor after them.

        They are no more than `limit_bytes`, but one event at least if there is one. At the end: nothing, and the same
        cursor. Raise `Behind` for one that is behind, `ValueError` for one that no reader can have.
        """
        if cursor < 0 or cursor > self.end:
            raise ValueError(f"no cursor of this log: {cursor} is not in 0..{self.end}")
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

    def part(self, cursor: int) -> Part:
        """Copy the events from the cursor on, or all that are kept if it is behind."""
        first = max(cursor, self._first)
        index = self._head + first - self._first
        begin = self._begin(index)
        with memoryview(self._buffer) as view:
            data = bytes(view[begin - self._base :])
        return Part(
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
    def joined(cls, dumped: Sequence[bytes], max_bytes: int) -> "EventLog":
        """Read the dumps of a log's parts, one at least, in their order; cursors and numbers stay what they were.

        Raise `ValueError` for what is no dump, and for a gap.
        """
        log = cls(max_bytes)
        for number, each in enumerate(dumped):
            part = Part.load(each, log._base + len(log._buffer))
            if number == 0:
                log._first = part.first
            elif part.first != log.end:
                raise ValueError(f"not an event log: a part begins at {part.first}, and {log.end} comes next")
            log._buffer += part.data
            log._ends += part.ends
            log._last_id = part.last_id
            log._dropped_id = part.dropped_id
            log.is_closed = part.is_closed
            log.outputs = part.outputs
            log.has_error = part.has_error
            log._drop()
        return log

    def _add(self, raw: bytes) -> None:
        self._buffer += raw
        self._ends.append(self._base + len(self._buffer))

    def _begin(self, index: int) -> int:
        return self._ends[index - 1] if index > self._head else self._base

    def _drop(self) -> None:
        """Drop whole events from the front until the rest fits, or one is left."""
        excess = len(self._buffer) - self.max_bytes
        if excess <= 0:
            return
        # The first event that ends at or beyond what has to go; the newest stays in any case.
        last = min(bisect_right(self._ends, self._base + excess - 1, self._head), len(self._ends) - 2)
        if last < self._head:
            return
        for index in range(self._head, last + 1):
            if event_id := self._event_at(index).id:
                self._dropped_id = _later(self._dropped_id, event_id)
        gone = self._ends[last] - self._base
        del self._buffer[:gone]
        self._base += gone
        self._first += last + 1 - self._head
        self._head = last + 1
        if self._head * 2 > len(self._ends):  # cut now and then, so that a drop costs the same however long the log is
            del self._ends[: self._head]
            self._head = 0

    def _event_at(self, index: int) -> Event:
        return read_event(bytes(self._buffer[self._begin(index) - self._base : self._ends[index] - self._base]))

    def _find(self, event_id: str) -> int | None:
        """Find the first event that has this id. The bytes are searched, not the events: logs are long, hits are rare.

        An id that was not UTF-8 is not found again.
        """
        wanted = event_id.encode("utf-8", "replace")
        if not wanted:
            return None
        found = (self._find_line(event_id, prefix + wanted) for prefix in (b"id: ", b"id:"))
        return min((number for number in found if number is not None), default=None)

    def _find_line(self, event_id: str, line: bytes) -> int | None:
        """Find the first event whose id it is, not only one of several, among those that have such a line."""
        at = self._buffer.find(line)
        while at >= 0:
            after = at + len(line)
            begins = at == 0 or self._buffer[at - 1] in _LINE_ENDS
            if begins and after < len(self._buffer) and self._buffer[after] in _LINE_ENDS:
                index = bisect_right(self._ends, self._base + at, self._head)
                if self._event_at(index).id == event_id:
                    return self._first + index - self._head
                after = self._ends[index] - self._base
            at = self._buffer.find(line, after)
        return None


def _later(one: str | None, other: str) -> str:
    """Return the id that comes later; one that cannot be compared stands for any."""
    if one is None:
        return other
    before, after = order(one), order(other)
    if before is None or after is None:
        return one if before is None else other
    return max((before, one), (after, other))[1]
