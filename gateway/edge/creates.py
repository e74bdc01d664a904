"""Creates: predictions by version, by official model, by deployment; trainings."""

from collections.abc import Callable
from http import HTTPStatus

from aiohttp import web

from gateway.core import documents
from gateway.core.answers import Answer
from gateway.core.bodies import BodyForm, parse_create
from gateway.core.prefer import parse_cancel_after, parse_prefer
from gateway.core.records import Kind
from gateway.core.targets import Target, TargetKind
from gateway.edge import errors, links
from gateway.edge.bodies import read_json
from gateway.edge.keys import CALLER, PREDICTIONS, SETTINGS, UPSTREAM_SECONDS
from gateway.errors import Unprocessable, UpstreamUncertain
from gateway.service.predictions import Created, Order

JSON = "application/json"
_LONGEST_USER = 200
_WAY_OUT = "A retry should carry an Idempotency-Key."


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
    caller, service = request[CALLER], request.app[PREDICTIONS]
    wait = _header(request, "Prefer", parse_prefer) if kind is Kind.PREDICTION else None
    cancel_after = _header(request, "Cancel-After", parse_cancel_after) if kind is Kind.PREDICTION else None
    user = _user(request)
    base = links.base_of(request)
    allow_http = request.app[SETTINGS].allow_http_webhooks
    body = parse_create(await read_json(request), form, allow_http_webhooks=allow_http)
    target = target or body.target
    assert target is not None
    order = Order(
        kind=kind,
        operation=operation,
        path=path,
        target=target,
        body=body,
        cancel_after=cancel_after,
        cancel_after_header=request.headers.get("Cancel-After"),
        user=user,
        own_origins=links.own_origins(request),
    )
    try:
        outcome = await service.create(caller, order)
    except UpstreamUncertain as exc:
        if _WAY_OUT in exc.detail:
            raise
        raise UpstreamUncertain(f"{exc.detail} {_WAY_OUT}") from exc
    if isinstance(outcome, Answer):
        return errors.pass_on(outcome)
    return await _show(request, outcome, base, wait)


async def _show(request: web.Request, created: Created, base: str, wait: float | None) -> web.Response:
    service, sight = request.app[PREDICTIONS], created.sight
    request[UPSTREAM_SECONDS] = created.upstream_seconds
    status = HTTPStatus.CREATED
    if wait is not None:
        sight = await service.wait(sight, wait)
        if not documents.shown_status(sight).is_terminal:
            # The wait is over and the work is not: "created, not all outputs ready" (ref 3).
            status = HTTPStatus.ACCEPTED
    # A training's create answer links at /predictions, as upstream's does (ref 1).
    document = documents.render(
        sight, base, service.stream_path(sight), family="predictions", as_starting=wait is not None
    )
    headers = {name: value for name, value in created.answer.headers.items() if name.startswith("ratelimit-")}
    headers["Location"] = f"{base}/{documents.family_of(sight.prediction.kind)}/{sight.prediction.id}"
    headers["Cache-Status"] = "replicate-gateway; fwd=bypass; detail=not-cached"
    if wait is not None:
        headers["Preference-Applied"] = request.headers["Prefer"].strip()
    return web.Response(status=status, body=document, content_type=JSON, headers=headers)


def _header(request: web.Request, name: str, parse: Callable[[str | None], float | None]) -> float | None:
    try:
        return parse(request.headers.get(name))
    except ValueError as exc:
        raise Unprocessable.field(name, f"{name} is not valid: {exc}") from exc


def _user(request: web.Request) -> str | None:
    """Read whom a server says that it asks for."""
    user = request.headers.get("Gateway-User")
    if user is not None and not (user.isprintable() and 0 < len(user) <= _LONGEST_USER):
        raise Unprocessable.field("Gateway-User", f"Gateway-User must be 1 to {_LONGEST_USER} printable characters")
    return user
