"""Event streams as bytes: cut into events where they come in, and never rebuilt.

Who reads with what, and why:

- `aiohttp-sse-client` is the reading client of the gateway's own tests and tools: it speaks HTTP, comes back with
  `Last-Event-ID`, and gives the name and the data of each event, which is all they ask for
  (`tests/gateway/test_stream_restarts.py`: a reader that a restart of the gateway does not disturb).
- `EventSplitter` below is the reader of the relay. What it passes on are the bytes that upstream sent, so it may lose
  or alter none, and aiohttp-sse-client 0.2.1 does (feasibility 1): it eats the leading space of a token (1) and a line
  break at its end (2), fails on long lines (3), waits for ever on CR line ends (4), loses a field to a byte order mark
  (5), breaks off at an invalid byte (6), takes ids with NUL (7), glues half an event to the next connection (8), ends
  at a body cut short (9) and at a 503 when it comes back (10), comes back for ever after `done` (11), doubles or
  reverses the wait that a server asks for (12), writes into the caller's headers (13), and gives a stream five minutes
  (14). `tests/unit/streams/test_sse_client_limits.py` has a test for each; one that fails says that the package has
  changed.

The splitter knows no HTTP: whether to come back, when, and after which event is the relay's to decide. It follows the
WHATWG standard ("Server-sent events", parsing and interpretation), and is held to two parsers of others: `httpx-sse`
and npm `eventsource-parser`.
"""

import re

import msgspec

DONE = "done"
_MESSAGE = "message"
_IDLE_TIMEOUT = b":408:"
_BOM = b"\xef\xbb\xbf"

# The end of a line that is not blank, and the blank line after it. Each way begins with its line end and only then
# looks back, which lets the engine skip to the next CR or LF. A CR followed by LF is one line end, never two.
_EVENT_END = re.compile(
    rb"(?:\n(?<=[^\r\n]\n)|\r\n(?<=[^\r\n]\r\n)|\r(?!\n)(?<=[^\r\n]\r))(?:\r\n|\n|\r)",
)
_LONGEST_UNDECIDED = 3
"""How much of a match of `_EVENT_END` may be there before its last byte: `x CR LF`."""

# The three below are given a line end in front, so that the first line is like the others.
_FIELD = re.compile(rb"[\r\n](?:(id)|event)(?::[ ]?([^\r\n]*))?(?=[\r\n])")
_DATA = re.compile(rb"[\r\n]data(?::[ ]?([^\r\n]*))?(?=[\r\n])")
_SAYS = re.compile(rb"[\r\n][^\r\n:]")


class EventTooLong(ValueError):
    """An event is longer than allowed, or a line of it does not end. What came whole before it is in `events`."""

    def __init__(self, max_event_bytes: int, events: "list[Event]") -> None:
        super().__init__(f"the stream sent an event of more than {max_event_bytes} bytes")
        self.events = events


class Event(msgspec.Struct, frozen=True, gc=False):
    """One block of a stream, with the blank line that ends it."""

    raw: bytes
    """The bytes as they came. Blank lines that stood before it are part of it; they mean nothing to a reader."""
    id: str | None
    """The last `id` of the block; `None` if it has none. An id with NUL is no id."""
    name: str
    """The last `event` of the block, `message` if there is none: for a comment, that is."""
    is_comment: bool
    """Whether no field is in it: readers see nothing, and only the connection is kept open."""

    def data(self) -> str:
        """Read the data, for the few who need it: its lines joined, without the one space that the syntax allows."""
        lines = (line or b"" for line in _DATA.findall(b"\n" + self.raw))
        return b"\n".join(lines).decode("utf-8", "replace")

    def has_data(self) -> bool:
        """Say whether there is a `data` line, be it empty: without one a reader is told nothing."""
        return _DATA.search(b"\n" + self.raw) is not None


def read_event(raw: bytes) -> Event:
    """Read the id and the name of one block, blank line included. Invalid UTF-8 in them becomes U+FFFD."""
    lines = b"\n" + raw
    event_id: str | None = None
    name = b""
    for is_id, value in _FIELD.findall(lines):
        if not is_id:
            name = value
        elif b"\0" not in value:
            event_id = value.decode("utf-8", "replace")
    is_comment = _SAYS.search(lines) is None
    return Event(raw, event_id, name.decode("utf-8", "replace") if name else _MESSAGE, is_comment)


def is_done(event: Event) -> bool:
    """Say whether this is Replicate's last event. A block without data is none: no client would see it."""
    return event.name == DONE and event.has_data()


def is_idle_timeout(event: Event) -> bool:
    """Say whether upstream hangs up because nothing was to be said for 30 seconds: `:408: 408 Request Timeout`."""
    return event.is_comment and any(line.startswith(_IDLE_TIMEOUT) for line in event.raw.splitlines())


class EventSplitter:
    """Cuts one connection's bytes into events, however the network cut them.

    All `raw` joined, and `rest()`, give what was fed, but for a byte order mark at the very start: the standard drops
    it, and in the middle of another stream, where the relay's readers may be, it would spoil the first field.

    An event is given with the first byte that ends it. Of a CR LF whose halves come apart, the LF is therefore the
    first byte of the next event's `raw`, where it is part of no line.
    """

    __slots__ = ("_at_start", "_held", "_is_broken", "_max_event_bytes", "_seek")

    def __init__(self, max_event_bytes: int) -> None:
        self._max_event_bytes = max_event_bytes
        self._held = bytearray()
        self._seek = 0
        self._at_start = True
        self._is_broken = False

    def feed(self, chunk: bytes) -> list[Event]:
        """Take bytes as they come, and give the events that they complete.

        Raise `EventTooLong` for an event beyond the limit, whole or not; from then on, always, until `reset()`.
        """
        if self._is_broken:
            raise EventTooLong(self._max_event_bytes, [])
        self._held += chunk
        if self._at_start and not self._pass_start():
            return []
        events: list[Event] = []
        begin = 0
        while (end := self._next_end()) is not None:
            if end - begin > self._max_event_bytes:
                raise self._break(events)
            events.append(read_event(bytes(self._held[begin:end])))
            begin = self._seek = end
        if begin:
            del self._held[:begin]
        if len(self._held) > self._max_event_bytes:
            raise self._break(events)
        self._seek = max(0, len(self._held) - _LONGEST_UNDECIDED)
        return events

    @property
    def pending(self) -> int:
        """How many bytes of an unfinished event are held."""
        return len(self._held)

    def rest(self) -> bytes:
        """Return what the stream ended in the middle of. It is to be dropped: the standard dispatches no such event."""
        return bytes(self._held)

    def reset(self) -> None:
        """Begin with another connection. Nothing of the one before is left."""
        self._held = bytearray()
        self._seek = 0
        self._at_start = True
        self._is_broken = False

    def _pass_start(self) -> bool:
        """Drop a byte order mark; return whether enough has come to tell."""
        if self._held.startswith(_BOM):
            del self._held[: len(_BOM)]
        elif _BOM.startswith(self._held):
            return False
        self._at_start = False
        return True

    def _next_end(self) -> int | None:
        # The match must not outlive this: it keeps the buffer from being cut.
        match = _EVENT_END.search(self._held, self._seek)
        return match.end() if match else None

    def _break(self, events: list[Event]) -> EventTooLong:
        self._is_broken = True
        self._held = bytearray()
        return EventTooLong(self._max_event_bytes, events)
