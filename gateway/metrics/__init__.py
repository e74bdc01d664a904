"""Metrics for operators. `catalogue.py` names every one; the rest counts.

Services and the edge tell what happens through the observers of `gateway.ports`; `Metrics` is all of them.
"""

import time
from collections.abc import Sequence

from gateway.metrics import catalogue
from gateway.metrics.delivery import DeliveryMetrics, FileMetrics, StreamMetrics
from gateway.metrics.figures import FigureMetrics
from gateway.metrics.money import MoneyMetrics
from gateway.metrics.registry import Read
from gateway.metrics.traffic import PredictionMetrics, UpstreamMetrics

__all__ = ["Metrics"]


class Metrics(
    FigureMetrics,
    PredictionMetrics,
    UpstreamMetrics,
    MoneyMetrics,
    StreamMetrics,
    DeliveryMetrics,
    FileMetrics,
):
    """The gateway's metrics.

    `targets` and `routes` are names that are known beforehand: their series exist from the start.
    """

    def __init__(
        self,
        *,
        teams: Sequence[str],
        top_targets: int,
        targets: Sequence[str] = (),
        routes: Sequence[str] = (),
    ) -> None:
        super().__init__({"teams": teams, "targets": targets, "routes": routes}, {"target": top_targets})
        self._answered = {}
        paths = next(label.values for label in catalogue.OVERHEAD.labels)
        self._overheads = {path: self.histogram(catalogue.OVERHEAD, path) for path in paths}
        self._polled = {by: self.counter(catalogue.POLLS, by) for by in ("gateway", "upstream")}
        self.read_from(catalogue.HTTP_IN_FLIGHT, lambda: self.in_flight)
        self.set(catalogue.CONFIG_LOADED_AT, to=time.time())

    def reconfigure(self, *, teams: Sequence[str], top_targets: int, targets: Sequence[str]) -> None:
        """Know further teams and targets by name, and more or fewer targets. Series that there are stay."""
        self.give({"teams": teams, "targets": targets}, {"target": top_targets})

    def config_reloaded(self, result: str, at: float) -> None:
        """Note a try to read the config anew: it was `taken`, or `refused`."""
        self.inc(catalogue.CONFIG_RELOADS, result)
        if result == "taken":
            self.set(catalogue.CONFIG_LOADED_AT, to=at)

    def store_answered(self, lane: str, result: str, seconds: float) -> None:
        """Note a step of the store: it was `done`, has `failed`, or its answer came too `late`."""
        self.inc(catalogue.STORE_OPERATIONS, lane, result)
        self.observe(catalogue.STORE_DURATION, lane, seconds=seconds)

    def loop_lagged(self, seconds: float) -> None:
        """Note how late the event loop was."""
        self.observe(catalogue.LOOP_LAG, seconds=seconds)

    def watch(self, name: str, read: Read) -> None:
        """Have a metric of the catalogue read when it is asked for."""
        self.read_from(next(family for family in catalogue.families() if family.name == name), read)
