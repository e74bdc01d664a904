"""Every metric of the gateway, by name: what is not in here is not exported. `docs/metrics.md` is made from it.

Names stand without the prefix `replicate_gateway_` and, for counters, without `_total`. Base units: seconds, bytes,
dollars. Names and labels are contracts with dashboards and alerts.
"""

from collections.abc import Iterator
from enum import Enum

import msgspec

from gateway import errors
from gateway.domain.bypass import BypassReason
from gateway.domain.limits import SubjectKind
from gateway.domain.quota import LimitKind
from gateway.domain.records import Source, Status
from gateway.domain.windows import Window
from gateway.metrics.labels import Label, closed
from gateway.money.rules.usage import Doubt
from gateway.outputs.ports import COPY_FAILURES, GONE_REASONS
from gateway.predictions.events import Listener
from gateway.webhooks.rules.deliveries import Result

NAMESPACE = "replicate_gateway"


class Kind(Enum):
    """What sort of metric."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"
    INFO = "info"


class Family(msgspec.Struct, frozen=True, eq=False):
    """One metric: its series differ by labels."""

    name: str
    kind: Kind
    words: str
    labels: tuple[Label, ...] = ()
    buckets: tuple[float, ...] = ()
    is_prepared: bool = True
    """Whether series whose labels are all known exist from the start, so that a rate over the first event is right."""

    @property
    def sample(self) -> str:
        """The name of its samples, as queries spell it."""
        ending = {Kind.COUNTER: "_total", Kind.INFO: "_info"}.get(self.kind, "")
        return f"{NAMESPACE}_{self.name}{ending}"

    @property
    def samples_of_a_series(self) -> int:
        """How many samples one combination of labels is made of."""
        # A histogram has its buckets, the one without end, the sum and the count.
        return len(self.buckets) + 3 if self.kind is Kind.HISTOGRAM else 1


SECTIONS: dict[str, list[Family]] = {}


def _section(title: str) -> None:
    SECTIONS[title] = []


def _add(family: Family) -> Family:
    SECTIONS[next(reversed(SECTIONS))].append(family)
    return family


def _counter(name: str, words: str, *labels: Label, is_prepared: bool = True) -> Family:
    return _add(Family(name, Kind.COUNTER, words, labels, is_prepared=is_prepared))


def _gauge(name: str, words: str, *labels: Label, is_prepared: bool = True) -> Family:
    return _add(Family(name, Kind.GAUGE, words, labels, is_prepared=is_prepared))


def _histogram(name: str, words: str, buckets: tuple[float, ...], *labels: Label) -> Family:
    return _add(Family(name, Kind.HISTOGRAM, words, labels, buckets))


def families() -> Iterator[Family]:
    """Go through all of them."""
    for section in SECTIONS.values():
        yield from section


def _errors(root: type[errors.GatewayError] = errors.GatewayError) -> Iterator[str]:
    yield root.__name__
    for each in root.__subclasses__():
        yield from _errors(each)


# fmt: off
# What is measured in fractions of a millisecond; answers; waits; runs, which take minutes when a model starts cold.
_QUICK = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
_ANSWERS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_WAITS = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0)
_RUNS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0)

TEAM = Label("team", given="teams", words="the teams of the config")
TARGET = Label("target", ("unknown",), given="targets", learns=50,
               words="`owner/name`, `unknown`, `other`; bounded by `top_targets`")
ROUTE = Label("route", ("unmatched",), given="routes", learns=100, words="the names of the routes, `unmatched`")
# What most calls are, so that their series exist from the start.
_USUAL_CALLS = ("predictions.create", "models.predictions.create", "deployments.predictions.create", "trainings.create",
                "predictions.get", "trainings.get", "predictions.cancel", "trainings.cancel", "streams.read")
_USUAL_OUTCOMES = ("200", "201", "401", "402", "404", "422", "429", "500", "502", "503", "504",
                   "failed", "unreachable", "timeout", "broken", "abandoned")
OPERATION = Label("operation", _USUAL_CALLS, learns=70,
                  words="what was asked of upstream, such as `predictions.create`")
CODE = Label("code", learns=40, words="an HTTP status")
OUTCOME = Label("code", _USUAL_OUTCOMES, learns=30,
                words="an HTTP status, or `unreachable`, `timeout`, `broken`, `abandoned`, `failed`")
METHOD = closed("method", "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "QUERY", "OPTIONS")
WINDOW = closed("window", *Window)
LANE = closed("lane", "creates", "requests")

_section("The gateway itself")
BUILD = _add(Family("build", Kind.INFO, "What runs: the version, and Python's."))
CONFIG_LOADED_AT = _gauge("config_loaded_timestamp_seconds", "When the config was loaded that is in force.")
CONFIG_RELOADS = _counter("config_reloads", "Times the config was read anew.", closed("result", "taken", "refused"))
LOOP_LAG = _histogram("event_loop_lag_seconds", "How late the event loop wakes a task, sampled.", _QUICK)
LABELS_DROPPED = _counter("labels_dropped", "Values counted as `other`: not on the label's list, or no room.",
                          Label("label", learns=40, words="a label's name"))
LOG_LINES_DROPPED = _counter("log_lines_dropped", "Log lines lost because nobody took them.")

_section("Requests")
HTTP_REQUESTS = _counter("http_requests", "Requests answered. 499: the caller left before that.", ROUTE, METHOD, CODE,
                         is_prepared=False)
HTTP_DURATION = _histogram("http_request_duration_seconds", "From the request's head to the answer's end.", _ANSWERS,
                           ROUTE)
HTTP_IN_FLIGHT = _gauge("http_requests_in_flight", "Requests being answered.")
OVERHEAD = _histogram("overhead_seconds", "The gateway's own part of an answer, upstream's taken off.", _QUICK,
                      closed("path", "hit", "poll", "relay", "stream_open"))
REFUSALS = _counter("refusals", "Requests refused by the gateway itself, by error.",
                    Label("reason", tuple(_errors()), words="the names of the errors"))

_section("Predictions")
CREATED = _counter("predictions_created", "Predictions recorded, by how they were answered.", TEAM, TARGET,
                   closed("source", *Source))
FINISHED = _counter("predictions_finished", "Predictions that ended for their caller.", TEAM,
                    closed("status", *(status for status in Status if status.is_terminal)))
POLLS = _counter("polls", "Looks at predictions: answered here, sent upstream.",
                 closed("served_by", "gateway", "upstream"))
CANCELS = _counter("cancels", "Cancels: the run goes on for others, upstream was asked, or it was over before.",
                   closed("result", "left", "asked", "over"))
QUEUE = _histogram("run_queue_seconds", "From a run's create to its start.", _RUNS, TARGET)
RUN = _histogram("run_duration_seconds", "From a run's start to its end.", _RUNS, TARGET)
FOLLOWED = _gauge("runs_followed", "Runs that are being followed to their end.")
TRACKING_CRASHES = _counter("tracking_crashes", "Defects while a run was followed. The step is tried again.",
                            closed("step", "poll", "cancel", "report"))
LISTENER_FAILURES = _counter("listener_failures", "Failed calls of listeners to events of runs and predictions.",
                             closed("listener", *Listener))
ACTIVE = _gauge("runs_active", "The same, by the team that started them.", TEAM)
WAITERS = _gauge("waiters", "Those who wait: for a run's end (`sync`), for the answer to somebody else's create "
                 "(`create`), for a limit of their own (`limit`), a request rate (`rate`), a turn at the account "
                 "with a create (`account`) or another call (`call`).",
                 closed("kind", "sync", "create", "limit", "rate", "account", "call"))
ORPHANS = _counter("orphans", "Uncertain creates, by what became of them.", closed("result", "adopted", "released"))
SHOWN_BYTES = _gauge("shown_bytes", "Bytes of predictions kept in memory as shown.")

_section("Cache")
LOOKUPS = _counter("cache_lookups", "Lookups, by tier and result. Of predictions: hits, joined, misses, bypasses.",
                   closed("tier", "predictions", "metadata"), closed("result", *Source))
BYPASSES = _counter("cache_bypasses", "Predictions that were not shared, by reason.", closed("reason", *BypassReason))
CACHE_ENTRIES = _gauge("cache_entries", "Results kept for later requests, counted once a minute.")
CACHE_BYTES = _gauge("cache_bytes", "Bytes of them.")
EVICTIONS = _counter("cache_evictions", "Results that went for want of room.")
METADATA_BYTES = _gauge("metadata_cache_bytes", "Bytes of metadata kept.")

_section("Money and limits")
SPEND = _counter("spend_usd", "Dollars that settled runs cost. Of this process; the ledger is exact.", TEAM)
SAVED = _counter("saved_usd", "Dollars that sharing saved.", TEAM, closed("reason", Source.HIT, Source.JOINED))
BUDGET_LIMIT = _gauge("budget_limit_usd", "A team's budget, where it has one.", TEAM, WINDOW, is_prepared=False)
BUDGET_SPENT = _gauge("budget_spent_usd", "What is spent of the window's budget.", TEAM, WINDOW)
BUDGET_RESERVED = _gauge("budget_reserved_usd", "What is held for runs under way.", TEAM, WINDOW)
BUDGET_RESETS = _gauge("budget_reset_timestamp_seconds", "When the window ends.", WINDOW)
QUOTA_REFUSALS = _counter("quota_refusals", "Creates that a limit of the team, a key or a user refused.", TEAM,
                          closed("reason", *LimitKind))
REQUEST_REFUSALS = _counter("request_refusals", "Requests over a request rate, by whose it is.",
                            closed("of", *SubjectKind))
CONCURRENCY_LIMIT = _gauge("concurrency_limit", "Predictions that a team may have under way, where that is limited.",
                           TEAM, is_prepared=False)
CREATES_HELD = _counter("creates_held", "Creates held over a request rate, by what became of them.",
                        closed("result", "admitted", "refused", "full"))
CREATE_HOLD = _histogram("create_hold_seconds", "How long they were held.", _WAITS)
CHARGES_IN_DOUBT = _counter("charges_in_doubt", "Charges that may be other than upstream's own.",
                            closed("reason", *Doubt))
UNSETTLED = _gauge("reservations_unsettled", "Reservations older than an hour.")
STUCK = _counter("reservations_stuck", "Reservations freed whose run had ended or was gone. Never, one hopes.")
DRIFT = _counter("ledger_drift", "Sums that differed from the ledger's lines, and were made anew. Never, one hopes.")
RATE_SUBJECTS = _gauge("rate_subjects_kept", "Users, addresses and tokens whose request rate is kept.")
RATE_SUBJECTS_DROPPED = _counter("rate_subjects_dropped", "Those of them that fell out, for want of room.")

_section("Upstream")
UPSTREAM_REQUESTS = _counter("upstream_requests", "Requests sent upstream, and how they ended.", OPERATION, OUTCOME)
UPSTREAM_DURATION = _histogram("upstream_request_duration_seconds", "From sending to the last byte.", _ANSWERS,
                               OPERATION)
UPSTREAM_RETRIES = _counter("upstream_retries", "Reads of upstream that were repeated.")
TOKEN_REFUSED = _counter("upstream_token_refused", "Times upstream refused the account's token.")
LAST_SUCCESS = _gauge("upstream_last_success_timestamp_seconds", "When upstream last answered with a success.")
BREAKER = _gauge("upstream_breaker_state", "0 closed, 1 half open, 2 open: upstream is left alone.")
THROTTLES = _counter("account_throttles", "Times upstream answered 429.", LANE)
TURN_WAIT = _histogram("account_wait_seconds", "Waits for a turn at the account.", _WAITS, LANE)
TURN_REFUSALS = _counter("account_refusals", "Calls without a turn at the account.", LANE,
                         closed("reason", "timeout", "queue_full"))
ACCOUNT_RATE = _gauge("account_rate_per_minute", "Calls a minute that upstream takes, as far as is known.", LANE)

_section("Streams")
SSE_STREAMS = _gauge("sse_streams", "Event streams open: to callers, to upstream, to whoever checks the way.",
                     closed("side", "downstream", "upstream", "check"))
SSE_EVENTS = _counter("sse_events", "Events read from upstream.")
SSE_BYTES = _counter("sse_bytes", "Bytes of events written to callers.")
FIRST_EVENT = _histogram("sse_first_event_seconds", "From a caller's request for a stream to its first event.", _WAITS)
RESUMES = _counter("sse_resumes", "Streams that callers took up again, and whether what they had missed was there.",
                   closed("result", "resumed", "lost"))
STREAMS_ENDED = _counter("streams_ended", "Callers' streams, by what ended them. stalled: too slow. lost: too late.",
                         closed("how", "done", "canceled", "lost", "left", "stalled", "closing"))
STREAM_BREAKS = _counter("stream_breaks", "Upstream's streams that broke off, and what was done.",
                         closed("how", "resumed", "finished"))
KEPT_LOG_BYTES = _gauge("kept_log_bytes", "Bytes of finished runs' events kept.")
UNKEPT_LOGS = _gauge("unkept_logs", "Streams with news that the store has not.")
DASHBOARD_STREAMS = _gauge("dashboard_streams", "Usage pages that are kept new.")

_section("Webhooks")
DELIVERIES = _counter("webhook_deliveries", "Tries to deliver a webhook.",
                      closed("event", "start", "output", "logs", "completed", "announcement"),
                      closed("result", *Result))
WEBHOOKS_DROPPED = _counter("webhooks_dropped", "Webhooks that will not be sent.",
                            closed("reason", "full", "gave_up", "gone"))
WEBHOOKS_QUEUED = _gauge("webhooks_queued", "Webhooks that wait for delivery.")
WEBHOOKS_DEAD = _gauge("webhooks_dead", "Webhooks that were given up and are kept.")
WEBHOOKS_OLDEST = _gauge("webhooks_oldest_queued_seconds", "Age of the oldest webhook that waits.")

_section("Files")
OUTPUTS_STORED = _counter("outputs_stored", "Output files that were copied.")
OUTPUTS_STORED_BYTES = _counter("outputs_stored_bytes", "Bytes of them.")
OUTPUTS_NOT_STORED = _counter("outputs_not_stored", "Attempts to copy a file that came to nothing.",
                              closed("reason", *COPY_FAILURES))
OUTPUTS_GONE = _counter("outputs_gone", "Copies that went before their predictions.", closed("reason", *GONE_REASONS))
OUTPUTS_HELD = _gauge("outputs_objects", "Objects in the output store.")
OUTPUTS_HELD_BYTES = _gauge("outputs_bytes", "Bytes of them.")
OUTPUTS_PENDING = _gauge("outputs_pending", "Runs whose files wait to be copied.")
OUTPUTS_BEING_SENT = _gauge("outputs_being_sent", "Stored files that are being sent.")
OUTPUTS_DELETED = _counter("outputs_deleted", "Objects deleted from the output store.")
OUTPUTS_SERVED_BYTES = _counter("outputs_served_bytes", "Bytes of copies sent to callers.")
UPLOADS = _counter("uploads", "Uploads, by whether upstream was sent the bytes.",
                   closed("result", "sent", "known", "refused"))
UPLOAD_SPOOL_BYTES = _gauge("upload_spool_bytes", "Room that uploads have on disk.")

_section("Store")
STORE_OPERATIONS = _counter("store_operations", "Steps asked of the store. late: not answered in time.",
                            closed("lane", "read", "write"), closed("result", "done", "failed", "late"))
STORE_DURATION = _histogram("store_operation_duration_seconds", "From asking to the answer.", _QUICK,
                            closed("lane", "read", "write"))
STORE_PENDING = _gauge("store_pending", "Steps asked for and not yet answered.")
# fmt: on
