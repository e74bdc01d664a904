"""The gateway's own routes: tokens, estimates, explain, usage, limits, webhook secret, upstream webhooks, probes."""

from functools import partial

import msgspec
from aiohttp import web

from gateway.access.browser_tokens import TokenRequest
from gateway.domain import money, tags, times, windows
from gateway.domain.create_request import CreateCommand
from gateway.domain.ledger import By, Grouping
from gateway.domain.records import Kind
from gateway.domain.windows import Window
from gateway.errors import Unprocessable
from gateway.http import aliases, base_url, request_limits
from gateway.http.aliases import CreateRoute
from gateway.http.handlers.creates import read_create, read_directives
from gateway.http.json_body import read_body
from gateway.http.keys import (
    CALLER,
    CLOCK,
    ESTIMATES,
    EXPLAIN,
    HEALTH,
    TOKENS,
    UPSTREAM_LIMITER,
    UPSTREAM_WEBHOOKS,
    USAGE,
    WEBHOOK_SECRETS,
)
from gateway.http.openapi import public
from gateway.http.ops.answers import csv_text_answer, wants_csv
from gateway.http.request_body import read, read_json, require_json
from gateway.http.request_tags import tags_of
from gateway.money.rules import usage_table
from gateway.runtime.pauses import off_the_loop
from gateway.throttling.upstream_limiter import state_shown

_JSON = "application/json"
_GROUPINGS = (By.DAY, By.KEY, By.MODEL, By.USER, By.TAG)
"""Values of `by` that a team may use; it only sees its own usage, so `team` is not among them."""


async def mint_token(request: web.Request) -> web.Response:
    """Handle `POST /gateway/tokens`: mint a short-lived browser token with some of the key's permissions."""
    token_request = await read_body(request, TokenRequest)
    minted = request.app[TOKENS].mint(request[CALLER], token_request)
    answer = {
        "token": minted.token,
        "expires_at": times.render(minted.expires_at),
        "team": minted.team,
        "scopes": minted.scopes,
        "origins": minted.origins,
        "tags": tags.mapping(minted.tags),
    }
    return web.Response(status=201, body=msgspec.json.encode(answer), content_type=_JSON)


async def estimate(request: web.Request) -> web.Response:
    """Handle `POST /gateway/estimate`: predict how a create would be handled, without creating anything."""
    require_json(request)
    directives = read_directives(request)
    given = await read_json(request)
    body = await off_the_loop(given, partial(read_create, request, given, "version"))
    assert body.target is not None
    given_route = CreateRoute("predictions.create", "/predictions", body.target, body)
    route = aliases.route_create(request, Kind.PREDICTION, given_route)
    command = CreateCommand(
        kind=Kind.PREDICTION,
        operation=route.operation,
        path=route.path,
        target=route.target,
        body=route.body,
        named_by=route.named_by,
        user=None if request[CALLER].is_public else request_limits.user_of(request),
        tags=tags_of(request, request[CALLER]),
        address=request_limits.address_of(request) if request[CALLER].is_public else None,
        own_origins=base_url.own_origins(request),
        directives=directives,
    )
    result = await request.app[ESTIMATES].estimate(request[CALLER], command)
    answer = msgspec.to_builtins(result)
    microusd = answer.pop("microusd")
    answer |= {"estimate_usd": None if microusd is None else money.usd(microusd), "estimate_microusd": microusd}
    answer["gateway_limits"] = await _limits(request)
    return web.Response(body=msgspec.json.encode(answer), content_type=_JSON)


async def get_usage(request: web.Request) -> web.Response:
    """Handle `GET /gateway/usage?from=&to=&by=`: the usage of the caller's team, by day unless `by` says otherwise,
    as JSON or CSV.

    Without `from` and `to`: this month so far, in UTC.
    """
    today = windows.day_of(request.app[CLOCK].now())
    since = read_day("from", request.query.get("from"), windows.first_day(Window.MONTH, today))
    until = read_day("to", request.query.get("to"), max(since, today))
    if until < since:
        raise Unprocessable.field("to", "to must not be before from")
    try:
        grouping = Grouping.parse(request.query.get("by", By.DAY))
    except ValueError:
        grouping = Grouping(By.TEAM)
    if grouping.by not in _GROUPINGS:
        raise Unprocessable.field("by", f"by must be one of {', '.join(_GROUPINGS)}:<key>", "enum")
    answer = await request.app[USAGE].usage(request[CALLER].team.name, grouping, since, until)
    if wants_csv(request):
        return csv_text_answer(usage_table.csv(answer, str(grouping)))
    return web.Response(body=msgspec.json.encode(answer), content_type=_JSON)


def read_day(name: str, text: str | None, default: int) -> int:
    """Read a day of a query, or the UTC day of a time. Raise `Unprocessable` for anything else."""
    if text is None:
        return default
    try:
        day = windows.day_of(times.parse(text))
        # Near year 1 or 9999, conversion to UTC may leave the range of dates.
        windows.text_of(day)
    except (ValueError, OverflowError):
        message = f"{name} must be a UTC day (for example: 2026-01-31) or a time"
        raise Unprocessable.field(name, message) from None
    return day


async def get_limits(request: web.Request) -> web.Response:
    """Handle `GET /gateway/limits`: the limits that apply to the caller, and their usage."""
    return web.Response(body=msgspec.json.encode({"limits": await _limits(request)}), content_type=_JSON)


async def _limits(request: web.Request) -> list[dict[str, object]]:
    caller = request[CALLER]
    user = caller.user if caller.is_public else caller.user or request_limits.user_of(request)
    address = request_limits.address_of(request) if caller.is_public else None
    run_limits = await request.app[USAGE].limits(caller, user, address, tags_of(request, caller))
    # The account's rates describe all teams; a web page sees what concerns its own user.
    of_account = () if caller.is_public else map(state_shown, request.app[UPSTREAM_LIMITER].states())
    return [*request_limits.limits(request), *run_limits, *of_account]


async def get_webhook_secret(request: web.Request) -> web.Response:
    """Handle `GET /webhooks/default/secret`: return the team's secret, never the account's."""
    key = await request.app[WEBHOOK_SECRETS].of(request[CALLER].team.name)
    return web.Response(body=msgspec.json.encode({"key": key}), content_type=_JSON)


async def take_upstream_webhook(request: web.Request) -> web.Response:
    """Handle `POST /gateway/webhooks/…`, by which upstream reports the state of a run.

    204 if the signature is valid, 401 if not. Raise `NotFound` for an address that the gateway did not issue.
    """
    headers = {name.lower(): value for name, value in request.headers.items()}
    run_id, webhooks = request.match_info["run_id"], request.app[UPSTREAM_WEBHOOKS]
    webhooks.check(run_id, request.match_info["proof"])
    is_signed = await webhooks.take(run_id, headers, await read(request))
    return web.Response(status=204 if is_signed else 401)


async def show_description(_: web.Request) -> web.Response:
    """Handle `GET /openapi.json`: the description of the gateway's own routes. Replicate's are not in it."""
    return web.Response(body=public.body(), content_type=_JSON)


async def healthz(_: web.Request) -> web.Response:
    """Handle `GET /healthz`: liveness, 200 while the event loop runs."""
    return web.Response(body=b'{"status":"ok"}', content_type=_JSON)


async def readyz(request: web.Request) -> web.Response:
    """`GET /readyz`: 503 if this process cannot serve; 200 and `degraded` if something else is wrong."""
    report = await request.app[HEALTH].report()
    status = 200 if report.ready else 503
    body = msgspec.json.encode({"status": report.status, "checks": report.checks})
    return web.Response(status=status, body=body, content_type=_JSON)


async def explain_prediction(request: web.Request) -> web.Response:
    """Handle `GET /gateway/explain/{id}`, for predictions and trainings of the caller's team."""
    answer = await request.app[EXPLAIN].explain(request[CALLER], request.match_info["id"])
    return web.Response(body=msgspec.json.encode(answer), content_type=_JSON)
