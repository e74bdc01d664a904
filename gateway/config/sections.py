"""Sections of the config, one frozen model each. Unknown keys are refused.

The config names secrets and never contains them. Resolved values are private attributes, so no dump or repr shows them.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, PrivateAttr, SecretStr

from gateway.config.section import Section
from gateway.config.values import (
    Attempts,
    BaseUrl,
    Bytes,
    Count,
    CountOrZero,
    EnvName,
    FileName,
    Flag,
    HeaderBytes,
    Host,
    LevelWord,
    Port,
    PostgresUrl,
    ProxyNetwork,
    PublicUrl,
    Seconds,
    SecondsOrZero,
    StoreUrl,
    TrustedHost,
)

_MIB = 1024 * 1024


class Server(Section):
    """The public listener."""

    host: Host = Field("127.0.0.1", description="Address to listen on; 0.0.0.0 or :: for all.", examples=["0.0.0.0"])  # noqa: S104 - an example
    port: Port = Field(8080, description="Port to listen on; 0 picks a free one.", examples=[8080])
    workers: Count = Field(
        1, description="Processes that `gateway serve` runs on the port; more than 1 needs PostgreSQL.", examples=[4]
    )
    reuse_port: Flag = Field(
        False,
        description="Let other gateways of this machine listen on the same port (SO_REUSEPORT).",
        examples=[True],
    )
    public_url: PublicUrl | None = Field(
        None,
        description="URL that callers use, without /v1. Default: scheme and Host of each request.",
        examples=["https://gateway.example.com"],
    )
    trusted_proxies: tuple[ProxyNetwork, ...] = Field(
        (), description="Networks whose X-Forwarded headers are trusted.", examples=[["10.0.0.0/8"]]
    )
    max_body_bytes: Bytes = Field(
        16 * _MIB,
        description="Largest request body other than an upload. Inputs may contain files of 10 MB as data URIs.",
        examples=[16 * _MIB],
    )
    max_upload_bytes: Bytes = Field(100 * _MIB, description="Largest upload.", examples=[100 * _MIB])
    max_header_bytes: HeaderBytes = Field(
        32 * 1024, description="Largest sum of a request's header fields; above it: 431.", examples=[32 * 1024]
    )
    body_idle_seconds: Seconds = Field(
        30, description="Longest time without a byte of a request body or upload.", examples=[30]
    )
    body_min_bytes_per_second: Count = Field(
        1000, description="Minimum rate of a request body, upload or download, after one such time.", examples=[1000]
    )
    max_spool_bytes: CountOrZero = Field(
        1024 * _MIB,
        description="Disk space used to deduplicate uploads; 0: every upload is sent upstream.",
        examples=[1024 * _MIB],
    )
    shutdown_grace_seconds: SecondsOrZero = Field(
        10, description="Longest graceful shutdown after the signal to stop.", examples=[10]
    )
    drain_seconds: SecondsOrZero = Field(
        0,
        description="Part of the grace period: keep serving this long after /readyz starts failing.",
        examples=[5],
    )


class Limits(Section):
    """How much one request or response may hold. What passes a bound is refused with 422, unless stated otherwise."""

    max_links: Count = Field(
        1000, description="URLs and data: URIs in one JSON body; each is checked or hashed.", examples=[1000]
    )
    max_keys: Count = Field(20_000, description="Names of objects in one JSON body.", examples=[20_000])
    max_values: Count = Field(
        100_000,
        description="Texts, numbers, flags, arrays and objects in one JSON body. A file as a data: URI is one.",
        examples=[100_000],
    )
    max_depth: Count = Field(128, description="Levels of nesting in one JSON body.", examples=[128])
    max_half_surrogates: Count = Field(
        10_000,
        description="Escapes such as \\ud83d without the second of their pair in one JSON body.",
        examples=[10_000],
    )
    max_bodies_bytes: Bytes = Field(
        128 * _MIB,
        description="Memory for all large request bodies at a time (503 past it), half of it for one team (429).",
        examples=[128 * _MIB],
    )
    max_responses_bytes: Bytes = Field(
        96 * _MIB,
        description="Memory for all responses above 64 KiB that clients have not taken yet (more wait, then get a "
        "503), half of it for one team (429).",
        examples=[96 * _MIB],
    )
    max_page_bytes: Bytes = Field(
        8 * _MIB,
        description="A page of a list ends after this size; it has at least one result, and next leads to the rest.",
        examples=[8 * _MIB],
    )


class Ops(Section):
    """The operators' listener: metrics, dashboard, admin."""

    host: Host = Field(
        "127.0.0.1", description="Address to listen on; other than loopback requires a token.", examples=["127.0.0.1"]
    )
    port: Port = Field(9464, description="Port to listen on; 0 picks a free one.", examples=[9464])
    token_env: EnvName | None = Field(
        None,
        description="Environment variable with the operators' token, of at least 16 characters.",
        examples=["GATEWAY_OPS_TOKEN"],
    )
    token_file: FileName | None = Field(
        None, description="File with the token, instead of token_env.", examples=["/run/secrets/ops_token"]
    )
    _token: SecretStr | None = PrivateAttr(None)

    @property
    def token(self) -> SecretStr | None:
        """The operators' token; `None` if none is required."""
        return self._token

    def with_token(self, token: str | None) -> Self:
        """Return the section with its token resolved."""
        copy = self.model_copy()
        copy._token = SecretStr(token) if token else None  # noqa: SLF001 - its own copy
        return copy


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


class Metrics(Section):
    """Prometheus metrics."""

    top_targets: CountOrZero = Field(
        50, description="How many targets have their own label; others count as `other`.", examples=[50]
    )


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
