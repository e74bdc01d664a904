"""The sections of the listeners: callers, operators, and what one request may hold."""

from typing import Self

from pydantic import Field, PrivateAttr, SecretStr

from gateway.config.sections import Section
from gateway.config.values import (
    Bytes,
    Count,
    CountOrZero,
    EnvName,
    FileName,
    Flag,
    HeaderBytes,
    Host,
    OpsUrl,
    Port,
    ProxyNetwork,
    PublicUrl,
    Seconds,
    SecondsOrZero,
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
    max_token_bytes: Bytes = Field(
        16 * 1024, description="Longest token of an issuer; a longer one is refused with 401.", examples=[16 * 1024]
    )
    max_cached_tokens: Count = Field(
        10_000, description="Verified tokens of issuers kept in memory.", examples=[10_000]
    )
    max_page_bytes: Bytes = Field(
        8 * _MIB,
        description="A page of a list ends after this size; it has at least one result, and next leads to the rest.",
        examples=[8 * _MIB],
    )


class Console(Section):
    """What operators see of predictions."""

    show_data: Flag = Field(
        True, description="Whether inputs and outputs are shown, as long as they are kept.", examples=[False]
    )


class Ops(Section):
    """The operators' listener: metrics, dashboard, admin."""

    host: Host = Field(
        "127.0.0.1", description="Address to listen on; other than loopback requires a token.", examples=["127.0.0.1"]
    )
    port: Port = Field(9464, description="Port to listen on; 0 picks a free one.", examples=[9464])
    public_url: OpsUrl | None = Field(
        None,
        description="URL at which people open the console. Default: scheme and Host of each request.",
        examples=["https://gateway-ops.example.com"],
    )
    token_env: EnvName | None = Field(
        None,
        description="Environment variable with the operators' token, of at least 16 characters.",
        examples=["GATEWAY_OPS_TOKEN"],
    )
    token_file: FileName | None = Field(
        None, description="File with the token, instead of token_env.", examples=["/run/secrets/ops_token"]
    )
    max_searched: Count = Field(
        5000,
        description="Predictions that one page of /admin/predictions looks at; next leads to the rest.",
        examples=[5000],
    )
    max_page_bytes: Bytes = Field(
        _MIB, description="Such a page ends after this size; it has at least one prediction.", examples=[_MIB]
    )
    max_data_bytes: Bytes = Field(
        8 * _MIB, description="Inputs and outputs larger than this are not shown to operators.", examples=[8 * _MIB]
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
