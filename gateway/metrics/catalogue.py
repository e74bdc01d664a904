"""All metrics of the gateway. `docs/metrics.md` is generated from this file.

Names omit the prefix `replicate_gateway_` and the suffix `_total` of counters. Units are seconds, bytes and dollars.
Dashboards and alerts depend on names and labels.
"""

from collections.abc import Iterator
from enum import Enum

import msgspec

from gateway import errors
from gateway.access.rules.json_web_tokens import Reason
from gateway.access.rules.sign_in import Outcome
from gateway.domain.bypass import BypassReason
from gateway.domain.limits import SubjectKind
from gateway.domain.ports import observers
from gateway.domain.quota import LimitKind
from gateway.domain.records import Source, Status
from gateway.domain.windows import Window
from gateway.files.rules.transfers import Bound, Direction
from gateway.metrics.labels import Label, closed
from gateway.money.rules.usage import Doubt
from gateway.nodes.news import Topic
from gateway.outputs.ports import COPY_FAILURES, REMOVAL_REASONS
from gateway.predictions.events import Listener
from gateway.runtime.loops import BackgroundLoop
from gateway.webhooks.rules.deliveries import Result

NAMESPACE = "replicate_gateway"


class Kind(Enum):
    """Type of a metric."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"
    INFO = "info"


class Family(msgspec.Struct, frozen=True, eq=False):
    """A metric, with one series per combination of label values."""

    name: str
    kind: Kind
    help_text: str
    labels: tuple[Label, ...] = ()
    buckets: tuple[float, ...] = ()
    is_prepared: bool = True
    """Whether series of known label values exist from the start, so that `increase` counts the first event."""

    @property
    def sample(self) -> str:
        """Full name, as used in queries."""
        ending = {Kind.COUNTER: "_total", Kind.INFO: "_info"}.get(self.kind, "")
        return f"{NAMESPACE}_{self.name}{ending}"

    @property
    def samples_of_a_series(self) -> int:
        """Number of samples per combination of label values."""
        # A histogram has its buckets, the +Inf bucket, the sum and the count.
        return len(self.buckets) + 3 if self.kind is Kind.HISTOGRAM else 1


SECTIONS: dict[str, list[Family]] = {}


def _section(title: str) -> None:
    SECTIONS[title] = []


def _add(family: Family) -> Family:
    SECTIONS[next(reversed(SECTIONS))].append(family)
    return family


def _counter(name: str, help_text: str, *labels: Label, is_prepared: bool = True) -> Family:
    return _add(Family(name, Kind.COUNTER, help_text, labels, is_prepared=is_prepared))


def _gauge(name: str, help_text: str, *labels: Label, is_prepared: bool = True) -> Family:
    return _add(Family(name, Kind.GAUGE, help_text, labels, is_prepared=is_prepared))


def _histogram(name: str, help_text: str, buckets: tuple[float, ...], *labels: Label) -> Family:
    return _add(Family(name, Kind.HISTOGRAM, help_text, labels, buckets))


def families() -> Iterator[Family]:
    """Iterate over all metrics."""
    for section in SECTIONS.values():
        yield from section


def _errors(root: type[errors.GatewayError] = errors.GatewayError) -> Iterator[str]:
    yield root.__name__
    for each in root.__subclasses__():
        yield from _errors(each)


# fmt: off
# Buckets of sub-millisecond durations, responses, waits, and runs (minutes, if a model starts cold).
_QUICK = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
_ANSWERS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_WAITS = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0)
_RUNS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0)

TEAM = Label("team", known_from="teams", help_text="the teams of the config")
TARGET = Label("target", ("unknown",), known_from="targets", max_learned=50,
               help_text="`owner/name`, `unknown`, `other`; limited by `top_targets`")
ROUTE = Label("route", ("unmatched",), known_from="routes", max_learned=100, help_text="names of routes, `unmatched`")
# The most frequent calls: their series exist from the start.
_USUAL_CALLS = ("predictions.create", "models.predictions.create", "deployments.predictions.create", "trainings.create",
                "predictions.get", "trainings.get", "predictions.cancel", "trainings.cancel", "streams.read")
_USUAL_OUTCOMES = ("200", "201", "401", "402", "404", "422", "429", "500", "502", "503", "504",
                   "failed", "unreachable", "timeout", "broken", "abandoned", "withheld")
OPERATION = Label("operation", _USUAL_CALLS, max_learned=70,
                  help_text="operation of the upstream API, such as `predictions.create`")
CODE = Label("code", max_learned=40, help_text="HTTP status")
OUTCOME = Label("code", _USUAL_OUTCOMES, max_learned=30,
                help_text="HTTP status, or `unreachable`, `timeout`, `broken`, `abandoned`, `withheld`, `failed`")
METHOD = closed("method", "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "QUERY", "OPTIONS")
WINDOW = closed("window", *Window)
ISSUER = Label("issuer", known_from="issuers", help_text="the names of the issuers in the config")
POOL = closed("pool", *observers.POOLS)
DIRECTION = closed("direction", *Direction)
LANE = closed("lane", "creates", "requests")

_section("Process")
BUILD = _add(Family("build", Kind.INFO, "Version of the gateway and of Python."))
READY = _gauge("ready", "1 if this process can serve, 0 if /readyz answers 503.")
DEGRADED = _gauge("degraded", "1 if something fails that other processes share, or that affects some requests only.",
                  closed("cause", "upstream", "store", "database", "connections"))
CONFIG_LOADED_AT = _gauge("config_loaded_timestamp_seconds", "When the current config was loaded.")
CONFIG_RELOADS = _counter("config_reloads", "Reloads of the config.", closed("result", "taken", "refused"))
LOOP_LAG = _histogram("event_loop_lag_seconds", "Delay of the event loop in waking a task, sampled.", _QUICK)
LOOP_CRASHES = _counter("loop_crashes", "Crashes of background loops. The loop starts again after a pause.",
                        closed("loop", *BackgroundLoop))
LABELS_DROPPED = _counter("labels_dropped", "Label values replaced by `other`.",
                          Label("label", max_learned=40, help_text="name of the label"))
LOG_LINES_DROPPED = _counter("log_lines_dropped", "Log lines dropped because the reader was too slow.")

_section("Requests")
HTTP_REQUESTS = _counter("http_requests", "Requests by status. 499: the caller disconnected first.", ROUTE,
                         METHOD, CODE, is_prepared=False)
HTTP_DURATION = _histogram("http_request_duration_seconds", "Time from the request's head to the end of the response.",
                           _ANSWERS, ROUTE)
HTTP_IN_FLIGHT = _gauge("http_requests_in_flight", "Requests in progress.")
OVERHEAD = _histogram("overhead_seconds", "Response time without the time spent upstream.", _QUICK,
                      closed("path", "hit", "poll", "relay", "stream_open"))
REFUSALS = _counter("refusals", "Requests refused by the gateway, by error.",
                    Label("reason", tuple(_errors()), help_text="names of the errors"))
CORS_REFUSALS = _counter("cors_refusals", "Requests of web pages that may not read the response, because their origin "
                         "is not listed. The access log has the origin.", closed("kind", "preflight", "request"))

BODIES_REFUSED = _counter("bodies_refused", "Request bodies refused by a bound of [limits].",
                          closed("limit", "max_links", "max_keys", "max_values", "max_depth", "max_half_surrogates",
                                 "max_bodies_bytes"))
BODY_BYTES = _gauge("request_body_bytes", "Size of the large request bodies in memory.")
RESPONSE_BYTES = _gauge("response_bytes", "Size of the large responses that clients have not taken yet.")

_section("External identities")
ISSUER_KEY_READS = _counter("issuer_key_reads", "Attempts to read the keys of an issuer. refused: its address is not "
                            "allowed; invalid: no JWKS.", ISSUER, closed("outcome", *observers.KEY_READS))
ISSUER_KEY_AGE = _gauge("issuer_key_age_seconds", "Time since the keys of an issuer were read, if they ever were.",
                        ISSUER, is_prepared=False)
ISSUER_TOKENS_REFUSED = _counter("issuer_tokens_refused", "Refused tokens of issuers, by reason.",
                                 closed("reason", *Reason))
ISSUER_TOKENS_KEPT = _gauge("issuer_tokens_kept", "Verified tokens of issuers in memory.")
CONSOLE_SIGN_INS = _counter("console_sign_ins", "Sign-ins to the console at an issuer. no_role: the claims are in no "
                            "list; invalid: the answer or the ID token was refused.", ISSUER,
                            closed("outcome", *Outcome))

_section("Predictions")
CREATED = _counter("predictions_created", "Predictions created, by source.", TEAM, TARGET,
                   closed("source", *Source))
FINISHED = _counter("predictions_finished", "Predictions that ended, by status.", TEAM,
                    closed("status", *(status for status in Status if status.is_terminal)))
POLLS = _counter("polls", "Polls of predictions answered by the gateway, and polls of runs sent upstream.",
                 closed("served_by", "gateway", "upstream"))
CANCELS = _counter("cancels", "Cancels. left: the run continues for others; asked: sent upstream; over: already ended.",
                   closed("result", "left", "asked", "over"))
QUEUE = _histogram("run_queue_seconds", "Time from create to start of a run.", _RUNS, TARGET)
RUN = _histogram("run_duration_seconds", "Time from start to end of a run.", _RUNS, TARGET)
FOLLOWED = _gauge("runs_followed", "Runs that the gateway follows until they end.")
OBSERVED = _gauge("runs_observed", "Runs of other nodes that requests wait for here. They are read from the store.")
TRACKING_CRASHES = _counter("tracking_crashes", "Defects while a run was followed. The step is tried again.",
                            closed("step", "poll", "cancel", "report", "observe"))
DOCUMENTS_REPAIRED = _counter("documents_repaired", "States of runs whose text was invalid and was replaced by U+FFFD.")
LOGS_SHORTENED = _counter("logs_shortened", "States of runs, larger than 16 MiB, of whose logs only the end was kept.")
SEARCH_BOUNDS = _counter("search_bounds", "Bounds of [ops] that were reached: a page of a search of predictions ended "
                         "at max_searched or max_page_bytes (`page`), data was not shown because of max_data_bytes "
                         "(`data`).", closed("bound", "page", "data"))
LISTENER_FAILURES = _counter("listener_failures", "Failed calls of listeners to events of predictions and runs.",
                             closed("listener", *Listener))
ACTIVE = _gauge("runs_active", "Runs in progress, by the team that started them.", TEAM)
WAITERS = _gauge("waiters", "Waiting requests: for the end of a run (`sync`), for another caller's create of the same "
                 "run (`create`), for a hit to be recorded (`hit`), for memory for a large response (`response`), for "
                 "a limit (`limit`), for a request rate (`rate`), or for the account's rate of creates (`account`) or "
                 "other calls (`call`).",
                 closed("kind", "sync", "create", "hit", "response", "limit", "rate", "account", "call"))
ORPHANS = _counter("orphans", "Creates with an unknown outcome, by result of the search.",
                   closed("result", "adopted", "released"))
UNCERTAIN = _gauge("uncertain_creates", "Creates whose run is searched for upstream. One search serves all.")
SHOWN_BYTES = _gauge("shown_bytes", "Size of rendered predictions and of documents split for rendering, in memory.")
RECENT_BYTES = _gauge("recent_bytes", "Size of the documents of recent predictions in memory.")
FOLLOWED_BYTES = _gauge("followed_bytes", "Size of the documents of runs in progress in memory.")

_section("Cache")
LOOKUPS = _counter("cache_lookups", "Cache lookups, by tier and result.",
                   closed("tier", "predictions", "metadata"), closed("result", *Source))
BYPASSES = _counter("cache_bypasses", "Predictions that cannot be shared, by reason.", closed("reason", *BypassReason))
CACHE_ENTRIES = _gauge("cache_entries", "Cached results, updated every minute.")
CACHE_BYTES = _gauge("cache_bytes", "Size of cached results, updated every minute.")
EVICTIONS = _counter("cache_evictions", "Cached results evicted to free space.")
SCHEMA_BYTES = _gauge("schema_cache_bytes", "Size of the answers from which the cached input schemas were read.")
METADATA_BYTES = _gauge("metadata_cache_bytes", "Size of cached metadata.")

_section("Money and limits")
SPEND = _counter("spend_usd", "Cost of settled runs, since the process started. The ledger is authoritative.", TEAM)
SAVED = _counter("saved_usd", "Savings by sharing, since the process started.", TEAM,
                 closed("reason", Source.HIT, Source.JOINED))
BUDGET_LIMIT = _gauge("budget_limit_usd", "Budget of a team, if it has one.", TEAM, WINDOW, is_prepared=False)
BUDGET_SPENT = _gauge("budget_spent_usd", "Amount spent in the current window.", TEAM, WINDOW)
BUDGET_RESERVED = _gauge("budget_reserved_usd", "Amount held for runs in progress.", TEAM, WINDOW)
BUDGET_RESETS = _gauge("budget_reset_timestamp_seconds", "End of the current window.", WINDOW)
QUOTA_REFUSALS = _counter("quota_refusals", "Creates refused by a limit of a team, key, user, address or cost tag, or "
                          "by the webhook queue.", TEAM,
                          closed("reason", *LimitKind))
REQUEST_REFUSALS = _counter("request_refusals", "Requests refused by a request rate, by its subject.",
                            closed("of", *(each for each in SubjectKind if each is not SubjectKind.TAG)))
CONCURRENCY_LIMIT = _gauge("concurrency_limit", "Limit of a team's concurrent predictions, if it has one.",
                           TEAM, is_prepared=False)
CREATES_HELD = _counter("creates_held", "Creates queued over a request rate, by result. too_long: refused at once. "
                        "left: the caller disconnected.",
                        closed("result", "admitted", "refused", "full", "too_long", "left"))
CREATE_HOLD = _histogram("create_hold_seconds", "Time that creates were queued over a request rate.", _WAITS)
CHARGES_IN_DOUBT = _counter("charges_in_doubt", "Charges that may differ from upstream's.",
                            closed("reason", *Doubt))
UNSETTLED = _gauge("reservations_unsettled", "Reservations older than an hour.")
STUCK = _counter("reservations_stuck", "Reservations without an open run, released by the audit. Should stay 0.")
DRIFT = _counter("ledger_drift", "Sums that differed from the ledger's entries and were recomputed. Should stay 0.")
TAG_VALUES = _gauge("tag_values", "Values of one cost tag that a team has used today, of the team and tag with the "
                    "most. More than [tags] max_values: further ones are counted together. Updated by the audit.")
RATE_SUBJECTS = _gauge("rate_subjects_kept", "Users, addresses and tokens whose request rate is in memory.")
RATE_SUBJECTS_DROPPED = _counter("rate_subjects_dropped", "Users, addresses and tokens evicted from memory.")
RATE_SHARES = _gauge("rate_shares", "Request rates of which this node holds a share, where several nodes serve.")
RATE_PERMITS = _counter("rate_permits", "Requests counted by a step of the store, because this node had no share of "
                        "their rate or had used it up. 0 where one process serves.",
                        closed("result", "granted", "refused"))

_section("Upstream")
UPSTREAM_REQUESTS = _counter("upstream_requests", "Requests sent upstream, by outcome.", OPERATION, OUTCOME)
UPSTREAM_DURATION = _histogram("upstream_request_duration_seconds",
                               "Time from sending a request to the last byte of its response.", _ANSWERS, OPERATION)
UPSTREAM_RETRIES = _counter("upstream_retries", "Reads that were retried.")
TOKEN_REFUSED = _counter("upstream_token_refused", "Responses that refused the account's token.")
LAST_SUCCESS = _gauge("upstream_last_success_timestamp_seconds", "Time of the last successful response.")
CONNECTIONS = _gauge("upstream_connections", "Connections to upstream in use, by kind of call.", POOL)
CONNECTION_REFUSALS = _counter("upstream_connection_refusals", "Calls that found no free connection in time. They are "
                               "refused with 429 and are no failure of upstream.", POOL)
BREAKER = _gauge("upstream_breaker_state", "Circuit breaker: 0 closed, 1 half open, 2 open.")
THROTTLES = _counter("account_throttles", "Responses with 429.", LANE)
ACCOUNT_WAIT = _histogram("account_wait_seconds", "Time that calls were queued for the account's rate.", _WAITS, LANE)
ACCOUNT_REFUSALS = _counter("account_refusals", "Calls refused because the queue was full or the wait too long.", LANE,
                         closed("reason", "timeout", "queue_full", "too_long"))
ACCOUNT_RATE = _gauge("account_rate_per_minute", "Calls per minute that upstream currently accepts, as learned: of all "
                      "nodes together.", LANE)
ACCOUNT_SHARE = _gauge("account_share", "This node's share of the account's rate, from 0 to 1, where several nodes "
                       "serve. 0 where the rate is too low to be divided and the nodes take turns.", LANE)

_section("Streams")
SSE_STREAMS = _gauge("sse_streams", "Open event streams: to callers, from upstream, and of `gateway check --stream`.",
                     closed("side", "downstream", "upstream", "check"))
SSE_EVENTS = _counter("sse_events", "Events read from upstream.")
SSE_BYTES = _counter("sse_bytes", "Bytes of events sent to callers.")
FIRST_EVENT = _histogram("sse_first_event_seconds", "Time from a caller's stream request to its first event.", _WAITS)
RESUMES = _counter("sse_resumes", "Streams resumed by callers. lost: missed events were no longer kept.",
                   closed("result", "resumed", "lost"))
STREAMS_ENDED = _counter("streams_ended", "Closed streams by reason. stalled: reader too slow; lost: resumed too late.",
                         closed("how", "done", "canceled", "lost", "left", "stalled", "closing"))
STREAM_BREAKS = _counter("stream_breaks", "Interrupted upstream streams, by reaction.",
                         closed("how", "resumed", "finished"))
LIVE_LOG_BYTES = _gauge("live_log_bytes", "Size of event logs of streams in progress.")
KEPT_LOG_BYTES = _gauge("kept_log_bytes", "Size of event logs of finished runs in memory.")
UNKEPT_LOGS = _gauge("unkept_logs", "Event logs with events that are not yet stored.")
DASHBOARD_STREAMS = _gauge("dashboard_streams", "Open pages of the console with live updates.")

_section("Webhooks")
DELIVERIES = _counter("webhook_deliveries", "Attempts to deliver a webhook.",
                      closed("event", "start", "output", "logs", "completed", "announcement"),
                      closed("result", *Result))
WEBHOOKS_DROPPED = _counter("webhooks_dropped", "Webhooks that will not be delivered.",
                            closed("reason", "full", "gave_up", "dead_letters_full", "gone"))
WEBHOOKS_QUEUED = _gauge("webhooks_queued", "Webhooks queued for delivery.")
WEBHOOKS_DEAD = _gauge("webhooks_dead", "Failed webhooks (dead letters) in the store.")
WEBHOOK_PLACES = _gauge("webhook_places_taken", "Places in the webhook queue that are taken: by predictions in "
                        "progress with a webhook, and by queued webhooks.", TEAM)
WEBHOOKS_OLDEST = _gauge("webhooks_oldest_queued_seconds", "Age of the oldest queued webhook.")

_section("Files")
OUTPUTS_STORED = _counter("outputs_stored", "Output files copied.")
OUTPUTS_STORED_BYTES = _counter("outputs_stored_bytes", "Bytes of output files copied.")
OUTPUTS_NOT_STORED = _counter("outputs_not_stored", "Failed attempts to copy a file.",
                              closed("reason", *COPY_FAILURES))
OUTPUTS_GONE = _counter("outputs_gone", "Copies removed before their predictions.",
                        closed("reason", *REMOVAL_REASONS))
OUTPUTS_HELD = _gauge("outputs_objects", "Objects in the output store.")
OUTPUTS_HELD_BYTES = _gauge("outputs_bytes", "Size of the output store.")
OUTPUTS_PENDING = _gauge("outputs_pending", "Runs whose files are not yet copied.")
OUTPUTS_BEING_SENT = _gauge("outputs_being_sent", "Stored files being sent.")
OUTPUTS_DELETED = _counter("outputs_deleted", "Objects deleted from the output store.")
OUTPUTS_SERVED_BYTES = _counter("outputs_served_bytes", "Bytes of copies sent to callers.")
UPLOADS = _counter("uploads", "Uploads. sent: sent upstream; known: deduplicated; refused: refused upstream.",
                   closed("result", "sent", "known", "refused"))
TRANSFERS = _gauge("transfers", "Uploads and downloads in progress.", DIRECTION)
TRANSFERS_WAITING = _gauge("transfers_waiting", "Uploads and downloads that wait for others to end.", DIRECTION)
TRANSFER_REFUSALS = _counter("transfer_refusals", "Uploads and downloads refused with 429, by the bound that was "
                             "reached: of all teams, of one team, or of one public key or user.", DIRECTION,
                             closed("bound", *Bound))
SLOW_TRANSFERS = _counter("slow_transfers", "Uploads and downloads that were ended because the caller was too slow.",
                          DIRECTION)
UPLOAD_SPOOL_BYTES = _gauge("upload_spool_bytes", "Disk space used by uploads in progress.")

_section("Store")
STORE_OPERATIONS = _counter("store_operations", "Store operations. late: timed out.",
                            closed("lane", "read", "write"), closed("result", "done", "failed", "late"))
STORE_DURATION = _histogram("store_operation_duration_seconds", "Duration of store operations, including the queue.",
                            _QUICK, closed("lane", "read", "write"))
STORE_FAILURES = _counter("store_failures", "Store operations that failed for a lasting reason: full or faulty disk, "
                          "no access, damaged data, file deleted or replaced (lost).",
                          closed("lane", "read", "write"), closed("kind", *observers.STORE_FAILURES))
STORE_RETRIES = _counter("store_retries", "Steps that ran again, by cause. key: another step wrote the same key; "
                         "deadlock; lock: waited too long for one; connection: lost before the commit; commit: lost "
                         "during the commit, whose outcome was then found out.",
                         closed("cause", *observers.STORE_RETRIES))
STORE_PENDING = _gauge("store_pending", "Store operations in progress or queued.")

_section("Nodes on one PostgreSQL")
NODE_ALIVE = _gauge("node_alive", "1 while the lease of this node is valid. Always 0 with SQLite, as are all of these.")
NODE_LEADS = _gauge("node_leads", "1 on the node that searches for uncertain creates, deletes what has expired and "
                    "audits.")
LEASE_AGE = _gauge("node_lease_age_seconds", "Time since this node last renewed its lease, which lasts 10 seconds.")
OWNED_RUNS = _gauge("node_owned_runs", "Runs that this node follows or searches for.")
NODES_ALIVE = _gauge("nodes_alive", "Nodes that have not ended, as this node sees it.")
LEASES_LOST = _counter("node_leases_lost", "Times that this node lost its lease. Others then take over its runs.")
NODES_DIED = _counter("nodes_died", "Nodes that stopped renewing their leases, by the node that noticed it.")
RUNS_TAKEN_OVER = _counter("runs_taken_over", "Runs that this node took over from nodes that had ended, and uncertain "
                           "creates that other nodes passed on to it.")
CLOCK_SKEW = _gauge("store_clock_skew_seconds", "By how much the clock of the database was ahead of this machine's "
                    "when the node joined.")

_section("Notifications between nodes")
NEWS_DURATION = _histogram("news_seconds", "Time from an event until the database has passed on its notification.",
                           _QUICK)
NEWS_WAITING = _gauge("news_waiting", "Names in notifications that are not sent yet.")
NEWS_LISTENING = _gauge("news_listening", "1 if notifications of other nodes arrive, 0 if only the store is read. "
                        "Always 0 with SQLite.")
NEWS_RECONNECTS = _counter("news_reconnects", "Times that the connection for notifications was lost and came back.")
NEWS_OVERFLOWS = _counter("news_overflows", "Times that too many names waited, and other nodes had to read all.",
                          closed("topic", *Topic))
# fmt: on
