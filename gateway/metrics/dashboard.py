"""Values of the metrics that the console shows."""

from collections.abc import Iterator

from gateway.metrics import catalogue
from gateway.metrics.catalogue import Family
from gateway.metrics.traffic import RequestMetrics


class DashboardMetrics(RequestMetrics):
    """Reads metrics for the console. Series with the value 0 are left out."""

    def requests_in_progress(self) -> int:
        """Return the number of requests in progress."""
        return self.in_flight

    def refusals_by_limit(self) -> dict[tuple[str, str], int]:
        """Return the creates refused by limits, by team and kind of limit."""
        return {(labels["team"], labels["reason"]): count for labels, count in self._nonzero(catalogue.QUOTA_REFUSALS)}

    def refusals_by_reason(self) -> dict[str, int]:
        """Return the requests refused by the gateway, by error."""
        return {labels["reason"]: count for labels, count in self._nonzero(catalogue.REFUSALS)}

    def _nonzero(self, family: Family) -> Iterator[tuple[dict[str, str], int]]:
        for metric in self._metrics[family].collect():
            for sample in metric.samples:
                if sample.value:
                    yield sample.labels, int(sample.value)
