"""Typed keys of what handlers find on the application and on the request."""

from aiohttp import web

from gateway.access.authentication import AccessSettings, Authenticator
from gateway.access.browser_tokens import TokenService
from gateway.access.policy import Policy
from gateway.access.sessions import Sessions
from gateway.domain.ports.clock import Clock
from gateway.domain.ports.tracing import Tracer
from gateway.domain.records import PredictionView
from gateway.domain.teams import Caller
from gateway.files.files import FileService
from gateway.files.uploads import UploadService
from gateway.http.settings import HttpSettings
from gateway.metrics import Metrics
from gateway.models.metadata import MetadataService
from gateway.models.versions import VersionMap
from gateway.money.usage import UsageService
from gateway.operations.dashboard import DashboardService
from gateway.operations.explain import ExplainService
from gateway.operations.health import Health
from gateway.operations.recent_errors import RecentErrors
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
METRICS = web.AppKey("metrics", Metrics)
ACCOUNT = web.AppKey("account", UpstreamLimiter)
AUTHENTICATOR = web.AppKey("authenticator", Authenticator)
BOARDS = web.AppKey("boards", DashboardService)
CREATES = web.AppKey("creates", CreateService)
ESTIMATES = web.AppKey("estimates", EstimateService)
PREDICTIONS = web.AppKey("predictions", PredictionService)
EXPLAIN = web.AppKey("explain", ExplainService)
FILES = web.AppKey("files", FileService)
UPLOADS = web.AppKey("uploads", UploadService)
METADATA = web.AppKey("metadata", MetadataService)
POLICY = web.AppKey("policy", Policy)
SESSIONS = web.AppKey("sessions", Sessions)
TOKENS = web.AppKey("tokens", TokenService)
TROUBLES = web.AppKey("troubles", RecentErrors)
USAGE = web.AppKey("usage", UsageService)
VERSIONS = web.AppKey("versions", VersionMap)
UPSTREAM_WEBHOOKS = web.AppKey("upstream_webhooks", UpstreamWebhooks)
WEBHOOK_SECRETS = web.AppKey("webhook_secrets", WebhookSecrets)
UPSTREAM = web.AppKey("upstream", ReplicateClient)
HUB = web.AppKey("hub", StreamHub)
OUTPUTS = web.AppKey("outputs", OutputService)
"""Absent where there is no output store."""
HEALTH = web.AppKey("health", Health)
STORE = web.AppKey("store", Store)
TRACER = web.AppKey("tracer", Tracer)

CALLER = web.RequestKey("caller", Caller)
PRESENTED = web.RequestKey("presented", str)
"""The key as the caller sent it: to be kept out of everything that is sent or stored."""
REQUEST_ID = web.RequestKey("request_id", str)
TRACE_ID = web.RequestKey("trace_id", str)
BEGAN = web.RequestKey("began", float)
ABOUT = web.RequestKey("about", PredictionView)
"""The prediction that the request was about, where it was about one."""
SENT_BYTES = web.ResponseKey("sent_bytes", int)
SENT_EVENTS = web.ResponseKey("sent_events", int)
"""What has been sent of an answer that goes out piece by piece."""
UPSTREAM_SECONDS = web.RequestKey("upstream_seconds", float)
OVERHEAD = web.RequestKey("overhead", str)
"""Which of the gateway's own paths the answer took; see the metric of that name."""
STREAM_ORIGINS = web.RequestKey("stream_origins", tuple[str, ...])
"""The origins that may read a stream, whose request carries no key."""
