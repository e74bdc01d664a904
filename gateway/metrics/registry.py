"""Creates the metrics of the catalogue and their series, and limits the number of series."""

import asyncio
import itertools
import math
import platform
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Final, TypeVar

import prometheus_client
from prometheus_client import CollectorRegistry, Gauge, Info, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST as TEXT_TYPE
from prometheus_client.exposition import generate_latest as generate_text
from prometheus_client.openmetrics.exposition import CONTENT_TYPE_LATEST as OPENMETRICS_TYPE
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.registry import Collector

from gateway import __version__
from gateway.metrics import catalogue
from gateway.metrics.catalogue import NAMESPACE, Family, Kind
from gateway.metrics.labels import OTHER, Domain, Label
from gateway.metrics.series import Counter, Histogram, SeriesCollector

# Otherwise every counter has a second series with its creation time.
prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]

MAX_SERIES: Final = 4000
"""Limit for one metric. Beyond it, learned label values count as `other`. It bounds a scrape to about a megabyte."""

Read = Callable[[], float | Mapping[str, float]]
"""Returns the value of a metric, or a value for each value of its only label."""

_Value = tuple[str, ...]

SeriesT = TypeVar("SeriesT", Counter, Histogram)


class Series(dict[_Value, SeriesT]):
    """The series of one metric by their label values. Incrementing a known one costs one look-up and no call."""

    def __init__(self, find: Callable[[_Value], tuple[SeriesT, bool]]) -> None:
        super().__init__()
        self._find: Callable[[_Value], tuple[SeriesT, bool]] = find

    def __missing__(self, values: _Value) -> SeriesT:
        series, is_exact = self._find(values)
        # Values that were replaced by `other` are not kept: each event with them counts as a dropped label.
        if is_exact:
            self[values] = series
        return series


class Registry:
    """The metrics of one gateway."""

    def __init__(self, known: Mapping[str, Sequence[str]], max_learned: Mapping[str, int]) -> None:
        self._registry = CollectorRegistry()
        self._domains: dict[Label, Domain] = {}
        self._known, self._max_learned = known, max_learned
        self._metrics: dict[Family, Gauge | SeriesCollector] = {}
        self._series: dict[tuple[Family, _Value], Counter | Gauge | Histogram] = {}
        self.counters: dict[Family, Series[Counter]] = {}
        """Counters by family and label values. Each event adds to their `value`."""
        self.histograms: dict[Family, Series[Histogram]] = {}
        """Histograms by family and label values, for `observe()`."""
        self._counts: dict[Family, int] = defaultdict(int)
        self._readers: dict[Family, _ReaderCollector] = {}
        self._writing = threading.Lock()
        for family in catalogue.families():
            self._make(family)
        ProcessCollector(registry=self._registry)

    def _make(self, family: Family) -> None:
        names = [label.name for label in family.labels]
        match family.kind:
            case Kind.INFO:
                info = Info(family.name, family.help_text, namespace=NAMESPACE, registry=self._registry)
                info.info({"version": __version__, "python": platform.python_version()})
                return
            case Kind.COUNTER:
                made: Gauge | SeriesCollector = SeriesCollector(family)
                self.counters[family] = Series(partial(self._counter, family))
            case Kind.GAUGE:
                made = Gauge(family.name, family.help_text, names, namespace=NAMESPACE, registry=self._registry)
            case Kind.HISTOGRAM:
                made = SeriesCollector(family)
                self.histograms[family] = Series(partial(self._histogram, family))
        self._metrics[family] = made
        if isinstance(made, SeriesCollector):
            self._registry.register(made)
        self._prepare(family)

    def _prepare(self, family: Family) -> None:
        known = [list(self._domain(label).values) for label in family.labels]
        # A metric without labels is its only series.
        if (family.is_prepared or not known) and math.prod(map(len, known)) <= MAX_SERIES:
            for values in itertools.product(*known):
                self._open(family, values)

    def _domain(self, label: Label) -> Domain:
        domain = self._domains.get(label)
        if domain is None:
            known = self._known.get(label.known_from, ()) if label.known_from else ()
            domain = self._domains[label] = Domain(label, known, self._max_learned.get(label.name))
        return domain

    def add_known_values(self, known: Mapping[str, Sequence[str]], max_learned: Mapping[str, int]) -> None:
        """Add known label values, such as the names of new teams, and create their series."""
        for label, domain in self._domains.items():
            if label.known_from is not None and label.known_from in known:
                domain.extend(known[label.known_from], max_learned.get(label.name))
        for family in self._metrics:
            if any(label.known_from in known for label in family.labels):
                self._prepare(family)

    def remove(self, family: Family, *values: str) -> None:
        """Remove a series, if it exists."""
        if self._series.pop((family, values), None) is not None:
            self._metrics[family].remove(*values)
            self._counts[family] -= 1

    def at(self, family: Family, *values: str) -> Counter | Gauge | Histogram:
        """Return the series of these label values, after replacing values that are not allowed by `other`."""
        series = self._series.get((family, values))
        if series is not None:
            return series
        domains = [self._domain(label) for label in family.labels]
        known = tuple(domain.accept(value) for domain, value in zip(domains, values, strict=True))
        if (family, known) not in self._series and self._counts[family] >= MAX_SERIES:
            # The metric is full: keep closed labels, and count learned ones as `other`.
            known = tuple(OTHER if domain.is_open else value for domain, value in zip(domains, known, strict=True))
        for label, before, after in zip(family.labels, values, known, strict=True):
            if before != after:
                self.counters[catalogue.LABELS_DROPPED][(label.name,)].value += 1
        return self._open(family, known)

    def _open(self, family: Family, values: _Value) -> Counter | Gauge | Histogram:
        """Return a series. A new one is created together with those that differ in closed labels only."""
        series = self._series.get((family, values))
        if series is None:
            choices = [
                list(dict.fromkeys((value, *label.values)))
                if not (label.is_open or label.known_from) and family.is_prepared
                else [value]
                for label, value in zip(family.labels, values, strict=True)
            ]
            metric = self._metrics[family]
            for each in itertools.product(*choices):
                if (family, each) not in self._series:
                    self._series[family, each] = _series_of(metric, each)
                    self._counts[family] += 1
            series = self._series[family, values]
        return series

    def set(self, family: Family, *values: str, to: float) -> None:
        """Set a gauge."""
        series = self._series.get((family, values)) or self.at(family, *values)
        assert isinstance(series, Gauge)
        series.set(to)

    def _counter(self, family: Family, values: _Value) -> tuple[Counter, bool]:
        series = self.at(family, *values)
        assert isinstance(series, Counter)
        return series, self._series.get((family, values)) is series

    def _histogram(self, family: Family, values: _Value) -> tuple[Histogram, bool]:
        series = self.at(family, *values)
        assert isinstance(series, Histogram)
        return series, self._series.get((family, values)) is series

    def add_reader(self, family: Family, read: Read) -> None:
        """Call `read` for the value of a metric at each scrape. Values of several readers are added up."""
        collector = self._readers.get(family)
        if collector is None:
            domain = self._domain(family.labels[0]) if family.labels else None
            collector = self._readers[family] = _ReaderCollector(family, domain)
            self._registry.unregister(self._metrics[family])
            self._registry.register(collector)
        collector.readers.append(read)

    async def scrape(self, accept: str) -> tuple[bytes, str]:
        """Return all metrics in the format that `Accept` asks for, and the content type.

        Readers are called on the event loop. Formatting is slow, so it runs in a thread.
        """
        for collector in self._readers.values():
            collector.refresh()
        return await asyncio.to_thread(self._write, accept)

    def _write(self, accept: str) -> tuple[bytes, str]:
        with self._writing:
            if "application/openmetrics-text" in accept:
                return bytes(generate_openmetrics(self._registry)), OPENMETRICS_TYPE  # type: ignore[no-untyped-call]
            return generate_text(self._registry), TEXT_TYPE


def _series_of(metric: Gauge | SeriesCollector, values: _Value) -> Counter | Gauge | Histogram:
    if isinstance(metric, SeriesCollector):
        return metric.labels(*values)
    # A gauge without labels is its own series.
    return metric.labels(*values) if values else metric


class _ReaderCollector(Collector):
    """A metric whose value is read from callbacks. It has at most one label."""

    def __init__(self, family: Family, domain: Domain | None) -> None:
        self._family = family
        self._domain = domain
        self.readers: list[Read] = []
        self._values: Mapping[_Value, float] = {}
        self.refresh()

    def refresh(self) -> None:
        """Call the readers."""
        values: dict[_Value, float] = {(): 0.0}
        if self._domain is not None:
            values = {(value,): 0.0 for value in self._domain.values}
        for read in self.readers:
            result = read()
            for value, number in result.items() if isinstance(result, Mapping) else (("", result),):
                key = (self._domain.accept(value),) if self._domain is not None else ()
                values[key] = values.get(key, 0.0) + number
        self._values = values

    def collect(self) -> Iterable[Metric]:
        """Yield the values read last."""
        family = self._family
        made = CounterMetricFamily if family.kind is Kind.COUNTER else GaugeMetricFamily
        metric = made(f"{NAMESPACE}_{family.name}", family.help_text, labels=[label.name for label in family.labels])
        for values, number in self._values.items():
            metric.add_metric(values, number)
        yield metric


def most_samples(teams: int, top_targets: int) -> int:
    """Return the largest possible number of samples of a scrape, without the `process_*` metrics."""
    names = [f"team {number}" for number in range(teams)]
    total = 0
    for family in catalogue.families():
        domains = [
            Domain(label, names if label.known_from == "teams" else (), top_targets if label.name == "target" else None)
            for label in family.labels
        ]
        everything = math.prod(domain.bound for domain in domains)
        as_other = math.prod(1 if domain.is_open else domain.bound for domain in domains)
        # Beyond the limit there are series of `other`, and those created together with the last learned one.
        most = everything if everything <= MAX_SERIES else MAX_SERIES + 2 * as_other
        total += most * family.samples_of_a_series
    return total
