"""What services ask of the outside world, one role or family of roles a file.

A service takes the narrowest role. Every method is one atomic step, so that both an embedded database and a shared
server can keep its promise; the docstrings say what is atomic and what survives. Two degrees of lasting are told apart
(design 2.9): *kept* outlives the process, *durable* outlives the power too. All methods raise
`gateway.errors.StoreUnavailable` when the store cannot answer in time; nothing has changed then, as far as the store
can tell.
"""

from gateway.ports.account import AccountObserver, Pacer, RateObserver, Turns
from gateway.ports.clock import Clock
from gateway.ports.dashboard import Figures
from gateway.ports.deliveries import Announcer, Busy, Deliveries, DeliveryObserver, WebhookTransport
from gateway.ports.events import EventLogs, StreamObserver
from gateway.ports.explaining import Teller
from gateway.ports.keeping import Files, Keys, Leases, Secrets, Versions
from gateway.ports.money import Ledger, MoneyObserver
from gateway.ports.observers import (
    AdoptionObserver,
    CacheObserver,
    PredictionObserver,
    RunObserver,
    StoreObserver,
    UploadObserver,
    UpstreamObserver,
)
from gateway.ports.outputs import CopyStore, OutputFetcher, OutputObserver, Outputs, OutputStore
from gateway.ports.predictions import Predictions
from gateway.ports.sharing import CreateStore, Sharing
from gateway.ports.store import Store
from gateway.ports.tracing import NoTracer, Span, Tracer
from gateway.ports.upstream import Upstream

__all__ = [
    "AccountObserver",
    "AdoptionObserver",
    "Announcer",
    "Busy",
    "CacheObserver",
    "Clock",
    "CopyStore",
    "CreateStore",
    "Deliveries",
    "DeliveryObserver",
    "EventLogs",
    "Figures",
    "Files",
    "Keys",
    "Leases",
    "Ledger",
    "MoneyObserver",
    "NoTracer",
    "OutputFetcher",
    "OutputObserver",
    "OutputStore",
    "Outputs",
    "Pacer",
    "PredictionObserver",
    "Predictions",
    "RateObserver",
    "RunObserver",
    "Secrets",
    "Sharing",
    "Span",
    "Store",
    "StoreObserver",
    "StreamObserver",
    "Teller",
    "Tracer",
    "Turns",
    "UploadObserver",
    "Upstream",
    "UpstreamObserver",
    "Versions",
    "WebhookTransport",
]
