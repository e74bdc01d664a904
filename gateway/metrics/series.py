"""Counters and histograms, as Prometheus has them, that cost little to use.

`prometheus_client` takes a lock and checks labels and exemplars for each event: 0.3 µs for a counter and 0.6 µs for a
histogram. These take 0.03 and 0.14, and a hit has about ten events. `prometheus_client` still writes them at a scrape.

Events are counted on the event loop. A scrape reads the numbers in a thread, each of them at one moment.
"""

import itertools
import math
from bisect import bisect_left
from collections.abc import Iterable

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from gateway.metrics.catalogue import NAMESPACE, Family, Kind


class Counter:
    """A number that only grows: each event adds to `value`."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0.0


class Histogram:
    """How many observations were at most each of some bounds, and their sum."""

    __slots__ = ("_bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        """Observations by bucket, each without those of the buckets below. The last has those above every bound."""
        self.sum = 0.0

    def observe(self, amount: float) -> None:
        """Count an observation."""
        self.counts[bisect_left(self._bounds, amount)] += 1
        self.sum += amount


class SeriesCollector(Collector):
    """The series of one counter or histogram, by their label values."""

    def __init__(self, family: Family) -> None:
        self._family = family
        self._bounds: list[str] = [*map(floatToGoString, (*family.buckets, math.inf))]
        self._series: dict[tuple[str, ...], Counter | Histogram] = {}

    def labels(self, *values: str) -> Counter | Histogram:
        """Return a series, and create it if it is new."""
        # Values of an enumeration become plain text.
        key = tuple(map(str, values))
        series = self._series.get(key)
        if series is None:
            series = Counter() if self._family.kind is Kind.COUNTER else Histogram(self._family.buckets)
            self._series[key] = series
        return series

    def remove(self, *values: str) -> None:
        """Remove a series."""
        del self._series[tuple(map(str, values))]

    def collect(self) -> Iterable[Metric]:
        """Yield the metric as `prometheus_client` writes it."""
        family = self._family
        name, labels = f"{NAMESPACE}_{family.name}", [label.name for label in family.labels]
        # A copy, because new series appear while a scrape is written.
        series = self._series.copy().items()
        if family.kind is Kind.COUNTER:
            counter = CounterMetricFamily(name, family.help_text, labels=labels)
            for values, counted in series:
                assert isinstance(counted, Counter)
                counter.add_metric(values, counted.value)
            yield counter
            return
        histogram = HistogramMetricFamily(name, family.help_text, labels=labels)
        for values, observed in series:
            assert isinstance(observed, Histogram)
            buckets = map(float, itertools.accumulate(observed.counts.copy()))
            histogram.add_metric(values, list(zip(self._bounds, buckets, strict=True)), observed.sum)
        yield histogram
