"""Metrics of the nodes that serve from one store."""

from gateway.metrics import catalogue
from gateway.metrics.registry import Registry


class NodeMetrics(Registry):
    """Observer of nodes."""

    def lease_lost(self) -> None:
        """Count that this node has lost its lease."""
        self.counters[catalogue.LEASES_LOST][()].inc()

    def nodes_died(self, count: int) -> None:
        """Count nodes whose expired leases this node has ended."""
        self.counters[catalogue.NODES_DIED][()].inc(count)

    def runs_taken_over(self, count: int) -> None:
        """Count runs that this node has taken over from nodes that have ended."""
        self.counters[catalogue.RUNS_TAKEN_OVER][()].inc(count)
