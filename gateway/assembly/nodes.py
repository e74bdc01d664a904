"""Joins the nodes that serve from the store, takes over from those that end, and drops the runs of a lost lease."""

import asyncio
import logging
import os
import socket
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack

import msgspec

from gateway import __version__
from gateway.assembly.build import Parts
from gateway.domain.ports.clock import Clock
from gateway.domain.records import Run, RunState
from gateway.errors import GatewayError
from gateway.metrics import Metrics
from gateway.nodes.membership import LeasedNode, LeaseTimes, Membership, OnlyNode
from gateway.nodes.takeover import Takeover
from gateway.outputs.rules.outputs import LINKS_DIE_SECONDS
from gateway.predictions.events import Listener
from gateway.runtime import process_place
from gateway.runtime.clock import SystemClock, uptime
from gateway.runtime.loops import BackgroundLoop, run_while_open
from gateway.store.interface import Store

logger = logging.getLogger(__name__)

_ENDED_PAGE = 200
"""Ended runs that are taken at a time, to look for outputs that were not copied."""


async def join_nodes(
    store: Store, clock: Clock, metrics: Metrics, stack: AsyncExitStack, times: LeaseTimes | None
) -> Membership:
    """Join the nodes, and renew the lease until the stack closes. Raise `StoreUnavailable`."""
    if store.nodes is None:
        return OnlyNode()
    node = LeasedNode(
        store.nodes,
        clock,
        name=f"{socket.gethostname()}:{os.getpid()}",
        place=await asyncio.to_thread(process_place.own_place),
        times=times,
        monotonic=uptime if isinstance(clock, SystemClock) else None,
    )
    await node.start()
    # Last but for the store: until then the work in progress is recorded.
    stack.push_async_callback(node.leave)
    run_while_open(stack, node.run, BackgroundLoop.LEASE, clock, metrics.loop_crashed)
    node.add_lost_listener(metrics.lease_lost)
    metrics.read_on_scrape("node_lease_age_seconds", lambda: node.lease_age)
    metrics.read_on_scrape("node_alive", lambda: float(node.is_alive()))
    metrics.read_on_scrape("node_leads", lambda: float(node.is_leader()))
    metrics.read_on_scrape("store_clock_skew_seconds", lambda: node.clock_skew_seconds)
    return node


async def connect_nodes(parts: Parts) -> None:
    """Take over what ended nodes have left, now and later. Does nothing where one process serves."""
    base, node = parts.base, parts.base.membership
    if base.store.nodes is None or not isinstance(node, LeasedNode):
        return
    node.report = _Report(parts, node)
    handover = _Handover(parts, node)
    takeover = Takeover(
        base.store.nodes,
        node,
        base.clock,
        look_seconds=node.times.look,
        on_taken=handover.take,
        on_nodes_ended=handover.resume,
        find_dropped=handover.find_dropped,
        observer=base.metrics,
        find_gone=_find_gone,
    )
    node.add_lost_listener(handover.drop)
    node.add_joined_listener(takeover.look_again)
    base.metrics.read_on_scrape("nodes_alive", lambda: float(takeover.living))
    base.metrics.read_on_scrape("node_owned_runs", lambda: float(_owned(parts)))
    try:
        await takeover.look()
    except GatewayError as exc:
        logger.warning("runs could not be taken over yet", extra={"reason": exc.detail})
    base.keep_running(takeover.run, BackgroundLoop.TAKEOVER)


async def _find_gone(places: Mapping[int, str]) -> Sequence[int]:
    return await asyncio.to_thread(lambda: [each for each, place in places.items() if process_place.is_gone(place)])


def _owned(parts: Parts) -> int:
    return parts.predictions.tracker.active + parts.predictions.run_creator.adopter.searching


class _Report:
    """What other nodes, and operators, may know of this one."""

    def __init__(self, parts: Parts, node: LeasedNode) -> None:
        self._parts = parts
        self._node = node

    def __call__(self) -> str:
        """Return it as JSON."""
        said = {"runs": _owned(self._parts), "leads": self._node.is_leader(), "version": __version__}
        return msgspec.json.encode(said).decode()


class _Handover:
    """What the parts do when runs become this node's, and when they are no longer."""

    def __init__(self, parts: Parts, node: LeasedNode) -> None:
        self._parts = parts
        self._node = node
        # A node whose lease expired may have sent a create until then, and wait for its answer.
        self._released_after = node.times.lease + parts.upstream.create_seconds
        self._missing: set[str] = set()
        """Own runs that nothing was done for at the last check."""

    def take(self, runs: Sequence[Run]) -> None:
        """Go on with runs that were taken over, each isolated from the others' failures."""
        predictions = self._parts.predictions
        for run in runs:
            if run.state is RunState.INTENDED:
                predictions.events.call(Listener.TRACKER, run.id, self._search, run)
            else:
                predictions.events.call(Listener.TRACKER, run.id, predictions.tracker.catch_up, run)
                predictions.events.call(Listener.STREAMS, run.id, self._parts.streams.hub.take_over, run)

    def _search(self, intent: Run) -> None:
        creator = self._parts.predictions.run_creator
        if self._node.is_leader():
            creator.search_taken(intent, self._released_after)
        else:
            # One of its own that was dropped: the node that leads searches for it.
            creator.search(intent)

    async def find_dropped(self, owned: Sequence[str]) -> Sequence[Run]:
        """Return those of this node's runs that nothing was done for at this check nor the last one."""
        predictions = self._parts.predictions
        tracker, pending = predictions.tracker, predictions.run_creator.pending_creates
        missing = {each for each in owned if tracker.tracked(each) is None and pending.get(each) is None}
        again, self._missing = missing & self._missing, missing
        # Read after that: a run whose end was recorded meanwhile is not open any more.
        read = [await self._parts.base.store.run(each) for each in sorted(again)]
        return [run for run in read if run is not None and run.state is not RunState.ENDED and tracker.owns(run)]

    async def resume(self) -> None:
        """Go on with what belongs to runs: deadlines, webhooks, copies of outputs. Raise `StoreUnavailable`."""
        await self._parts.predictions.deadlines.resume()
        await self._parts.webhooks.dispatcher.resume()
        copier = self._parts.outputs.copier if self._parts.outputs is not None else None
        if copier is not None and self._parts.base.store.nodes is not None:
            since = self._parts.base.clock.now() - LINKS_DIE_SECONDS
            take = self._parts.base.store.nodes.take_ended_runs
            while await take(self._node.number, since, _ENDED_PAGE) == _ENDED_PAGE:
                pass
            copier.look_again()

    def drop(self) -> None:
        """Do no more for runs that this node owned, and write nothing of them."""
        parts = self._parts
        parts.predictions.tracker.drop()
        parts.predictions.run_creator.drop()
        parts.webhooks.dispatcher.drop()
        parts.streams.hub.drop()
        parts.streams.open_streams.end_all()
