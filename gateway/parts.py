"""The parts of a gateway: what `app.py` builds, the listeners are put together from, and a reload gives new values."""

import msgspec

from gateway.core.request_rates import RequestRates
from gateway.edge import open_streams, stream_check
from gateway.edge.settings import Current
from gateway.metrics import Metrics
from gateway.outbound.replicate import ReplicateClient
from gateway.outbound.webhooks import WebhookSender
from gateway.ports import Clock, Store, Tracer
from gateway.service.account import Account
from gateway.service.accounting import Accounting
from gateway.service.admission import Admission
from gateway.service.authentication import Authenticator
from gateway.service.bookkeeper import Bookkeeper
from gateway.service.budgets import Budgets
from gateway.service.creates import CreateService
from gateway.service.dashboard import DashboardService
from gateway.service.deadlines import Deadlines
from gateway.service.explain import ExplainService
from gateway.service.files import FileService
from gateway.service.health import Health
from gateway.service.holding import Holding
from gateway.service.identity import IdentityService
from gateway.service.janitor import Janitor
from gateway.service.leading import Leader
from gateway.service.metadata import MetadataService
from gateway.service.notifier import Notifier
from gateway.service.outputs import OutputService
from gateway.service.policy import Policy
from gateway.service.predictions import PredictionService
from gateway.service.pricing import Pricing
from gateway.service.sessions import Sessions
from gateway.service.stream_hub import StreamHub
from gateway.service.tokens import TokenService
from gateway.service.tracker import Tracker
from gateway.service.troubles import Troubles
from gateway.service.uploads import UploadService
from gateway.service.upstream_webhooks import UpstreamWebhooks
from gateway.service.usage import UsageService
from gateway.service.versions import VersionMap
from gateway.service.webhook_secrets import WebhookSecrets


class Money(msgspec.Struct, frozen=True):
    """What looks after money."""

    pricing: Pricing
    admission: Admission
    accounting: Accounting
    budgets: Budgets
    bookkeeper: Bookkeeper
    usage: UsageService


class Parts(msgspec.Struct, frozen=True):
    """What the listeners are put together from."""

    settings: Current
    store: Store
    clock: Clock
    metrics: Metrics
    tracer: Tracer
    troubles: Troubles
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
    leader: Leader
    deadlines: Deadlines
    upstream_webhooks: UpstreamWebhooks
    files: FileService
    uploads: UploadService
    metadata: MetadataService
    outputs: OutputService | None
    policy: Policy
    versions: VersionMap
    secrets: WebhookSecrets
    notifier: Notifier
    webhook_sender: WebhookSender
    janitor: Janitor
    health: Health
    streams: open_streams.OpenStreams
    probes: stream_check.Probes
    account: Account
    rates: RequestRates
    holding: Holding
