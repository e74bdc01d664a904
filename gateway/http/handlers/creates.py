"""Creates: predictions by version, by official model, by deployment; trainings."""

from collections.abc import Callable
from functools import partial
from http import HTTPStatus

from aiohttp import web

from gateway.domain import cache_directives, documents
from gateway.domain.cache_directives import Directives
from gateway.domain.create_body import BodyForm, CreateBody, parse_create
from gateway.domain.create_request import CreateCommand, Created
from gateway.domain.records import Kind, PredictionView, Source
from gateway.domain.targets import Target, TargetKind
from gateway.domain.upstream_response import Answer
from gateway.errors import GatewayError, Unprocessable
from gateway.http import access_log, base_url, errors, request_limits
from gateway.http.keys import ABOUT, CALLER, CREATES, OVERHEAD, PREDICTIONS, SETTINGS, TRACER, UPSTREAM_SECONDS
from gateway.http.prefer import parse_cancel_after, parse_prefer
from gateway.http.request_body import read_json

JSON = "application/json"
_STEPS = {"hit": "hit", "joined": "join"}
_YIELDS_WHAT_COMES_LATER = "replicate-python/"
_LONGEST_IDEMPOTENCY_KEY = 255


async def create_prediction(request: web.Request) -> web.Response:
    """`POST /predictions`: the body's `version` names the target."""
    return await _create(request, Kind.PREDICTION, "predictions.create", "/predictions", "version", None)


async def create_model_prediction(request: web.Request) -> web.Response:
    """`POST /models/{owner}/{name}/predictions`: an official model."""
    model = _model(request)
    target = Target(TargetKind.MODEL, model)
    path = f"/models/{model}/predictions"
    return await _create(request, Kind.PREDICTION, "models.predictions.create", path, "target", target)


async def create_deployment_prediction(request: web.Request) -> web.Response:
    """`POST /deployments/{owner}/{name}/predictions`."""
    name = _model(request)
    target = Target(TargetKind.DEPLOYMENT, name)
    path = f"/deployments/{name}/predictions"
    return await _create(request, Kind.PREDICTION, "deployments.predictions.create", path, "target", target)


async def create_training(request: web.Request) -> web.Response:
    """`POST /models/{owner}/{name}/versions/{version}/trainings`."""
    model, version = _model(request), request.match_info["version"]
    target = Target(TargetKind.VERSION, model, version)
    path = f"/models/{model}/versions/{version}/trainings"
    return await _create(request, Kind.TRAINING, "trainings.create", path, "training", target)


def _model(request: web.Request) -> str:
    return f"{request.match_info['owner']}/{request.match_info['name']}"


async def _create(
    request: web.Request, kind: Kind, operation: str, path: str, form: BodyForm, target: Target | None
) -> web.Response:
    caller = request[CALLER]
    wait = _header(request, "Prefer", parse_prefer) if kind is Kind.PREDICTION else None
    cancel_after = _header(request, "Cancel-After", parse_cancel_after) if kind is Kind.PREDICTION else None
    user = request_limits.user_of(request)
    wishes = read_directives(request)
    idempotency_key = _idempotency_key(request)
    base = base_url.base_of(request)
    body = read_create(request, await read_json(request), form)
    target = target or body.target
    assert target is not None
    command = CreateCommand(
        kind=kind,
        operation=operation,
        path=path,
        target=target,
        body=body,
        cancel_after=cancel_after,
        cancel_after_header=request.headers.get("Cancel-After"),
        user=None if caller.is_public else user,
        address=request_limits.address_of(request) if caller.is_public else None,
        own_origins=base_url.own_origins(request),
        directives=wishes,
        idempotency_key=idempotency_key,
        hold_until=request_limits.hold_until(request),
        has_left=partial(request_limits.has_left, request),
    )
    outcome = await _create_traced(request, command)
    if isinstance(outcome, Answer):
        return errors.pass_on(outcome)
    return await _show(request, outcome, base, wait)


def read_create(request: web.Request, body: bytes, form: BodyForm) -> CreateBody:
    """Check a create's body by this gateway's settings."""
    settings = request.app[SETTINGS].value
    return parse_create(
        body,
        form,
        allow_http_webhooks=settings.allow_http_webhooks,
        allow_private_webhooks=settings.allow_private_webhooks,
    )


async def _create_traced(request: web.Request, command: CreateCommand) -> Created | Answer:
    """Create, in a span that says what it came to: a hit, a join, a create; upstream's answer, or the error's name."""
    with request.app[TRACER].step("create") as span:
        try:
            outcome = await request.app[CREATES].create(request[CALLER], command)
        except GatewayError as exc:
            span.end_as("create", {"error.type": type(exc).__name__})
            raise
        if isinstance(outcome, Answer):
            span.end_as("create", {"error.type": str(outcome.status)})
        else:
            result = access_log.result_of(outcome.cache_status) or "miss"
            span.end_as(_STEPS.get(result, "create"), {"gateway.cache": result})
        return outcome


async def _show(request: web.Request, created: Created, base: str, wait: float | None) -> web.Response:
    service, view = request.app[PREDICTIONS], created.view
    request[ABOUT], request[UPSTREAM_SECONDS] = view, created.upstream_seconds
    if view.prediction.source is Source.HIT:
        request[OVERHEAD] = "hit"
    status = HTTPStatus.CREATED
    if wait is not None:
        # What was spent in a queue, and on the create, is part of the wait that was asked for.
        view = await service.wait(view, max(0.0, wait - request_limits.seconds_since_arrival(request)))
        if not documents.shown_status(view).is_terminal:
            # The wait is over and the work is not: "created, not all outputs ready" (docs/replicate-api.md, Sync mode).
            status = HTTPStatus.ACCEPTED
    # A training's create answer links at /predictions, as upstream's does (docs/replicate-api.md, Routes).
    if _may_show_output(request, view, wait):
        document = service.show(view, base, "predictions")
    else:
        stream = service.stream_path(view)
        document = documents.render(view, base, stream, family="predictions", as_starting=True)
    passed = created.answer.headers if created.answer is not None else {}
    headers = {name: value for name, value in passed.items() if name.startswith("ratelimit-")}
    headers["Location"] = f"{base}/{documents.family_of(view.prediction.kind)}/{view.prediction.id}"
    headers["Cache-Status"] = created.cache_status
    if created.is_replay:
        headers["Idempotency-Replayed"] = "true"
    if wait is not None:
        headers["Preference-Applied"] = request.headers["Prefer"].strip()
    return web.Response(status=status, body=document, content_type=JSON, headers=headers)


def _may_show_output(request: web.Request, view: PredictionView, wait: float | None) -> bool:
    """Say whether the answer to a create may hold output: a whole one, and to a client that expects one there.

    Replicate's own answer to a create that does not wait never has any. PyPI `replicate` 1.x takes what stands in it
    for what it has yielded already, so that `run(wait=False)` and `output_iterator()` would leave it out.
    """
    if not documents.shown_status(view).is_terminal:
        return False
    return wait is not None or not request.headers.get("User-Agent", "").startswith(_YIELDS_WHAT_COMES_LATER)


def _header(request: web.Request, name: str, parse: Callable[[str | None], float | None]) -> float | None:
    try:
        return parse(request.headers.get(name))
    except ValueError as exc:
        raise Unprocessable.field(name, f"{name} is not valid: {exc}") from exc


def read_directives(request: web.Request) -> Directives:
    """Read what the caller asks of the cache. Raise `Unprocessable` naming the header that is not understood."""
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
    """Read the name by which a caller may repeat a create safely."""
    key = request.headers.get("Idempotency-Key")
    if key is not None and not (key.isascii() and key.isprintable() and 0 < len(key) <= _LONGEST_IDEMPOTENCY_KEY):
        text = f"Idempotency-Key must be 1 to {_LONGEST_IDEMPOTENCY_KEY} printable ASCII characters"
        raise Unprocessable.field("Idempotency-Key", text)
    return key
