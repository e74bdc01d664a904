"""Issuers of external identities: the providers at which the users of applications sign in."""

from contextlib import suppress
from typing import Any, Self
from urllib.parse import urlsplit

from pydantic import Field, PrivateAttr, SecretStr, model_validator

from gateway.access.rules.json_web_tokens import ALGORITHMS
from gateway.config.sections import Section
from gateway.config.teams import TeamLimits
from gateway.config.values import (
    Algorithms,
    Audiences,
    Bytes,
    ClaimName,
    ClaimText,
    ClientId,
    Count,
    EnvName,
    FileName,
    Flag,
    IssuerName,
    IssuerOrigins,
    IssuerScopes,
    IssuerUrl,
    NotEmptyPatterns,
    NotEmptyScopes,
    Seconds,
    SecondsOrZero,
    TeamName,
    UserPrefix,
)

_DAY = 86_400


class ConsoleSignIn(Section):
    """How people sign in to the console at an issuer. The gateway is its client; claims of the ID token give roles."""

    client_id: ClientId = Field(
        description="The gateway's id as a client of the issuer.", examples=["replicate-gateway-console"]
    )
    client_secret_env: EnvName | None = Field(
        None,
        description="Environment variable with the client's secret; without one: a public client.",
        examples=["CONSOLE_CLIENT_SECRET"],
    )
    client_secret_file: FileName | None = Field(
        None,
        description="File with the secret, instead of client_secret_env.",
        examples=["/run/secrets/console_client_secret"],
    )
    scopes: IssuerScopes = Field(
        ("openid", "profile"), description="What is requested at the issuer.", examples=[["openid", "profile"]]
    )
    operator_claim: ClaimName | None = Field(
        None, description="The claim that says who is an operator.", examples=["groups"]
    )
    operators: tuple[ClaimText, ...] = Field(
        (), description="Its values of operators; one of them suffices.", examples=[["platform"]]
    )
    lead_claim: ClaimName | None = Field(
        None, description="The claim that decides by `leads` who leads which team.", examples=["groups"]
    )
    leads: dict[ClaimText, TeamName] = Field(
        default_factory=dict,
        description="Teams that are led, by values of lead_claim.",
        examples=[{"acme-leads": "acme"}],
    )
    _client_secret: SecretStr | None = PrivateAttr(None)

    @property
    def client_secret(self) -> SecretStr | None:
        """The client's secret; `None` for a public client."""
        return self._client_secret

    def with_client_secret(self, secret: str | None) -> Self:
        """Return the table with its secret resolved."""
        copy = self.model_copy()
        copy._client_secret = SecretStr(secret) if secret else None  # noqa: SLF001 - its own copy
        return copy


class Issuer(TeamLimits):
    """A provider whose JSON Web Tokens are accepted instead of keys, or where people sign in to the console, or both.

    Needs the extra oidc.
    """

    issuer: IssuerUrl = Field(
        description="Its identifier, exactly as the claim iss of its tokens has it.",
        examples=["https://acme.eu.auth0.com/"],
    )
    name: IssuerName = Field(
        "unnamed",
        description="Permanent name, in metrics and before the names of its users; default: the issuer's host.",
        examples=["auth0"],
    )
    audience: Audiences = Field(
        (),
        description="The claim aud of tokens for this gateway: a text, or a list of which one must match.",
        examples=["https://gateway.example.com"],
    )
    jwks_url: IssuerUrl | None = Field(
        None,
        description="URL of its public keys; default: the one in its OpenID configuration.",
        examples=["https://acme.eu.auth0.com/.well-known/jwks.json"],
    )
    algorithms: Algorithms = Field(
        ALGORITHMS, description="Accepted signatures; none of them can be made with a public key.", examples=[["RS256"]]
    )
    team: TeamName | None = Field(None, description="The team of all its users.", examples=["acme"])
    team_claim: ClaimName | None = Field(
        None, description="Or the claim that decides by `teams` to which team a user belongs.", examples=["org_id"]
    )
    teams: dict[ClaimText, TeamName] = Field(
        default_factory=dict, description="Teams by values of team_claim.", examples=[{"org_8Zk2": "acme"}]
    )
    user_claim: ClaimName = Field(
        "sub", description="The claim that names the user; email counts only with email_verified.", examples=["sub"]
    )
    user_prefix: UserPrefix | None = Field(
        None,
        description="Written before the user's name; default: the issuer's name and a colon. \"\" for nothing.",
        examples=["auth0:"],
    )
    scope_claim: ClaimName | None = Field(
        None,
        description="The claim that names the scopes of a token, as a list or separated by spaces.",
        examples=["permissions"],
    )
    scopes: NotEmptyScopes | None = Field(
        None, description="The most that its tokens may do; default: read, predict, files.", examples=[["predict"]]
    )
    models: NotEmptyPatterns | None = Field(
        None, description="Targets that its users may run; default: those of their team.", examples=[["acme/*"]]
    )
    origins: IssuerOrigins | None = Field(
        None,
        description='Web origins its tokens work from; default: those of the team; "none" for native apps.',
        examples=[["https://app.example.com"]],
    )
    console: ConsoleSignIn | None = Field(None, description="People sign in to the console at this issuer.")
    leeway_seconds: SecondsOrZero = Field(30, description="By how much clocks may differ.", examples=[30])
    allow_private_addresses: Flag = Field(
        False, description="Allow an issuer in a private network, or on this machine.", examples=[False]
    )
    jwks_ttl_seconds: Seconds = Field(3600, description="Its keys are read again before this age.", examples=[3600])
    jwks_stale_seconds: Seconds = Field(
        _DAY, description="While it is unavailable, keys are used up to this age.", examples=[_DAY]
    )
    jwks_max_bytes: Bytes = Field(262_144, description="Largest list of keys that is read.", examples=[262_144])
    jwks_max_keys: Count = Field(100, description="Keys that are used of a list.", examples=[100])
    per_user: TeamLimits | None = Field(None, description="Limits of each of its users.")
    per_address: TeamLimits | None = Field(None, description="Limits of each client IP address.")

    @model_validator(mode="before")
    @classmethod
    def _name(cls, given: Any) -> Any:
        """Name an issuer without a name by its host."""
        if not isinstance(given, dict) or "name" in given or not isinstance(given.get("issuer"), str):
            return given
        with suppress(ValueError):
            host = (urlsplit(given["issuer"]).hostname or "").replace(":", "-").strip("-")
            return {**given, "name": host[:64] or "unnamed"}
        return given

    @property
    def prefix(self) -> str:
        """What is written before the names of its users."""
        return f"{self.name}:" if self.user_prefix is None else self.user_prefix

    @property
    def is_native(self) -> bool:
        """Whether its tokens work without a web origin."""
        return self.origins == ("none",)

    @property
    def all_teams(self) -> tuple[str, ...]:
        """The names of the teams that its users can belong to."""
        return (self.team,) if self.team is not None else tuple(dict.fromkeys(self.teams.values()))
