"""Every metric of the gateway, by name. No label ever holds an id, a URL or free text; label sets are closed.

Times in seconds, sizes in bytes. All closed series exist from the start, so that a rate over the first event is right.
"""

from collections.abc import Callable, Iterable, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info
from prometheus_client.core import CounterMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST as TEXT_TYPE
from prometheus_client.exposition import generate_latest as generate_text
from prometheus_client.openmetrics.exposition import CONTENT_TYPE_LATEST as OPENMETRICS_TYPE
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.registry import Collector

from gateway import __version__
from gateway.core.records import Source, Status
from gateway.ports.outputs import COPY_FAILURES, GONE_REASONS, CopyFailure, GoneReason

NAMESPACE = "replicate_gateway"
OTHER = "other"
_MICRO = 1_000_000
_DURATIONS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_TERMINAL = [status for status in Status if status.is_terminal]
_METHODS = frozenset({"GET", "HEAD", "POST", "PATCH", "DELETE", "QUERY", "OPTIONS", "PUT"})


class Metrics:
    """The gateway's metrics, in a registry of their own."""

    def __init__(self, *, teams: Sequence[str], top_targets: int) -> None:
        self.registry = CollectorRegistry()
        self._teams = frozenset(teams)
        self._top_targets = top_targets
        self._targets: set[str] = set()
        # Finding a series by its labels costs more than counting; the busiest are kept at hand.
        self._money_metrics: _Money | None = None
        self._answered: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}

        def counter(name: str, words: str, labels: Iterable[str] = ()) -> Counter:
            return Counter(name, words, list(labels), namespace=NAMESPACE, registry=self.registry)

        def gauge(name: str, words: str, labels: Iterable[str] = ()) -> Gauge:
            return Gauge(name, words, list(labels), namespace=NAMESPACE, registry=self.registry)

        def histogram(name: str, words: str, labels: Iterable[str] = ()) -> Histogram:
            return Histogram(name, words, list(labels), namespace=NAMESPACE, registry=self.registry, buckets=_DURATIONS)

        self.build = Info("build", "The version that runs.", namespace=NAMESPACE, registry=self.registry)
        self.build.info({"version": __version__})
        self.http_requests = counter("http_requests", "Requests answered.", ["route", "method", "code"])
        self.http_request_duration = histogram(
            "http_request_duration_seconds", "From the request's head to the answer's end.", ["route"]
        )
        self.http_requests_in_flight = gauge("http_requests_in_flight", "Requests being answered.")
        self.predictions_created = counter(
            "predictions_created", "Predictions recorded, by how they were answered.", ["team", "target", "source"]
        )
        self.predictions_finished = counter(
            "predictions_finished", "Predictions that ended for their caller.", ["team", "status"]
        )
        self.polls = counter("polls", "Looks at predictions: answered locally, sent upstream.", ["served_by"])
        self.cache_lookups = counter("cache_lookups", "Lookups by tier and result.", ["tier", "result"])
        self.upstream_requests = counter("upstream_requests", "Requests sent upstream.", ["operation", "code"])
        self.upstream_request_duration = histogram(
            "upstream_request_duration_seconds", "From sending to the last byte.", ["operation"]
        )
        self.upstream_token_refused = counter("upstream_token_refused", "Times upstream refused the account's token.")
        self.sse_streams = gauge("sse_streams", "Event streams open.", ["side"])
        self.sse_bytes = counter("sse_bytes", "Bytes of events relayed to callers.")
        self.streams_ended = counter("streams_ended", "Callers' streams, by what ended them.", ["how"])
        self.stream_breaks = counter("stream_breaks", "Upstream's streams that broke off, by what was done.", ["how"])
        self.refusals = counter("refusals", "Requests refused by the gateway itself.", ["reason"])
        self.orphans = counter("orphans", "Uncertain creates, by what became of them.", ["result"])
        self.uploads = counter("uploads", "Uploads, by whether upstream was sent the bytes.", ["result"])
        self.labels_dropped = counter("labels_dropped", "Values counted under `other` because a label was full.")
        # Webhooks.
        self.webhook_deliveries = counter("webhook_deliveries", "Tries to deliver, by result.", ["event", "result"])
        self.webhooks_dropped = counter("webhooks_dropped", "Webhooks that will not be sent, by reason.", ["reason"])
        self.webhooks_queued = gauge("webhooks_queued", "Webhooks that wait for delivery.")
        self.webhooks_dead = gauge("webhooks_dead", "Webhooks that were given up and are kept.")
        self.webhooks_oldest = gauge("webhooks_oldest_queued_seconds", "Age of the oldest webhook that waits.")
        for reason in ("full", "gave_up", "gone"):
            self.webhooks_dropped.labels(reason)
        self.request_refusals = counter("request_refusals", "Requests over a request rate, by whose it is.", ["of"])
        self.creates_held = counter("creates_held", "Creates held over a request rate, by outcome.", ["result"])
        self.create_hold = histogram("create_hold_seconds", "How long creates over a request rate were held.")
        self.account_refusals = counter("account_refusals", "Calls without a turn at the account.", ["lane", "reason"])
        self.account_wait = histogram("account_wait_seconds", "Waits for a turn at the account.", ["lane"])
        self.account_throttles = counter("account_throttles", "Times upstream answered 429.", ["lane"])
        self._prepare()
        self._make_output_counters()

    def _prepare(self) -> None:
        for team in self._teams:
            for status in _TERMINAL:
                self.predictions_finished.labels(team, status)
        self._polled = {served_by: self.polls.labels(served_by) for served_by in ("gateway", "upstream")}
        for result in ("hit", "miss"):
            self.cache_lookups.labels("metadata", result)
        for result in ("adopted", "released"):
            self.orphans.labels(result)
        for result in ("sent", "known", "refused"):
            self.uploads.labels(result)
        for how in ("done", "canceled", "lost", "left", "stalled", "closing"):
            self.streams_ended.labels(how)
        for how in ("resumed", "finished"):
            self.stream_breaks.labels(how)
        for side in ("downstream", "upstream"):
            self.sse_streams.labels(side)

    def watch(self, name: str, words: str, read: Callable[[], float]) -> None:
        """Add a gauge that is read when it is asked for."""
        Gauge(name, words, namespace=NAMESPACE, registry=self.registry).set_function(read)

    def expose(self, accept: str) -> tuple[bytes, str]:
        """Write all metrics in the format that `Accept` asks for; return them with their content type."""
        if "application/openmetrics-text" in accept:
            return bytes(generate_openmetrics(self.registry)), OPENMETRICS_TYPE  # type: ignore[no-untyped-call]
        return generate_text(self.registry), TEXT_TYPE

    # What the services and the edge tell.

    def prediction_created(self, team: str, target: str, source: Source) -> None:
        """Note a prediction that was recorded."""
        self.predictions_created.labels(self._team(team), self._target(target), source).inc()

    def prediction_finished(self, team: str, status: Status) -> None:
        """Note a prediction that has ended for its caller."""
        self.predictions_finished.labels(self._team(team), status).inc()

    def orphan_settled(self, result: str) -> None:
        """Note what became of an uncertain create."""
        self.orphans.labels(result).inc()

    def uploaded(self, result: str) -> None:
        """Note an upload."""
        self.uploads.labels(result).inc()

    def polled(self, served_by: str) -> None:
        """Note a look at a prediction."""
        self._polled[served_by].inc()

    def upstream_answered(self, operation: str, outcome: str, seconds: float) -> None:
        """Note one call upstream and how it ended."""
        self.upstream_requests.labels(operation, outcome).inc()
        self.upstream_request_duration.labels(operation).observe(seconds)
        if outcome == "401":
            self.upstream_token_refused.inc()

    def metadata_looked_up(self, hit: bool) -> None:
        """Note a lookup in the metadata cache."""
        self.cache_lookups.labels("metadata", "hit" if hit else "miss").inc()

    def answered(self, route: str, method: str, code: int, seconds: float) -> None:
        """Note one request answered. `route` is the name of a route, of which there are few."""
        series = self._answered.get((route, method, code))
        if series is None:
            known = method if method in _METHODS else OTHER
            counted = self.http_requests.labels(route, known, str(code))
            series = (counted, self.http_request_duration.labels(route))
            if known == method:
                self._answered[route, method, code] = series
        series[0].inc()
        series[1].observe(seconds)

    def _team(self, team: str) -> str:
        return team if team in self._teams else OTHER

    def _target(self, target: str) -> str:
        """Count the first targets by name and the rest together: names come from callers."""
        if target in self._targets:
            return target
        if len(self._targets) < self._top_targets:
            self._targets.add(target)
            return target
        self.labels_dropped.inc()
        return OTHER

    # Webhooks.

    def delivery_attempted(self, event: str, result: str) -> None:
        """Note one try to deliver a webhook."""
        self.webhook_deliveries.labels(event, result).inc()

    def delivery_dropped(self, reason: str) -> None:
        """Note a webhook that will not be sent."""
        self.webhooks_dropped.labels(reason).inc()

    def deliveries_waiting(self, queued: int, dead: int, oldest_seconds: float) -> None:
        """Note what is kept in the store."""
        self.webhooks_queued.set(queued)
        self.webhooks_dead.set(dead)
        self.webhooks_oldest.set(oldest_seconds)

    # Streams

    def events_sent(self, size: int) -> None:
        """Note bytes of events that were written to callers."""
        self.sse_bytes.inc(size)

    def stream_ended(self, how: str) -> None:
        """Note the end of a caller's stream."""
        self.streams_ended.labels(how).inc()

    def upstream_broke(self, how: str) -> None:
        """Note that upstream's stream broke off."""
        self.stream_breaks.labels(how).inc()

    # logs

    def watch_total(self, name: str, words: str, read: Callable[[], float]) -> None:
        """Add a counter that is read when it is asked for."""
        self.registry.register(_Total(f"{NAMESPACE}_{name}", words, read))

    # Money. Counters in dollars are of this process; the ledger is exact.

    def _money(self) -> "_Money":
        if self._money_metrics is None:
            self._money_metrics = _Money(self.registry)
        return self._money_metrics

    def spent(self, team: str, microusd: int) -> None:
        """Note what a run cost."""
        self._money().spend.labels(self._team(team)).inc(microusd / _MICRO)

    def saved(self, team: str, reason: str, microusd: int) -> None:
        """Note what was saved."""
        self._money().saved.labels(self._team(team), reason).inc(microusd / _MICRO)

    def quota_refused(self, team: str, reason: str) -> None:
        """Note a create that a limit refused."""
        self._money().refusals.labels(self._team(team), reason).inc()

    def charge_doubted(self, reason: str) -> None:
        """Note a charge that may be other than upstream's own."""
        self._money().doubts.labels(reason).inc()

    def budget(self, team: str, window: str, *, limit: int | None, spent: int, reserved: int) -> None:
        """Note how a team's budget stands."""
        money, whose = self._money(), (self._team(team), window)
        if limit is not None:
            money.budget_limit.labels(*whose).set(limit / _MICRO)
        money.budget_spent.labels(*whose).set(spent / _MICRO)
        money.budget_reserved.labels(*whose).set(reserved / _MICRO)

    def unsettled(self, count: int) -> None:
        """Note how many reservations are older than an hour."""
        self._money().unsettled.set(count)

    def reservation_stuck(self) -> None:
        """Note a reservation that was stuck."""
        self._money().stuck.inc()

    def ledger_drift(self, count: int) -> None:
        """Note how many sums differed from the ledger."""
        self._money().drift.set(count)

    # admission

    def turn_waited(self, lane: str, seconds: float) -> None:
        """Note a turn at the account that had to be waited for."""
        self.account_wait.labels(lane).observe(seconds)

    def turn_refused(self, lane: str, reason: str) -> None:
        """Note somebody who got no turn at the account."""
        self.account_refusals.labels(lane, reason).inc()

    def account_throttled(self, lane: str) -> None:
        """Note a 429 of upstream."""
        self.account_throttles.labels(lane).inc()

    def request_refused(self, of: str) -> None:
        """Note a request over a request rate; `of` says whose."""
        self.request_refusals.labels(of).inc()

    def create_held(self, result: str, seconds: float) -> None:
        """Note a create that was held: `admitted`, `refused`, or `full` if there was no room to hold it."""
        self.creates_held.labels(result).inc()
        if result != "full":
            self.create_hold.observe(seconds)

    # Stored outputs: the observer of gateway.ports.outputs.

    def _make_output_counters(self) -> None:
        def counter(name: str, words: str, *labels: str) -> Counter:
            return Counter(name, words, labels, namespace=NAMESPACE, registry=self.registry)

        self._stored = counter("outputs_stored", "Output files that were copied.")
        self._stored_bytes = counter("outputs_stored_bytes", "Bytes of output files that were copied.")
        self._not_stored = counter("outputs_not_stored", "Attempts to copy a file that came to nothing.", "reason")
        self._gone = counter("outputs_gone", "Copies that went before their predictions.", "reason")
        self._deleted = counter("outputs_deleted", "Objects deleted from the output store.")
        self._served_bytes = counter("outputs_served_bytes", "Bytes of copies sent to callers.")
        self._held = Gauge("outputs_objects", "Objects held.", namespace=NAMESPACE, registry=self.registry)
        self._held_bytes = Gauge("outputs_bytes", "Bytes of objects held.", namespace=NAMESPACE, registry=self.registry)
        for failure in COPY_FAILURES:
            self._not_stored.labels(failure)
        for reason in GONE_REASONS:
            self._gone.labels(reason)

    def output_stored(self, size: int) -> None:
        """Note a file that was copied."""
        self._stored.inc()
        self._stored_bytes.inc(size)

    def output_not_stored(self, reason: CopyFailure) -> None:
        """Note an attempt that came to nothing."""
        self._not_stored.labels(reason).inc()

    def outputs_gone(self, reason: GoneReason, count: int) -> None:
        """Note copies that went."""
        self._gone.labels(reason).inc(count)

    def outputs_deleted(self, count: int) -> None:
        """Note objects that were deleted."""
        self._deleted.inc(count)

    def outputs_held(self, objects: int, size: int) -> None:
        """Note what the output store has."""
        self._held.set(objects)
        self._held_bytes.set(size)

    def output_served(self, size: int) -> None:
        """Note bytes that were sent."""
        self._served_bytes.inc(size)


class _Money:
    """What is counted of money."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, words: str, labels: Iterable[str] = ()) -> Counter:
            return Counter(name, words, list(labels), namespace=NAMESPACE, registry=registry)

        def gauge(name: str, words: str, labels: Iterable[str] = ()) -> Gauge:
            return Gauge(name, words, list(labels), namespace=NAMESPACE, registry=registry)

        self.spend = counter("spend_usd", "Dollars that settled runs cost.", ["team"])
        self.saved = counter("saved_usd", "Dollars that sharing saved.", ["team", "reason"])
        self.refusals = counter("quota_refusals", "Creates that a limit refused.", ["team", "reason"])
        self.doubts = counter("charges_in_doubt", "Charges that may be other than upstream's.", ["reason"])
        self.budget_limit = gauge("budget_limit_usd", "A team's budget.", ["team", "window"])
        self.budget_spent = gauge("budget_spent_usd", "What is spent of it.", ["team", "window"])
        self.budget_reserved = gauge("budget_reserved_usd", "What is held for runs under way.", ["team", "window"])
        self.unsettled = gauge("reservations_unsettled", "Reservations older than an hour.")
        self.stuck = counter("reservations_stuck", "Reservations freed whose run had ended or was gone.")
        self.drift = gauge("ledger_drift", "Sums that differed from the ledger when they were last compared.")


class _Total(Collector):
    """A counter that somebody else keeps."""

    def __init__(self, name: str, words: str, read: Callable[[], float]) -> None:
        self._name, self._words, self._read = name, words, read

    def collect(self) -> Iterable[CounterMetricFamily]:
        """Read it."""
        yield CounterMetricFamily(self._name, self._words, value=self._read())
