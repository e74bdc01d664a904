"""A line: creates of one team that are over a request rate and wait until their rates can bear them.

Those that are counted alike wait behind one another; who is held back by a rate of its own, a user's say, holds up
nobody else. Where several could go, the one that came first does. Creates that wait leave half of each burst to the
requests that cannot wait (`request_rates.admit`, `held`). A step takes time by the number of users and addresses that
wait, not of creates. Pure: times are arguments.
"""

import itertools
from collections import OrderedDict

from gateway.throttling.rules.request_rates import Bucket, RateExceeded, admit

Buckets = tuple[Bucket, ...]


class HeldCreate:
    """A create that waits."""

    __slots__ = ("buckets", "number", "until")

    def __init__(self, buckets: Buckets, number: int, until: float) -> None:
        self.buckets = buckets
        self.number = number
        self.until = until


class HoldLine:
    """The creates of one team that wait. All of them wait equally long, so that the first is the first to be late."""

    def __init__(self) -> None:
        self._alike: dict[Buckets, OrderedDict[int, HeldCreate]] = {}
        self._numbers = itertools.count()
        self._waiting = 0

    def __len__(self) -> int:
        return self._waiting

    def join(self, buckets: Buckets, until: float) -> HeldCreate:
        """Wait, until that time at most."""
        held = HeldCreate(buckets, next(self._numbers), until)
        self._alike.setdefault(buckets, OrderedDict())[held.number] = held
        self._waiting += 1
        return held

    def leave(self, held: HeldCreate) -> None:
        """Wait no longer; do nothing for one that has gone already."""
        alike = self._alike.get(held.buckets)
        if alike is not None and alike.pop(held.number, None) is not None:
            self._waiting -= 1
            if not alike:
                del self._alike[held.buckets]

    def step(self, now: float) -> tuple[list[tuple[HeldCreate, RateExceeded | None]], float]:
        """Let go who may, charged to their rates, and those whose time is over, with the rate that they were over.

        Return them, and how many seconds nothing will change if nobody comes.
        """
        gone: list[tuple[HeldCreate, RateExceeded | None]] = []
        pause = float("inf")
        # All of the first ones, by arrival: what one of them takes the next may miss.
        for alike in sorted(self._alike.values(), key=lambda alike: next(iter(alike))):
            over: RateExceeded | None = None
            for held in alike.values():
                over = over or admit(held.buckets, now, held=True)
                if over is not None and held.until > now:
                    pause = min(pause, over.seconds, held.until - now)
                    break
                gone.append((held, over))
        for held, _ in gone:
            self.leave(held)
        return gone, pause
