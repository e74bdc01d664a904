"""Answers of the gateway's routes that are made as dictionaries, as types."""

from typing import Any, Literal

import msgspec
from msgspec import UNSET, UnsetType

from gateway.domain.limits import SubjectKind
from gateway.domain.records import Status
from gateway.domain.scopes import Scope
from gateway.operations.prediction_log import DataState, PredictionData
from gateway.operations.rules.prediction_rows import PredictionRow


class Liveness(msgspec.Struct, frozen=True):
    """That the process runs."""

    status: Literal["ok"]


class Readiness(msgspec.Struct, frozen=True):
    """Whether this process can serve, with the result of each check."""

    status: Literal["ready", "degraded", "not ready"]
    checks: dict[str, str]


class Token(msgspec.Struct, frozen=True):
    """A browser token."""

    token: str
    expires_at: str
    team: str
    scopes: list[str]
    origins: list[str]
    """Empty: it works from anywhere."""
    tags: dict[str, str]
    """The cost tags of what it makes."""


class LimitState(msgspec.Struct, frozen=True, kw_only=True):
    """A limit, and how much of it is used. Dollar amounts are texts, with the micro-dollars beside them."""

    name: str
    of: SubjectKind
    tag: str | UnsetType = UNSET
    """The cost tag, if it is a limit of one of its values."""
    value: str | UnsetType = UNSET
    limit: float | str
    used: float | str
    held: float | str
    """What is reserved for predictions in progress."""
    remaining: float | str
    limit_microusd: int | UnsetType = UNSET
    used_microusd: int | UnsetType = UNSET
    held_microusd: int | UnsetType = UNSET
    remaining_microusd: int | UnsetType = UNSET
    burst: float | UnsetType = UNSET
    """How much of a rate is allowed at once."""
    resets_at: str | None


class LimitList(msgspec.Struct, frozen=True):
    """Every limit that applies."""

    limits: list[LimitState]


class EstimateRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A create by version, or by an official model's name. Further fields are those of a create."""

    version: str
    input: dict[str, Any]


class EstimateAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What a create would do, and cost."""

    result: Literal["hit", "join", "run", "refused"]
    deterministic: bool
    reason: str
    fingerprint: str | None
    refused_by: str | None
    estimate_usd: str | None
    estimate_microusd: int | None
    gateway_limits: list[LimitState]


class Counts(msgspec.Struct, frozen=True):
    """Predictions by how they were answered."""

    run: int
    joined: int
    hit: int


class UsageSums(msgspec.Struct, frozen=True, kw_only=True):
    """Sums of predictions."""

    predictions: Counts
    seconds: float
    spend_usd: str
    spend_microusd: int
    saved_usd: str
    saved_microusd: int


class UsageRow(UsageSums, frozen=True, kw_only=True):
    """Sums of one group. Which of the names it has depends on `by`."""

    team: str
    day: str | UnsetType = UNSET
    key: str | UnsetType | None = UNSET
    key_name: str | UnsetType | None = UNSET
    model: str | UnsetType | None = UNSET
    user: str | UnsetType | None = UNSET
    value: str | UnsetType | None = UNSET
    """Of the tag, if usage is grouped by one."""


class UsageReport(msgspec.Struct, frozen=True, kw_only=True, rename={"since": "from", "until": "to"}):
    """Usage from a day to a day, both included."""

    since: str
    until: str
    by: str
    rows: list[UsageRow]
    total: UsageSums


class ExplainedKey(msgspec.Struct, frozen=True):
    """The key that was used."""

    id: str
    name: str | None


class ExplainedRun(msgspec.Struct, frozen=True):
    """The run. Ids of a run of another team are null."""

    id: str | None
    upstream_id: str | None
    status: Status


class PassedLimit(msgspec.Struct, frozen=True, kw_only=True):
    """A limit as it was at the create."""

    name: str
    of: SubjectKind
    tag: str | UnsetType = UNSET
    value: str | UnsetType = UNSET
    limit: float | str
    limit_microusd: int | UnsetType = UNSET


class ExplainedLimits(msgspec.Struct, frozen=True):
    """The limits that the create passed, and the one that it waited for."""

    passed: list[PassedLimit]
    waited_for: PassedLimit | None
    waited_seconds: float


class PricePart(msgspec.Struct, frozen=True):
    """A part of the charge."""

    unit: str
    quantity: str
    usd_each: str
    usd: str


class ExplainedPrice(msgspec.Struct, frozen=True, kw_only=True):
    """What was reserved, charged and saved."""

    basis: dict[str, Any]
    parts: list[PricePart] | None
    doubts: list[str]
    estimate_usd: str | None
    estimate_microusd: int | None
    charged_usd: str | None
    charged_microusd: int | None
    saved_usd: str | None
    saved_microusd: int | None


class TimelineEntry(msgspec.Struct, frozen=True):
    """Something that happened."""

    at: str
    what: str
    detail: str | UnsetType = UNSET


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """How a prediction was handled, and why."""

    prediction: str
    status: Status
    target: str
    key: ExplainedKey
    user: str | None
    tags: dict[str, str]
    run: ExplainedRun
    source: Literal["run", "joined", "hit"]
    deterministic: bool
    reason: str | None
    fingerprint: str | None
    limits: ExplainedLimits
    price: ExplainedPrice
    timeline: list[TimelineEntry]


class ConfigAttempt(msgspec.Struct, frozen=True, kw_only=True):
    """The last reload of the config."""

    at: str
    result: Literal["taken", "refused"]
    changed: list[str]
    needs_restart: list[str]
    problems: list[dict[str, str]]


class ConfigAnswer(msgspec.Struct, frozen=True):
    """When the config was loaded. Paths only, because values may be confidential."""

    loaded_at: str
    last_reload: ConfigAttempt | None


class NodeRow(msgspec.Struct, frozen=True, kw_only=True):
    """A node that serves from the store, or did."""

    number: int
    name: str
    alive: bool
    started_at: str
    renewed_at: str
    lease_seconds_left: float
    ended_at: str | None
    report: Any


class NodeList(msgspec.Struct, frozen=True):
    """The nodes, the newest first. Empty where one process serves from the store."""

    this_node: int
    results: list[NodeRow]
    next: str | None
    """The address of the next page; null at the end."""


class DetailAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """A prediction with its explanation, and its data as long as that is kept."""

    prediction: PredictionRow
    explanation: Explanation
    data: PredictionData | None
    data_state: DataState


class TeamAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """A team with its limits as used. Days and months are UTC."""

    name: str
    scopes: list[Scope]
    models: list[str]
    origins: list[str]
    spend_day_microusd: int
    spend_month_microusd: int
    limits: list[LimitState]


class TeamsAnswer(msgspec.Struct, frozen=True):
    """Every team, in the config's order."""

    results: list[TeamAnswer]
    next: None = None
    """There is one page."""
