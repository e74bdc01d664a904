"""The parts of a gateway: what `app.py` builds, the listeners are put together from, and a reload gives new values."""

import msgspec

from gateway.access.authentication import Authenticator
from gateway.access.browser_tokens import TokenService
from gateway.access.policy import Policy
from gateway.access.sessions import Sessions
from gateway.assembly.apply_config import Live
from gateway.domain.ports.clock import Clock
from gateway.domain.ports.tracing import Tracer
from gateway.files.files import FileService
from gateway.files.uploads import UploadService
from gateway.http.handlers import stream_check
from gateway.http.sse import registry
from gateway.metrics import Metrics
from gateway.models.metadata import MetadataService
from gateway.models.versions import VersionMap
from gateway.money.accounting import Accounting
from gateway.money.budget_alerts import Budgets
from gateway.money.ledger_audit import LedgerAuditor
from gateway.money.limit_queue import LimitQueue
from gateway.money.pricing import Pricing
from gateway.money.usage import UsageService
from gateway.operations.dashboard import DashboardService
from gateway.operations.explain import ExplainService
from gateway.operations.health import Health
from gateway.operations.janitor import Janitor
from gateway.operations.recent_errors import RecentErrors
from gateway.outputs.downloads import OutputService
from gateway.predictions.create import CreateService
from gateway.predictions.deadlines import Deadlines
from gateway.predictions.queries import PredictionService
from gateway.predictions.run_creator import RunCreator
from gateway.predictions.tracker import Tracker
from gateway.predictions.upstream_webhooks import UpstreamWebhooks
from gateway.sharing.identity import IdentityService
from gateway.store.interface import Store
from gateway.streams.hub import StreamHub
from gateway.throttling.hold_queue import HoldQueue
from gateway.throttling.rules.request_rates import RequestRates
from gateway.throttling.upstream_limiter import UpstreamLimiter
from gateway.upstream.replicate import ReplicateClient
from gateway.upstream.webhooks import WebhookSender
from gateway.webhooks.dispatcher import WebhookDispatcher
from gateway.webhooks.secrets import WebhookSecrets


class Money(msgspec.Struct, frozen=True):
    """What looks after money."""

    pricing: Pricing
    limit_queue: LimitQueue
    accounting: Accounting
    budgets: Budgets
    ledger_auditor: LedgerAuditor
    usage: UsageService


class Parts(msgspec.Struct, frozen=True):
    """What the listeners are put together from."""

    live: Live
    store: Store
    clock: Clock
    metrics: Metrics
    tracer: Tracer
    recent_errors: RecentErrors
    client: ReplicateClient
    hub: StreamHub
    authenticator: Authenticator
    tokens: TokenService
    tracker: Tracker
    identities: IdentityService
    predictions: PredictionService
    creates: CreateService
    money: Money
    explain: ExplainService
    dashboard: DashboardService
    sessions: Sessions
    run_creator: RunCreator
    deadlines: Deadlines
    upstream_webhooks: UpstreamWebhooks
    files: FileService
    uploads: UploadService
    metadata: MetadataService
    outputs: OutputService | None
    policy: Policy
    versions: VersionMap
    secrets: WebhookSecrets
    dispatcher: WebhookDispatcher
    webhook_sender: WebhookSender
    janitor: Janitor
    health: Health
    streams: registry.OpenStreams
    probes: stream_check.Probes
    account: UpstreamLimiter
    rates: RequestRates
    hold_queue: HoldQueue
