"""Load and validate the config file. Only `assembly` uses `Config`; other parts get the values that they need."""

from gateway.config.listeners import Ops, Server
from gateway.config.loading import find, from_mapping, load, load_with_places
from gateway.config.model import Config
from gateway.config.problems import ConfigError, Problem
from gateway.config.report import Places
from gateway.config.sections import (
    Cache,
    CacheRule,
    Logs,
    Metrics,
    ModelPrice,
    Outputs,
    Prices,
    Store,
    Streams,
    Tracing,
    Upstream,
    Webhooks,
)
from gateway.config.teams import LIMIT_NAMES, Team, TeamKey, TeamLimits
from gateway.config.values import is_loopback
from gateway.config.warnings import in_container, unreachable_in_container, warnings

__all__ = [
    "LIMIT_NAMES",
    "Cache",
    "CacheRule",
    "Config",
    "ConfigError",
    "Logs",
    "Metrics",
    "ModelPrice",
    "Ops",
    "Outputs",
    "Places",
    "Prices",
    "Problem",
    "Server",
    "Store",
    "Streams",
    "Team",
    "TeamKey",
    "TeamLimits",
    "Tracing",
    "Upstream",
    "Webhooks",
    "find",
    "from_mapping",
    "in_container",
    "is_loopback",
    "load",
    "load_with_places",
    "unreachable_in_container",
    "warnings",
]
