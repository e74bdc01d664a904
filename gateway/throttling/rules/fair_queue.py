"""A fair queue: which waiter gets the next permit when several flows compete for one rate.

Start-time fair queueing (P. Goyal, H. M. Vin, H. Cheng, "Start-time Fair Queuing", SIGCOMM 1996) over flows of
different weight; every permit has the same size. A flow's next permit has a start tag: the larger of the virtual time
(the start tag of the permit granted last) and the finish tag of the flow's previous permit, which is its start tag plus
1/weight. The smallest start tag is next. It follows:

- Flows that always have waiters get permits in proportion to their weights. What one flow does not use, the others get.
- A flow that returns from a pause starts at the virtual time: it has saved up nothing and owes nothing. Its first
  permit comes after at most one of each other flow.
- No flow starves: each permit granted moves the virtual time towards every waiting tag.
- When the queue becomes empty, all flows are equal again.

Within a flow waiters are served in order of arrival; a waiter whose previous permit was wasted, because upstream
refused the request, goes before them. A step takes O(log flows), a deadline O(log waiters). Pure: times are arguments,
from any one monotonic clock.
"""

import heapq
import itertools
from collections import OrderedDict
from collections.abc import Mapping

# Deadlines of removed waiters stay in the heap until they are due. The heap is rebuilt when more than half of it is
# stale; this many stale entries are always tolerated.
_STALE_TOLERATED = 64


class QueuePosition:
    """A waiter in the queue."""

    __slots__ = ("_number", "flow", "is_waiting", "until")

    def __init__(self, flow: "_Flow", number: int, until: float) -> None:
        self.flow = flow
        self.until = until
        self.is_waiting = True
        self._number = number

    @property
    def number(self) -> int:
        """Position in the order of arrival."""
        return self._number


class _Flow:
    """A competitor for permits (a team): its weight, its finish tag and its waiters."""

    __slots__ = ("finish", "fresh", "is_scheduled", "returned", "share")

    def __init__(self, weight: float) -> None:
        self.share = 1.0 / weight
        self.finish = 0.0
        """Finish tag of the permit granted last."""
        self.is_scheduled = False
        """Whether the flow has its one entry in the heap of flows."""
        self.returned: OrderedDict[int, QueuePosition] = OrderedDict()
        """Waiters whose previous permit was wasted. They are served first."""
        self.fresh: OrderedDict[int, QueuePosition] = OrderedDict()

    def __len__(self) -> int:
        return len(self.returned) + len(self.fresh)


class FairQueue:
    """Waiters for permits. `weights` names every flow; `max_waiting` is the maximum number of waiters per flow."""

    def __init__(self, weights: Mapping[str, float], *, max_waiting: int) -> None:
        self._flows = {name: _Flow(weight) for name, weight in weights.items()}
        self._max_waiting = max_waiting
        self.total = 0
        """Number of waiters of all flows. Every call of upstream reads it."""
        self._virtual = 0.0
        self._latest_finish = 0.0
        self._numbers = itertools.count()
        self._schedule: list[tuple[float, int, _Flow]] = []
        """Heap of flows by the start tag of their next permit; at most one entry per flow."""
        self._deadlines: list[tuple[float, int, QueuePosition]] = []

    def reweigh(self, weights: Mapping[str, float]) -> None:
        """Change the weights of flows, from their next permit on, and add new flows.

        Flows that are not named stay unchanged: a removed team can still have waiters.
        """
        for name, weight in weights.items():
            if (flow := self._flows.get(name)) is not None:
                flow.share = 1.0 / weight
            else:
                self._flows[name] = _Flow(weight)

    def __len__(self) -> int:
        return self.total

    def waiting(self, name: str) -> int:
        """Return the number of waiters of a flow."""
        return len(self._flows[name])

    def waiting_by_flow(self) -> dict[str, int]:
        """Return the number of waiters of each flow that has some."""
        return {name: len(flow) for name, flow in self._flows.items() if flow}

    def is_full(self, name: str) -> bool:
        """Return whether a flow has `max_waiting` waiters."""
        return len(self._flows[name]) >= self._max_waiting

    def join(self, name: str, until: float, *, returned: bool = False) -> QueuePosition:
        """Add a waiter that expires at `until`. Set `returned` if its previous permit was wasted."""
        flow = self._flows[name]
        position = QueuePosition(flow, next(self._numbers), until)
        (flow.returned if returned else flow.fresh)[position.number] = position
        self.total += 1
        heapq.heappush(self._deadlines, (until, position.number, position))
        if not flow.is_scheduled:
            self._schedule_flow(flow, position.number)
        return position

    def leave(self, position: QueuePosition) -> None:
        """Remove a waiter, as if it had never joined. Do nothing if it already got its permit or expired.

        The flow keeps its entry in the heap. Its start tag is no earlier than a new one would be, because the virtual
        time has not passed it.
        """
        if position.is_waiting:
            self._remove(position)

    def next(self) -> QueuePosition | None:
        """Remove and return the waiter that gets the next permit; `None` if the queue is empty."""
        while self._schedule:
            start, _, flow = heapq.heappop(self._schedule)
            flow.is_scheduled = False
            if not flow:
                continue
            self._virtual = start
            flow.finish = start + flow.share
            self._latest_finish = max(self._latest_finish, flow.finish)
            position = next(iter((flow.returned or flow.fresh).values()))
            if len(flow) > 1:
                self._schedule_flow(flow, position.number)
            self._remove(position)
            return position
        return None

    def expired(self, now: float) -> list[QueuePosition]:
        """Remove and return the waiters whose deadline has passed."""
        late = []
        while self._deadlines and (self._deadlines[0][0] <= now or not self._deadlines[0][2].is_waiting):
            position = heapq.heappop(self._deadlines)[2]
            if position.is_waiting:
                self._remove(position)
                late.append(position)
        return late

    def next_deadline(self) -> float | None:
        """Return the earliest deadline of a waiter; `None` if the queue is empty."""
        while self._deadlines and not self._deadlines[0][2].is_waiting:
            heapq.heappop(self._deadlines)
        return self._deadlines[0][0] if self._deadlines else None

    def _schedule_flow(self, flow: _Flow, number: int) -> None:
        # Equal tags are served in order of arrival.
        heapq.heappush(self._schedule, (max(self._virtual, flow.finish), number, flow))
        flow.is_scheduled = True

    def _remove(self, position: QueuePosition) -> None:
        position.is_waiting = False
        self.total -= 1
        if position.flow.returned.pop(position.number, None) is None:
            del position.flow.fresh[position.number]
        if not self.total:
            self._end_busy_period()
        elif len(self._deadlines) > 2 * self.total + _STALE_TOLERATED:
            self._deadlines = [entry for entry in self._deadlines if entry[2].is_waiting]
            heapq.heapify(self._deadlines)

    def _end_busy_period(self) -> None:
        """Make all flows equal: the queue is empty."""
        self._virtual = self._latest_finish
        for _, _, flow in self._schedule:
            flow.is_scheduled = False
        self._schedule.clear()
        self._deadlines.clear()
