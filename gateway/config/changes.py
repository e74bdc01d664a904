"""The differences between two configs, and which of them a reload can apply without a restart.

Teams and keys are compared by name, so their order in the file does not matter. Values that name or may contain a
secret are never shown; the report only says that they changed.
"""

from collections.abc import Iterator, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any, Final, NamedTuple

from pydantic import BaseModel, SecretStr

from gateway.config import checks
from gateway.config.issuers import Issuer
from gateway.config.model import Config
from gateway.config.problems import NEVER_QUOTED, Problem, quote, spell
from gateway.config.report import Places, Report
from gateway.config.sections import Alias
from gateway.config.teams import Team, TeamKey

RESTART: Final[Mapping[str, frozenset[str]]] = {
    "server": frozenset({"host", "port", "workers", "reuse_port", "shutdown_grace_seconds", "drain_seconds"}),
    "ops": frozenset({"host", "port"}),
    "upstream": frozenset({"base_url", "allow_http", "trusted_hosts"}),
    "store": frozenset({"url", "password_env", "password_file", "listen_url"}),
    "cache": frozenset({"schemas_max_bytes"}),
    "outputs": frozenset(
        {"url", "shared", "persist", "max_bytes", "ttl_seconds", "max_readers", "max_readers_per_team"}
    ),
    "transfers": frozenset({"max_uploads", "max_downloads"}),
    "logs": frozenset({"format"}),
    "tracing": frozenset({"enabled", "propagate"}),
}
"""Settings that a reload does not apply, by section. They need a restart."""

LIVE: Final[Mapping[str, frozenset[str]]] = {
    "limits": frozenset(
        {
            "max_links",
            "max_keys",
            "max_values",
            "max_depth",
            "max_half_surrogates",
            "max_bodies_bytes",
            "max_page_bytes",
            "max_token_bytes",
            "max_cached_tokens",
            "max_responses_bytes",
        }
    ),
    "server": frozenset(
        {
            "public_url",
            "trusted_proxies",
            "max_body_bytes",
            "max_upload_bytes",
            "max_header_bytes",
            "body_idle_seconds",
            "body_min_bytes_per_second",
            "max_spool_bytes",
        }
    ),
    "ops": frozenset({"public_url", "token_env", "token_file", "max_searched", "max_page_bytes", "max_data_bytes"}),
    "console": frozenset({"show_data"}),
    "upstream": frozenset(
        {
            "token_env",
            "token_file",
            "creates_per_minute",
            "requests_per_minute",
            "adopt_wait_seconds",
            "unreadable_seconds",
            "webhooks",
        }
    ),
    "store": frozenset({"retain_days", "retain_data_seconds"}),
    "cache": frozenset(
        {
            "enabled",
            "immutable_links",
            "share",
            "ttl_seconds",
            "max_bytes",
            "memory_bytes",
            "followed_bytes",
            "metadata_max_bytes",
            "random_seeds",
            "metadata_ttl_seconds",
            "rules",
        }
    ),
    "transfers": frozenset({"max_per_team", "max_per_public_key"}),
    "streams": frozenset(
        {
            "heartbeat_seconds",
            "ticket_ttl_seconds",
            "max_log_bytes",
            "live_log_bytes",
            "kept_log_bytes",
            "max_per_team",
            "max_total",
        }
    ),
    "webhooks": frozenset(
        {
            "allow_private_addresses",
            "allow_http",
            "max_attempts",
            "max_queued",
            "max_queued_public",
            "max_queued_total",
            "retain_dead_days",
        }
    ),
    "prices": frozenset({"unknown", "default_hardware", "charge_failed", "models"}),
    "tags": frozenset({"keys", "max_values"}),
    "metrics": frozenset({"top_targets"}),
    "audit": frozenset({"retain_days"}),
    "logs": frozenset({"level"}),
}
"""Settings that a reload applies, by section. Everything in `teams`, `issuers` and `aliases` is applied too."""

_NAMED: Final = ("teams", "issuers")
"""Lists of tables with names."""

_SECRETS: Final = {"ops": "token", "upstream": "token", "store": "password"}
_ACCOUNT: Final = frozenset({"token_env", "token_file", "token"})
_HIDDEN: Final = NEVER_QUOTED | {"budget_webhook"}
_NOT_SET: Final = "not set"
_CONCEALED: Final = "(not shown)"
_LONGEST_LIST: Final = 8


class Change(NamedTuple):
    """One difference, without secrets."""

    path: str
    old: str
    new: str
    needs_restart: bool = False


def diff(old: Config, new: Config) -> list[Change]:
    """Return all differences in the order of the sections."""
    return list(_diff_config(old, new))


def effective(old: Config, new: Config) -> tuple[Config, list[Problem]]:
    """Return the config that a reload would put into effect, and its problems.

    Settings that need a restart keep their old values. Both configs can be valid and the combination not: an ops
    listener that stays on a public address needs the token, which the new config omits because its listener is on
    loopback.
    """
    sections = {}
    for section in RESTART:
        before, after = getattr(old, section), getattr(new, section)
        kept_names = _kept_settings(section, old, new)
        if kept_names.issuperset(type(before).model_fields):
            sections[section] = before
            continue
        # Copy only values that differ: checks look at `model_fields_set` to tell a given value from a default.
        kept = {name: getattr(before, name) for name in kept_names & type(before).model_fields.keys()}
        sections[section] = after.model_copy(
            update={name: value for name, value in kept.items() if value != getattr(after, name)}
        )
    if _base_url_changed(old, new):
        sections["upstream"] = sections["upstream"].with_token(old.upstream.token.get_secret_value())
    sections["store"] = sections["store"].with_password(old.store.revealed_password)
    merged = new.model_copy(update=sections)
    report = Report(Places())
    checks.compare(merged, report)
    return merged, report.problems(tuple(Config.model_fields))


def _kept_settings(section: str, old: Config, new: Config) -> frozenset[str]:
    """Return the settings of a section, secrets included, that keep their old values."""
    names = RESTART.get(section, frozenset())
    if section == "store":
        return names | {"password"}
    return names | _ACCOUNT if section == "upstream" and _base_url_changed(old, new) else names


def _base_url_changed(old: Config, new: Config) -> bool:
    """Say whether `base_url` changed. The new token then also waits for the restart: it must not go to the old host."""
    return old.upstream.base_url != new.upstream.base_url


def _diff_config(old: Config, new: Config) -> Iterator[Change]:
    for section in Config.model_fields:
        if section in _NAMED:
            yield from _diff_named(section, getattr(old, section), getattr(new, section))
            continue
        if section == "aliases":
            yield from _diff_aliases(old.aliases, new.aliases)
            continue
        before, after = getattr(old, section), getattr(new, section)
        kept_names = _kept_settings(section, old, new)
        for name in type(before).model_fields:
            for change in _diff_value(f"{section}.{name}", name, getattr(before, name), getattr(after, name)):
                yield change._replace(needs_restart=name in kept_names)
        if (secret := _SECRETS.get(section)) is not None:
            found = _diff_secret(f"{section}.{secret}", getattr(before, secret), getattr(after, secret))
            for change in found:
                yield change._replace(needs_restart=secret in kept_names)


def _diff_value(path: str, name: str, old: Any, new: Any) -> Iterator[Change]:
    match old, new:
        case _ if old == new:
            return
        case (BaseModel(), BaseModel()):
            for field in type(old).model_fields:
                yield from _diff_value(f"{path}.{field}", field, getattr(old, field), getattr(new, field))
        case (dict(), dict()) if any(isinstance(each, BaseModel) for each in (*old.values(), *new.values())):
            for key in dict.fromkeys((*old, *new)):
                yield from _diff_value(f"{path}.{spell((key,))}", key, old.get(key), new.get(key))
        case (tuple(), tuple()) if any(isinstance(each, Team | TeamKey) for each in (*old, *new)):
            yield from _diff_named(path, old, new)
        case (tuple(), tuple()) if any(isinstance(each, BaseModel) for each in (*old, *new)):
            yield from _diff_list(path, old, new)
        case _:
            yield Change(path, _format_value(name, old), _format_value(name, new))


def _diff_named(path: str, old: tuple[Any, ...], new: tuple[Any, ...]) -> Iterator[Change]:
    """Compare teams, keys or issuers by name. The content of an added or removed one is not listed."""
    before, after = {each.name: each for each in old}, {each.name: each for each in new}
    for name in dict.fromkeys((*before, *after)):
        place = f"{path}[{name}]"
        match before.get(name), after.get(name):
            case None, _:
                yield Change(place, _NOT_SET, "added")
            case _, None:
                yield Change(place, "present", "removed")
            case first, second:
                assert first is not None
                assert second is not None
                yield from _diff_value(place, name, first, second)
                if isinstance(first, TeamKey):
                    yield from _diff_digest(place, first, second)
                if isinstance(first, Issuer) and first.console is not None and second.console is not None:
                    secrets = first.console.client_secret, second.console.client_secret
                    yield from _diff_secret(f"{place}.console.client_secret", *secrets)


def _diff_aliases(old: tuple[Alias, ...], new: tuple[Alias, ...]) -> Iterator[Change]:
    """Compare what each alias stands for, for each of its teams."""
    before, after = ({place: alias.target for alias in each for place in _places(alias)} for each in (old, new))
    for place in dict.fromkeys((*before, *after)):
        first, second = before.get(place), after.get(place)
        if first != second:
            yield Change(place, _format_value("", first), _format_value("", second))


def _places(alias: Alias) -> Iterator[str]:
    if alias.teams is None:
        yield f"aliases[{alias.name}]"
    for team in alias.teams or ():
        yield f"aliases[{alias.name}, {team}]"


def _diff_digest(place: str, old: TeamKey, new: TeamKey) -> Iterator[Change]:
    """Report a key whose secret changed while the config names the same variable."""
    if old.digest != new.digest and (old.sha256, old.key_env) == (new.sha256, new.key_env):
        yield Change(place, _CONCEALED, _CONCEALED)


def _diff_list(path: str, old: tuple[Any, ...], new: tuple[Any, ...]) -> Iterator[Change]:
    """Compare ordered lists, index by index."""
    for index in range(max(len(old), len(new))):
        first, second = (each[index] if index < len(each) else None for each in (old, new))
        place = f"{path}[{index}]"
        if first is None or second is None or type(first) is not type(second):
            yield Change(place, _format_value("", first), _format_value("", second))
        else:
            yield from _diff_value(place, "", first, second)


def _diff_secret(path: str, old: SecretStr | None, new: SecretStr | None) -> Iterator[Change]:
    if old != new:
        yield Change(path, _CONCEALED if old else _NOT_SET, _CONCEALED if new else _NOT_SET)


def _format_value(name: str, value: object) -> str:
    match value:
        case None:
            return _NOT_SET
        case _ if name in _HIDDEN:
            return _CONCEALED
        case BaseModel():
            # Settings that are not given are omitted.
            given = ((field, getattr(value, field)) for field in type(value).model_fields)
            parts = (f"{field} = {_format_value(field, each)}" for field, each in given if each not in (None, ()))
            return f"{{{', '.join(parts)}}}"
        case tuple():
            shown = [_format_value("", each) for each in value[:_LONGEST_LIST]]
            more = [f"and {len(value) - _LONGEST_LIST} more"] if len(value) > _LONGEST_LIST else []
            return f"[{', '.join((*shown, *more))}]"
        case bool() | int() | float() | str() | Decimal() | datetime():
            return quote(value)
        case _:
            return quote(str(value))
