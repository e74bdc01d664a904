"""The pages of the console that manage keys and show the audit log. See docs/dashboard.md.

Operators manage the keys of all teams, a key with the scope `keys` those of its own team within its own rights, and the
lead of a team those of the team: the same service as behind `/admin/keys` and `/gateway/keys` decides.
"""

from collections.abc import Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any, Final

import msgspec
from aiohttp import web

from gateway.access.key_service import Authority
from gateway.access.rules.grants import NEVER_GRANTED
from gateway.access.rules.key_requests import AllowanceRequest, KeyRequest, invalid_fields
from gateway.access.sessions import Viewer
from gateway.domain.audit import Action, AuditFilter, by_key
from gateway.domain.scopes import Scope
from gateway.domain.teams import Caller
from gateway.errors import Conflict, GatewayError, InvalidField, Unprocessable
from gateway.http import errors
from gateway.http.json_body import read_cursor, write_cursor
from gateway.http.keys import CLOCK, KEY_SERVICE, STORE, TEAMS
from gateway.http.ops.audit import place_of
from gateway.http.ops.dashboard_access import PATH, Visit, for_visitors, next_page, read_form
from gateway.operations.rules import audit_rows

_PAGE: Final = 100
_OVERLAP_SECONDS: Final = 3600.0
_LIMITS: Final = (
    "requests_per_minute",
    "predictions_per_minute",
    "concurrent_predictions",
    "budget_usd_per_day",
    "budget_usd_per_month",
)
_DOLLARS: Final = "budget_usd"

Fields = Mapping[str, Sequence[str]]


def add_routes(app: web.Application) -> None:
    """Register the pages."""
    app.router.add_get(f"{PATH}/keys", list_keys)
    app.router.add_post(f"{PATH}/keys/create", create_key)
    app.router.add_post(f"{PATH}/keys/rotate", rotate_key)
    app.router.add_post(f"{PATH}/keys/revoke", revoke_key)
    app.router.add_get(f"{PATH}/audit", show_audit)


@for_visitors
async def list_keys(visit: Visit) -> web.Response:
    """Handle `GET /dashboard/keys`: the keys, newest first, and the form for a new one."""
    visit.require_manager()
    return await _keys_page(visit)


@for_visitors
async def create_key(visit: Visit) -> web.Response:
    """Handle `POST /dashboard/keys/create`. The page that answers shows the secret, once."""
    fields = await read_form(visit.request)
    visit.require_manager()
    now = visit.request.app[CLOCK].now()
    try:
        made = await visit.request.app[KEY_SERVICE].create(_authority(visit), _request_of(fields, visit.team, now))
    except (Unprocessable, Conflict) as exc:
        return await _keys_page(visit, status=errors.status_of(exc), problem=exc, fields=fields)
    return await visit.page("key", entry="keys", made=made, replaced=None)


@for_visitors
async def rotate_key(visit: Visit) -> web.Response:
    """Handle `POST /dashboard/keys/rotate`. The old key works for another hour."""
    fields = await read_form(visit.request)
    visit.require_manager()
    service, key_id = visit.request.app[KEY_SERVICE], _text(fields, "id")
    made, replaced = await service.rotate(_authority(visit), key_id, _OVERLAP_SECONDS)
    return await visit.page("key", entry="keys", made=made, replaced=replaced)


@for_visitors
async def revoke_key(visit: Visit) -> web.Response:
    """Handle `POST /dashboard/keys/revoke`. The page that answers says how many valid keys were created with it."""
    fields = await read_form(visit.request)
    visit.require_manager()
    revoked = await visit.request.app[KEY_SERVICE].revoke(_authority(visit), _text(fields, "id"))
    return await visit.page("revoked", entry="keys", revoked=revoked, creator=by_key(revoked.id))


@for_visitors
async def show_audit(visit: Visit) -> web.Response:
    """Handle `GET /dashboard/audit`: who changed what, the newest first."""
    visit.require_manager()
    request = visit.request
    query = {name: request.query.get(name, "").strip() for name in ("team", "actor", "action", "subject")}
    which = AuditFilter(
        team=visit.team or query["team"] or None,
        actor=query["actor"] or None,
        action=query["action"] or None,
        subject=query["subject"] or None,
    )
    place = place_of(request.query.get("cursor"))
    found = await request.app[STORE].audit_entries(which, limit=_PAGE, older_than=place)
    last = found.entries[-1] if found.has_more else None
    cursor = write_cursor(None if last is None else (last.at, str(last.id)))
    rows = audit_rows.page_of(found, None).results
    return await visit.page(
        "audit",
        rows=rows,
        names=await request.app[KEY_SERVICE].names_of([row.actor for row in rows], visit.team),
        asked=query,
        actions=list(Action),
        next_url=next_page(request, cursor),
    )


async def _keys_page(
    visit: Visit, *, status: int = 200, problem: GatewayError | None = None, fields: Fields | None = None
) -> web.Response:
    request = visit.request
    creator = request.query.get("created_by", "").strip()
    found = await request.app[KEY_SERVICE].list(
        team=visit.team,
        created_by=creator or None,
        limit=_PAGE,
        older_than=read_cursor(request.query.get("cursor")),
    )
    cursor = write_cursor(found.next)
    offered = [scope for scope in Scope if visit.caller is None or scope in _grantable(visit.caller, visit.viewer)]
    return await visit.page(
        "keys",
        status=status,
        rows=found.keys,
        names=await request.app[KEY_SERVICE].names_of([row.created_by or "" for row in found.keys], visit.team),
        creator=creator,
        teams=[] if visit.team else [each.name for each in (await request.app[TEAMS].list()).results],
        scopes=offered,
        limits=_LIMITS,
        given={name: ", ".join(values) for name, values in (fields or {}).items()},
        given_scopes=(fields or {}).get("scopes", []),
        problems=_problems(problem),
        next_url=next_page(request, cursor),
    )


def _grantable(caller: Caller, viewer: Viewer) -> frozenset[Scope]:
    return (caller.team.scopes if viewer.leads_team else caller.scopes) - NEVER_GRANTED


def _problems(problem: GatewayError | None) -> list[str]:
    if problem is None:
        return []
    if isinstance(problem, Unprocessable):
        return [f"{each.field}: {each.description}" for each in problem.fields]
    return [problem.detail]


def _authority(visit: Visit) -> Authority:
    return Authority(actor=visit.actor, caller=visit.caller, is_lead=visit.viewer.leads_team)


def _request_of(fields: Fields, team: str | None, now: float) -> KeyRequest:
    """Return what a form asks for. Empty fields are left out. Raise `Unprocessable` with all that is wrong in it."""
    given: dict[str, Any] = {"team": team or _text(fields, "team")}
    if name := _text(fields, "name"):
        given["name"] = name
    if scopes := fields.get("scopes"):
        given["scopes"] = tuple(scopes)
    for name in ("models", "origins"):
        if listed := _text(fields, name).replace(",", " ").split():
            given[name] = tuple(listed)
    if expires := _text(fields, "expires_at"):
        given["expires_at"] = expires
    limits: dict[str, Decimal | int] = {}
    problems: list[InvalidField] = []
    for name in _LIMITS:
        if text := _text(fields, name):
            try:
                limits[name] = _limit(name, text)
            except ValueError as exc:
                problems.append(InvalidField("invalid_value", f"limits.{name}", str(exc)))
    if limits:
        given["limits"] = msgspec.convert(limits, AllowanceRequest)
    request = KeyRequest(**given)
    if problems:
        raise Unprocessable([*invalid_fields(request, now), *problems])
    return request


def _limit(name: str, text: str) -> Decimal | int:
    """Return the value of a limit. Raise `ValueError`."""
    kind: type[Decimal] | type[int] = Decimal if name.startswith(_DOLLARS) else int
    try:
        found = kind(text)
    except (InvalidOperation, ValueError):
        raise ValueError("expected a number") from None
    try:
        msgspec.convert({name: found}, AllowanceRequest)
    except msgspec.ValidationError as exc:
        raise ValueError(str(exc)) from None
    return found


def _text(fields: Fields, name: str) -> str:
    return "".join(fields.get(name, [])).strip()
