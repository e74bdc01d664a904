"""What is asked of a key that is created or changed, and its form: the body of `/admin/keys` and `/gateway/keys`.

Limits have the names of the config. `null` takes a restriction away; what is left out stays as it is.
"""

import re
from collections.abc import Iterable, Iterator
from decimal import Decimal
from typing import Annotated, Final

import msgspec
from msgspec import UNSET, UnsetType
from msgspec.structs import replace

from gateway.domain import scopes as scoping
from gateway.domain import times
from gateway.domain.limits import NO_LIMITS, UNLIMITED, Allowance, Limits
from gateway.domain.money import MOST_USD, exact_microusd
from gateway.domain.scopes import Scope
from gateway.errors import InvalidField

NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._@-]{0,63}")
MOST_TEXT: Final = 4096
"""Characters of all patterns, or of all origins, of a key. A page can have a thousand keys."""
_LONGEST_SHOWN: Final = 100
_MOST: Final = 2**53 - 1

Texts = Annotated[tuple[str, ...], msgspec.Meta(max_length=1000)]
Patterns = Annotated[tuple[str, ...], msgspec.Meta(max_length=scoping.MOST_PATTERNS)]
Text = Annotated[str, msgspec.Meta(max_length=300)]
Count = Annotated[int, msgspec.Meta(ge=1, le=_MOST)]
Seconds = Annotated[float, msgspec.Meta(gt=0, le=10**10)]
# Not a float: an amount with more digits than one has would be rounded silently.
Dollars = Annotated[Decimal, msgspec.Meta(extra_json_schema={"type": ["number", "string"]})]


class LimitsRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Limits to set, or with `null` to take away."""

    requests_per_minute: Count | UnsetType | None = UNSET
    predictions_per_minute: Count | UnsetType | None = UNSET
    burst: Count | UnsetType | None = UNSET
    concurrent_predictions: Count | UnsetType | None = UNSET
    seconds_per_day: Seconds | UnsetType | None = UNSET
    seconds_per_month: Seconds | UnsetType | None = UNSET
    budget_usd_per_day: Dollars | UnsetType | None = UNSET
    budget_usd_per_month: Dollars | UnsetType | None = UNSET


class AllowanceRequest(LimitsRequest, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Limits of a key, and of each of its users and addresses."""

    per_user: LimitsRequest | UnsetType | None = UNSET
    per_address: LimitsRequest | UnsetType | None = UNSET


class KeyRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a key shall be."""

    team: Text | UnsetType = UNSET
    """The team of a new key. It never changes."""
    name: Text | UnsetType = UNSET
    scopes: Texts | UnsetType | None = UNSET
    models: Patterns | UnsetType | None = UNSET
    origins: Texts | UnsetType | None = UNSET
    expires_at: Text | UnsetType | None = UNSET
    limits: AllowanceRequest | UnsetType | None = UNSET


class RotateRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a key is rotated."""

    overlap_seconds: Annotated[float, msgspec.Meta(ge=0, le=30 * 86_400)] = 3600.0
    """How long the old key still works."""


def invalid_fields(request: KeyRequest, now: float) -> list[InvalidField]:
    """Return what is wrong with the form of a request, whoever makes it."""
    return [InvalidField("invalid_value", field, reason) for field, reason in _invalid(request, now)]


def _invalid(request: KeyRequest, now: float) -> Iterator[tuple[str, str]]:
    if request.name is not UNSET and not NAME.fullmatch(request.name):
        yield "name", "name must be 1 to 64 letters, digits, spaces or . _ @ -"
    for field, listed in (("scopes", request.scopes), ("models", request.models), ("origins", request.origins)):
        if listed == ():
            yield field, f"{field} must not be empty: leave it out, or pass null for no restriction"
    for field, listed in (("models", request.models), ("origins", request.origins)):
        if listed and sum(map(len, listed)) > MOST_TEXT:
            yield field, f"{field} must have at most {MOST_TEXT} characters in all"
    unknown = [scope for scope in request.scopes or () if scope not in frozenset(Scope)]
    if unknown:
        yield "scopes", f"{_shown(unknown)}: the scopes are {', '.join(Scope)}"
    wrong = [pattern for pattern in request.models or () if not scoping.is_asked_pattern(pattern)]
    if wrong:
        yield "models", f"{_shown(wrong)}: expected {scoping.ASKED_PATTERN_FORM}"
    if request.models and len(request.models) > scoping.MOST_PATTERNS:
        yield "models", f"models must have at most {scoping.MOST_PATTERNS} patterns"
    for origin in request.origins or ():
        try:
            scoping.normal_origin(origin[: _LONGEST_SHOWN * 3])
        except ValueError as problem:
            yield "origins", f"{_shown([origin])}: {problem}"
    yield from _invalid_expiry(request.expires_at, now)
    if request.limits:
        yield from _invalid_limits(request.limits, "limits")


def _invalid_expiry(text: str | UnsetType | None, now: float) -> Iterator[tuple[str, str]]:
    if text is None or text is UNSET:
        return
    try:
        expires_at = times.parse(text)
    except (ValueError, OverflowError):
        yield "expires_at", "expires_at must be a time (for example: 2030-01-31T12:00:00Z)"
        return
    if expires_at <= now:
        yield "expires_at", "expires_at must be in the future"


def _invalid_limits(request: LimitsRequest, path: str) -> Iterator[tuple[str, str]]:
    for name in ("budget_usd_per_day", "budget_usd_per_month"):
        dollars = getattr(request, name)
        if isinstance(dollars, Decimal):
            try:
                is_positive = exact_microusd(dollars) > 0
            except ValueError as problem:
                yield f"{path}.{name}", str(problem)
            except ArithmeticError:
                # An exponent beyond those of decimals.
                yield f"{path}.{name}", f"expected at most {MOST_USD}"
            else:
                if not is_positive:
                    yield f"{path}.{name}", "expected a number above 0"
    if isinstance(request, AllowanceRequest):
        for name in ("per_user", "per_address"):
            if inner := getattr(request, name):
                yield from _invalid_limits(inner, f"{path}.{name}")


def allowance_of(request: AllowanceRequest | UnsetType | None, known: Allowance | None) -> Allowance | None:
    """Return the limits of a key that had `known`, with those of a valid request. `None` if there are none."""
    before = known or NO_LIMITS
    match request:
        case UnsetType():
            after = before
        case None:
            after = NO_LIMITS
        case _:
            after = Allowance(
                own=limits_of(request, before.own),
                per_user=_inner(request.per_user, before.per_user),
                per_address=_inner(request.per_address, before.per_address),
            )
    return None if after == NO_LIMITS else after


def _inner(request: LimitsRequest | UnsetType | None, known: Limits) -> Limits:
    match request:
        case UnsetType():
            return known
        case None:
            return UNLIMITED
        case _:
            return limits_of(request, known)


def limits_of(request: LimitsRequest, known: Limits) -> Limits:
    """Return limits with those of a valid request."""
    given = {name: getattr(request, name) for name in LimitsRequest.__struct_fields__}
    return replace(
        known,
        **{
            name.replace("budget_usd", "microusd"): exact_microusd(value) if isinstance(value, Decimal) else value
            for name, value in given.items()
            if value is not UNSET
        },
    )


def _shown(texts: Iterable[str]) -> str:
    """Return the beginnings of a few texts of a request, which can be as long as a body."""
    listed = list(texts)
    more = ", …" if len(listed) > 3 else ""
    return ", ".join(text[:_LONGEST_SHOWN] for text in listed[:3]) + more
