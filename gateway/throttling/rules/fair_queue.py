"""A fair queue: who has the next turn when several compete for one rate.

Start-time fair queueing (P. Goyal, H. M. Vin, H. Cheng, "Start-time Fair Queuing", SIGCOMM 1996) over flows of
different weight, every turn of the same size. A flow's turn has a start tag: the larger of the virtual time (the start
tag of the turn that was given last) and the tag at which the flow's turn before ended; a turn lasts 1/weight. The
smallest tag is next. So:

- Flows that always want more get turns in proportion to their weights; what one does not use goes to the others.
- A flow that comes back from a pause starts at the virtual time: nobody has been saving up, nobody is paid back. Its
  first turn comes after at most one of each other flow.
- Nobody starves: each turn given moves the virtual time towards every tag that waits.
- When nobody waits any more, all flows are level again.

Within a flow turns go in order of arrival; one that was given in vain, because upstream refused, goes before them. A
step takes O(log flows); a deadline takes O(log waiters). Pure: times are arguments, of any clock that all calls share.
"""

import heapq
import itertools
from collections import OrderedDict
from collections.abc import Mapping

# Deadlines of those who have left stay in their heap until they are due, unless they are most of it.
_STALE_TOLERATED = 64


class QueuePosition:
    """Somebody's place in the queue."""

    __slots__ = ("_number", "flow", "is_waiting", "until")

    def __init__(self, flow: "_Flow", number: int, until: float) -> None:
        self.flow = flow
        self.until = until
        self.is_waiting = True
        self._number = number

    @property
    def number(self) -> int:
        """The order of arrival."""
        return self._number


class _Flow:
    """One who competes: its weight, its tags, and those who wait on its behalf."""

    __slots__ = ("ends", "fresh", "is_lined_up", "returned", "share")

    def __init__(self, weight: float) -> None:
        self.share = 1.0 / weight
        self.ends = 0.0
        """The tag at which its latest turn ends."""
        self.is_lined_up = False
        """Whether it has its one entry in the line of flows."""
        self.returned: OrderedDict[int, QueuePosition] = OrderedDict()
        """Those whose turn came to nothing, which go first."""
        self.fresh: OrderedDict[int, QueuePosition] = OrderedDict()

    def __len__(self) -> int:
        return len(self.returned) + len(self.fresh)


class FairQueue:
    """Those who wait for a turn. `weights` names every flow that there is; `max_waiting` bounds each."""

    def __init__(self, weights: Mapping[str, float], *, max_waiting: int) -> None:
        self._flows = {name: _Flow(weight) for name, weight in weights.items()}
        self._max_waiting = max_waiting
        self._waiting = 0
        self._virtual = 0.0
        self._latest_end = 0.0
        self._numbers = itertools.count()
        self._line: list[tuple[float, int, _Flow]] = []
        """Flows by the start tag of their next turn; one entry each at most."""
        self._deadlines: list[tuple[float, int, QueuePosition]] = []

    def reweigh(self, weights: Mapping[str, float]) -> None:
        """Give flows other weights, from their next turn on, and add new ones.

        Those that are not named stay as they are: somebody may be waiting, or come yet, on their behalf.
        """
        for name, weight in weights.items():
            if (flow := self._flows.get(name)) is not None:
                flow.share = 1.0 / weight
            else:
                self._flows[name] = _Flow(weight)

    def __len__(self) -> int:
        return self._waiting

    def waiting(self, name: str) -> int:
        """Return how many wait on behalf of a flow."""
        return len(self._flows[name])

    def is_full(self, name: str) -> bool:
        """Whether a flow has as many who wait as it may."""
        return len(self._flows[name]) >= self._max_waiting

    def join(self, name: str, until: float, *, returned: bool = False) -> QueuePosition:
        """Wait for a turn, at most `until` that time. `returned` is for those whose turn came to nothing."""
        flow = self._flows[name]
        place = QueuePosition(flow, next(self._numbers), until)
        (flow.returned if returned else flow.fresh)[place.number] = place
        self._waiting += 1
        heapq.heappush(self._deadlines, (until, place.number, place))
        if not flow.is_lined_up:
            self._line_up(flow, place.number)
        return place

    def leave(self, place: QueuePosition) -> None:
        """Give up a place: those behind move up, as if it had never been taken. Do nothing once it was given its turn.

        The flow stays in line with the tag that it has: that is no earlier than the one it would be given anew, since
        the virtual time has not passed it.
        """
        if place.is_waiting:
            self._take_out(place)

    def next(self) -> QueuePosition | None:
        """Give the next turn, or return `None` if nobody waits."""
        while self._line:
            starts, _, flow = heapq.heappop(self._line)
            flow.is_lined_up = False
            if not flow:
                continue
            self._virtual = starts
            flow.ends = starts + flow.share
            self._latest_end = max(self._latest_end, flow.ends)
            place = next(iter((flow.returned or flow.fresh).values()))
            if len(flow) > 1:
                self._line_up(flow, place.number)
            self._take_out(place)
            return place
        return None

    def expired(self, now: float) -> list[QueuePosition]:
        """Take out those whose time is over, and return them."""
        late = []
        while self._deadlines and (self._deadlines[0][0] <= now or not self._deadlines[0][2].is_waiting):
            place = heapq.heappop(self._deadlines)[2]
            if place.is_waiting:
                self._take_out(place)
                late.append(place)
        return late

    def next_deadline(self) -> float | None:
        """Return when somebody's time is over next; `None` if nobody waits."""
        while self._deadlines and not self._deadlines[0][2].is_waiting:
            heapq.heappop(self._deadlines)
        return self._deadlines[0][0] if self._deadlines else None

    def _line_up(self, flow: _Flow, number: int) -> None:
        # Equal tags go by arrival.
        heapq.heappush(self._line, (max(self._virtual, flow.ends), number, flow))
        flow.is_lined_up = True

    def _take_out(self, place: QueuePosition) -> None:
        place.is_waiting = False
        self._waiting -= 1
        if place.flow.returned.pop(place.number, None) is None:
            del place.flow.fresh[place.number]
        if not self._waiting:
            self._rest()
        elif len(self._deadlines) > 2 * self._waiting + _STALE_TOLERATED:
            self._deadlines = [entry for entry in self._deadlines if entry[2].is_waiting]
            heapq.heapify(self._deadlines)

    def _rest(self) -> None:
        """End a busy period: whoever comes next finds all flows level."""
        self._virtual = self._latest_end
        for _, _, flow in self._line:
            flow.is_lined_up = False
        self._line.clear()
        self._deadlines.clear()
