"""The order in which one team's queued creates are released, as their request rates admit them.

Creates with the same buckets wait behind one another. A create held back by a bucket of its own, such as a user's rate,
does not block the others. Among creates that could be released, the oldest is first. Queued creates leave half of each
burst to requests that cannot wait (`request_rates.admit`, `held`). The cost of a step grows with the number of distinct
users and addresses waiting, not with the number of creates. Pure: times are arguments.
"""

import itertools
from collections import OrderedDict
from typing import Protocol

from gateway.domain import rates
from gateway.throttling.rules.request_rates import Bucket, RateExceeded, admit

Buckets = tuple[Bucket, ...]


class Admit(Protocol):
    """Charges a create to its buckets: see `request_rates.admit`."""

    def __call__(self, buckets: Buckets, now: float, *, held: bool = False) -> RateExceeded | None:
        """Return the exceeded rate, if there is one."""
        ...


class HeldCreate:
    """A queued create. It is refused at `until`."""

    __slots__ = ("buckets", "number", "until")

    def __init__(self, buckets: Buckets, number: int, until: float) -> None:
        self.buckets = buckets
        self.number = number
        self.until = until


class HoldLine:
    """The queued creates of one team. All have the same maximum wait, so the oldest expires first."""

    def __init__(self, admit: Admit = admit) -> None:
        self._admit = admit
        self._groups: dict[Buckets, OrderedDict[int, HeldCreate]] = {}
        self._numbers = itertools.count()
        self._waiting = 0

    def __len__(self) -> int:
        return self._waiting

    def least_wait(self, buckets: Buckets, now: float) -> RateExceeded | None:
        """Return the rate that holds a new create longest, and for how long at least.

        Each create with the same buckets goes before it, and takes one request of each. Those with others may come
        later: a bucket of their own may hold them back. `None` without buckets.
        """
        ahead = len(self._groups.get(buckets, ()))
        waits = [
            RateExceeded(bucket, rates.wait(bucket.full_at, bucket.held_rate, now) + ahead * bucket.rate.interval)
            for bucket in buckets
        ]
        return max(waits, key=lambda each: each.seconds, default=None)

    def join(self, buckets: Buckets, until: float) -> HeldCreate:
        """Add a create that waits until `until` at most."""
        held = HeldCreate(buckets, next(self._numbers), until)
        self._groups.setdefault(buckets, OrderedDict())[held.number] = held
        self._waiting += 1
        return held

    def leave(self, held: HeldCreate) -> None:
        """Remove a create. Do nothing if it was already released."""
        group = self._groups.get(held.buckets)
        if group is not None and group.pop(held.number, None) is not None:
            self._waiting -= 1
            if not group:
                del self._groups[held.buckets]

    def heads(self) -> list[HeldCreate]:
        """Return the oldest create of each group, the oldest first."""
        return sorted((next(iter(group.values())) for group in self._groups.values()), key=lambda held: held.number)

    def next_after(self, held: HeldCreate) -> HeldCreate | None:
        """Return the oldest create with the same buckets as one that was released."""
        return next(iter(self._groups.get(held.buckets, {}).values()), None)

    def step(self, now: float) -> tuple[list[tuple[HeldCreate, RateExceeded | None]], float]:
        """Release the creates that are admitted (charged to their buckets) and those that expired.

        Return the released creates, each with the rate it exceeds if it expired, and the seconds until the next step is
        due, unless a create joins before.
        """
        released: list[tuple[HeldCreate, RateExceeded | None]] = []
        pause = float("inf")
        # Groups share buckets (the team's), so the group with the oldest create is served first.
        for group in sorted(self._groups.values(), key=lambda group: next(iter(group))):
            over: RateExceeded | None = None
            for held in group.values():
                over = over or self._admit(held.buckets, now, held=True)
                if over is not None and held.until > now:
                    pause = min(pause, over.seconds, held.until - now)
                    break
                released.append((held, over))
        for held, _ in released:
            self.leave(held)
        return released, pause
