"""The sections of a config, one frozen model each. What is not given is not limited; unknown keys are refused.

Secrets are named, never written: resolved values sit in private attributes, which no dump and no repr shows.
"""

from typing import Annotated, Literal, Self
from urllib.parse import quote, urlsplit, urlunsplit

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, SecretStr

from gateway.config.values import (
    Attempts,
    BaseUrl,
    Bytes,
    Count,
    CountOrZero,
    EnvName,
    FileName,
    Flag,
    Host,
    InputName,
    LevelWord,
    OutputsUrl,
    Pattern,
    Port,
    Price,
    ProxyNetwork,
    PublicUrl,
    Seconds,
    SecondsOrZero,
    Sku,
    StoreUrl,
    TrustedHost,
    Whole,
)

_MIB = 1024 * 1024


class Section(BaseModel):
    """What all sections share."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, validate_default=True)


class Server(Section):
    """The public listener."""

    host: Host = Field("127.0.0.1", description="Address to listen on; 0.0.0.0 or :: for all.", examples=["0.0.0.0"])  # noqa: S104 - an example
    port: Port = Field(8080, description="Port to listen on; 0 takes any free one.", examples=[8080])
    public_url: PublicUrl | None = Field(
        None,
        description="What callers use as base address, without /v1. Not given: scheme and Host of each request.",
        examples=["https://gateway.example.com"],
    )
    trusted_proxies: tuple[ProxyNetwork, ...] = Field(
        (), description="Networks whose forwarded headers are believed.", examples=[["10.0.0.0/8"]]
    )
    max_body_bytes: Bytes = Field(
        16 * _MIB,
        description="Largest body of a request other than an upload. Inputs may hold files of 10 MB as data URIs.",
        examples=[16 * _MIB],
    )
    max_upload_bytes: Bytes = Field(100 * _MIB, description="Largest file that may be uploaded.", examples=[100 * _MIB])
    max_spool_bytes: CountOrZero = Field(
        1024 * _MIB,
        description="Room on disk for uploads that may be of bytes which upstream has already; 0: each is sent anew.",
        examples=[1024 * _MIB],
    )
    shutdown_grace_seconds: SecondsOrZero = Field(
        10, description="How long an orderly end may take after the signal to stop.", examples=[10]
    )
    drain_seconds: SecondsOrZero = Field(
        0,
        description="How long of that every request is still taken, so that balancers notice that /readyz says no.",
        examples=[5],
    )


class Ops(Section):
    """The operators' own listener: metrics, dashboard, admin."""

    host: Host = Field(
        "127.0.0.1", description="Address to listen on; off loopback a token is required.", examples=["127.0.0.1"]
    )
    port: Port = Field(9464, description="Port to listen on; 0 takes any free one.", examples=[9464])
    token_env: EnvName | None = Field(
        None, description="Environment variable that has the operators' token.", examples=["GATEWAY_OPS_TOKEN"]
    )
    token_file: FileName | None = Field(
        None, description="File that has the token, in place of token_env.", examples=["/run/secrets/ops_token"]
    )
    _token: SecretStr | None = PrivateAttr(None)

    @property
    def token(self) -> SecretStr | None:
        """The operators' token; `None` where none is asked for."""
        return self._token

    def with_token(self, token: str | None) -> Self:
        """Return the section with its token resolved."""
        copy = self.model_copy()
        copy._token = SecretStr(token) if token else None  # noqa: SLF001 - its own copy
        return copy


class Upstream(Section):
    """Replicate, and how to share its one account."""

    base_url: BaseUrl = Field(
        "https://api.replicate.com/v1",
        description="The API; the token is sent to its host only.",
        examples=["https://api.replicate.com/v1"],
    )
    token_env: EnvName = Field(
        "REPLICATE_API_TOKEN",
        description="Environment variable that has the account's token.",
        examples=["REPLICATE_API_TOKEN"],
    )
    token_file: FileName | None = Field(
        None, description="File that has the token, in place of token_env.", examples=["/run/secrets/replicate"]
    )
    trusted_hosts: tuple[TrustedHost, ...] = Field(
        ("*.replicate.com", "*.replicate.net", "replicate.delivery", "*.replicate.delivery"),
        description="Hosts of streams and outputs that may be fetched, beside the host of base_url.",
        examples=[["*.replicate.delivery"]],
    )
    creates_per_minute: Count = Field(600, description="The account's limit on creates.", examples=[600])
    requests_per_minute: Count = Field(3000, description="The account's limit on other calls.", examples=[3000])
    adopt_wait_seconds: SecondsOrZero = Field(
        20, description="How long a caller waits for an uncertain create to be found.", examples=[20]
    )
    webhooks: Literal["auto", "off"] = Field(
        "auto",
        description="Whether upstream tells of ends by webhook; auto: where public_url is https.",
        examples=["auto"],
    )
    _token: SecretStr = PrivateAttr(SecretStr(""))

    @property
    def token(self) -> SecretStr:
        """The account's token."""
        return self._token

    def with_token(self, token: str) -> Self:
        """Return the section with its token resolved."""
        copy = self.model_copy()
        copy._token = SecretStr(token)  # noqa: SLF001 - its own copy
        return copy


class Store(Section):
    """The gateway's memory."""

    url: StoreUrl = Field(
        "sqlite:///gateway.db",
        description="sqlite:///relative.db, sqlite:////absolute.db, redis://host:6379/0 or rediss://….",
        examples=["sqlite:///gateway.db"],
    )
    password_env: EnvName | None = Field(
        None, description="Environment variable that has the password of Redis.", examples=["REDIS_PASSWORD"]
    )
    retain_days: Count = Field(30, description="How long records of predictions are kept.", examples=[30])
    retain_data_seconds: Count = Field(
        3600, description="How long input, output and logs are kept after the end, as upstream does.", examples=[3600]
    )
    _password: SecretStr | None = PrivateAttr(None)

    @property
    def password(self) -> SecretStr | None:
        """The password of Redis; `None` where none is named."""
        return self._password

    @property
    def address(self) -> SecretStr:
        """The url with the password in it: what is connected to, and never shown."""
        if self._password is None:
            return SecretStr(self.url)
        parts = urlsplit(self.url)
        host = parts.netloc.rpartition("@")[2]
        password = quote(self._password.get_secret_value(), safe="")
        return SecretStr(urlunsplit(parts._replace(netloc=f"{parts.username or ''}:{password}@{host}")))

    def with_password(self, password: str | None) -> Self:
        """Return the section with its password resolved."""
        copy = self.model_copy()
        copy._password = SecretStr(password) if password else None  # noqa: SLF001 - its own copy
        return copy


class CacheRule(Section):
    """Whether a target is deterministic, said by hand."""

    model: Pattern = Field(description="The targets it is about.", examples=["acme/upscaler"])
    mode: Literal["always", "seeded", "never"] = Field(
        description="always: as it is; seeded: when the seed is set; never.", examples=["seeded"]
    )
    ttl_seconds: SecondsOrZero | None = Field(
        None, description="Age up to which a result is shared; else that of [cache].", examples=[86400]
    )
    ignore_inputs: tuple[InputName, ...] = Field(
        (), description="Inputs that do not change the output.", examples=[["webhook_note"]]
    )


class Cache(Section):
    """Sharing of runs."""

    enabled: Flag = Field(True, description="Whether runs are shared at all.", examples=[True])
    share: Literal["team", "all"] = Field("team", description="Within a team, or among all teams.", examples=["team"])
    ttl_seconds: SecondsOrZero = Field(
        86_400,
        description="Age up to which a result is shared. Without an output store at most 55 minutes.",
        examples=[86400],
    )
    max_bytes: Bytes = Field(256 * _MIB, description="Bound on what the cache keeps.", examples=[256 * _MIB])
    memory_bytes: Bytes = Field(
        64 * _MIB, description="Bound on predictions kept in memory as they are shown.", examples=[64 * _MIB]
    )
    metadata_max_bytes: Bytes = Field(64 * _MIB, description="Bound on metadata kept in memory.", examples=[64 * _MIB])
    random_seeds: tuple[Whole, ...] = Field(
        (-1,), description="Values of a seed that ask for a random one.", examples=[[-1]]
    )
    metadata_ttl_seconds: SecondsOrZero = Field(
        60, description="Age up to which models, versions, … are answered from memory; 0: never.", examples=[60]
    )
    rules: tuple[CacheRule, ...] = Field((), description="What is deterministic, by target; the first match counts.")


class Outputs(Section):
    """Copies of output files that outlive upstream's links."""

    url: OutputsUrl | None = Field(
        None,
        description="A folder, or s3://bucket/prefix?endpoint=…&region=… Not given: nothing is copied.",
        examples=["outputs"],
    )
    persist: Literal["off", "shared", "all"] = Field(
        "shared",
        description="What is copied: nothing, outputs of runs that may be shared, or all.",
        examples=["shared"],
    )
    max_bytes: Bytes = Field(10 * 1024 * _MIB, description="Bound on all copies together.", examples=[10 * 1024 * _MIB])
    ttl_seconds: Seconds = Field(2_592_000, description="How long a copy is kept.", examples=[2592000])


class Streams(Section):
    """Server-sent events."""

    heartbeat_seconds: Seconds = Field(15, description="Longest silence on a stream.", examples=[15])
    ticket_ttl_seconds: Seconds = Field(
        86_400, description="How long a prediction's stream address works.", examples=[86400]
    )
    max_log_bytes: Bytes = Field(4 * _MIB, description="Bound on the events kept of one run.", examples=[4 * _MIB])
    kept_log_bytes: Bytes = Field(
        64 * _MIB, description="Bound on the events of finished runs kept in memory.", examples=[64 * _MIB]
    )
    max_per_team: Count = Field(1000, description="Streams that one team may have open.", examples=[1000])
    max_total: Count = Field(10_000, description="Streams that may be open in all.", examples=[10000])


class Webhooks(Section):
    """Delivery of callers' webhooks."""

    allow_private_addresses: Flag = Field(
        False, description="Whether webhooks may go to private networks.", examples=[False]
    )
    allow_http: Flag = Field(False, description="Whether webhooks may go to plain http.", examples=[False])
    max_attempts: Attempts = Field(12, description="Tries for one delivery, with growing pauses.", examples=[12])
    max_queued: Count = Field(
        10_000, description="Deliveries that may wait, and as many dead letters.", examples=[10000]
    )
    retain_dead_days: Count = Field(
        7, description="How long a delivery that was given up is kept, to be sent again by hand.", examples=[7]
    )


class ModelPrice(Section):
    """The price of a target: one of its alternatives. The two for tokens belong together."""

    model: Pattern = Field(description="The targets it is about.", examples=["acme/upscaler"])
    usd_per_second: Price | None = Field(None, description="Dollars for a second.", examples=[0.001525])
    hardware: Sku | None = Field(None, description="Hardware whose price for a second applies.", examples=["gpu-l40s"])
    usd_per_run: Price | None = Field(None, description="Dollars for a run.", examples=[0.01])
    usd_per_output: Price | None = Field(None, description="Dollars for an output.", examples=[0.04])
    usd_per_input_token: Price | None = Field(None, description="Dollars for an input token.", examples=[0.00000375])
    usd_per_output_token: Price | None = Field(None, description="Dollars for an output token.", examples=[0.00001])


class Prices(Section):
    """What runs cost."""

    unknown: Literal["estimate", "refuse", "free"] = Field(
        "estimate",
        description="A target without a price: by default_hardware, refused, or free.",
        examples=["estimate"],
    )
    default_hardware: Sku = Field(
        "gpu-l40s", description="Hardware that an unknown target is taken to run on.", examples=["gpu-l40s"]
    )
    charge_failed: Flag = Field(True, description="Whether the time of failed runs is charged.", examples=[True])
    models: tuple[ModelPrice, ...] = Field((), description="Prices by target; the first match counts.")


class Metrics(Section):
    """What is counted."""

    top_targets: CountOrZero = Field(
        50, description="How many targets are labels of their own; others count as `other`.", examples=[50]
    )


class Tracing(Section):
    """Traces by OpenTelemetry, which is the extra `otel`. Its own variables (OTEL_…) say where they go."""

    enabled: Flag = Field(False, description="Whether traces are kept.", examples=[True])
    propagate: Flag = Field(
        False, description="Whether calls upstream carry the id of their trace (traceparent).", examples=[True]
    )


class Logs(Section):
    """What is told."""

    format: Literal["console", "json"] = Field("console", description="For eyes, or for machines.", examples=["json"])
    level: Annotated[Literal["debug", "info", "warning", "error"], LevelWord] = Field(
        "info", description="The least that is told.", examples=["info"]
    )
