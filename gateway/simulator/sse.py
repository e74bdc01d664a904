"""Wire format of Replicate's streams (nginx nchan): event, id, data, in this order; data is raw text."""

GREETING = b": hi\n\n"
TIMEOUT = b":408: 408 Request Timeout\n\n"


def encode_event(event: str, event_id: str, data: str) -> bytes:
    """Encode an event. Each line of the data is a data line; an empty one is `data:` without a space."""
    if "\n" not in data and "\r" not in data and data:
        return f"event: {event}\nid: {event_id}\ndata: {data}\n\n".encode()
    parts = data.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    lines = "".join(f"data: {line}\n" if line else "data:\n" for line in parts)
    return f"event: {event}\nid: {event_id}\n{lines}\n".encode()


class EventIds:
    """Numbers events as `<unix seconds>:<n>`; n restarts every second."""

    __slots__ = ("_next", "_second")

    def __init__(self) -> None:
        self._second = 0
        self._next = 0

    def next(self, now: float) -> str:
        """Return the next event id. If the time steps back, numbering goes on in the last second, so ids are unique."""
        second = max(int(now), self._second)
        if second != self._second:
            self._second, self._next = second, 0
        number = self._next
        self._next += 1
        return f"{second}:{number}"
