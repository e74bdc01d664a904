"""The whole config."""

from pydantic import Field

from gateway.config.sections import (
    Cache,
    Logs,
    Metrics,
    Ops,
    Outputs,
    Prices,
    Section,
    Server,
    Store,
    Streams,
    Tracing,
    Upstream,
    Webhooks,
)
from gateway.config.teams import Team


class Config(Section):
    """Everything that an operator can set. `gateway.config.load` makes one whose secrets are resolved."""

    server: Server = Field(default_factory=Server, description="The public listener.")
    ops: Ops = Field(default_factory=Ops, description="The operators' listener.")
    upstream: Upstream = Field(default_factory=Upstream, description="Replicate.")
    store: Store = Field(default_factory=Store, description="The gateway's memory.")
    cache: Cache = Field(default_factory=Cache, description="Sharing of runs.")
    outputs: Outputs = Field(default_factory=Outputs, description="Copies of output files.")
    streams: Streams = Field(default_factory=Streams, description="Server-sent events.")
    webhooks: Webhooks = Field(default_factory=Webhooks, description="Delivery of webhooks.")
    prices: Prices = Field(default_factory=Prices, description="What runs cost.")
    metrics: Metrics = Field(default_factory=Metrics, description="What is counted.")
    logs: Logs = Field(default_factory=Logs, description="What is told.")
    tracing: Tracing = Field(default_factory=Tracing, description="Traces.")
    teams: tuple[Team, ...] = Field((), description="The tenants.")

    def team(self, name: str) -> Team | None:
        """Find a team by its name."""
        return next((team for team in self.teams if team.name == name), None)

    def secret_values(self) -> list[str]:
        """Return the values of all resolved secrets, so that logs can strike them out."""
        of_keys = (key.value for team in self.teams for key in team.keys)
        secrets = (self.upstream.token, self.ops.token, self.store.password, *of_keys)
        return [value for secret in secrets if secret is not None and (value := secret.get_secret_value())]
