"""Sections of the config about results: the cache and stored outputs, and about prices."""

from typing import Literal

from pydantic import Field

from gateway.config.section import Section
from gateway.config.values import (
    Bytes,
    Flag,
    InputName,
    LinkPattern,
    OutputsUrl,
    Pattern,
    Price,
    Seconds,
    SecondsOrZero,
    Sku,
    Whole,
)

_MIB = 1024 * 1024


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
    max_bytes: Bytes = Field(10 * 1024 * _MIB, description="Limit of all copies together.", examples=[10 * 1024 * _MIB])
    ttl_seconds: Seconds = Field(2_592_000, description="Longest life of a copy.", examples=[2592000])


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
