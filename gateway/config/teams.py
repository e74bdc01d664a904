"""Teams and their keys: permissions and limits. A limit that is not set does not apply."""

from typing import Literal, Self

from pydantic import Field, PrivateAttr, SecretStr

from gateway.access.rules import api_keys as keys
from gateway.config.sections import Section
from gateway.config.values import (
    Count,
    Dollars,
    EnvName,
    Flag,
    HookUrl,
    KeyName,
    LimitedTag,
    Moment,
    NotEmptyOrigins,
    NotEmptyPatterns,
    NotEmptyScopes,
    Origin,
    Percent,
    ScopeName,
    Seconds,
    SecondsOrZero,
    Sha256,
    TeamName,
    Weight,
)
from gateway.domain.money import exact_microusd
from gateway.domain.records import Key
from gateway.domain.scopes import DEFAULT_SCOPES
from gateway.money.settings import DEFAULT_THRESHOLDS


class RunLimits(Section):
    """Limits of a value of a cost tag."""

    predictions_per_minute: Count | None = Field(
        None, description="New predictions and trainings per minute.", examples=[60]
    )
    burst: Count | None = Field(
        None, description="Bucket size of the rates; default: a sixth of the rate, at least 1.", examples=[20]
    )
    concurrent_predictions: Count | None = Field(None, description="Predictions in progress at a time.", examples=[10])
    seconds_per_day: Seconds | None = Field(
        None, description="Seconds of upstream run time per day (UTC).", examples=[3600]
    )
    seconds_per_month: Seconds | None = Field(
        None, description="Seconds of upstream run time per month (UTC).", examples=[36000]
    )
    budget_usd_per_day: Dollars | None = Field(None, description="Dollars per day (UTC).", examples=[200])
    budget_usd_per_month: Dollars | None = Field(None, description="Dollars per month (UTC).", examples=[2000])

    @property
    def budget_microusd_per_day(self) -> int | None:
        """The daily budget in micro-dollars."""
        return None if self.budget_usd_per_day is None else exact_microusd(self.budget_usd_per_day)

    @property
    def budget_microusd_per_month(self) -> int | None:
        """The monthly budget in micro-dollars."""
        return None if self.budget_usd_per_month is None else exact_microusd(self.budget_usd_per_month)


class TeamLimits(RunLimits):
    """Limits of a team, a key, a user, or an IP address."""

    requests_per_minute: Count | None = Field(None, description="Requests of any kind per minute.", examples=[600])


LIMIT_NAMES = ("requests_per_minute", *RunLimits.model_fields)


class TeamKey(TeamLimits):
    """A key of a team. Its permissions and limits can only narrow those of the team."""

    name: KeyName = Field("default", description="Name of the key, unique within the team.", examples=["web"])
    key_env: EnvName | None = Field(None, description="Environment variable with the key.", examples=["ACME_KEY"])
    sha256: Sha256 | None = Field(
        None, description="SHA-256 of the key, instead of key_env.", examples=["output of `printf %s KEY | sha256sum`"]
    )
    scopes: NotEmptyScopes | None = Field(
        None, description="Scopes of the key; default: those of the team.", examples=[["read", "predict"]]
    )
    models: NotEmptyPatterns | None = Field(
        None, description="Targets that it may run; default: those of the team.", examples=[["acme/*"]]
    )
    origins: NotEmptyOrigins | None = Field(
        None,
        description="Web origins it works from, which makes it publishable: other requests are refused.",
        examples=[["https://app.example.com"]],
    )
    expires: Moment | None = Field(None, description="When it expires; UTC by default.", examples=["2030-01-31"])
    per_user: TeamLimits | None = Field(None, description="Limits of each user (header Gateway-User).")
    per_address: TeamLimits | None = Field(None, description="Limits of each client IP address.")
    _value: SecretStr | None = PrivateAttr(None)

    @property
    def digest(self) -> str:
        """Hex SHA-256 of the key, or an empty string if the key was not resolved."""
        return keys.digest(self._value.get_secret_value()) if self._value else self.sha256 or ""

    @property
    def value(self) -> SecretStr | None:
        """The key itself if it came from `key_env`, for redaction in logs."""
        return self._value

    @property
    def expires_at(self) -> float | None:
        """When it expires, as epoch time."""
        return None if self.expires is None else self.expires.timestamp()

    def with_value(self, value: str) -> Self:
        """Return the key with its secret resolved."""
        copy = self.model_copy()
        copy._value = SecretStr(value)  # noqa: SLF001 - its own copy
        return copy


class Team(TeamLimits):
    """A tenant."""

    name: TeamName = Field(description="Permanent name: records and usage refer to it.", examples=["acme"])
    scopes: tuple[ScopeName, ...] = Field(
        DEFAULT_SCOPES, description="Scopes of its keys.", examples=[["read", "predict", "files"]]
    )
    models: NotEmptyPatterns | None = Field(
        None, description="Targets that it may run; default: all.", examples=[["black-forest-labs/*"]]
    )
    origins: tuple[Origin, ...] = Field(
        (),
        description="Web origins allowed by CORS; * allows any.",
        examples=[["https://app.example.com"]],
    )
    unbound_tokens: Flag = Field(
        False,
        description="Allow browser tokens that work from anywhere (origins: null), for native apps.",
        examples=[False],
    )
    public_sees: Literal["own", "team"] = Field(
        "own",
        description="What browser tokens see: predictions and files of their own user, or of the whole team.",
        examples=["own"],
    )
    public_webhooks: Flag = Field(False, description="Let web pages have webhooks sent.", examples=[False])
    weight: Weight = Field(1, description="Share of the account's rate limit when teams compete.", examples=[1])
    may_assert_deterministic: Flag = Field(
        False, description="Accept the header Gateway-Deterministic.", examples=[False]
    )
    honor_cache_control: Flag = Field(False, description="Treat Cache-Control like Gateway-Cache.", examples=[False])
    max_wait_seconds: SecondsOrZero = Field(
        20, description="How long a create over a rate limit is queued before it is refused.", examples=[20]
    )
    budget_webhook: HookUrl | None = Field(
        None,
        description="URL called at each threshold of a budget, once per day or month.",
        examples=["https://hooks.example.com/budget"],
    )
    budget_webhook_format: Literal["standard", "slack", "teams"] = Field(
        "standard",
        description="Form of these calls: Standard Webhooks, a message for Slack, a card for Microsoft Teams.",
        examples=["slack"],
    )
    budget_thresholds: tuple[Percent, ...] = Field(
        DEFAULT_THRESHOLDS,
        description="Percentages of a budget at which the gateway alerts; empty for none.",
        examples=[[50, 80, 100]],
    )
    per_user: TeamLimits | None = Field(None, description="Limits of each user (header Gateway-User).")
    per_address: TeamLimits | None = Field(None, description="Limits of each client IP address.")
    per_tag: dict[LimitedTag, RunLimits] = Field(
        default_factory=dict,
        description='Limits of each value of a cost tag ("project"), or of one value ("project:apollo").',
        examples=[{"project": {"budget_usd_per_month": 100}}],
    )
    max_issued_keys: Count = Field(
        1000, description="How many valid keys it can have besides those of the config.", examples=[1000]
    )
    keys: tuple[TeamKey, ...] = Field((), description="Keys of the team; `gateway keys create` adds more.")

    @property
    def browser_origins(self) -> tuple[str, ...]:
        """Origins allowed by CORS: those of the team, or if it has none, those of its keys."""
        return self.origins or tuple(dict.fromkeys(o for key in self.keys for o in key.origins or ()))

    def key(self, name: str) -> TeamKey | None:
        """Return the key of that name in the config."""
        return next((key for key in self.keys if key.name == name), None)

    def issued_keys(self) -> tuple[Key, ...]:
        """Return the keys as records. Their id is `team/name`, a form that no issued key has."""
        return tuple(
            Key(
                id=f"{self.name}/{key.name}",
                team=self.name,
                name=key.name,
                sha256=key.digest,
                created_at=0.0,
                expires_at=key.expires_at,
                scopes=key.scopes,
                models=key.models,
                origins=key.origins,
                last_four=None if key.value is None else keys.last_four(key.value.get_secret_value()),
            )
            for key in self.keys
        )
