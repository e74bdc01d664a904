"""What the usage page reads of the metrics: see `gateway.operations.ports.dashboard`."""

from collections.abc import Iterator

from gateway.metrics import catalogue
from gateway.metrics.catalogue import Family
from gateway.metrics.traffic import RequestMetrics


class FigureMetrics(RequestMetrics):
    """The figures of the usage page. Series that exist since the start, and have counted nothing, are left out."""

    def requests_under_way(self) -> int:
        """Count the requests that are being answered."""
        return self.in_flight

    def refusals_by_limit(self) -> dict[tuple[str, str], int]:
        """Count creates that limits refused, by team and by what the limit counts."""
        return {(labels["team"], labels["reason"]): count for labels, count in self._counted(catalogue.QUOTA_REFUSALS)}

    def refusals_by_reason(self) -> dict[str, int]:
        """Count requests that the gateway refused, by the name of the error."""
        return {labels["reason"]: count for labels, count in self._counted(catalogue.REFUSALS)}

    def _counted(self, family: Family) -> Iterator[tuple[dict[str, str], int]]:
        for metric in self._metrics[family].collect():
            for sample in metric.samples:
                if sample.value:
                    yield sample.labels, int(sample.value)
