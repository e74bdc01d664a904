"""Event log of a prediction's stream. Late readers get all events from the start."""

import asyncio
import zlib

from gateway.simulator import sse


class EventLog:
    """The encoded events of a stream. They are compressed after the end, to save memory.

    A reader is an index into the log. All waiting readers are woken at once.
    """

    __slots__ = ("_count", "_frames", "_ids", "_limit", "_size", "_waiters", "_whole", "done")

    def __init__(self, max_bytes: int) -> None:
        self._frames: list[bytes] = []
        self._whole: bytes | None = None
        self._count = 0
        self._ids = sse.EventIds()
        self._size = 0
        self._limit = max_bytes
        self._waiters: list[asyncio.Future[None]] = []
        self.done = False

    def add(self, event: str, data: str, now: float) -> None:
        """Append an event; `done` is the last. Events above the size limit are dropped, except `done`."""
        if self.done:
            return
        frame = sse.encode_event(event, self._ids.next(now), data)
        self.done = event == "done"
        self._size += len(frame)
        if self._size <= self._limit or self.done:
            self._frames.append(frame)
            self._count += 1
        if self.done:
            self._whole, self._frames = zlib.compress(b"".join(self._frames), 1), []
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def place_after(self, last_event_id: str | None) -> int:
        """Return the index after an event id; 0 for an unknown id."""
        if last_event_id is None:
            return 0
        line = f"\nid: {last_event_id}\n".encode()
        return next((place + 1 for place, frame in enumerate(self._all()) if line in frame), 0)

    def read(self, place: int, most: int | None = None) -> tuple[list[bytes], int]:
        """Return at most `most` events from `place` on, and the next place."""
        frames = self._all()[place : None if most is None else place + most]
        return frames, place + len(frames)

    def __len__(self) -> int:
        return self._count

    async def more(self, place: int, timeout: float) -> bool:
        """Wait until there is an event at `place`. Return False after `timeout` seconds without one."""
        if self._count <= place:
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            try:
                await asyncio.wait([waiter], timeout=timeout)
            finally:
                if waiter in self._waiters:
                    self._waiters.remove(waiter)
        return self._count > place

    def forget(self) -> None:
        """Delete the events. Later readers get none."""
        self._frames, self._whole, self._count = [], None, 0
        self.done = True

    def _all(self) -> list[bytes]:
        # Only the end of an event is an empty line, because data lines begin with a field name.
        if self._whole is None:
            return self._frames
        return [part + b"\n\n" for part in zlib.decompress(self._whole).split(b"\n\n")[:-1]]
