"""Create predictions (by version, official model or deployment) and trainings."""

import time
from collections.abc import Awaitable
from functools import partial
from http import HTTPStatus

from aiohttp import web
from msgspec.structs import replace

from gateway.domain import cache_directives, documents, tags
from gateway.domain.cache_directives import Directives
from gateway.domain.create_body import BodyForm, CreateBody, parse_create
from gateway.domain.create_request import CreateCommand, Created
from gateway.domain.records import LARGE_DOCUMENT, Kind, PredictionView, Source
from gateway.domain.targets import Target, TargetKind
from gateway.domain.upstream_response import Answer
from gateway.errors import Forbidden, GatewayError, Overloaded, RateLimited, Unprocessable
from gateway.http import access_log, aliases, base_url, errors, request_limits, response, response_body
from gateway.http.aliases import CreateRoute
from gateway.http.keys import (
    BODY_BYTES,
    CALLER,
    CREATES,
    HOLD,
    OVERHEAD,
    PREDICTIONS,
    REQUEST_ID,
    RESPONSE_MEMORY,
    RUN_SECONDS,
    SETTINGS,
    TRACER,
    UPSTREAM_SECONDS,
    VIEW,
)
from gateway.http.large_predictions import take_room
from gateway.http.prefer import parse_cancel_after, parse_prefer
from gateway.http.request import Request
from gateway.http.request_body import read_json, release
from gateway.http.request_tags import tags_of
from gateway.http.response_memory import SMALL_RESPONSE
from gateway.runtime.pauses import LARGE, off_the_loop

JSON = "application/json"
_SPAN_NAMES = {"hit": "hit", "joined": "join"}
"""Span name for each cache result; all others are named `create`."""
_PYPI_REPLICATE_1 = "replicate-python/"
"""Start of the User-Agent of PyPI `replicate` 1.x."""
_MAX_IDEMPOTENCY_KEY = 255


def create_prediction(request: Request) -> Awaitable[web.StreamResponse]:
    """Handle `POST /predictions`. The body's `version` names the target."""
    return _create(request, Kind.PREDICTION, "predictions.create", "/predictions", "version", None)


def create_model_prediction(request: Request) -> Awaitable[web.StreamResponse]:
    """Handle `POST /models/{owner}/{name}/predictions`, for official models."""
    model = _model(request)
    target = Target(TargetKind.MODEL, model)
    path = f"/models/{model}/predictions"
    return _create(request, Kind.PREDICTION, "models.predictions.create", path, "target", target)


def create_deployment_prediction(request: Request) -> Awaitable[web.StreamResponse]:
    """Handle `POST /deployments/{owner}/{name}/predictions`."""
    name = _model(request)
    target = Target(TargetKind.DEPLOYMENT, name)
    path = f"/deployments/{name}/predictions"
    return _create(request, Kind.PREDICTION, "deployments.predictions.create", path, "target", target)


def create_training(request: Request) -> Awaitable[web.StreamResponse]:
    """Handle `POST /models/{owner}/{name}/versions/{version}/trainings`."""
    model, version = _model(request), request.match_info["version"]
    target = Target(TargetKind.VERSION, model, version)
    path = f"/models/{model}/versions/{version}/trainings"
    return _create(request, Kind.TRAINING, "trainings.create", path, "training", target)


def _model(request: web.Request) -> str:
    return f"{request.match_info['owner']}/{request.match_info['name']}"


async def _create(
    request: Request, kind: Kind, operation: str, path: str, form: BodyForm, target: Target | None
) -> web.StreamResponse:
    state = request.state
    caller = state[CALLER]
    wait = cancel_after = None
    if kind is Kind.PREDICTION:
        if "Prefer" in request.headers:
            wait = parse_prefer(request.headers.getall("Prefer"))
        if "Cancel-After" in request.headers:
            cancel_after = _cancel_after(request)
    # A page can name neither its user nor its tags: the headers are ignored.
    user = None if caller.is_public else request_limits.user_of(request)
    tagged = tags_of(request, caller) if tags.HEADER in request.headers else caller.tags
    directives = read_directives(request)
    idempotency_key = _idempotency_key(request)
    base, own_origins = base_url.addresses_of(request)
    given = await read_json(request)
    if len(given) > SMALL_RESPONSE:
        # Its response repeats the input, and is always given once there is a prediction.
        request.app[RESPONSE_MEMORY].check_creates(caller.team.name)
    parse = partial(read_create, request, given, form)
    body = parse() if len(given) <= LARGE else await off_the_loop(given, parse)
    del given, parse
    if body.webhook is not None and caller.is_public and not caller.team.public_webhooks:
        raise Forbidden("Web pages cannot set webhook unless their team has public_webhooks = true.")
    target = target or body.target
    assert target is not None
    route = aliases.route_create(request, kind, CreateRoute(operation, path, target, body))
    command = CreateCommand(
        kind=kind,
        operation=route.operation,
        path=route.path,
        target=route.target,
        body=route.body,
        named_by=route.named_by,
        cancel_after=cancel_after,
        cancel_after_header=request.headers.get("Cancel-After"),
        user=user,
        tags=tagged,
        address=request_limits.address_of(request) if caller.is_public else None,
        request_id=state[REQUEST_ID],
        own_origins=own_origins,
        directives=directives,
        idempotency_key=idempotency_key,
        hold_until=state[request_limits.HOLD_UNTIL],
        has_left=partial(request_limits.has_left, request),
        add_departure_listener=partial(request_limits.add_departure_listener, request),
        hold=state[HOLD],
    )
    outcome = await _create_traced(request, command)
    # The wait for the run's end does not hold what the run was created from.
    if BODY_BYTES in state:
        release(request)
    wanted = f"{command.target.kind} {command.target.name}"
    del body, route, command
    if isinstance(outcome, Answer):
        return errors.pass_on_create(outcome, wanted, state[REQUEST_ID])
    if len(outcome.view.run.document) > LARGE_DOCUMENT:
        # Nor does it hold what upstream answered.
        outcome = replace(outcome, view=outcome.view.without_document(), answer=None)
    return await _respond(request, outcome, base, wait)


def read_create(request: web.Request, body: bytes, form: BodyForm) -> CreateBody:
    """Parse the body of a create. Raise `BadRequest`, or `Unprocessable` with the invalid fields."""
    settings = request.app[SETTINGS].value
    return parse_create(
        body,
        form,
        allow_http_webhooks=settings.allow_http_webhooks,
        allow_private_webhooks=settings.allow_private_webhooks,
    )


async def _create_traced(request: Request, command: CreateCommand) -> Created | Answer:
    """Create in a span that records the outcome: the cache result, upstream's error status, or the error's class."""
    with request.app[TRACER].step("create") as span:
        try:
            outcome = await request.app[CREATES].create(request.state[CALLER], command)
        except GatewayError as exc:
            span.end_as("create", {"error.type": type(exc).__name__})
            raise
        if isinstance(outcome, Answer):
            span.end_as("create", {"error.type": str(outcome.status)})
        else:
            result = access_log.result_of(outcome.cache_status) or "miss"
            span.end_as(_SPAN_NAMES.get(result, "create"), {"gateway.cache": result})
        return outcome


async def _respond(request: Request, created: Created, base: str, wait: float | None) -> web.StreamResponse:
    service, view, state = request.app[PREDICTIONS], created.view, request.state
    state[VIEW], state[UPSTREAM_SECONDS] = view, created.upstream_seconds
    if view.prediction.source is Source.HIT:
        state[OVERHEAD] = "hit"
    status = HTTPStatus.CREATED
    if wait is not None:
        # `Prefer: wait` counts from the request's arrival, so it includes time in the queue and the upstream create.
        began = time.perf_counter()
        view = await service.wait(view, max(0.0, wait - request_limits.seconds_since_arrival(request)))
        state[RUN_SECONDS] = time.perf_counter() - began
        if not documents.shown_status(view).is_terminal:
            # The run is not finished: "created, not all outputs ready" (docs/replicate-api.md, Sync mode).
            status = HTTPStatus.ACCEPTED
    headers = {"Content-Type": JSON}
    headers["Location"] = f"{base}/{documents.family_of(view.prediction.kind)}/{view.prediction.id}"
    headers["Cache-Status"] = created.cache_status
    if created.is_replay:
        headers["Idempotency-Replayed"] = "true"
    if wait is not None:
        headers["Preference-Applied"] = f"wait={wait:.0f}"
    shows_output = _may_show_output(request, view, wait)
    if view.left_out or len(view.run.document) > LARGE_DOCUMENT:
        del headers["Content-Type"], created
        views = [view]
        del view
        return await _respond_large(request, views, base, status, headers, shows_output=shows_output)
    # The response to creating a training links to /predictions, as upstream's does (docs/replicate-api.md, Routes).
    document = (
        service.show(view, base, "predictions")
        if shows_output
        else await service.show_as_starting(view, base, "predictions")
    )
    return response.respond(request, document, response.Fields(headers), status=status)


async def _respond_large(
    request: web.Request,
    views: list[PredictionView],
    base: str,
    status: HTTPStatus,
    headers: dict[str, str],
    *,
    shows_output: bool,
) -> web.StreamResponse:
    """Send a large prediction, the only one of `views`.

    A create is always answered: without room the response is as of a prediction that was just created, and short.
    """
    service, view = request.app[PREDICTIONS], views[0]
    view = request[VIEW] = view.without_document()
    with response_body.room_of(request) as room:
        try:
            whole = await take_room(request, room, views, is_create=True)
        except (RateLimited, Overloaded):
            document = await service.show_shortened(view, base, "predictions")
        else:
            show = service.show_large if shows_output else service.show_as_starting
            document = await show(whole, base, "predictions")
            del whole
            room.resize(len(document))
        return await response_body.respond(request, [document], JSON, status=status, headers=headers)


def _may_show_output(request: web.Request, view: PredictionView, wait: float | None) -> bool:
    """Return whether the response to a create may contain output.

    The prediction must be finished, and the client must expect output there. Replicate never returns output from a
    create without `Prefer: wait`. PyPI `replicate` 1.x treats output in that response as already yielded, so
    `run(wait=False)` and `output_iterator()` would skip it.
    """
    if not documents.shown_status(view).is_terminal:
        return False
    return wait is not None or not request.headers.get("User-Agent", "").startswith(_PYPI_REPLICATE_1)


def _cancel_after(request: web.Request) -> float | None:
    try:
        return parse_cancel_after(request.headers.get("Cancel-After"))
    except ValueError as exc:
        raise Unprocessable.field("Cancel-After", f"Cancel-After is not valid: {exc}") from exc


def read_directives(request: web.Request) -> Directives:
    """Read the cache directives from the headers. Raise `Unprocessable` that names an invalid header."""
    headers = request.headers
    try:
        return cache_directives.read(
            headers.get("Gateway-Cache"),
            headers.get("Gateway-Deterministic"),
            headers.get("Cache-Control"),
            honor_cache_control=request[CALLER].team.honor_cache_control,
        )
    except ValueError as exc:
        name, _, reason = str(exc).partition(": ")
        raise Unprocessable.field(name, f"{name} is not valid: {reason}") from exc


def _idempotency_key(request: web.Request) -> str | None:
    """Read `Idempotency-Key`, which makes a create safe to retry. Raise `Unprocessable` if it is malformed."""
    key = request.headers.get("Idempotency-Key")
    if key is not None and not (key.isascii() and key.isprintable() and 0 < len(key) <= _MAX_IDEMPOTENCY_KEY):
        text = f"Idempotency-Key must be 1 to {_MAX_IDEMPOTENCY_KEY} printable ASCII characters"
        raise Unprocessable.field("Idempotency-Key", text)
    return key
