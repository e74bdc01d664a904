"""The queue of creates over a request rate on one of several nodes.

Each node has a queue of its own. A create is released by the node's share of its rates, or by tokens that no node
holds, for which the oldest create of each group asks.
"""

import math

from gateway.domain.ports.clock import Clock
from gateway.domain.ports.observers import LimitObserver
from gateway.errors import GatewayError
from gateway.throttling.divided_request_rates import DividedRequestRates
from gateway.throttling.hold_queue import HoldQueue
from gateway.throttling.rules.hold_line import HeldCreate, HoldLine
from gateway.throttling.rules.request_rates import RateExceeded

_LEAST_PAUSE_SECONDS = 0.05
_STORE_AWAY_SECONDS = 0.5


class DividedHoldQueue(HoldQueue):
    """Hold creates until their request rates admit them."""

    def __init__(self, clock: Clock, observer: LimitObserver, rates: DividedRequestRates) -> None:
        super().__init__(clock, observer, rates)
        self._divided = rates

    async def _step(self, line: HoldLine) -> tuple[list[tuple[HeldCreate, RateExceeded | None]], float]:
        released, _ = line.step(self._clock.monotonic())
        pause = math.inf
        for head in line.heads():
            held: HeldCreate | None = head
            while held is not None:
                seconds = await self._wait(held)
                if seconds > 0.0:
                    pause = min(pause, seconds, held.until - self._clock.monotonic())
                    break
                line.leave(held)
                released.append((held, None))
                held = line.next_after(held)
        return released, max(_LEAST_PAUSE_SECONDS, pause)

    async def _wait(self, held: HeldCreate) -> float:
        """Charge a create; return 0, or the seconds until it can be tried again."""
        try:
            exceeded = await self._divided.take(held.buckets, held=True)
        except GatewayError:
            return _STORE_AWAY_SECONDS
        return 0.0 if exceeded is None else max(exceeded.seconds, _LEAST_PAUSE_SECONDS)
