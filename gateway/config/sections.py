"""The sections of the config, one frozen model each. Unknown keys are refused.

The config names secrets and never contains them. Resolved values are private attributes, so no dump or repr shows them.
"""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, SecretStr

from gateway.config.values import (
    AliasTarget,
    Attempts,
    BaseUrl,
    Bytes,
    Count,
    CountOrZero,
    EnvName,
    FileName,
    Flag,
    InputName,
    LevelWord,
    LinkPattern,
    ModelName,
    NotEmptyTeams,
    OutputsUrl,
    Pattern,
    PostgresUrl,
    Price,
    Seconds,
    SecondsOrZero,
    Sku,
    StoreUrl,
    TagKey,
    TrustedHost,
    Whole,
)
from gateway.domain import tags
from gateway.domain.ledger import MOST_VALUES_A_DAY

_MIB = 1024 * 1024


class Section(BaseModel):
    """Base class of all sections."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, validate_default=True)


class Upstream(Section):
    """The Replicate API, the account's token and its rate limits."""

    base_url: BaseUrl = Field(
        "https://api.replicate.com/v1",
        description="URL of the API; the token is sent to this host only.",
        examples=["https://api.replicate.com/v1"],
    )
    allow_http: Flag = Field(
        False,
        description="Allow a base_url with plain http on another machine: the token is sent unencrypted.",
        examples=[False],
    )
    token_env: EnvName = Field(
        "REPLICATE_API_TOKEN",
        description="Environment variable with the account's token.",
        examples=["REPLICATE_API_TOKEN"],
    )
    token_file: FileName | None = Field(
        None, description="File with the token, instead of token_env.", examples=["/run/secrets/replicate"]
    )
    trusted_hosts: tuple[TrustedHost, ...] = Field(
        ("*.replicate.com", "*.replicate.net", "replicate.delivery", "*.replicate.delivery"),
        description="Hosts from which streams and outputs may be fetched, in addition to the host of base_url.",
        examples=[["*.replicate.delivery"]],
    )
    creates_per_minute: Count = Field(600, description="The account's rate limit of creates.", examples=[600])
    requests_per_minute: Count = Field(3000, description="The account's rate limit of other calls.", examples=[3000])
    adopt_wait_seconds: SecondsOrZero = Field(
        20, description="How long a caller waits while the gateway searches for an uncertain create.", examples=[20]
    )
    unreadable_seconds: Seconds = Field(
        86_400,
        description="A run fails, and is charged at its estimate, when the answers about it cannot be read this long.",
        examples=[86400],
    )
    webhooks: Literal["auto", "off"] = Field(
        "auto",
        description="auto: Replicate notifies of completions by webhook if public_url is https; off: polling only.",
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
    """The database: a file of SQLite for one process, or a database of PostgreSQL for any number of them."""

    url: StoreUrl = Field(
        "sqlite:///gateway.db",
        description="sqlite:///relative.db, sqlite:////absolute.db or postgresql://user@host/database, with libpq's "
        "parameters such as ?sslmode=verify-full.",
        examples=["sqlite:///gateway.db"],
    )
    password_env: EnvName | None = Field(
        None, description="Environment variable with PostgreSQL's password.", examples=["GATEWAY_STORE_PASSWORD"]
    )
    password_file: FileName | None = Field(
        None, description="File with the password, instead of password_env.", examples=["/run/secrets/store_password"]
    )
    listen_url: PostgresUrl | None = Field(
        None,
        description="Address of the database itself, if url is that of a pooler in transaction mode such as PgBouncer: "
        "for notifications and migrations, which need a connection of their own.",
        examples=["postgresql://gateway@db.example.com/gateway"],
    )
    retain_days: Count = Field(30, description="How long records of predictions are kept.", examples=[30])
    retain_data_seconds: Count = Field(
        3600, description="How long input, output and logs are kept after the end.", examples=[3600]
    )
    _password: SecretStr | None = PrivateAttr(None)

    @property
    def password(self) -> SecretStr | None:
        """PostgreSQL's password; `None` if none is given."""
        return self._password

    @property
    def address(self) -> tuple[str, str | None, str | None]:
        """What the store is opened with: `url`, password and `listen_url`."""
        return self.url, self.revealed_password, self.listen_url

    @property
    def revealed_password(self) -> str | None:
        """The password as a text, for the store."""
        return None if self._password is None else self._password.get_secret_value()

    def with_password(self, password: str | None) -> Self:
        """Return the section with its password resolved."""
        copy = self.model_copy()
        copy._password = SecretStr(password) if password else None  # noqa: SLF001 - its own copy
        return copy


class CacheRule(Section):
    """Overrides whether a target is deterministic."""

    model: Pattern = Field(description="The targets that it applies to.", examples=["acme/upscaler"])
    mode: Literal["always", "seeded", "never"] = Field(
        description="always, seeded (if the request sets a seed), or never.", examples=["seeded"]
    )
    ttl_seconds: SecondsOrZero | None = Field(
        None, description="How long a result is reused; default: that of [cache].", examples=[86400]
    )
    ignore_inputs: tuple[InputName, ...] = Field(
        (), description="Inputs that do not change the output.", examples=[["webhook_note"]]
    )
    text_inputs: tuple[InputName, ...] = Field(
        ("prompt", "negative_prompt", "system_prompt"),
        description="Inputs that are plain text: a link in them does not keep a request from being shared.",
        examples=[["prompt"]],
    )


class Cache(Section):
    """Sharing of runs between identical deterministic requests."""

    enabled: Flag = Field(True, description="Whether runs are shared.", examples=[True])
    share: Literal["team", "all"] = Field(
        "team", description="Share within a team, or across all teams.", examples=["team"]
    )
    ttl_seconds: SecondsOrZero = Field(
        86_400,
        description="How long a result is reused. Results with file links: at most 55 minutes without an output store.",
        examples=[86400],
    )
    max_bytes: Bytes = Field(256 * _MIB, description="Limit of stored results.", examples=[256 * _MIB])
    memory_bytes: Bytes = Field(
        64 * _MIB, description="Limit of predictions kept in memory to answer polls.", examples=[64 * _MIB]
    )
    followed_bytes: Bytes = Field(
        64 * _MIB, description="Limit of documents of runs in progress in memory.", examples=[64 * _MIB]
    )
    metadata_max_bytes: Bytes = Field(64 * _MIB, description="Limit of cached metadata.", examples=[64 * _MIB])
    schemas_max_bytes: Bytes = Field(
        32 * _MIB, description="Limit of input schemas in memory, in four equal parts.", examples=[32 * _MIB]
    )
    random_seeds: tuple[Whole, ...] = Field(
        (-1,), description="Seeds that ask the model for a random one.", examples=[[-1]]
    )
    immutable_links: tuple[LinkPattern, ...] = Field(
        (),
        description="Links whose content never changes, besides those of replicate.delivery; * matches any text.",
        examples=[["https://cdn.example.com/*"]],
    )
    metadata_ttl_seconds: SecondsOrZero = Field(
        60, description="How long models, versions and other metadata are cached; 0: not at all.", examples=[60]
    )
    rules: tuple[CacheRule, ...] = Field((), description="Rules by target; the first match applies.")


class Alias(Section):
    """A name of your own for a model, a version or a deployment."""

    name: ModelName = Field(description="Name that callers use.", examples=["acme/default-image"])
    target: AliasTarget = Field(
        description="What it stands for: owner/name, owner/name:version or deployments/owner/name.",
        examples=["black-forest-labs/flux-schnell"],
    )
    teams: NotEmptyTeams | None = Field(
        None,
        description="Teams that have it; default: all. It takes precedence over an alias of all teams.",
        examples=[["acme"]],
    )


class Outputs(Section):
    """Copies of output files, which stay available after upstream has deleted its own."""

    url: OutputsUrl | None = Field(
        None,
        description="A folder, or s3://bucket/prefix?endpoint=…&region=…. If not set, nothing is copied.",
        examples=["outputs"],
    )
    persist: Literal["off", "shared", "all"] = Field(
        "shared",
        description="off, shared (outputs of runs that can be shared), or all.",
        examples=["shared"],
    )
    shared: bool = Field(
        False,
        description="Whether the folder is one that all nodes on a PostgreSQL database share, such as a network mount.",
        examples=[False],
    )
    max_bytes: Bytes = Field(10 * 1024 * _MIB, description="Limit of all copies together.", examples=[10 * 1024 * _MIB])
    ttl_seconds: Seconds = Field(2_592_000, description="Longest life of a copy.", examples=[2592000])
    max_readers: Count = Field(500, description="Copies that are sent to callers at a time.", examples=[500])
    max_readers_per_team: Count = Field(200, description="The same for the copies of one team.", examples=[200])


class Transfers(Section):
    """Uploads from callers and downloads of files. Each holds a connection to Replicate while it is in progress."""

    max_uploads: Count = Field(100, description="Uploads in progress, of all teams.", examples=[100])
    max_downloads: Count = Field(100, description="Downloads in progress, of all teams.", examples=[100])
    max_per_team: Count = Field(
        32, description="Uploads in progress of one team, and as many downloads.", examples=[32]
    )
    max_per_public_key: Count = Field(
        8, description="The same for one publishable key, or for one user's browser tokens.", examples=[8]
    )


class Streams(Section):
    """Server-sent events."""

    heartbeat_seconds: Seconds = Field(15, description="Interval of heartbeats on an idle stream.", examples=[15])
    ticket_ttl_seconds: Seconds = Field(86_400, description="How long a stream URL works.", examples=[86400])
    max_log_bytes: Bytes = Field(4 * _MIB, description="Limit of one run's event log.", examples=[4 * _MIB])
    live_log_bytes: Bytes = Field(
        64 * _MIB, description="Limit of the event logs of streams in progress.", examples=[64 * _MIB]
    )
    kept_log_bytes: Bytes = Field(
        64 * _MIB, description="Limit of the event logs of finished runs in memory.", examples=[64 * _MIB]
    )
    max_per_team: Count = Field(1000, description="Open streams of one team.", examples=[1000])
    max_total: Count = Field(10_000, description="Open streams of all teams.", examples=[10000])


class Webhooks(Section):
    """Delivery of callers' webhooks."""

    allow_private_addresses: Flag = Field(False, description="Allow receivers in private networks.", examples=[False])
    allow_http: Flag = Field(False, description="Allow plain http.", examples=[False])
    max_attempts: Attempts = Field(12, description="Attempts per delivery, with exponential backoff.", examples=[12])
    max_queued: Count = Field(
        10_000,
        description="Places of one team: predictions in progress with a webhook, and queued deliveries. The same limit "
        "applies to its dead letters.",
        examples=[10000],
    )
    max_queued_public: Count = Field(
        1000, description="Places of one team that its web pages may take (public_webhooks).", examples=[1000]
    )
    max_queued_total: Count = Field(50_000, description="Places of all teams.", examples=[50000])
    retain_dead_days: Count = Field(7, description="How long a failed delivery is kept for redelivery.", examples=[7])


class Tags(Section):
    """Cost tags: what apps say that their predictions are for."""

    keys: tuple[TagKey, ...] = Field(
        (),
        description="Names of the tags that requests may have (header Gateway-Tags); at most 10.",
        max_length=tags.MOST_KEYS,
        examples=[["project", "feature"]],
    )
    max_values: Count = Field(
        MOST_VALUES_A_DAY,
        description="Values of a tag that usage counts by name, per team and day. Further ones count as (other).",
        examples=[1000],
    )


class ModelPrice(Section):
    """The price of a target, of exactly one kind. Both token prices count as one kind."""

    model: Pattern = Field(description="The targets that it applies to.", examples=["acme/upscaler"])
    usd_per_second: Price | None = Field(None, description="Dollars per second.", examples=[0.001525])
    hardware: Sku | None = Field(
        None, description="Hardware whose built-in price per second applies.", examples=["gpu-l40s"]
    )
    usd_per_run: Price | None = Field(None, description="Dollars per run.", examples=[0.01])
    usd_per_output: Price | None = Field(None, description="Dollars per output.", examples=[0.04])
    usd_per_input_token: Price | None = Field(None, description="Dollars per input token.", examples=[0.00000375])
    usd_per_output_token: Price | None = Field(None, description="Dollars per output token.", examples=[0.00001])


class Prices(Section):
    """Prices of runs."""

    unknown: Literal["estimate", "refuse", "free"] = Field(
        "estimate",
        description="Targets without a price: estimate (by default_hardware), refuse, or free.",
        examples=["estimate"],
    )
    default_hardware: Sku = Field(
        "gpu-l40s", description="Hardware assumed for a target without a price.", examples=["gpu-l40s"]
    )
    charge_failed: Flag = Field(True, description="Whether the time of failed runs is charged.", examples=[True])
    models: tuple[ModelPrice, ...] = Field((), description="Prices by target; the first match applies.")


class Metrics(Section):
    """Prometheus metrics."""

    top_targets: CountOrZero = Field(
        50, description="How many targets have their own label; others count as `other`.", examples=[50]
    )


class Audit(Section):
    """The log of changes: of keys, secrets, budgets' corrections, the cache, and the config."""

    retain_days: Count = Field(365, description="How long entries are kept.", examples=[365])


class Tracing(Section):
    """Tracing by OpenTelemetry. Requires the extra `otel`; the OTEL_… variables configure the exporter."""

    enabled: Flag = Field(False, description="Whether traces are exported.", examples=[True])
    propagate: Flag = Field(False, description="Whether calls upstream carry the header traceparent.", examples=[True])


class Logs(Section):
    """Logging to stderr."""

    format: Literal["console", "json"] = Field("console", description="console (text) or json.", examples=["json"])
    level: Annotated[Literal["debug", "info", "warning", "error"], LevelWord] = Field(
        "info", description="Lowest level that is logged.", examples=["info"]
    )
