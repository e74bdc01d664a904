"""Metrics of requests, predictions and upstream calls."""

import time

from gateway.domain.bypass import BypassReason
from gateway.domain.records import Source, Status
from gateway.metrics import catalogue
from gateway.metrics.registry import Registry
from gateway.metrics.series import Counter, Histogram

_METADATA = "metadata"
_PREDICTIONS = "predictions"


class RequestMetrics(Registry):
    """Observer of HTTP requests."""

    _answered: dict[tuple[str, str, int], tuple[Counter, Histogram]]
    """The two series of a request by its route, method and status code."""

    @property
    def in_flight(self) -> int:
        """Number of requests in progress."""
        return self._in_flight

    _in_flight = 0

    def began(self) -> None:
        """Count a new request."""
        self._in_flight += 1

    def answered(self, route: str, method: str, code: int, seconds: float) -> None:
        """Record the response of a request. `route` is the name of a route."""
        self._in_flight -= 1
        series = self._answered.get((route, method, code))
        if series is None:
            counted = self.counters[catalogue.HTTP_REQUESTS][route, method, str(code)]
            series = (counted, self.histograms[catalogue.HTTP_DURATION][(route,)])
            if (route, method, str(code)) in self.counters[catalogue.HTTP_REQUESTS]:
                self._answered[route, method, code] = series
        series[0].value += 1
        series[1].observe(seconds)

    def overhead(self, path: str, seconds: float) -> None:
        """Record response time without upstream, by path: `hit`, `poll`, `relay`, or `stream_open`."""
        self.histograms[catalogue.OVERHEAD][(path,)].observe(seconds)

    def refused(self, reason: str) -> None:
        """Count a request refused by the gateway; `reason` is the name of the error."""
        self.counters[catalogue.REFUSALS][(reason,)].value += 1

    def body_refused(self, limit: str) -> None:
        """Count a request body that passed a bound of `[limits]`."""
        self.counters[catalogue.BODIES_REFUSED][(limit,)].value += 1

    def page_refused(self, kind: str) -> None:
        """Count a `preflight` or a `request` of a web page whose origin is not allowed."""
        self.counters[catalogue.CORS_REFUSALS][(kind,)].value += 1


class PredictionMetrics(Registry):
    """Observer of predictions and caches."""

    def prediction_created(self, team: str, target: str, source: Source, count: int = 1) -> None:
        """Count created predictions."""
        self.counters[catalogue.CREATED][team, target, source].value += count
        self.counters[catalogue.LOOKUPS][_PREDICTIONS, source].value += count

    def prediction_finished(self, team: str, status: Status, count: int = 1) -> None:
        """Count predictions of a team that ended for their callers."""
        self.counters[catalogue.FINISHED][team, status].value += count

    def cache_bypassed(self, reason: BypassReason) -> None:
        """Count a prediction that cannot be shared, by reason."""
        self.counters[catalogue.BYPASSES][(reason,)].value += 1

    def canceled(self, result: str) -> None:
        """Count a cancel: `left`, `asked` or `over`."""
        self.counters[catalogue.CANCELS][(result,)].value += 1

    def run_ended(self, target: str, queue_seconds: float | None, run_seconds: float | None) -> None:
        """Record queue time and run time of a run, where known."""
        if queue_seconds is not None:
            self.histograms[catalogue.QUEUE][(target,)].observe(queue_seconds)
        if run_seconds is not None:
            self.histograms[catalogue.RUN][(target,)].observe(run_seconds)

    def polled(self, served_by: str) -> None:
        """Count a poll answered by the `gateway` or sent `upstream`."""
        self.counters[catalogue.POLLS][(served_by,)].value += 1

    def document_repaired(self) -> None:
        """Count an answer of upstream whose text was replaced in part."""
        self.counters[catalogue.DOCUMENTS_REPAIRED][()].value += 1

    def logs_shortened(self) -> None:
        """Count an answer of upstream of whose logs only the end was kept."""
        self.counters[catalogue.LOGS_SHORTENED][()].value += 1

    def search_bound_reached(self, bound: str) -> None:
        """Count a page of a search that ended early (`page`), or data that was too large to show (`data`)."""
        self.counters[catalogue.SEARCH_BOUNDS][(bound,)].value += 1

    def tracking_crashed(self, step: str) -> None:
        """Count a defect while a run was followed."""
        self.counters[catalogue.TRACKING_CRASHES][(step,)].value += 1

    def listener_failed(self, listener: str) -> None:
        """Count a failed call of a listener."""
        self.counters[catalogue.LISTENER_FAILURES][(listener,)].value += 1

    def orphan_resolved(self, result: str) -> None:
        """Count the result of the search for an uncertain create."""
        self.counters[catalogue.ORPHANS][(result,)].value += 1

    def metadata_lookup(self, hit: bool) -> None:
        """Count a lookup in the metadata cache."""
        self.counters[catalogue.LOOKUPS][_METADATA, Source.HIT if hit else Source.MISS].value += 1

    def cache_kept(self, entries: int, size: int) -> None:
        """Set number and size in bytes of cached results."""
        self.set(catalogue.CACHE_ENTRIES, to=entries)
        self.set(catalogue.CACHE_BYTES, to=size)

    def cache_evicted(self, count: int) -> None:
        """Count results evicted to free space."""
        self.counters[catalogue.EVICTIONS][()].value += count


class UpstreamMetrics(Registry):
    """Observer of upstream calls and of the account's rates."""

    @property
    def last_success(self) -> float:
        """Epoch time of upstream's last successful response; 0 if there was none."""
        return self._last_success

    _last_success = 0.0

    def upstream_answered(self, operation: str, outcome: str, seconds: float) -> None:
        """Count an upstream call with its duration; `outcome` is a status or kind of failure."""
        self.counters[catalogue.UPSTREAM_REQUESTS][operation, outcome].value += 1
        self.histograms[catalogue.UPSTREAM_DURATION][(operation,)].observe(seconds)
        if outcome == "401":
            self.counters[catalogue.TOKEN_REFUSED][()].value += 1
        elif outcome.startswith("2"):
            self._last_success = time.time()

    def connection_refused(self, pool: str) -> None:
        """Count a call that found no free connection in time."""
        self.counters[catalogue.CONNECTION_REFUSALS][(pool,)].value += 1

    def upstream_retried(self) -> None:
        """Count a retried read."""
        self.counters[catalogue.UPSTREAM_RETRIES][()].value += 1

    def permit_waited(self, lane: str, seconds: float) -> None:
        """Record the time that a call was queued for the account's rate."""
        self.histograms[catalogue.ACCOUNT_WAIT][(lane,)].observe(seconds)

    def permit_refused(self, lane: str, reason: str) -> None:
        """Count a call refused because its queue was full or the wait too long."""
        self.counters[catalogue.ACCOUNT_REFUSALS][lane, reason].value += 1

    def account_throttled(self, lane: str) -> None:
        """Count a 429 from upstream."""
        self.counters[catalogue.THROTTLES][(lane,)].value += 1
