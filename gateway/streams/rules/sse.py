"""Splits the bytes of an event stream into events, without changing them.

`EventSplitter` parses upstream's streams. The gateway passes on upstream's bytes, so the parser must neither lose nor
alter any. It follows the WHATWG standard ("Server-sent events", parsing and interpretation) and is tested against two
other parsers, `httpx-sse` and npm `eventsource-parser`. It knows no HTTP: its caller decides when to reconnect, and
after which event.

`aiohttp-sse-client` is the client of the gateway's own tests and tools, which only need the name and the data of
events. It cannot parse upstream's streams. Version 0.2.1 strips the leading space of a token (1) and a trailing line
break (2), fails on long lines (3), never ends an event with CR line ends (4), loses a field after a byte order mark
(5), stops at an invalid byte (6), accepts ids with NUL (7), appends the next connection to an incomplete event (8),
treats a truncated body as the end (9) and a 503 on reconnect too (10), reconnects after `done` forever (11), misapplies
the server's retry time (12), modifies the caller's headers (13), and limits a stream to five minutes (14).
`tests/unit/streams/test_sse_client_limits.py` has a test for each; one that fails shows that the package has changed.
"""

import re
from collections.abc import Callable

import msgspec

DONE = "done"
_MESSAGE = "message"
_IDLE_TIMEOUT = b":408:"
_BOM = b"\xef\xbb\xbf"

# The end of a line that is not blank, and the blank line after it. Each alternative starts with the line end and then
# looks behind, so that the regex engine can skip to the next CR or LF. CR LF is one line end, never two.
_EVENT_END = re.compile(
    rb"(?:\n(?<=[^\r\n]\n)|\r\n(?<=[^\r\n]\r\n)|\r(?!\n)(?<=[^\r\n]\r))(?:\r\n|\n|\r)",
)
_MAX_PARTIAL_MATCH = 3
"""Bytes of a match of `_EVENT_END`, with its look-behind, that may be there before its last byte: `x CR LF`."""

# These patterns match text with a line end prepended, so that the first line is like the others.
_FIELD = re.compile(rb"[\r\n](?:(id)|event)(?::[ ]?([^\r\n]*))?(?=[\r\n])")
_DATA = re.compile(rb"[\r\n]data(?::[ ]?([^\r\n]*))?(?=[\r\n])")
_DATA_LINE = re.compile(rb"([\r\n]data:[ ]?)([^\r\n]+)")
_ANY_FIELD = re.compile(rb"[\r\n][^\r\n:]")


class EventTooLong(ValueError):
    """An event exceeds the limit, complete or not. `events` has the complete events before it."""

    def __init__(self, max_event_bytes: int, events: "list[Event]") -> None:
        super().__init__(f"the stream sent an event of more than {max_event_bytes} bytes")
        self.events = events


class Event(msgspec.Struct, frozen=True, gc=False):
    """One block of a stream, with the blank line that ends it."""

    raw: bytes
    """The bytes as received, including blank lines before the event, which have no meaning."""
    id: str | None
    """The last `id` of the block, or `None`. Ids with NUL are ignored."""
    name: str
    """The last `event` of the block, or `message`."""
    is_comment: bool
    """Whether the block has no field. Clients ignore it."""

    def data(self) -> str:
        """Parse and return the data: its lines joined by LF, each without one leading space."""
        lines = (line or b"" for line in _DATA.findall(b"\n" + self.raw))
        return b"\n".join(lines).decode("utf-8", "replace")

    def has_data(self) -> bool:
        """Return whether there is a `data` line, which may be empty. Clients ignore events without one."""
        return _DATA.search(b"\n" + self.raw) is not None


def read_event(raw: bytes) -> Event:
    """Parse the id and the name of one block, blank line included. Invalid UTF-8 in them becomes U+FFFD."""
    lines = b"\n" + raw
    event_id: str | None = None
    name = b""
    for is_id, value in _FIELD.findall(lines):
        if not is_id:
            name = value
        elif b"\0" not in value:
            event_id = value.decode("utf-8", "replace")
    is_comment = _ANY_FIELD.search(lines) is None
    return Event(raw, event_id, name.decode("utf-8", "replace") if name else _MESSAGE, is_comment)


def with_data(event: Event, change: Callable[[bytes], bytes]) -> Event:
    """Return an event with `change` applied to each line of its data; the same object if nothing changes."""
    lines = b"\n" + event.raw
    changed = _DATA_LINE.sub(lambda line: line[1] + change(line[2]), lines)
    return event if changed == lines else msgspec.structs.replace(event, raw=changed[1:])


def is_done(event: Event) -> bool:
    """Return whether this is Replicate's `done` event. Without data it is not, as clients would ignore it."""
    return event.name == DONE and event.has_data()


def is_idle_timeout(event: Event) -> bool:
    """Return whether this is the comment before upstream closes an idle stream: `:408: 408 Request Timeout`."""
    return event.is_comment and any(line.startswith(_IDLE_TIMEOUT) for line in event.raw.splitlines())


class EventSplitter:
    """Splits one connection's bytes into events, for any division into chunks.

    The `raw` of all events and `rest()`, concatenated, are the bytes that were fed, except for a byte order mark at the
    start. The standard drops it, and within a resumed stream it would corrupt the first field.

    An event is returned as soon as its last line has ended. If CR and LF arrive in separate chunks, the LF becomes the
    first byte of the next event's `raw`, where it is only a blank line.
    """

    __slots__ = ("_at_start", "_buffer", "_is_broken", "_max_event_bytes", "_seek")

    def __init__(self, max_event_bytes: int) -> None:
        self._max_event_bytes = max_event_bytes
        self._buffer = bytearray()
        self._seek = 0
        self._at_start = True
        self._is_broken = False

    def feed(self, chunk: bytes) -> list[Event]:
        """Add bytes and return the events that they complete.

        Raise `EventTooLong` for an event above the limit, complete or not, and on every later call until `reset()`.
        """
        if self._is_broken:
            raise EventTooLong(self._max_event_bytes, [])
        self._buffer += chunk
        if self._at_start and not self._skip_bom():
            return []
        events: list[Event] = []
        begin = 0
        while (end := self._next_end()) is not None:
            if end - begin > self._max_event_bytes:
                raise self._break(events)
            events.append(read_event(bytes(self._buffer[begin:end])))
            begin = self._seek = end
        if begin:
            del self._buffer[:begin]
        if len(self._buffer) > self._max_event_bytes:
            raise self._break(events)
        self._seek = max(0, len(self._buffer) - _MAX_PARTIAL_MATCH)
        return events

    @property
    def pending(self) -> int:
        """Bytes of the incomplete event in the buffer."""
        return len(self._buffer)

    def rest(self) -> bytes:
        """Return the incomplete event at the end of a stream. The standard says to discard it."""
        return bytes(self._buffer)

    def reset(self) -> None:
        """Discard all state, for a new connection."""
        self._buffer = bytearray()
        self._seek = 0
        self._at_start = True
        self._is_broken = False

    def _skip_bom(self) -> bool:
        """Drop a byte order mark at the start; return whether enough bytes are there to decide."""
        if self._buffer.startswith(_BOM):
            del self._buffer[: len(_BOM)]
        elif _BOM.startswith(self._buffer):
            return False
        self._at_start = False
        return True

    def _next_end(self) -> int | None:
        # The match must not outlive this call: it locks the buffer against resizing.
        match = _EVENT_END.search(self._buffer, self._seek)
        return match.end() if match else None

    def _break(self, events: list[Event]) -> EventTooLong:
        self._is_broken = True
        self._buffer = bytearray()
        return EventTooLong(self._max_event_bytes, events)
