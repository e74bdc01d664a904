"""Types of config values. Each type validates its range and has its own error message.

TOML values are typed, so nothing is converted: `"8080"` is not a port and `1` is not a flag.
"""

import ipaddress
import re
from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import SplitResult, parse_qsl, urlsplit

from pydantic import BeforeValidator, GetCoreSchemaHandler, GetJsonSchemaHandler, Strict
from pydantic_core import CoreSchema
from pydantic_core.core_schema import no_info_before_validator_function

from gateway.access.rules.json_web_tokens import ALGORITHMS
from gateway.domain import scopes, tags
from gateway.domain.money import MOST_USD, exact_microusd, exact_price
from gateway.domain.targets import is_model_name
from gateway.models.rules.aliases import parse_target
from gateway.sharing.rules import external_links

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_MOST: Final = 10**15
_LABEL: Final = r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_HOSTNAME: Final = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(\.{_LABEL})*")
_NO_ORIGIN: Final = "none"
_NOT_IN_URLS: Final = re.compile(r"[\x00-\x20\x7f\\<>\"^`{|}]")


class _Check:
    """Checks a value before pydantic does. `schema` is the JSON Schema of the type, as far as one can state the check.

    The values are TOML's, so the schema says nothing of texts that stand for numbers.
    """

    def __init__(self, check: Callable[[Any], Any], **schema: Any) -> None:
        self.check = check
        self._schema = schema

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Return what pydantic does to validate."""
        return no_info_before_validator_function(self.check, handler(source))

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """Return the schema; one without a type adds to that of the type."""
        return self._schema if "type" in self._schema else {**handler(core), **self._schema}


def _matching(pattern: str, phrase: str) -> _Check:
    compiled = re.compile(pattern)

    def check(value: Any) -> Any:
        if not isinstance(value, str) or not compiled.fullmatch(value):
            raise ValueError(f"expected {phrase}")
        return value

    return _Check(check, type="string", pattern=f"^(?:{pattern})$")


def _text(read: Callable[[str], Any], phrase: str) -> _Check:
    def check(value: Any) -> Any:
        if isinstance(value, str):
            return read(value)
        raise ValueError(f"expected {phrase} as a quoted string")

    return _Check(check, type="string", minLength=1)


def _whole(low: int, high: int, phrase: str) -> _Check:
    def check(value: Any) -> Any:
        if isinstance(value, bool) or not isinstance(value, int) or value < low:
            raise ValueError(f"expected {phrase}")
        if value > high:
            raise ValueError(f"expected at most {high}")
        return value

    return _Check(check, type="integer", minimum=low, maximum=high)


def _number(phrase: str, *, zero: bool, high: int, into: Callable[[Any], Any]) -> _Check:
    def check(value: Any) -> Any:
        is_number = isinstance(value, int | float | Decimal) and not isinstance(value, bool)
        exact = Decimal(str(value)) if is_number else Decimal("NaN")
        if not exact.is_finite() or exact < 0 or (exact == 0 and not zero):
            raise ValueError(f"expected {phrase}")
        if exact > high:
            raise ValueError(f"expected at most {high}")
        return into(exact)

    return _Check(check, type="number", **{"minimum" if zero else "exclusiveMinimum": 0}, maximum=high)


def _budget(exact: Decimal) -> Decimal:
    exact_microusd(exact)
    return exact


def _link_pattern(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError('expected a link as a quoted string, such as "https://cdn.example.com/*"')  # noqa: TRY004
    external_links.parse_pattern(value)
    return value


def _host(value: str) -> str:
    if not is_address(value) and not _HOSTNAME.fullmatch(value):
        raise ValueError("expected a host name or an IP address")
    return value


def is_address(text: str) -> bool:
    """Say whether a string is an IP address."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def is_postgres(url: str) -> bool:
    """Say whether a `[store] url` is an address of PostgreSQL."""
    return url.startswith("postgresql:")


def is_loopback(host: str) -> bool:
    """Say whether a listener on this host is reachable from this machine only."""
    return host.lower() == "localhost" or (is_address(host) and ipaddress.ip_address(host).is_loopback)


def is_wildcard(host: str) -> bool:
    """Say whether a listener on this host accepts connections on all addresses."""
    return is_address(host) and ipaddress.ip_address(host).is_unspecified


def _url(value: str, schemes: tuple[str, ...], phrase: str) -> SplitResult:
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError:
        raise ValueError(f"expected {phrase}, with a valid host and port") from None
    if parts.scheme not in schemes or not parts.hostname or _NOT_IN_URLS.search(value) or port == 0:
        raise ValueError(f"expected {phrase}")
    if not is_address(parts.hostname) and not _HOSTNAME.fullmatch(parts.hostname):
        raise ValueError(f"expected {phrase}, with a valid host")
    return parts


def _http_url(value: str) -> str:
    parts = _url(value, ("http", "https"), "an http or https URL")
    if "@" in parts.netloc:
        raise ValueError("expected a URL without user name and password")
    if "?" in value or "#" in value:
        raise ValueError("expected a URL without query and fragment")
    return f"{parts.scheme}://{parts.netloc.lower()}{parts.path}".rstrip("/")


def _public_url(value: str) -> str:
    return _http_url(value).removesuffix("/v1").rstrip("/")


def _ops_url(value: str) -> str:
    url = _http_url(value)
    if urlsplit(url).path:
        raise ValueError("expected an address without a path: the pages of the listener are at /dashboard")
    return url


def _hook_url(value: str) -> str:
    parts = _url(value, ("http", "https"), "an https URL")
    if "@" in parts.netloc or "#" in value:
        raise ValueError("expected a URL without user name, password and fragment")
    return value


def _issuer_url(value: str) -> str:
    """Check an issuer. It is compared as it is, so nothing of it is normalised."""
    parts = _url(value, ("http", "https"), "an https URL")
    if "@" in parts.netloc or "?" in value or "#" in value:
        raise ValueError("expected a URL without user name, password, query and fragment")
    return value


def _audiences(value: Any) -> Any:
    if isinstance(value, list) and not value:
        raise ValueError("expected at least one audience: otherwise tokens for other services would count too")
    return (value,) if isinstance(value, str) else value


def _issuer_origins(value: Any) -> Any:
    if value == _NO_ORIGIN:
        return (_NO_ORIGIN,)
    if isinstance(value, str):
        raise ValueError('expected a list of origins, or "none" for native apps')  # noqa: TRY004 - a wrong value
    return _some(value)


def _issuer_origin(value: str) -> str:
    return value if value == _NO_ORIGIN else scopes.normal_origin(value)


def _base_url(value: str) -> str:
    return f"{_public_url(value)}/v1"


def store_url(value: str) -> str:
    """Check an address of a store. Raise `ValueError`."""
    if value.startswith("postgresql:"):
        return _postgres_url(value)
    forms = "sqlite:///relative/path.db or sqlite:////absolute/path.db"
    if not value.startswith("sqlite:"):
        raise ValueError(f"expected {forms}, or postgresql://user@host/database")
    if not re.fullmatch(r"sqlite:///(?!/*\Z)[^?#\x00]+", value) or value.endswith(("/", ":memory:")):
        raise ValueError(f"expected a file: {forms}")
    return value


def _postgres_url(value: str) -> str:
    """Check an address of PostgreSQL, as far as libpq's many forms allow: it can have several hosts, or a socket."""
    if not value.startswith("postgresql:"):
        raise ValueError("expected postgresql://user@host/database")
    place, _, query = value.removeprefix("postgresql://").partition("?")
    user, _, _ = place.rpartition("@")
    if ":" in user or any(name == "password" for name, _ in parse_qsl(query, keep_blank_values=True)):
        raise ValueError("expected an address without its password, which belongs in password_env or password_file")
    if not re.fullmatch(r"postgresql://([^/@?#]*@)?[^/@?#]*/[^/@?#]+(\?[^#]*)?", value) or _NOT_IN_URLS.search(value):
        raise ValueError("expected postgresql://user@host/database")
    return value


def _outputs_url(value: str) -> str:
    if value.startswith("s3:"):
        parts = urlsplit(value)
        if not re.fullmatch(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", parts.netloc):
            raise ValueError(
                "expected s3://bucket or s3://bucket/prefix, with a bucket of 3 to 63 lower-case letters, digits, dots "
                "and hyphens, of which the first and the last are letters or digits"
            )
        if parts.fragment or not re.fullmatch(r"((endpoint|region)=[^&\s@]+(&|\Z))*", parts.query):
            raise ValueError("expected only endpoint=https://host and region=name after s3://bucket/prefix?")
        return value
    if "\x00" in value or not value.removeprefix("file://"):
        raise ValueError("expected a folder (outputs, /var/lib/outputs, file:///var/lib/outputs) or s3://bucket/prefix")
    if "://" in value and not re.fullmatch(r"file:///[^?#]+", value):
        raise ValueError("expected a folder (outputs, /var/lib/outputs, file:///var/lib/outputs) or s3://bucket/prefix")
    return value


def _trusted_host(value: str) -> str:
    name = value.removeprefix("*.")
    if not is_address(value) and not (_HOSTNAME.fullmatch(name) and ("." in name or name == value)):
        raise ValueError("expected a host name, or *. and a domain, without scheme and port")
    return value.lower()


def _network(value: str) -> Network:
    try:
        return ipaddress.ip_network(value)
    except ValueError as problem:
        if "host bits set" in str(problem):
            raise ValueError(f"expected a network, such as {ipaddress.ip_network(value, strict=False)}") from None
        raise ValueError("expected a network or an IP address") from None


def _pattern(value: str) -> str:
    if not scopes.is_pattern(value):
        raise ValueError("expected owner/name, in which * matches any characters, or * for all")
    return value


def _model_name(value: str) -> str:
    if not is_model_name(value):
        raise ValueError("expected owner/name")
    return value


def _alias_target(value: str) -> str:
    try:
        parse_target(value)
    except ValueError:
        forms = "owner/name, owner/name:version with the 64 digits of its id, or deployments/owner/name"
        raise ValueError(f"expected {forms}") from None
    return value


def _scope(value: str) -> scopes.Scope:
    try:
        return scopes.Scope(value)
    except ValueError:
        raise ValueError(f"expected one of {', '.join(scopes.Scope)}") from None


def _one_of(words: Iterable[str], check: Callable[[str], Any], phrase: str) -> _Check:
    return _Check(_text(check, phrase).check, type="string", enum=list(words))


def _some(value: Any) -> Any:
    if isinstance(value, list | tuple) and not value:
        raise ValueError("expected at least one entry; to restrict nothing, remove this setting")
    return value


def _moment(value: Any) -> datetime:
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            raise ValueError("expected a date or a time") from None
    if isinstance(value, datetime):
        return value if value.tzinfo else value.replace(tzinfo=UTC)
    if isinstance(value, date):
        return datetime(value.year, value.month, value.day, tzinfo=UTC)
    raise ValueError("expected a date or a time")


def _level(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


Flag = Annotated[bool, Strict()]
Port = Annotated[int, _whole(0, 65535, "a port number from 0 (a free one) to 65535")]
Count = Annotated[int, _whole(1, _MOST, "a whole number above 0")]
Percent = Annotated[int, _whole(1, 100, "a percentage from 1 to 100")]
CountOrZero = Annotated[int, _whole(0, _MOST, "a whole number, 0 or more")]
Attempts = Annotated[int, _whole(1, 100, "a whole number from 1 to 100")]
Bytes = Annotated[int, _whole(1, _MOST, "a whole number of bytes above 0")]
HeaderBytes = Annotated[int, _whole(4096, 256 * 1024, "a whole number of bytes, at least 4096")]
Whole = Annotated[int, _whole(-(2**63), 2**63 - 1, "a whole number")]
Seconds = Annotated[float, _number("a number of seconds above 0", zero=False, high=10**10, into=float)]
SecondsOrZero = Annotated[float, _number("a number of seconds, 0 or more", zero=True, high=10**10, into=float)]
Weight = Annotated[float, _number("a number above 0", zero=False, high=1_000_000, into=float)]
Dollars = Annotated[Decimal, _number("a number above 0", zero=False, high=MOST_USD, into=_budget)]
Price = Annotated[Decimal, _number("a number, 0 or more", zero=True, high=MOST_USD, into=exact_price)]
Host = Annotated[str, _text(_host, "a host name or an IP address")]
PublicUrl = Annotated[str, _text(_public_url, "an http or https URL")]
OpsUrl = Annotated[str, _text(_ops_url, "an http or https URL")]
HookUrl = Annotated[str, _text(_hook_url, "an https URL")]
BaseUrl = Annotated[str, _text(_base_url, "an http or https URL")]
PostgresUrl = Annotated[str, _text(_postgres_url, "a URL")]
StoreUrl = Annotated[str, _text(store_url, "a URL")]
OutputsUrl = Annotated[str, _text(_outputs_url, "a folder or an s3:// URL")]
EnvName = Annotated[str, _matching(r"[A-Za-z_][A-Za-z0-9_]{0,199}", "the name of an environment variable")]
FileName = Annotated[Path, _matching(r"[^\x00]+", "the path of a file")]
TrustedHost = Annotated[str, _text(_trusted_host, "a host name")]
ProxyNetwork = Annotated[Network, _text(_network, "a network")]
Pattern = Annotated[str, _text(_pattern, "owner/name")]
ModelName = Annotated[str, _text(_model_name, "owner/name")]
AliasTarget = Annotated[str, _text(_alias_target, "owner/name")]
Origin = Annotated[str, _text(scopes.normal_origin, "an origin (scheme://host) or *")]
ScopeName = Annotated[scopes.Scope, _one_of(scopes.Scope, _scope, "a scope")]
TeamName = Annotated[str, _matching(r"[a-z0-9_-]{1,64}", "1 to 64 of the characters a-z 0-9 _ -")]
KeyName = Annotated[str, _matching(r"[A-Za-z0-9][A-Za-z0-9 ._@-]{0,63}", "1 to 64 letters, digits, spaces or . _ @ -")]
IssuerUrl = Annotated[str, _text(_issuer_url, "an https URL")]
IssuerName = Annotated[str, _matching(r"[a-z0-9][a-z0-9._-]{0,63}", "1 to 64 of the characters a-z 0-9 . _ -")]
ClaimName = Annotated[str, _matching(r"[!-~]{1,200}", "the name of a claim")]
ClaimText = Annotated[str, _matching(r"[^\x00-\x1f]{1,200}", "the value of a claim")]
_ONE_OR_SEVERAL: Final[dict[str, Any]] = {"type": ["string", "array"], "items": {"type": "string"}, "minItems": 1}
Audiences = Annotated[tuple[ClaimText, ...], _Check(_audiences, **_ONE_OR_SEVERAL)]
ClientId = Annotated[str, _matching(r"[!-~]{1,200}", "the client's id at the issuer")]
IssuerScope = Annotated[str, _matching(r"[!#-\[\]-~]{1,100}", "a scope of the issuer")]
UserPrefix = Annotated[str, _matching(r"[!-~]{0,64}", "at most 64 printable characters without spaces")]
Algorithm = Annotated[
    str,
    _matching("|".join(ALGORITHMS), f"one of {', '.join(ALGORITHMS)}: `none` and HMAC (HS256) are never accepted"),
]
_IssuerOrigin = Annotated[str, _text(_issuer_origin, "an origin (scheme://host) or *")]
IssuerOrigins = Annotated[tuple[_IssuerOrigin, ...], _Check(_issuer_origins, **_ONE_OR_SEVERAL)]
Sha256 = Annotated[
    str,
    _matching(r"[0-9a-fA-F]{64}", "the SHA-256 of the key as 64 hex digits"),
    BeforeValidator(lambda value: value.strip().lower() if isinstance(value, str) else value),
]
Sku = Annotated[str, _matching(r"[a-z0-9][a-z0-9-]{0,63}", "a hardware SKU in lower case")]
InputName = Annotated[str, _matching(r"[^\x00-\x1f]{1,200}", "the name of an input")]
LinkPattern = Annotated[str, _Check(_link_pattern, type="string", minLength=1)]
TagKey = Annotated[str, _matching(tags.KEY.pattern, "1 to 32 of a-z 0-9 _ -, beginning with a letter")]
LimitedTag = Annotated[
    str, _matching(tags.LIMITED.pattern, 'a tag, or a tag and its value (for example: "project:apollo")')
]
Moment = Annotated[datetime, _Check(_moment, type="string")]
LevelWord = BeforeValidator(_level)
Algorithms = Annotated[tuple[Algorithm, ...], _Check(_some, minItems=1)]
IssuerScopes = Annotated[tuple[IssuerScope, ...], _Check(_some, minItems=1)]
NotEmptyScopes = Annotated[tuple[ScopeName, ...], _Check(_some, minItems=1)]
NotEmptyTeams = Annotated[tuple[TeamName, ...], _Check(_some, minItems=1)]
NotEmptyPatterns = Annotated[tuple[Pattern, ...], _Check(_some, minItems=1)]
NotEmptyOrigins = Annotated[tuple[Origin, ...], _Check(_some, minItems=1)]
