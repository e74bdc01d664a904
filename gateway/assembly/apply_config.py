"""The settings that a reload replaces, one `LiveSettings` for each concept.

To add a setting: a field of the concept's settings struct, its value in `live_settings`, and its name in
`config/changes.py`. The service reads it from the `LiveSettings` that it was given.
"""

from collections.abc import Callable

import msgspec

from gateway.access.authentication import AccessSettings
from gateway.access.rules.issuers import IssuerSettings
from gateway.assembly import settings
from gateway.config import Config
from gateway.domain.teams import Teams
from gateway.files.rules.transfers import TransferSettings
from gateway.files.uploads import UploadSettings
from gateway.http.settings import HttpSettings
from gateway.metrics import MetricsSettings
from gateway.models.metadata import MetadataSettings
from gateway.money.settings import MoneySettings
from gateway.operations.settings import AdminSettings, RetentionSettings
from gateway.predictions.settings import PredictionSettings
from gateway.runtime.live import LiveSettings, replace_all
from gateway.sharing.settings import SharingSettings
from gateway.streams.settings import StreamSettings
from gateway.throttling.settings import ThrottlingSettings
from gateway.upstream.replicate import UpstreamCredentials
from gateway.upstream.webhooks import TransportSettings
from gateway.webhooks.settings import WebhookSettings


class Live(msgspec.Struct, frozen=True, kw_only=True):
    """One `LiveSettings` for each concept. Listeners run in the order of the fields."""

    metrics: LiveSettings[MetricsSettings]
    """First: the series of a new team exist before anything of it is counted."""
    teams: LiveSettings[Teams]
    access: LiveSettings[AccessSettings]
    issuers: LiveSettings[IssuerSettings]
    http: LiveSettings[HttpSettings]
    credentials: LiveSettings[UpstreamCredentials]
    throttling: LiveSettings[ThrottlingSettings]
    money: LiveSettings[MoneySettings]
    sharing: LiveSettings[SharingSettings]
    predictions: LiveSettings[PredictionSettings]
    metadata: LiveSettings[MetadataSettings]
    uploads: LiveSettings[UploadSettings]
    transfers: LiveSettings[TransferSettings]
    streams: LiveSettings[StreamSettings]
    webhooks: LiveSettings[WebhookSettings]
    webhook_transport: LiveSettings[TransportSettings]
    retention: LiveSettings[RetentionSettings]
    admin: LiveSettings[AdminSettings]


def live_settings(config: Config) -> Live:
    """Return the settings of every concept according to this config."""
    teams, webhooks = settings.teams_of(config), settings.webhook_settings(config)
    upstream, cache, streams, store = config.upstream, config.cache, config.streams, config.store
    return Live(
        metrics=LiveSettings(settings.metrics_settings(config, teams)),
        teams=LiveSettings(teams),
        access=LiveSettings(settings.access_settings(config)),
        issuers=LiveSettings(settings.issuer_settings(config)),
        http=LiveSettings(settings.http_settings(config, teams)),
        credentials=LiveSettings(UpstreamCredentials(upstream.token.get_secret_value())),
        throttling=LiveSettings(
            ThrottlingSettings(
                creates_per_minute=float(upstream.creates_per_minute),
                requests_per_minute=float(upstream.requests_per_minute),
            )
        ),
        money=LiveSettings(settings.money_settings(config)),
        sharing=LiveSettings(settings.sharing_settings(config)),
        predictions=LiveSettings(settings.prediction_settings(config)),
        metadata=LiveSettings(
            MetadataSettings(ttl_seconds=float(cache.metadata_ttl_seconds), max_bytes=cache.metadata_max_bytes)
        ),
        uploads=LiveSettings(UploadSettings(max_spool_bytes=config.server.max_spool_bytes)),
        transfers=LiveSettings(settings.transfer_settings(config)),
        streams=LiveSettings(
            StreamSettings(
                max_log_bytes=streams.max_log_bytes,
                live_log_bytes=streams.live_log_bytes,
                kept_log_bytes=streams.kept_log_bytes,
                heartbeat_seconds=float(streams.heartbeat_seconds),
                max_total=streams.max_total,
                max_per_team=streams.max_per_team,
            )
        ),
        webhooks=LiveSettings(webhooks),
        webhook_transport=LiveSettings(settings.webhook_transport(config, webhooks)),
        retention=LiveSettings(
            RetentionSettings(
                max_cache_bytes=cache.max_bytes,
                retain_data_seconds=float(store.retain_data_seconds),
                retain_days=float(store.retain_days),
                audit_days=float(config.audit.retain_days),
            )
        ),
        admin=LiveSettings(settings.admin_settings(config)),
    )


def prepare(live: Live, config: Config) -> Callable[[], None]:
    """Compute all settings of the new config, and return the function that applies them at once.

    Settings that need a restart are not here: `config/changes.py` names them.
    """
    new = live_settings(config)
    names = Live.__struct_fields__
    replacements = [(getattr(live, name), getattr(new, name).value) for name in names]
    return lambda: replace_all(replacements)
