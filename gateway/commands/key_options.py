"""Options of `gateway keys create` and `change`, as the request that the key service takes."""

# ruff: noqa: PLC0415 - heavy modules are imported where they are used
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

if TYPE_CHECKING:
    from gateway.access.rules.key_requests import KeyRequest
    from gateway.errors import InvalidField

CommandT = TypeVar("CommandT", bound=Callable[..., Any])

LIMITS: Final[Mapping[str, str]] = {
    "requests_per_minute": "Requests of any kind per minute.",
    "predictions_per_minute": "New predictions and trainings per minute.",
    "burst": "Bucket size of the rates.",
    "concurrent_predictions": "Predictions in progress at a time.",
    "seconds_per_day": "Seconds of upstream run time per day (UTC).",
    "seconds_per_month": "Seconds of upstream run time per month (UTC).",
    "budget_usd_per_day": "Dollars per day (UTC).",
    "budget_usd_per_month": "Dollars per month (UTC).",
}
"""The limits of a key, under the names of the config."""
_FIELDS: Final = {"expires": "expires_at", "scope": "scopes", "model": "models"}
"""Options whose fields have other names."""
_UNSET_AS: Final = {**_FIELDS, **{name.replace("_", "-"): name for name in LIMITS}}


_MODEL: Final = "Model that it may run, such as 'meta/*', or an alias; may be repeated. Default: all of the team's."
_OF_EACH: Final = "Limit of each {}, such as predictions_per_minute=6; may be repeated."


def key_options(command: CommandT) -> CommandT:
    """Add the options that say what a key may do."""
    options = [
        click.option("--expires", metavar="DURATION", help="Lifetime from now on, for example 90d."),
        click.option("--scope", "scopes", multiple=True, help="Scope; may be repeated. Default: all of the team's."),
        click.option("--model", "models", multiple=True, metavar="GLOB", help=_MODEL),
        click.option(
            "--origin", "origins", multiple=True, metavar="URL", help="Web origin that it works from; may be repeated."
        ),
        *(
            click.option(f"--{name.replace('_', '-')}", name, metavar="NUMBER", help=text)
            for name, text in LIMITS.items()
        ),
        click.option("--per-user", "per_user", multiple=True, metavar="LIMIT=NUMBER", help=_OF_EACH.format("user")),
        click.option(
            "--per-address", "per_address", multiple=True, metavar="LIMIT=NUMBER", help=_OF_EACH.format("IP address")
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def unset_option(command: CommandT) -> CommandT:
    """Add the option that takes restrictions away."""
    choices = click.Choice([*_UNSET_AS, "limits"])
    return click.option("--unset", multiple=True, type=choices, help="Take a restriction away; may be repeated.")(
        command
    )


def request_of(given: Mapping[str, Any], now: float, *, team: str | None = None) -> "KeyRequest":
    """Return the request that the options mean. Raise `BadParameter`."""
    import msgspec

    from gateway.access.rules.key_requests import KeyRequest
    from gateway.domain import times

    limits: dict[str, Any] = {name: _number(given[name]) for name in LIMITS if given.get(name) is not None}
    for name in ("per_user", "per_address"):
        if inner := _pairs(name, given.get(name, ())):
            limits[name] = inner
    body: dict[str, Any] = {name: list(given[name]) for name in ("scopes", "models", "origins") if given.get(name)}
    if team is not None:
        body["team"] = team
    if given.get("name"):
        body["name"] = given["name"]
    if given.get("expires") is not None:
        body["expires_at"] = times.render(now + duration("--expires", given["expires"]))
    for each in given.get("unset", ()):
        name = _UNSET_AS.get(each, each)
        if name in LIMITS:
            limits[name] = None
        else:
            body[name] = None
    if limits and body.get("limits", ...) is ...:
        body["limits"] = limits
    try:
        return msgspec.convert(body, KeyRequest, strict=False)
    except msgspec.ValidationError as problem:
        text, _, path = str(problem).partition(" - at `$.")
        raise click.BadParameter(text, param_hint=_option(path.rstrip("`"))) from None


def refused(fields: "Sequence[InvalidField]") -> click.ClickException:
    """Return what is wrong with a request, by its options."""
    first = fields[0]
    return click.BadParameter(first.description, param_hint=_option(first.field))


def duration(option: str, text: str) -> int:
    """Return the seconds of a duration. Raise `BadParameter`."""
    from gateway.commands.durations import parse_duration

    try:
        return parse_duration(text)
    except ValueError as problem:
        raise click.BadParameter(str(problem), param_hint=option) from None


def _option(field: str) -> str:
    """Return the option of a field, such as `limits.requests_per_minute`."""
    name = field.removeprefix("limits.").partition(".")[0].partition("[")[0]
    names = {long: short for short, long in _FIELDS.items()} | {"origins": "origin"}
    return f"--{names.get(name, name).replace('_', '-')}"


def _number(text: str) -> int | str:
    """Return whole numbers as such. The service reads fractions, and refuses what is none."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 20 else text


def _pairs(option: str, given: Iterable[str]) -> dict[str, int | str]:
    pairs: dict[str, int | str] = {}
    for each in given:
        name, equals, number = each.partition("=")
        name = name.replace("-", "_")
        if not equals or name not in LIMITS:
            raise click.BadParameter(
                f"{each}: expected LIMIT=NUMBER, where LIMIT is one of {', '.join(LIMITS)}",
                param_hint=f"--{option.replace('_', '-')}",
            )
        pairs[name] = _number(number)
    return pairs
