"""Prometheus metrics. `catalogue.py` defines them.

Services report to observer protocols, all of which `Metrics` implements.
"""

import time
from collections.abc import Mapping, Sequence

import msgspec

from gateway.metrics import catalogue
from gateway.metrics.dashboard import DashboardMetrics
from gateway.metrics.delivery import DeliveryMetrics, FileMetrics, StreamMetrics
from gateway.metrics.identities import IdentityMetrics
from gateway.metrics.money import MoneyMetrics
from gateway.metrics.news import NewsMetrics
from gateway.metrics.nodes import NodeMetrics
from gateway.metrics.registry import Read
from gateway.metrics.traffic import PredictionMetrics, UpstreamMetrics
from gateway.runtime.live import LiveSettings

__all__ = ["Metrics", "MetricsSettings"]


class MetricsSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Names that labels may have from the start."""

    teams: Sequence[str]
    top_targets: int
    """Targets that are counted by name; the others count as `other`."""
    targets: Sequence[str] = ()
    """Targets that the config names."""
    issuers: Sequence[str] = ()
    concurrent_predictions: Mapping[str, int | None] = {}
    """The limit of each team, `None` for a team without one."""


def _known(settings: MetricsSettings) -> dict[str, Sequence[str]]:
    return {"teams": settings.teams, "targets": settings.targets, "issuers": settings.issuers}


class Metrics(
    DashboardMetrics,
    PredictionMetrics,
    UpstreamMetrics,
    MoneyMetrics,
    StreamMetrics,
    DeliveryMetrics,
    FileMetrics,
    NewsMetrics,
    NodeMetrics,
    IdentityMetrics,
):
    """All metrics of a gateway.

    Series of the teams and targets in `settings` and of `routes` exist from the start.
    """

    def __init__(self, settings: LiveSettings[MetricsSettings], *, routes: Sequence[str] = ()) -> None:
        now = settings.value
        super().__init__(_known(now) | {"routes": routes}, {"target": now.top_targets})
        self._show_limits(now)
        settings.subscribe(self._apply)
        self._answered = {}
        self.add_reader(catalogue.HTTP_IN_FLIGHT, lambda: self.in_flight)
        self.add_reader(catalogue.LAST_SUCCESS, lambda: self.last_success)
        self.set(catalogue.CONFIG_LOADED_AT, to=time.time())

    def _apply(self, settings: MetricsSettings) -> None:
        # Series that there are stay.
        self.add_known_values(_known(settings), {"target": settings.top_targets})
        self._show_limits(settings)

    def _show_limits(self, settings: MetricsSettings) -> None:
        for team, limit in settings.concurrent_predictions.items():
            self.concurrency_limited(team, limit)

    def config_reloaded(self, result: str, at: float) -> None:
        """Count a reload of the config: `taken` or `refused`. `at` is the epoch time of the reload."""
        self.counters[catalogue.CONFIG_RELOADS][(result,)].value += 1
        if result == "taken":
            self.set(catalogue.CONFIG_LOADED_AT, to=at)

    def store_answered(self, lane: str, result: str, seconds: float) -> None:
        """Count a store operation with its duration: `done`, `failed` or `late` (timed out)."""
        self.counters[catalogue.STORE_OPERATIONS][lane, result].value += 1
        self.histograms[catalogue.STORE_DURATION][(lane,)].observe(seconds)

    def store_failed(self, lane: str, kind: str) -> None:
        """Count a store operation that failed for a lasting reason."""
        self.counters[catalogue.STORE_FAILURES][lane, kind].value += 1

    def store_retried(self, cause: str) -> None:
        """Count a step that ran again."""
        self.counters[catalogue.STORE_RETRIES][(cause,)].value += 1

    def loop_crashed(self, loop: str) -> None:
        """Count a crash of a background loop."""
        self.counters[catalogue.LOOP_CRASHES][(loop,)].value += 1

    def loop_lagged(self, seconds: float) -> None:
        """Record the delay of an event-loop wake-up."""
        self.histograms[catalogue.LOOP_LAG][()].observe(seconds)

    def read_on_scrape(self, name: str, read: Read) -> None:
        """Call `read` for the value of a metric at each scrape. `name` is the name in the catalogue."""
        self.add_reader(next(family for family in catalogue.families() if family.name == name), read)
