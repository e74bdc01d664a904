"""Callers whose creates wait in a `LimitQueue`, and a store that has as many places as the test says."""

import asyncio
from collections.abc import Callable
from functools import partial

from gateway.domain.create_body import CreateBody
from gateway.domain.create_request import CreateCommand
from gateway.domain.limits import SubjectKind
from gateway.domain.quota import LimitKind, LimitStatus, Refused, ReservationRequest, RunLimits
from gateway.domain.records import Kind
from gateway.domain.targets import Target, TargetKind
from gateway.money.limit_queue import LimitQueue, QueueEntry, WaitForLimit
from tests.support.callers import caller
from tests.support.clock import ManualClock


class Callers:
    """Asks for places, and gives each as many as there are."""

    def __init__(self, limit_queue: LimitQueue, clock: ManualClock) -> None:
        self.limit_queue = limit_queue
        self.clock = clock
        self.free: dict[str, int] = {}
        self.led: list[str] = []
        self.has_left: set[str] = set()
        self.listeners: dict[str, Callable[[], None]] = {}
        self.orders: dict[str, CreateCommand] = {}
        self.tries = 0

    def order(self, name: str, patience: float) -> CreateCommand:
        target = Target(TargetKind.MODEL, "acme/toy")
        return CreateCommand(
            kind=Kind.PREDICTION,
            operation="predictions.create",
            path="/predictions",
            target=target,
            body=CreateBody(input=b"{}", target=target),
            hold_until=self.clock.monotonic() + patience,
            has_left=lambda: name in self.has_left,
            add_departure_listener=partial(self.listen, name),
        )

    def listen(self, name: str, callback: Callable[[], None]) -> Callable[[], None]:
        self.listeners[name] = callback
        return partial(self.listeners.__delitem__, name)

    def leave(self, name: str) -> None:
        self.has_left.add(name)
        self.listeners[name]()

    def ask(
        self,
        name: str,
        *scopes: str,
        patience: float = 20.0,
        wait: float = 1.0,
        kind: LimitKind = LimitKind.CONCURRENCY,
    ) -> asyncio.Task[None]:
        allowances = tuple(
            RunLimits(of=SubjectKind(scope.partition("/")[0]), scope=scope, concurrent=1) for scope in scopes
        )
        demand = ReservationRequest(1, 1, allowances)
        return asyncio.create_task(self._ask(name, demand, patience, lambda scope: refused(scope, wait, kind)))

    async def _ask(
        self, name: str, demand: ReservationRequest, patience: float, refuse: Callable[[str], Refused]
    ) -> None:
        command = self.orders[name] = self.order(name, patience)
        place = QueueEntry(self.limit_queue, caller(), command)
        place.price(demand)
        try:
            while True:
                if (held := self._try(name, place, demand, refuse)) is None:
                    return
                await place.wait(held.refused)
        finally:
            place.leave()

    def _try(
        self, name: str, place: QueueEntry, demand: ReservationRequest, refuse: Callable[[str], Refused]
    ) -> WaitForLimit | None:
        if (behind := place.check_turn()) is not None:
            return behind
        self.tries += 1
        for allowance in demand.allowances:
            if self.free.get(allowance.scope, 10**6) < 1:
                return WaitForLimit(refuse(allowance.scope))
        for allowance in demand.allowances:
            self.free[allowance.scope] = self.free.get(allowance.scope, 10**6) - 1
        self.led.append(name)
        return None

    def release(self, scope: str, count: int = 1) -> None:
        self.free[scope] += count
        self.limit_queue.freed("red")


def refused(scope: str, wait: float = 1.0, kind: LimitKind = LimitKind.CONCURRENCY) -> Refused:
    standing = LimitStatus(
        name="concurrent_predictions",
        of=SubjectKind(scope.partition("/")[0]),
        scope=scope,
        kind=kind,
        limit=1,
        used=1,
        held=0,
        remaining=0,
        resets_at=None,
    )
    return Refused(standing, wait)
