"""The roles of the store in one class. Each has a file with its steps."""

from gateway.store.sql.audit import AuditLogSteps
from gateway.store.sql.auditing import AuditingSteps
from gateway.store.sql.cache import CacheSteps
from gateway.store.sql.deliveries import DeliverySteps
from gateway.store.sql.events import EventLogSteps
from gateway.store.sql.files import FileSteps
from gateway.store.sql.idempotency import IdempotencySteps
from gateway.store.sql.intents import IntentSteps
from gateway.store.sql.keys import KeySteps
from gateway.store.sql.money import MoneySteps
from gateway.store.sql.outputs import OutputSteps
from gateway.store.sql.ping import PingSteps
from gateway.store.sql.predictions import PredictionSteps
from gateway.store.sql.search import SearchSteps
from gateway.store.sql.secrets import SecretSteps
from gateway.store.sql.sharing import SharingSteps
from gateway.store.sql.versions import VersionSteps


class Steps(
    PredictionSteps,
    SearchSteps,
    IntentSteps,
    SharingSteps,
    CacheSteps,
    IdempotencySteps,
    DeliverySteps,
    EventLogSteps,
    KeySteps,
    FileSteps,
    OutputSteps,
    VersionSteps,
    SecretSteps,
    MoneySteps,
    AuditingSteps,
    AuditLogSteps,
    PingSteps,
):
    """Every operation on the data, for an engine to run."""
