"""Builds what decides who a caller is and what a key may do, and the metadata of models."""

import msgspec

from gateway.access.authentication import Authenticator
from gateway.access.browser_tokens import TokenService
from gateway.access.console_sign_in import ConsoleSignIn
from gateway.access.external_identities import ExternalIdentities
from gateway.access.issuer_keys import IssuerKeys
from gateway.access.key_service import KeyService
from gateway.access.key_uses import KeyUses
from gateway.access.policy import Policy
from gateway.access.sessions import Sessions
from gateway.assembly.base import Base
from gateway.assembly.upstream import UpstreamParts
from gateway.models.metadata import MetadataService
from gateway.models.schemas import SchemaService
from gateway.models.versions import VersionMap
from gateway.runtime.loops import BackgroundLoop
from gateway.upstream.issuers import IssuerClient, IssuerClientSettings


class AccessParts(msgspec.Struct, frozen=True):
    """Keys, tokens, sessions and rights."""

    authenticator: Authenticator
    tokens: TokenService
    sessions: Sessions
    sign_in: ConsoleSignIn
    policy: Policy
    keys: KeyService


class ModelParts(msgspec.Struct, frozen=True):
    """What is known of models."""

    versions: VersionMap
    schemas: SchemaService
    metadata: MetadataService


def build_models(base: Base, upstream: UpstreamParts) -> ModelParts:
    """Build the map of versions, the schemas and the cache of metadata."""
    schemas = SchemaService(upstream.client, base.clock, max_bytes=base.config.cache.schemas_max_bytes)
    base.stack.push_async_callback(schemas.close)
    metadata = MetadataService(upstream.client, base.clock, base.live.metadata, on_lookup=base.metrics.metadata_lookup)
    base.stack.push_async_callback(metadata.close)
    base.metrics.read_on_scrape("schema_cache_bytes", lambda: schemas.kept_bytes)
    base.metrics.read_on_scrape("metadata_cache_bytes", lambda: metadata.size)
    return ModelParts(VersionMap(base.store, upstream.client), schemas, metadata)


async def build_access(base: Base, models: ModelParts) -> AccessParts:
    """Build authentication, sessions and rights."""
    live, store, clock = base.live, base.store, base.clock
    tokens = TokenService(await base.secret("browser-tokens"), clock, tag_keys=lambda: live.http.value.tag_keys)
    client = await base.stack.enter_async_context(IssuerClient(IssuerClientSettings()))
    identities = _build_identities(base, client)
    uses = KeyUses(store, clock)
    base.keep_running(uses.run, BackgroundLoop.KEY_USES)
    authenticator = Authenticator(live.teams, live.access, store, tokens, clock, identities, on_used=uses.note)
    return AccessParts(
        authenticator=authenticator,
        tokens=tokens,
        sessions=Sessions(await base.secret("dashboard-sessions"), live.access, authenticator, clock, live.issuers),
        sign_in=ConsoleSignIn(
            await base.secret("console-sign-in"), live.issuers, live.access, client, identities, clock, base.metrics
        ),
        policy=Policy(models.versions, store, clock, str(base.config.upstream.base_url)),
        keys=KeyService(
            store, live.teams, live.access, clock, on_changed=lambda key_id: authenticator.forget([key_id])
        ),
    )


def _build_identities(base: Base, client: IssuerClient) -> ExternalIdentities:
    """Build what verifies the tokens of issuers. There may be none: a reload can add some."""
    metrics, issuers = base.metrics, base.live.issuers
    keys = IssuerKeys(issuers, client, base.clock, metrics)
    base.stack.push_async_callback(keys.close)
    base.keep_running(keys.run, BackgroundLoop.ISSUER_KEYS)
    identities = ExternalIdentities(issuers, keys, base.clock, metrics)
    metrics.read_on_scrape("issuer_key_age_seconds", lambda: keys.ages)
    metrics.read_on_scrape("issuer_tokens_kept", lambda: identities.remembered)
    return identities
