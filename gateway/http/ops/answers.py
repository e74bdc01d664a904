"""What the routes of `/admin` share: reading a query into a struct, and answers as CSV."""

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Final, TypeVar

import msgspec
import msgspec.inspect
from aiohttp import web

from gateway.access.sessions import Viewer
from gateway.domain import csv_text, times
from gateway.domain.audit import BY_API, Actor
from gateway.errors import Unprocessable
from gateway.http import base_url
from gateway.http.json_body import HEADERS

VIEWER = web.RequestKey("viewer", Viewer)
"""Whose session a request has, if it has no other permission."""
QueryT = TypeVar("QueryT", bound=msgspec.Struct)
_JSON: Final = "application/json"
CSV: Final = "text/csv"
_UNKNOWN_FIELD: Final = "Object contains unknown field "
_LONGEST_SHOWN: Final = 500
"""Characters of a request's text in a message."""


def read_query(request: web.Request, kind: type[QueryT]) -> QueryT:
    """Return the query as a struct, which refuses unknown names. Raise `Unprocessable`.

    An empty value is refused too: a script whose variable is not set must not select everything.
    """
    given: dict[str, str] = {}
    for name, value in request.query.items():
        if not value or name in given:
            shown = name[:_LONGEST_SHOWN]
            raise Unprocessable.field(shown, f"{shown} must be given once, and not be empty")
        given[name] = value
    try:
        return msgspec.convert(given, kind, strict=False)
    except msgspec.ValidationError as exc:
        field, text = _explained(exc, kind)
        raise Unprocessable.field(field[:_LONGEST_SHOWN], text[:_LONGEST_SHOWN]) from exc


def _explained(problem: msgspec.ValidationError, kind: type[msgspec.Struct]) -> tuple[str, str]:
    """Return the parameter that is wrong, and in words why."""
    text, fields = str(problem), msgspec.structs.fields(kind)
    if text.startswith(_UNKNOWN_FIELD):
        name = text.removeprefix(_UNKNOWN_FIELD).strip("` ")
        return name, f"{name} is no parameter; the parameters are {', '.join(each.encode_name for each in fields)}"
    field = field_of(problem)
    known = next((each for each in fields if each.encode_name == field), None)
    if known is not None and (values := _values_of(msgspec.inspect.type_info(known.type))):
        return field, f"{field} must be one of {', '.join(values)}"
    return field, text


def _values_of(kind: msgspec.inspect.Type) -> list[str]:
    """Return the values of an enumeration; empty for other types."""
    match kind:
        case msgspec.inspect.EnumType(cls=cls):
            return [str(each.value) for each in cls]
        case msgspec.inspect.LiteralType(values=values):
            return [str(each) for each in values]
        case msgspec.inspect.UnionType(types=types):
            return [value for each in types for value in _values_of(each)]
        case _:
            return []


def field_of(problem: msgspec.ValidationError) -> str:
    """Return the field that a problem names; `""` if it names none."""
    _, found, rest = str(problem).rpartition("`$.")
    return rest.partition("`")[0] if found else ""


def read_time(name: str, text: str | None) -> float | None:
    """Read a time of a query, or a day, which means its midnight (UTC). Raise `Unprocessable`."""
    try:
        return None if text is None else times.parse(text)
    except (ValueError, OverflowError):
        message = f"{name} must be a time (for example: 2026-01-31T12:00:00Z) or a UTC day (2026-01-31)"
        raise Unprocessable.field(name, message) from None


def actor_of(request: web.Request) -> Actor:
    """Return who makes a change below `/admin`: a script with the token, or a signed-in operator."""
    viewer = request.get(VIEWER)
    return BY_API if viewer is None else viewer.actor


def next_url(request: web.Request, cursor: str | None) -> str | None:
    """Return the address of the page after this one, as in Replicate's lists; `None` at the end."""
    return None if cursor is None else base_url.ops_origin(request) + str(request.rel_url.update_query(cursor=cursor))


def csv_answer(columns: Sequence[str], rows: Iterable[Sequence[object]], next_url: str | None = None) -> web.Response:
    """Return an answer as CSV. `next_url`, of the next page, is in the header `Link` (RFC 8288)."""
    link = {} if next_url is None else {"Link": f'<{next_url}>; rel="next"'}
    return csv_text_answer(csv_text.write(columns, rows), link)


def csv_text_answer(text: str, headers: Mapping[str, str] = MappingProxyType({})) -> web.Response:
    """Return a table that is written already."""
    return web.Response(text=text, content_type=CSV, charset="utf-8", headers={**HEADERS, **headers})


def wants_csv(request: web.Request) -> bool:
    """Return whether a request prefers CSV to JSON, which is the default (RFC 9110, 12.5.1)."""
    wanted = {CSV: 0.0, _JSON: 0.0}
    for part in request.headers.get("Accept", "").lower().split(","):
        media_type, *parameters = (each.strip() for each in part.split(";"))
        if media_type in wanted:
            wanted[media_type] = _quality(parameters)
    return wanted[CSV] > wanted[_JSON]


def _quality(parameters: Iterable[str]) -> float:
    for each in parameters:
        name, _, value = each.partition("=")
        if name.strip() == "q":
            try:
                return float(value)
            except ValueError:
                return 0.0
    return 1.0
