"""The root of the config."""

from pydantic import Field

from gateway.config.issuers import Issuer
from gateway.config.listeners import Console, Limits, Ops, Server
from gateway.config.sections import (
    Alias,
    Audit,
    Cache,
    Logs,
    Metrics,
    Outputs,
    Prices,
    Section,
    Store,
    Streams,
    Tags,
    Tracing,
    Transfers,
    Upstream,
    Webhooks,
)
from gateway.config.teams import Team


class Config(Section):
    """All settings. `gateway.config.load` returns one with its secrets resolved."""

    server: Server = Field(default_factory=Server, description="The public listener.")
    limits: Limits = Field(default_factory=Limits, description="Bounds of requests and responses.")
    ops: Ops = Field(default_factory=Ops, description="The operators' listener.")
    console: Console = Field(default_factory=Console, description="What operators see.")
    upstream: Upstream = Field(default_factory=Upstream, description="The Replicate API and the account.")
    store: Store = Field(default_factory=Store, description="The database.")
    cache: Cache = Field(default_factory=Cache, description="Sharing of runs between identical requests.")
    outputs: Outputs = Field(default_factory=Outputs, description="Copies of output files.")
    transfers: Transfers = Field(default_factory=Transfers, description="Uploads and downloads of files.")
    streams: Streams = Field(default_factory=Streams, description="Server-sent events.")
    webhooks: Webhooks = Field(default_factory=Webhooks, description="Delivery of webhooks.")
    prices: Prices = Field(default_factory=Prices, description="Prices of runs.")
    tags: Tags = Field(default_factory=Tags, description="Cost tags of predictions.")
    metrics: Metrics = Field(default_factory=Metrics, description="Prometheus metrics.")
    audit: Audit = Field(default_factory=Audit, description="The log of changes.")
    logs: Logs = Field(default_factory=Logs, description="Logging.")
    tracing: Tracing = Field(default_factory=Tracing, description="Tracing by OpenTelemetry.")
    aliases: tuple[Alias, ...] = Field((), description="Names of your own for models, versions and deployments.")
    teams: tuple[Team, ...] = Field((), description="The tenants.")
    issuers: tuple[Issuer, ...] = Field(
        (), description="Providers at which people sign in: their tokens are accepted instead of keys."
    )

    def team(self, name: str) -> Team | None:
        """Return the team of that name."""
        return next((team for team in self.teams if team.name == name), None)

    def aliases_of(self, team: str) -> dict[str, str]:
        """Return the targets of a team's aliases by name. An alias of the team precedes one of all teams."""
        own = {alias.name: alias.target for alias in self.aliases if alias.teams is not None and team in alias.teams}
        return {alias.name: alias.target for alias in self.aliases if alias.teams is None} | own

    def secret_values(self) -> list[str]:
        """Return the values of all resolved secrets, for redaction in logs."""
        of_keys = (key.value for team in self.teams for key in team.keys)
        of_clients = (issuer.console.client_secret for issuer in self.issuers if issuer.console is not None)
        secrets = (self.upstream.token, self.ops.token, self.store.password, *of_keys, *of_clients)
        return [value for secret in secrets if secret is not None and (value := secret.get_secret_value())]
