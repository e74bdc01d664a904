"""What a reload would change: the differences between two configs, and which of them can count without a restart.

Lists of teams and keys are compared by name, so that a team that has moved in the file is the same team. What names a
secret, and what may hold one, is never shown: that it has changed is all there is to say.
"""

from collections.abc import Iterator, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any, Final, NamedTuple

from pydantic import BaseModel, SecretStr

from gateway.config import checks
from gateway.config.model import Config
from gateway.config.problems import NEVER_QUOTED, Problem, Report, quote
from gateway.config.teams import Team, TeamKey

RESTART: Final[Mapping[str, frozenset[str]]] = {
    "server": frozenset({"host", "port", "shutdown_grace_seconds", "drain_seconds"}),
    "ops": frozenset({"host", "port"}),
    "upstream": frozenset({"base_url", "trusted_hosts"}),
    "store": frozenset({"url", "password_env"}),
    "outputs": frozenset({"url", "persist", "max_bytes", "ttl_seconds"}),
    "logs": frozenset({"format"}),
    "tracing": frozenset({"enabled", "propagate"}),
}
"""What is built at the start and stays."""

LIVE: Final[Mapping[str, frozenset[str]]] = {
    "server": frozenset({"public_url", "trusted_proxies", "max_body_bytes", "max_upload_bytes", "max_spool_bytes"}),
    "ops": frozenset({"token_env", "token_file"}),
    "upstream": frozenset(
        {"token_env", "token_file", "creates_per_minute", "requests_per_minute", "adopt_wait_seconds", "webhooks"}
    ),
    "store": frozenset({"retain_days", "retain_data_seconds"}),
    "cache": frozenset(
        {
            "enabled",
            "share",
            "ttl_seconds",
            "max_bytes",
            "memory_bytes",
            "metadata_max_bytes",
            "random_seeds",
            "metadata_ttl_seconds",
            "rules",
        }
    ),
    "streams": frozenset(
        {"heartbeat_seconds", "ticket_ttl_seconds", "max_log_bytes", "kept_log_bytes", "max_per_team", "max_total"}
    ),
    "webhooks": frozenset({"allow_private_addresses", "allow_http", "max_attempts", "max_queued", "retain_dead_days"}),
    "prices": frozenset({"unknown", "default_hardware", "charge_failed", "models"}),
    "metrics": frozenset({"top_targets"}),
    "logs": frozenset({"level"}),
}
"""What counts at once. Teams, with all they have, do too."""

_SECRETS: Final = {"ops": "token", "upstream": "token", "store": "password"}
_ACCOUNT: Final = frozenset({"token_env", "token_file", "token"})
_HIDDEN: Final = NEVER_QUOTED | {"budget_webhook"}
_NOT_SET: Final = "not set"
_CONCEALED: Final = "(not shown)"
_LONGEST_LIST: Final = 8


class Change(NamedTuple):
    """One difference, as it may be told."""

    path: str
    old: str
    new: str
    needs_restart: bool = False


def diff(old: Config, new: Config) -> list[Change]:
    """Return all that is different, in the order of the sections."""
    return list(_of_config(old, new))


def effective(old: Config, new: Config) -> tuple[Config, list[Problem]]:
    """Return the new config with what needs a restart left as it is, and what is wrong with the two brought together.

    Each for itself may be right and both together not: an ops listener that stays open to others needs the token that
    the new config, whose listener is on loopback, leaves out.
    """
    sections = {}
    for section in RESTART:
        before, after = getattr(old, section), getattr(new, section)
        stays = _staying(section, old, new)
        if stays.issuperset(type(before).model_fields):
            sections[section] = before
            continue
        # What is the same is left alone: to a check, a value that is given may not be what a default is.
        kept = {name: getattr(before, name) for name in stays & type(before).model_fields.keys()}
        sections[section] = after.model_copy(
            update={name: value for name, value in kept.items() if value != getattr(after, name)}
        )
    password = old.store.password
    sections["store"] = sections["store"].with_password(password.get_secret_value() if password else None)
    if _moves(old, new):
        sections["upstream"] = sections["upstream"].with_token(old.upstream.token.get_secret_value())
    merged = new.model_copy(update=sections)
    report = Report()
    checks.compare(merged, report)
    return merged, report.problems(tuple(Config.model_fields))


def _staying(section: str, old: Config, new: Config) -> frozenset[str]:
    """Return what of a section stays as it is, secrets included."""
    names = RESTART.get(section, frozenset())
    if section == "store":
        return names | {"password"}
    return names | _ACCOUNT if section == "upstream" and _moves(old, new) else names


def _moves(old: Config, new: Config) -> bool:
    """Whether upstream is another one. Its token then waits with it: it is not for the one before."""
    return old.upstream.base_url != new.upstream.base_url


def _of_config(old: Config, new: Config) -> Iterator[Change]:
    for section in Config.model_fields:
        if section == "teams":
            yield from _of_named("teams", old.teams, new.teams)
            continue
        before, after = getattr(old, section), getattr(new, section)
        stays = _staying(section, old, new)
        for name in type(before).model_fields:
            for change in _of_value(f"{section}.{name}", name, getattr(before, name), getattr(after, name)):
                yield change._replace(needs_restart=name in stays)
        if (secret := _SECRETS.get(section)) is not None:
            found = _of_secret(f"{section}.{secret}", getattr(before, secret), getattr(after, secret))
            for change in found:
                yield change._replace(needs_restart=secret in stays)


def _of_value(path: str, name: str, old: Any, new: Any) -> Iterator[Change]:
    match old, new:
        case _ if old == new:
            return
        case (BaseModel(), BaseModel()):
            for field in type(old).model_fields:
                yield from _of_value(f"{path}.{field}", field, getattr(old, field), getattr(new, field))
        case (tuple(), tuple()) if any(isinstance(each, Team | TeamKey) for each in (*old, *new)):
            yield from _of_named(path, old, new)
        case (tuple(), tuple()) if any(isinstance(each, BaseModel) for each in (*old, *new)):
            yield from _of_listed(path, old, new)
        case _:
            yield Change(path, _shown(name, old), _shown(name, new))


def _of_named(path: str, old: tuple[Any, ...], new: tuple[Any, ...]) -> Iterator[Change]:
    """Compare teams, or keys. What a team that comes or goes has in it is not told."""
    before, after = {each.name: each for each in old}, {each.name: each for each in new}
    for name in dict.fromkeys((*before, *after)):
        place = f"{path}[{name}]"
        match before.get(name), after.get(name):
            case None, _:
                yield Change(place, _NOT_SET, "added")
            case _, None:
                yield Change(place, "removed", _NOT_SET)
            case first, second:
                assert first is not None
                assert second is not None
                yield from _of_value(place, name, first, second)
                if isinstance(first, TeamKey):
                    yield from _of_digest(place, first, second)


def _of_digest(place: str, old: TeamKey, new: TeamKey) -> Iterator[Change]:
    """Say that a key is another one, where its name in the config is the same."""
    if old.digest != new.digest and (old.sha256, old.key_env) == (new.sha256, new.key_env):
        yield Change(place, _CONCEALED, _CONCEALED)


def _of_listed(path: str, old: tuple[Any, ...], new: tuple[Any, ...]) -> Iterator[Change]:
    """Compare lists whose order counts, place by place."""
    for index in range(max(len(old), len(new))):
        first, second = (each[index] if index < len(each) else None for each in (old, new))
        place = f"{path}[{index}]"
        if first is None or second is None or type(first) is not type(second):
            yield Change(place, _shown("", first), _shown("", second))
        else:
            yield from _of_value(place, "", first, second)


def _of_secret(path: str, old: SecretStr | None, new: SecretStr | None) -> Iterator[Change]:
    if old != new:
        yield Change(path, _CONCEALED if old else _NOT_SET, _CONCEALED if new else _NOT_SET)


def _shown(name: str, value: object) -> str:
    match value:
        case None:
            return _NOT_SET
        case _ if name in _HIDDEN:
            return _CONCEALED
        case BaseModel():
            # What is not given needs no word.
            given = ((field, getattr(value, field)) for field in type(value).model_fields)
            parts = (f"{field} = {_shown(field, each)}" for field, each in given if each not in (None, ()))
            return f"{{{', '.join(parts)}}}"
        case tuple():
            shown = [_shown("", each) for each in value[:_LONGEST_LIST]]
            more = [f"and {len(value) - _LONGEST_LIST} more"] if len(value) > _LONGEST_LIST else []
            return f"[{', '.join((*shown, *more))}]"
        case bool() | int() | float() | str() | Decimal() | datetime():
            return quote(value)
        case _:
            return quote(str(value))
