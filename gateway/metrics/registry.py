"""The registry: makes the metrics of the catalogue, hands out their series, and keeps their number in bounds."""

import asyncio
import itertools
import math
import platform
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, ProcessCollector
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

# Every counter would have a second series with the time at which it was made.
prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]

MAX_SERIES: Final = 4000
"""Of one metric, as long as its labels learn; then newcomers count as `other`. So a scrape takes a megabyte or so."""

Read = Callable[[], float | Mapping[str, float]]
"""Reads a gauge, or one for each value of its only label."""

_Value = tuple[str, ...]


class Registry:
    """The metrics of one gateway."""

    def __init__(self, given: Mapping[str, Sequence[str]], most: Mapping[str, int]) -> None:
        self._registry = CollectorRegistry()
        self._domains: dict[Label, Domain] = {}
        self._given, self._most = given, most
        self._metrics: dict[Family, Counter | Gauge | Histogram] = {}
        self._series: dict[tuple[Family, _Value], Counter | Gauge | Histogram] = {}
        self._counts: dict[Family, int] = defaultdict(int)
        self._watched: dict[Family, _Watched] = {}
        self._writing = threading.Lock()
        for family in catalogue.families():
            self._make(family)
        ProcessCollector(registry=self._registry)

    def _make(self, family: Family) -> None:
        names = [label.name for label in family.labels]
        match family.kind:
            case Kind.INFO:
                info = Info(family.name, family.words, namespace=NAMESPACE, registry=self._registry)
                info.info({"version": __version__, "python": platform.python_version()})
                return
            case Kind.COUNTER:
                made: Counter | Gauge | Histogram = Counter(
                    family.name, family.words, names, namespace=NAMESPACE, registry=self._registry
                )
            case Kind.GAUGE:
                made = Gauge(family.name, family.words, names, namespace=NAMESPACE, registry=self._registry)
            case Kind.HISTOGRAM:
                made = Histogram(
                    family.name,
                    family.words,
                    names,
                    namespace=NAMESPACE,
                    registry=self._registry,
                    buckets=family.buckets,
                )
        self._metrics[family] = made
        self._prepare(family)

    def _prepare(self, family: Family) -> None:
        known = [list(self._domain(label).values) for label in family.labels]
        if family.is_prepared and math.prod(map(len, known)) <= MAX_SERIES:
            for values in itertools.product(*known):
                self._open(family, values)

    def _domain(self, label: Label) -> Domain:
        domain = self._domains.get(label)
        if domain is None:
            given = self._given.get(label.given, ()) if label.given else ()
            domain = self._domains[label] = Domain(label, given, self._most.get(label.name))
        return domain

    def give(self, given: Mapping[str, Sequence[str]], most: Mapping[str, int]) -> None:
        """Know further names, such as those of new teams, and open their series."""
        for label, domain in self._domains.items():
            if label.given is not None and label.given in given:
                domain.give(given[label.given], most.get(label.name))
        for family in self._metrics:
            if any(label.given in given for label in family.labels):
                self._prepare(family)

    def forget(self, family: Family, *values: str) -> None:
        """Show a value no more, if it was shown."""
        if self._series.pop((family, values), None) is not None:
            self._metrics[family].remove(*values)
            self._counts[family] -= 1

    def at(self, family: Family, *values: str) -> Counter | Gauge | Histogram:
        """Return the series of these labels' values, of those that they are counted under."""
        series = self._series.get((family, values))
        if series is not None:
            return series
        domains = [self._domain(label) for label in family.labels]
        known = tuple(domain.take(value) for domain, value in zip(domains, values, strict=True))
        if (family, known) not in self._series and self._counts[family] >= MAX_SERIES:
            # What is closed stays; what is learned has had its share.
            known = tuple(OTHER if domain.is_open else value for domain, value in zip(domains, known, strict=True))
        for label, before, after in zip(family.labels, values, known, strict=True):
            if before != after:
                self.inc(catalogue.LABELS_DROPPED, label.name)
        return self._open(family, known)

    def _open(self, family: Family, values: _Value) -> Counter | Gauge | Histogram:
        """Return a series; with a new one come those that differ from it in closed labels only."""
        series = self._series.get((family, values))
        if series is None:
            choices = [
                list(dict.fromkeys((value, *label.values)))
                if not (label.is_open or label.given) and family.is_prepared
                else [value]
                for label, value in zip(family.labels, values, strict=True)
            ]
            metric = self._metrics[family]
            for each in itertools.product(*choices):
                if (family, each) not in self._series:
                    self._series[family, each] = metric.labels(*each) if each else metric
                    self._counts[family] += 1
            series = self._series[family, values]
        return series

    def inc(self, family: Family, *values: str, by: float = 1.0) -> None:
        """Count."""
        series = self.at(family, *values)
        assert isinstance(series, Counter | Gauge)
        series.inc(by)

    def set(self, family: Family, *values: str, to: float) -> None:
        """Show a value."""
        series = self.at(family, *values)
        assert isinstance(series, Gauge)
        series.set(to)

    def observe(self, family: Family, *values: str, seconds: float) -> None:
        """Add to a distribution."""
        series = self.at(family, *values)
        assert isinstance(series, Histogram)
        series.observe(seconds)

    def counter(self, family: Family, *values: str) -> Counter:
        """Return one counter, to be kept at hand."""
        series = self.at(family, *values)
        assert isinstance(series, Counter)
        return series

    def histogram(self, family: Family, *values: str) -> Histogram:
        """Return one distribution, to be kept at hand."""
        series = self.at(family, *values)
        assert isinstance(series, Histogram)
        return series

    def read_from(self, family: Family, read: Read) -> None:
        """Have a metric read when it is asked for. Several readers of one add up."""
        watched = self._watched.get(family)
        if watched is None:
            domain = self._domain(family.labels[0]) if family.labels else None
            watched = self._watched[family] = _Watched(family, domain)
            self._registry.unregister(self._metrics[family])
            self._registry.register(watched)
        watched.readers.append(read)

    async def scrape(self, accept: str) -> tuple[bytes, str]:
        """Write all metrics in the format that `Accept` asks for; return them with their content type.

        What is read is read on the loop; the writing, which takes a while, is done beside it.
        """
        for watched in self._watched.values():
            watched.look()
        return await asyncio.to_thread(self._write, accept)

    def _write(self, accept: str) -> tuple[bytes, str]:
        with self._writing:
            if "application/openmetrics-text" in accept:
                return bytes(generate_openmetrics(self._registry)), OPENMETRICS_TYPE  # type: ignore[no-untyped-call]
            return generate_text(self._registry), TEXT_TYPE


class _Watched(Collector):
    """A metric that other parts keep. It has one label at most."""

    def __init__(self, family: Family, domain: Domain | None) -> None:
        self._family = family
        self._domain = domain
        self.readers: list[Read] = []
        self._values: Mapping[_Value, float] = {}
        self.look()

    def look(self) -> None:
        """Read it."""
        values: dict[_Value, float] = {(): 0.0}
        if self._domain is not None:
            values = {(value,): 0.0 for value in self._domain.values}
        for read in self.readers:
            told = read()
            for value, number in told.items() if isinstance(told, Mapping) else (("", told),):
                key = (self._domain.take(value),) if self._domain is not None else ()
                values[key] = values.get(key, 0.0) + number
        self._values = values

    def collect(self) -> Iterable[Metric]:
        """Show what was read last."""
        family = self._family
        made = CounterMetricFamily if family.kind is Kind.COUNTER else GaugeMetricFamily
        metric = made(f"{NAMESPACE}_{family.name}", family.words, labels=[label.name for label in family.labels])
        for values, number in self._values.items():
            metric.add_metric(values, number)
        yield metric


def most_samples(teams: int, top_targets: int) -> int:
    """Return how many samples a scrape can have at most, whatever callers send. Those of the process not counted."""
    names = [f"team {number}" for number in range(teams)]
    total = 0
    for family in catalogue.families():
        domains = [
            Domain(label, names if label.given == "teams" else (), top_targets if label.name == "target" else None)
            for label in family.labels
        ]
        everything = math.prod(domain.bound for domain in domains)
        as_other = math.prod(1 if domain.is_open else domain.bound for domain in domains)
        # Beyond the bound come those that learned nothing, and, with the last that did, what differs in closed labels.
        most = everything if everything <= MAX_SERIES else MAX_SERIES + 2 * as_other
        total += most * family.samples_of_a_series
    return total
