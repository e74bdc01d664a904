"""Teams and their keys: what each may do, and how much of it. What is not given is not limited."""

from typing import Self

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
    Moment,
    NotEmptyOrigins,
    NotEmptyPatterns,
    NotEmptyScopes,
    Origin,
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


class Limits(Section):
    """How much may be done: by a team, a key, a user, or an address."""

    requests_per_minute: Count | None = Field(None, description="Requests of any sort.", examples=[600])
    predictions_per_minute: Count | None = Field(None, description="New predictions and trainings.", examples=[60])
    burst: Count | None = Field(
        None, description="How many may come at once; else a sixth of the rate, at least 1.", examples=[20]
    )
    concurrent_predictions: Count | None = Field(None, description="Predictions under way at a time.", examples=[10])
    seconds_per_day: Seconds | None = Field(
        None, description="Seconds of upstream's work a day (UTC).", examples=[3600]
    )
    seconds_per_month: Seconds | None = Field(None, description="The same for a month.", examples=[36000])
    budget_usd_per_day: Dollars | None = Field(None, description="Dollars a day (UTC).", examples=[200])
    budget_usd_per_month: Dollars | None = Field(None, description="Dollars a month (UTC).", examples=[2000])

    @property
    def budget_microusd_per_day(self) -> int | None:
        """The day's budget in micro-dollars."""
        return None if self.budget_usd_per_day is None else exact_microusd(self.budget_usd_per_day)

    @property
    def budget_microusd_per_month(self) -> int | None:
        """The month's budget in micro-dollars."""
        return None if self.budget_usd_per_month is None else exact_microusd(self.budget_usd_per_month)


LIMIT_NAMES = tuple(Limits.model_fields)


class TeamKey(Limits):
    """A key of a team, narrowing what the team may. Given by the variable that has it, or by its digest."""

    name: KeyName = Field("default", description="What it is called in usage and logs.", examples=["web"])
    key_env: EnvName | None = Field(None, description="Environment variable that has the key.", examples=["ACME_KEY"])
    sha256: Sha256 | None = Field(
        None, description="SHA-256 of the key, in place of key_env.", examples=["what `printf %s KEY | sha256sum` says"]
    )
    scopes: NotEmptyScopes | None = Field(
        None, description="What it may do; else all that the team may.", examples=[["read", "predict"]]
    )
    models: NotEmptyPatterns | None = Field(
        None, description="Targets it may run; else the team's.", examples=[["acme/*"]]
    )
    origins: NotEmptyOrigins | None = Field(
        None,
        description="Pages it is bound to, which makes it publishable: other requests are refused.",
        examples=[["https://app.example.com"]],
    )
    expires: Moment | None = Field(None, description="When it ends; UTC unless said.", examples=["2030-01-31"])
    per_user: Limits | None = Field(None, description="Limits of each user that callers name.")
    per_address: Limits | None = Field(None, description="Limits of each address that calls.")
    _value: SecretStr | None = PrivateAttr(None)

    @property
    def digest(self) -> str:
        """Hex SHA-256 of the key, from wherever it was given."""
        return keys.digest(self._value.get_secret_value()) if self._value else self.sha256 or ""

    @property
    def value(self) -> SecretStr | None:
        """The key itself, where the config's variable has it: for logs to strike out."""
        return self._value

    @property
    def expires_at(self) -> float | None:
        """When it ends, as epoch time."""
        return None if self.expires is None else self.expires.timestamp()

    def with_value(self, value: str) -> Self:
        """Return the key with its secret resolved."""
        copy = self.model_copy()
        copy._value = SecretStr(value)  # noqa: SLF001 - its own copy
        return copy


class Team(Limits):
    """A tenant."""

    name: TeamName = Field(description="Its name, for good: records and usage carry it.", examples=["acme"])
    scopes: tuple[ScopeName, ...] = Field(
        DEFAULT_SCOPES, description="What its keys may do.", examples=[["read", "predict", "files"]]
    )
    models: NotEmptyPatterns | None = Field(
        None, description="Targets it may run; not given: all.", examples=[["black-forest-labs/*"]]
    )
    origins: tuple[Origin, ...] = Field(
        (),
        description="Pages from which browsers may call with its keys; * for any.",
        examples=[["https://app.example.com"]],
    )
    weight: Weight = Field(1, description="Its share of the account's rate when teams compete.", examples=[1])
    may_assert_deterministic: Flag = Field(
        False, description="Whether Gateway-Deterministic counts for it.", examples=[False]
    )
    honor_cache_control: Flag = Field(
        False, description="Whether Cache-Control counts for it as Gateway-Cache does.", examples=[False]
    )
    max_wait_seconds: SecondsOrZero = Field(
        20, description="How long a create over a rate is held before it is refused.", examples=[20]
    )
    budget_webhook: HookUrl | None = Field(
        None,
        description="Who is told, once a window, that 80 % or all of the team's budget is used up.",
        examples=["https://hooks.example.com/budget"],
    )
    per_user: Limits | None = Field(None, description="Limits of each user that callers name.")
    per_address: Limits | None = Field(None, description="Limits of each address that calls.")
    keys: tuple[TeamKey, ...] = Field((), description="Its keys; `gateway keys create` makes others.")

    @property
    def browser_origins(self) -> tuple[str, ...]:
        """Origins to admit by CORS: the team's, or where it lists none those of its keys."""
        return self.origins or tuple(dict.fromkeys(o for key in self.keys for o in key.origins or ()))

    def key(self, name: str) -> TeamKey | None:
        """Find a key of the config by its name."""
        return next((key for key in self.keys if key.name == name), None)

    def issued_keys(self) -> tuple[Key, ...]:
        """Return the config's keys as records, each with the lasting id `team/name`, which no issued key can have."""
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
            )
            for key in self.keys
        )
