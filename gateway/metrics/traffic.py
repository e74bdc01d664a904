"""What is counted of requests, of predictions, and of the calls upstream that they cost."""

import time

from prometheus_client import Counter, Histogram

from gateway.domain.bypass import BypassReason
from gateway.domain.records import Source, Status
from gateway.metrics import catalogue
from gateway.metrics.registry import Registry

_METADATA = "metadata"
_PREDICTIONS = "predictions"


class RequestMetrics(Registry):
    """The observer of the edge."""

    # Finding a series by its labels costs more than counting; the busiest are kept at hand.
    _answered: dict[tuple[str, str, int], tuple[Counter, Histogram]]
    _overheads: dict[str, Histogram]

    @property
    def in_flight(self) -> int:
        """Requests being answered."""
        return self._in_flight

    _in_flight = 0

    def began(self) -> None:
        """Note a request that has come."""
        self._in_flight += 1

    def answered(self, route: str, method: str, code: int, seconds: float) -> None:
        """Note its answer. `route` is the name of a route, of which there are few."""
        self._in_flight -= 1
        series = self._answered.get((route, method, code))
        if series is None:
            counted = self.counter(catalogue.HTTP_REQUESTS, route, method, str(code))
            series = (counted, self.histogram(catalogue.HTTP_DURATION, route))
            if counted is self._series.get((catalogue.HTTP_REQUESTS, (route, method, str(code)))):
                self._answered[route, method, code] = series
        series[0].inc()
        series[1].observe(seconds)

    def overhead(self, path: str, seconds: float) -> None:
        """Note the gateway's own part of an answer: a `hit`, a `poll`, a `relay`, or until a `stream_open`."""
        self._overheads[path].observe(seconds)

    def refused(self, reason: str) -> None:
        """Note a request that the gateway itself refused; `reason` names the error."""
        self.inc(catalogue.REFUSALS, reason)


class PredictionMetrics(Registry):
    """The observer of predictions, and of the caches that they come from."""

    _polled: dict[str, Counter]

    def prediction_created(self, team: str, target: str, source: Source) -> None:
        """Note a prediction that was recorded."""
        self.inc(catalogue.CREATED, team, target, source)
        self.inc(catalogue.LOOKUPS, _PREDICTIONS, source)

    def prediction_finished(self, team: str, status: Status, count: int = 1) -> None:
        """Count predictions of a team that ended for their callers."""
        self.inc(catalogue.FINISHED, team, status, by=count)

    def cache_bypassed(self, reason: BypassReason) -> None:
        """Note a prediction that is not shared."""
        self.inc(catalogue.BYPASSES, reason)

    def canceled(self, result: str) -> None:
        """Note a cancel."""
        self.inc(catalogue.CANCELS, result)

    def run_ended(self, target: str, queue_seconds: float | None, run_seconds: float | None) -> None:
        """Note how long a run waited for its start, and how long it took."""
        if queue_seconds is not None:
            self.observe(catalogue.QUEUE, target, seconds=queue_seconds)
        if run_seconds is not None:
            self.observe(catalogue.RUN, target, seconds=run_seconds)

    def polled(self, served_by: str) -> None:
        """Note a look at a prediction."""
        self._polled[served_by].inc()

    def tracking_crashed(self, step: str) -> None:
        """Count a defect while a run was followed."""
        self.inc(catalogue.TRACKING_CRASHES, step)

    def listener_failed(self, listener: str) -> None:
        """Count a failed call of a listener."""
        self.inc(catalogue.LISTENER_FAILURES, listener)

    def orphan_settled(self, result: str) -> None:
        """Note what became of an uncertain create."""
        self.inc(catalogue.ORPHANS, result)

    def metadata_looked_up(self, hit: bool) -> None:
        """Note a lookup in the metadata cache."""
        self.inc(catalogue.LOOKUPS, _METADATA, Source.HIT if hit else Source.MISS)

    def cache_kept(self, entries: int, size: int) -> None:
        """Note what is kept for later requests."""
        self.set(catalogue.CACHE_ENTRIES, to=entries)
        self.set(catalogue.CACHE_BYTES, to=size)

    def cache_evicted(self, count: int) -> None:
        """Note results that went for want of room."""
        self.inc(catalogue.EVICTIONS, by=count)


class UpstreamMetrics(Registry):
    """The observer of the calls upstream, and of how the account is shared."""

    def upstream_answered(self, operation: str, outcome: str, seconds: float) -> None:
        """Note one call upstream and how it ended."""
        self.inc(catalogue.UPSTREAM_REQUESTS, operation, outcome)
        self.observe(catalogue.UPSTREAM_DURATION, operation, seconds=seconds)
        if outcome == "401":
            self.inc(catalogue.TOKEN_REFUSED)
        elif outcome.startswith("2"):
            self.set(catalogue.LAST_SUCCESS, to=time.time())

    def upstream_retried(self) -> None:
        """Note a read that is repeated."""
        self.inc(catalogue.UPSTREAM_RETRIES)

    def turn_waited(self, lane: str, seconds: float) -> None:
        """Note a turn at the account that had to be waited for."""
        self.observe(catalogue.TURN_WAIT, lane, seconds=seconds)

    def turn_refused(self, lane: str, reason: str) -> None:
        """Note somebody who got no turn at the account."""
        self.inc(catalogue.TURN_REFUSALS, lane, reason)

    def account_throttled(self, lane: str) -> None:
        """Note a 429 of upstream."""
        self.inc(catalogue.THROTTLES, lane)
