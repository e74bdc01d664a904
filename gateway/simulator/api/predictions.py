"""Predictions: create (three ways), read, list, cancel."""

from typing import Any
from urllib.parse import urlsplit

from gateway.simulator import ids, problems, render
from gateway.simulator.api.call import EDGE_JSON, JSON, Answer, Call, json_answer
from gateway.simulator.catalog import Model, Version
from gateway.simulator.headers import parse_cancel_after, parse_prefer
from gateway.simulator.pagination import decode_cursor, link, take_page
from gateway.simulator.prediction import Prediction
from gateway.simulator.settings import RETENTION_SECONDS
from gateway.simulator.times import parse_time
from gateway.simulator.validation import PREDICTION_BODY, VERSION_PREDICTION_BODY, check

PAGE_SIZE = 100
_WEB_SECONDS = 14 * 86_400  # how far back source=web lists


async def create(call: Call) -> Answer:
    """POST /predictions: by version id, `owner/name:id`, or `owner/name` of an official model."""
    body = call.checked(VERSION_PREDICTION_BODY)
    found = call.world.registry.resolve(body["version"], call.account)
    if found is None:
        raise problems.invalid_version()
    return await _create(call, body, *found)


async def create_for_model(call: Call) -> Answer:
    """POST /models/{owner}/{name}/predictions: official models only."""
    body = call.checked(PREDICTION_BODY)
    found = call.world.registry.resolve(f"{call.params['owner']}/{call.params['name']}", call.account)
    if found is None:
        raise problems.not_found()
    return await _create(call, body, *found)


async def create_for_deployment(call: Call) -> Answer:
    """POST /deployments/{owner}/{name}/predictions."""
    body = call.checked(PREDICTION_BODY)
    ref = f"{call.params['owner']}/{call.params['name']}"
    deployment = call.world.registry.deployments.get(ref)
    if deployment is None or deployment.owner != call.account:
        raise problems.not_found()
    found = call.world.registry.versions.get(deployment.version)
    if found is None:
        raise problems.invalid_version()
    deployment.last_used_us = call.world.clock.stamp()
    return await _create(call, body, *found, deployment=ref)


async def get(call: Call) -> Answer:
    """GET /predictions/{id}. Also accepts ids of trainings, because their create response links here."""
    prediction = call.world.find(call.account, call.params["id"])
    if prediction is None:
        raise problems.not_found()
    if prediction.reads_to_hide > 0:
        prediction.reads_to_hide -= 1
        raise problems.not_found()
    return answer(call, prediction)


async def cancel(call: Call) -> Answer:
    """POST /predictions/{id}/cancel. An ended prediction is returned unchanged."""
    prediction = call.world.find(call.account, call.params["id"])
    if prediction is None:
        raise problems.not_found()
    return cancel_answer(call, prediction)


async def list_all(call: Call) -> Answer:
    """GET /predictions: newest first, with a time range, or only those of the web site."""
    query = call.query
    after, before = _time(query, "created_after"), _time(query, "created_before")
    source = query.get("source")
    if source not in {None, "web"}:
        raise problems.Problem(400, {"source": [f'"{source}" is not a valid choice.']}, django=True)
    if source == "web":
        after = max(after or 0, int((call.world.clock.now() - _WEB_SECONDS) * 1_000_000))

    def wanted(each: Prediction) -> bool:
        return (
            each.account == call.account
            and each.kind == "prediction"
            and (after is None or each.created_us >= after)
            and (before is None or each.created_us < before)
            and (source is None or each.source == source)
        )

    return list_answer(call, wanted)


def list_answer(call: Call, wanted: Any, *, as_training: bool = False) -> Answer:
    """Return a page of predictions or trainings."""
    query = call.query
    page = take_page(call.world.in_order(), _created, PAGE_SIZE, read_cursor(query), keep=wanted)
    digits = _digits(call)
    results = []
    for each in page.results:
        call.world.expire(each)
        if _shape(call) == "edge":
            results.append(render.edge_prediction(each, call.world.links, digits=digits, as_training=as_training))
        else:
            results.append(render.database_prediction(each, call.world.links, digits=digits, as_training=as_training))
    links = {"next": link(call.url, query, page.next), "previous": link(call.url, query, page.previous)}
    return json_answer({**links, "results": results})


def answer(call: Call, prediction: Prediction, *, as_training: bool = False, status: int = 200) -> Answer:
    """Return a prediction in the edge format, or an old one in the database format."""
    shape = _shape(call) or ("database" if _is_old(call, prediction) else "edge")
    reply = _write(call, prediction, shape, status, as_training=as_training)
    if shape == "database":
        reply.headers["vary"] = "Cookie, origin"
    return reply


def cancel_answer(call: Call, prediction: Prediction, *, as_training: bool = False) -> Answer:
    """Cancel, and respond in the database format."""
    if not prediction.terminal and "cancel_race" not in call.faults:
        if "cancel_late" in call.faults:
            call.world.runner.cancel_later(prediction, call.faults["cancel_late"].get("seconds"))
        else:
            call.world.runner.cancel(prediction)
    return _write(call, prediction, _shape(call) or "database", 200, as_training=as_training)


def check_webhook(call: Call, body: dict[str, Any]) -> None:
    """Refuse a webhook URL that is not https, unless the settings allow it."""
    webhook = body.get("webhook")
    if webhook is None:
        return
    parts = urlsplit(webhook)
    schemes = {"https", "http"} if call.world.settings.allow_http_webhooks else {"https"}
    if parts.scheme not in schemes or not parts.hostname:
        description = "webhook must be a valid HTTPS URL"
        raise problems.invalid_input([{"type": "format", "field": "webhook", "description": description}])


def read_cursor(query: dict[str, str]) -> Any:
    """Decode the `cursor` of a query, or raise the 404 of Django REST framework."""
    if not query.get("cursor"):
        return None
    try:
        return decode_cursor(query["cursor"])
    except ValueError as error:
        raise problems.Problem(404, {"detail": "Invalid cursor"}, django=True) from error


def edge_answer(body: dict[str, Any], status: int) -> Answer:
    """Return a JSON response like the edge."""
    return Answer(status, render.edge_bytes(body), EDGE_JSON, {"Vary": "Accept-Encoding"})


async def _create(
    call: Call, body: dict[str, Any], model: Model, version: Version, deployment: str | None = None
) -> Answer:
    wait, deadline = _headers(call)
    check_webhook(call, body)
    schema = version.program.schema
    wrong = check(body["input"], version.program.input_schema, schema, "input")
    if wrong:
        raise problems.invalid_input(wrong)
    world = call.world
    if world.runner.running >= world.settings.max_running:
        raise problems.throttled(1)
    prediction = world.create(
        call.account, model, version, body, deadline_seconds=deadline, deployment=deployment, faults=call.faults
    )
    if wait is None:
        return _write(call, prediction, _shape(call) or "edge", 201, created=True)
    with world.held():
        await prediction.wait(world.clock.real(wait), until_terminal="sync_succeeded" in call.faults)
    claims = not prediction.answerable and "sync_processing" in call.faults
    status = 201 if prediction.answerable or claims else 202
    sync = prediction.answerable and not prediction.terminal
    if claims:
        prediction = prediction.as_processing()
    reply = _write(call, prediction, _shape(call) or "edge", status, created=True, sync=sync)
    reply.headers["Preference-Applied"] = call.request.headers["Prefer"].strip()
    return reply


def _headers(call: Call) -> tuple[float | None, int | None]:
    try:
        return parse_prefer(call.request.headers.get("Prefer")), parse_cancel_after(
            call.request.headers.get("Cancel-After")
        )
    except ValueError as error:
        raise problems.unprocessable("Invalid request header", str(error)) from error


def _write(
    call: Call,
    prediction: Prediction,
    shape: str,
    status: int,
    *,
    created: bool = False,
    sync: bool = False,
    as_training: bool = False,
) -> Answer:
    digits = _digits(call)
    if shape == "database":
        body = render.database_prediction(prediction, call.world.links, digits=digits, as_training=as_training)
        return Answer(status, render.database_bytes(body), JSON)
    body = render.edge_prediction(
        prediction, call.world.links, created=created, sync=sync, digits=digits, as_training=as_training
    )
    return edge_answer(body, status)


def _shape(call: Call) -> str | None:
    return call.faults["shape"].get("value") if "shape" in call.faults else None


def _digits(call: Call) -> int | None:
    return call.faults["time_digits"].get("count") if "time_digits" in call.faults else None


def _is_old(call: Call, prediction: Prediction) -> bool:
    if ids.is_old_prediction_id(prediction.id):
        return True
    ended = prediction.completed_us
    return ended is not None and ended + RETENTION_SECONDS * 1_000_000 <= call.world.clock.now() * 1_000_000


def _created(prediction: Prediction) -> int:
    return prediction.created_us


def _time(query: dict[str, str], name: str) -> int | None:
    if name not in query:
        return None
    try:
        return parse_time(query[name])
    except ValueError as error:
        raise problems.Problem(400, {"detail": f"{name} is not a valid ISO 8601 date-time"}, django=True) from error
