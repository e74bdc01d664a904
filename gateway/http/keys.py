"""Typed keys for values that handlers read from the application, the request and the response."""

from aiohttp import web

from gateway.access.authentication import AccessSettings, Authenticator
from gateway.access.browser_tokens import TokenService
from gateway.access.console_sign_in import ConsoleSignIn
from gateway.access.key_service import KeyService
from gateway.access.policy import Policy
from gateway.access.sessions import Sessions
from gateway.domain.hold import Hold
from gateway.domain.ports.clock import Clock
from gateway.domain.ports.tracing import Tracer
from gateway.domain.records import PredictionView
from gateway.domain.teams import Caller
from gateway.files.files import FileService
from gateway.files.transfers import Transfers
from gateway.files.uploads import UploadService
from gateway.http.bytes_by_team import BytesByTeam
from gateway.http.response_memory import ResponseMemory
from gateway.http.route import Route
from gateway.http.settings import HttpSettings
from gateway.metrics import Metrics
from gateway.models.metadata import MetadataService
from gateway.models.versions import VersionMap
from gateway.money.usage import UsageService
from gateway.nodes.membership import Membership
from gateway.operations.dashboard import DashboardService
from gateway.operations.explain import ExplainService
from gateway.operations.health import Health
from gateway.operations.prediction_log import PredictionLog
from gateway.operations.recent_errors import RecentErrors
from gateway.operations.teams import TeamService
from gateway.outputs.downloads import OutputService
from gateway.predictions.create import CreateService
from gateway.predictions.estimate import EstimateService
from gateway.predictions.queries import PredictionService
from gateway.predictions.upstream_webhooks import UpstreamWebhooks
from gateway.runtime.live import LiveSettings
from gateway.store.interface import Store
from gateway.streams.hub import StreamHub
from gateway.throttling.upstream_limiter import UpstreamLimiter
from gateway.upstream.replicate import ReplicateClient
from gateway.webhooks.secrets import WebhookSecrets

SETTINGS = web.AppKey("settings", LiveSettings[HttpSettings])
ACCESS = web.AppKey("access", LiveSettings[AccessSettings])
CLOCK = web.AppKey("clock", Clock)
BODY_MEMORY = web.AppKey("body_memory", BytesByTeam)
"""The large request bodies in memory."""
RESPONSE_MEMORY = web.AppKey("response_memory", ResponseMemory)
METRICS = web.AppKey("metrics", Metrics)
UPSTREAM_LIMITER = web.AppKey("upstream_limiter", UpstreamLimiter)
AUTHENTICATOR = web.AppKey("authenticator", Authenticator)
DASHBOARD = web.AppKey("dashboard", DashboardService)
CREATES = web.AppKey("creates", CreateService)
ESTIMATES = web.AppKey("estimates", EstimateService)
PREDICTION_LOG = web.AppKey("prediction_log", PredictionLog)
PREDICTIONS = web.AppKey("predictions", PredictionService)
EXPLAIN = web.AppKey("explain", ExplainService)
FILES = web.AppKey("files", FileService)
UPLOADS = web.AppKey("uploads", UploadService)
DOWNLOADS = web.AppKey("downloads", Transfers)
MEMBERSHIP = web.AppKey("membership", Membership)
METADATA = web.AppKey("metadata", MetadataService)
POLICY = web.AppKey("policy", Policy)
KEY_SERVICE = web.AppKey("key_service", KeyService)
SESSIONS = web.AppKey("sessions", Sessions)
CONSOLE_SIGN_IN = web.AppKey("console_sign_in", ConsoleSignIn)
TEAMS = web.AppKey("teams", TeamService)
TOKENS = web.AppKey("tokens", TokenService)
RECENT_ERRORS = web.AppKey("recent_errors", RecentErrors)
USAGE = web.AppKey("usage", UsageService)
VERSIONS = web.AppKey("versions", VersionMap)
UPSTREAM_WEBHOOKS = web.AppKey("upstream_webhooks", UpstreamWebhooks)
WEBHOOK_SECRETS = web.AppKey("webhook_secrets", WebhookSecrets)
UPSTREAM = web.AppKey("upstream", ReplicateClient)
HUB = web.AppKey("hub", StreamHub)
OUTPUTS = web.AppKey("outputs", OutputService)
"""Absent if no output store is configured."""
HEALTH = web.AppKey("health", Health)
STORE = web.AppKey("store", Store)
TRACER = web.AppKey("tracer", Tracer)

CALLER = web.RequestKey("caller", Caller)
PRESENTED_KEY = web.RequestKey("presented_key", bytes)
"""The caller's key in clear text, encoded. It must not appear in anything that is sent on or stored."""
BODY_BYTES = web.RequestKey("body_bytes", int)
"""Bytes of its body that count against the memory for large bodies."""
REQUEST_ID = web.RequestKey("request_id", str)
TRACE_ID = web.RequestKey("trace_id", str)
ROUTE = web.RequestKey("route", Route)
"""The route that the request matched, if any."""
STARTED = web.RequestKey("started", float)
"""When handling began, by `time.perf_counter`."""
ALIAS = web.RequestKey("alias", tuple[str, str])
"""The alias by which the request names a target, and that target."""
VIEW = web.RequestKey("view", PredictionView)
"""The prediction that the request concerns, if any."""
SENT_BYTES = web.ResponseKey("sent_bytes", int)
"""Body bytes of a streamed response so far."""
SENT_EVENTS = web.ResponseKey("sent_events", int)
"""Events of the run that were written to an event stream."""
UPSTREAM_SECONDS = web.RequestKey("upstream_seconds", float)
"""Time spent on calls to upstream."""
HOLD = web.RequestKey("hold", Hold)
"""How long a create was held for limits."""
RUN_SECONDS = web.RequestKey("run_seconds", float)
"""Time that a create waited for its run (`Prefer: wait`)."""
OVERHEAD = web.RequestKey("overhead", str)
"""The label `path` of the overhead metric, for requests that are measured by it."""
STREAM_ORIGINS = web.RequestKey("stream_origins", tuple[str, ...])
"""The origins that may read the response to a request without a key: a stream or a stored output."""
