"""Typed keys of what handlers find on the application and on the request."""

from aiohttp import web

from gateway.core.records import Sight
from gateway.core.teams import Caller
from gateway.edge.settings import Current
from gateway.metrics import Metrics
from gateway.outbound.replicate import ReplicateClient
from gateway.ports import Clock, Store, Tracer
from gateway.service.account import Account
from gateway.service.authentication import Authenticator
from gateway.service.creates import CreateService
from gateway.service.dashboard import DashboardService
from gateway.service.explain import ExplainService
from gateway.service.files import FileService
from gateway.service.health import Health
from gateway.service.metadata import MetadataService
from gateway.service.outputs import OutputService
from gateway.service.policy import Policy
from gateway.service.predictions import PredictionService
from gateway.service.sessions import Sessions
from gateway.service.stream_hub import StreamHub
from gateway.service.tokens import TokenService
from gateway.service.troubles import Troubles
from gateway.service.uploads import UploadService
from gateway.service.upstream_webhooks import UpstreamWebhooks
from gateway.service.usage import UsageService
from gateway.service.versions import VersionMap
from gateway.service.webhook_secrets import WebhookSecrets

SETTINGS = web.AppKey("settings", Current)
CLOCK = web.AppKey("clock", Clock)
METRICS = web.AppKey("metrics", Metrics)
ACCOUNT = web.AppKey("account", Account)
AUTHENTICATOR = web.AppKey("authenticator", Authenticator)
BOARDS = web.AppKey("boards", DashboardService)
CREATES = web.AppKey("creates", CreateService)
PREDICTIONS = web.AppKey("predictions", PredictionService)
EXPLAIN = web.AppKey("explain", ExplainService)
FILES = web.AppKey("files", FileService)
UPLOADS = web.AppKey("uploads", UploadService)
METADATA = web.AppKey("metadata", MetadataService)
POLICY = web.AppKey("policy", Policy)
SESSIONS = web.AppKey("sessions", Sessions)
TOKENS = web.AppKey("tokens", TokenService)
TROUBLES = web.AppKey("troubles", Troubles)
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
ABOUT = web.RequestKey("about", Sight)
"""The prediction that the request was about, where it was about one."""
SENT_BYTES = web.ResponseKey("sent_bytes", int)
SENT_EVENTS = web.ResponseKey("sent_events", int)
"""What has been sent of an answer that goes out piece by piece."""
UPSTREAM_SECONDS = web.RequestKey("upstream_seconds", float)
OVERHEAD = web.RequestKey("overhead", str)
"""Which of the gateway's own paths the answer took; see the metric of that name."""
STREAM_ORIGINS = web.RequestKey("stream_origins", tuple[str, ...])
"""The origins that may read a stream, whose request carries no key."""
