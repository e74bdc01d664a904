"""Takeover: open runs of nodes that have ended go to the others, in pages, and go on there as after a restart.

Every node looks. Nodes that take at the same time share the runs. Expired nodes are ended by whoever looks first.
"""

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol

from gateway.domain.ports.clock import Clock
from gateway.domain.ports.observers import NodesObserver
from gateway.domain.records import Run, RunState
from gateway.errors import GatewayError
from gateway.nodes.ports import Living, Nodes

logger = logging.getLogger(__name__)

PAGE = 20
"""Runs that are taken at a time: each has a document, and others should get some too."""
_PAUSE_BETWEEN_PAGES = 0.02
_LOOKS_BETWEEN_CHECKS = 15


class Taker(Protocol):
    """The own node, as far as takeover asks."""

    @property
    def number(self) -> int:
        """Its number."""
        ...

    def is_alive(self) -> bool:
        """Say whether its lease is valid."""
        ...

    def is_leader(self) -> bool:
        """Say whether it does what one node does for all."""
        ...

    async def lead(self) -> None:
        """Become the node that leads, if none does. Raises nothing."""
        ...

    async def living(self) -> Living:
        """List the nodes that have not ended. Raise `StoreUnavailable`."""
        ...

    def may_take_over(self) -> bool:
        """Say whether it may end nodes whose leases have expired."""
        ...


class Takeover:
    """Takes over the runs of ended nodes."""

    def __init__(
        self,
        nodes: Nodes,
        node: Taker,
        clock: Clock,
        *,
        look_seconds: float,
        on_taken: Callable[[Sequence[Run]], None],
        on_nodes_ended: Callable[[], Awaitable[None]],
        find_dropped: Callable[[Sequence[str]], Awaitable[Sequence[Run]]],
        observer: NodesObserver,
        find_gone: Callable[[Mapping[int, str]], Awaitable[Sequence[int]]] | None = None,
    ) -> None:
        """Take `on_taken`, called with runs that are this node's from now on, and `on_nodes_ended`.

        `on_nodes_ended` is called after the runs were taken: there may be deliveries, deadlines and copies too. If it
        raises, it is called again later. `find_dropped` returns those of this node's open runs, of which it gets the
        ids, that this process does nothing for. `find_gone` returns which nodes' processes are known to have ended, by
        where they run.
        """
        self._find_gone = find_gone
        self._nodes = nodes
        self._node = node
        self._clock = clock
        self._look_seconds = look_seconds
        self._on_taken = on_taken
        self._on_nodes_ended = on_nodes_ended
        self._find_dropped = find_dropped
        self._observer = observer
        self._living: frozenset[int] = frozenset()
        self._is_due = True
        self._looks = 0
        self._has_taken_live = False
        """Whether live runs were taken: one that a step had locked at the look that was due is taken at a later one."""

    @property
    def living(self) -> int:
        """How many nodes had not ended at the last look."""
        return len(self._living)

    def look_again(self) -> None:
        """Take over at the next look, whether or not a node has ended since the last one."""
        self._is_due = True

    async def run(self) -> None:
        """Look until cancelled. When the store fails, the next look tries again."""
        while True:
            await self._clock.sleep(self._look_seconds)
            try:
                await self.look()
            except GatewayError as exc:
                logger.warning("runs could not be taken over yet", extra={"reason": exc.detail})

    async def look(self) -> None:
        """End expired nodes, and take over what ended nodes have left. Raise `StoreUnavailable`."""
        node = self._node
        if not node.is_alive():
            return
        number = node.number
        at, places = await node.living()
        living = frozenset(places) - await self._end_dead(number, at, places)
        is_due, self._is_due = self._is_due or not self._living <= living, False
        self._living = living
        if is_due and not node.is_leader():
            # The one that led may be what has ended. Uncertain creates do not wait for the next renewal.
            await node.lead()
        try:
            # The leader also takes uncertain creates, which their nodes pass on, and what a node that did not know of
            # its end has begun since.
            taken = await self._take(number) if is_due or node.is_leader() else 0
            self._looks += 1
            if self._looks % _LOOKS_BETWEEN_CHECKS == 0:
                taken += await self._take_dropped(number)
            has_live, self._has_taken_live = self._has_taken_live, False
            if is_due or has_live:
                await self._on_nodes_ended()
        except GatewayError:
            # Runs may have been taken before it failed.
            self._is_due = True
            raise
        if taken:
            logger.warning("runs were taken over", extra={"runs": taken, "node": number})

    async def _end_dead(self, number: int, at: float, places: Mapping[int, str]) -> frozenset[int]:
        """End the nodes that have died, and return which."""
        dead: set[int] = set()
        others = {each: place for each, place in places.items() if each != number and place}
        # Their leases need not end: a process that has ended does nothing any more.
        gone = await self._find_gone(others) if others and self._find_gone is not None else ()
        if gone and (ended := await self._nodes.end(number, gone)):
            logger.error("nodes have died: their processes have ended", extra={"nodes": ended})
            self._observer.nodes_died(len(ended))
            dead |= set(ended)
        if self._node.may_take_over() and (expired := await self._nodes.end_expired(number, at)):
            logger.error("nodes have died: their leases have expired", extra={"nodes": expired})
            self._observer.nodes_died(len(expired))
            dead |= set(expired)
        return frozenset(dead)

    async def _take(self, number: int) -> int:
        taken = 0
        while self._node.number == number and self._node.is_alive():
            runs = await self._nodes.take_runs(number, PAGE)
            if runs and self._node.number == number:
                self._go_on(runs)
            taken += len(runs)
            if len(runs) < PAGE:
                break
            await self._clock.sleep(_PAUSE_BETWEEN_PAGES)
        return taken

    async def _take_dropped(self, number: int) -> int:
        """Go on with this node's own runs that it does nothing for: it took or recorded them, and was not answered."""
        dropped = await self._find_dropped(await self._nodes.owned_runs(number))
        if not dropped or self._node.number != number:
            return 0
        logger.error("runs of this node were not followed", extra={"runs": len(dropped), "node": number})
        self._go_on(dropped)
        return len(dropped)

    def _go_on(self, runs: Sequence[Run]) -> None:
        # Counted at once: what follows may fail.
        self._observer.runs_taken_over(len(runs))
        self._has_taken_live = self._has_taken_live or any(run.state is RunState.LIVE for run in runs)
        self._on_taken(runs)
