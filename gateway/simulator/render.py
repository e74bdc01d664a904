"""Render predictions in the API's two formats, and other objects. Edge bodies are escaped like Go's JSON."""

from typing import Any

import msgspec

from gateway.simulator import ids
from gateway.simulator.catalog import Collection, Deployment, Model, Version
from gateway.simulator.prediction import Prediction
from gateway.simulator.times import database_time, edge_time, exact_time

_WEB = "https://replicate.com"


def edge_bytes(body: Any) -> bytes:
    """Encode like Go, which escapes `<`, `>` and `&`. In JSON, these only occur inside strings."""
    return (
        msgspec.json.encode(body)
        .replace(b"&", b"\\u0026")
        .replace(b"<", b"\\u003c")
        .replace(b">", b"\\u003e")
        .replace(b"\xe2\x80\xa8", b"\\u2028")
        .replace(b"\xe2\x80\xa9", b"\\u2029")
    )


def database_bytes(body: Any) -> bytes:
    """Encode like Django."""
    return msgspec.json.encode(body)


class Links:
    """Absolute URLs in responses."""

    def __init__(self, api: str, delivery: str) -> None:
        self.api = api  # ends in /v1
        self.delivery = delivery

    def of(self, prediction: Prediction, *, as_training: bool = False) -> dict[str, str]:
        """Return the `urls` of a prediction, with sorted keys and without empty values."""
        base = f"{self.api}/{'trainings' if as_training else 'predictions'}/{prediction.id}"
        urls = {"cancel": f"{base}/cancel", "get": base}
        if prediction.stream_path is not None:
            urls["stream"] = self.delivery + prediction.stream_path
        urls["web"] = f"{_WEB}/p/{prediction.id}"
        return urls


def edge_prediction(
    prediction: Prediction,
    links: Links,
    *,
    created: bool = False,
    sync: bool = False,
    digits: int | None = None,
    as_training: bool = False,
) -> dict[str, Any]:
    """Render the edge format. `created` omits `source`; `sync` is the response of a finished sync wait."""
    time = (lambda us: exact_time(us, digits)) if digits is not None else edge_time
    given = prediction.input_shown
    body: dict[str, Any] = {
        "id": prediction.id,
        "model": prediction.model_shown,
        "version": prediction.version_shown,
        "input": {name: given[name] for name in sorted(given)},
        "logs": prediction.logs,
        "output": prediction.output,
    }
    if prediction.kind != "training":
        body["data_removed"] = prediction.data_removed
    body["error"] = prediction.error
    if not created:
        body["source"] = prediction.source
    body["status"] = prediction.status
    body["created_at"] = time(prediction.created_us)
    if prediction.deadline_us is not None:
        body["deadline"] = time(prediction.deadline_us)
    if prediction.started_us is not None and not sync:
        body["started_at"] = time(prediction.started_us)
    if prediction.completed_us is not None and not sync:
        body["completed_at"] = time(prediction.completed_us)
    if prediction.terminal and not sync:
        body["metrics"] = prediction.metrics
    body["urls"] = links.of(prediction, as_training=as_training)
    if prediction.deployment is not None:
        body["deployment"] = prediction.deployment
    if prediction.webhook is not None:
        body["webhook"] = prediction.webhook
    if prediction.webhook_events_filter is not None:
        body["webhook_events_filter"] = prediction.webhook_events_filter
    return body


def database_prediction(
    prediction: Prediction, links: Links, *, digits: int | None = None, as_training: bool = False
) -> dict[str, Any]:
    """Render the database format: all keys, null if unknown."""
    time = (lambda us: exact_time(us, digits)) if digits is not None else database_time
    given = prediction.input_shown
    urls = links.of(prediction, as_training=as_training)
    ordered = {
        "get": urls["get"],
        "cancel": urls["cancel"],
        **{k: v for k, v in urls.items() if k not in {"get", "cancel"}},
    }
    body: dict[str, Any] = {
        "completed_at": None if prediction.completed_us is None else time(prediction.completed_us),
        "created_at": time(prediction.created_us),
    }
    if prediction.kind != "training":
        body["data_removed"] = prediction.data_removed
    if prediction.deadline_us is not None:
        body["deadline"] = time(prediction.deadline_us)
    body |= {
        "error": prediction.error,
        "id": prediction.id,
        # PostgreSQL's jsonb sorts keys by length, then by bytes.
        "input": {name: given[name] for name in sorted(given, key=lambda key: (len(key), key))},
        "logs": prediction.logs or None,
        "metrics": prediction.metrics,
        "output": prediction.output,
        "source": prediction.source,
        "started_at": None if prediction.started_us is None else time(prediction.started_us),
        "status": prediction.status,
        "urls": ordered,
        "model": prediction.model_shown,
        "version": prediction.version_shown,
        "webhook_completed": None,
    }
    if prediction.deployment is not None:
        body["deployment"] = prediction.deployment
    return body


def version(each: Version) -> dict[str, Any]:
    """Render a version."""
    return {
        "id": each.id,
        "created_at": database_time(each.created_us),
        "cog_version": each.cog_version,
        "openapi_schema": each.program.schema,
    }


def model(each: Model, api: str) -> dict[str, Any]:
    """Render a model with its default example and latest version."""
    return {
        "url": f"{_WEB}/{each.ref}",
        "owner": each.owner,
        "name": each.name,
        "description": each.description,
        "visibility": each.visibility,
        "is_official": each.official,
        "github_url": each.github_url,
        "paper_url": each.paper_url,
        "license_url": each.license_url,
        "weights_url": each.weights_url,
        "run_count": each.run_count,
        "created_at": database_time(each.created_us),
        "cover_image_url": each.cover_image_url,
        "default_example": example(each, api),
        "latest_version": None if each.latest is None else version(each.latest),
    }


def example(each: Model, api: str) -> dict[str, Any] | None:
    """Render a model's default example: a prediction from the web site, in the database format."""
    if each.example is None or each.latest is None:
        return None
    given, output = each.example
    prediction = Prediction(
        ids.old_prediction_id(each.ref), each.owner, each, each.latest, given, each.latest.created_us
    )
    prediction.status = "succeeded"
    prediction.output = output
    prediction.source = "web"
    prediction.started_us = prediction.created_us + 20_114
    prediction.completed_us = prediction.created_us + 2_512_208
    prediction.metrics = {"predict_time": 2.492094, "total_time": 2.512208}
    return database_prediction(prediction, Links(api, ""))


def deployment(each: Deployment, created_by: dict[str, Any]) -> dict[str, Any]:
    """Render a deployment with its current release."""
    return {
        "owner": each.owner,
        "name": each.name,
        "current_release": {
            "number": each.number,
            "model": each.model,
            "version": each.version,
            "created_at": database_time(each.created_us),
            "created_by": created_by,
            "configuration": {
                "hardware": each.hardware,
                "min_instances": each.min_instances,
                "max_instances": each.max_instances,
            },
        },
    }


def collection(each: Collection) -> dict[str, Any]:
    """Render a collection for a list."""
    return {"name": each.name, "slug": each.slug, "description": each.description}
