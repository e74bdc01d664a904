"""Table of the API routes."""

from dataclasses import dataclass

from gateway.simulator.api import catalogue, deployments, files, models, predictions, trainings
from gateway.simulator.api.call import Handler


@dataclass(frozen=True)
class Route:
    """A route. `side` is the backend (edge, django, files), which determines headers and errors."""

    method: str
    path: str
    operation: str
    handler: Handler
    side: str = "django"
    limit: str | None = "other"
    open: bool = False


_MODEL = "/models/{owner}/{name}"
_DEPLOYMENT = "/deployments/{owner}/{name}"

ROUTES: tuple[Route, ...] = (
    Route("GET", "/account", "account.get", catalogue.account),
    Route("GET", "/collections", "collections.list", catalogue.collections),
    Route("GET", "/collections/{slug}", "collections.get", catalogue.collection),
    Route("GET", "/hardware", "hardware.list", catalogue.hardware),
    Route("GET", "/search", "search", catalogue.search, limit=None, open=True),
    Route("GET", "/webhooks/default/secret", "webhooks.default.secret.get", catalogue.webhook_secret),
    Route("GET", "/deployments", "deployments.list", deployments.list_all),
    Route("POST", "/deployments", "deployments.create", deployments.create),
    Route("GET", _DEPLOYMENT, "deployments.get", deployments.get),
    Route("PATCH", _DEPLOYMENT, "deployments.update", deployments.update),
    Route("DELETE", _DEPLOYMENT, "deployments.delete", deployments.delete),
    Route(
        "POST",
        f"{_DEPLOYMENT}/predictions",
        "deployments.predictions.create",
        predictions.create_for_deployment,
        "edge",
        "create",
    ),
    Route("GET", "/files", "files.list", files.list_all, "files", None),
    Route("POST", "/files", "files.create", files.create, "files", None),
    Route("GET", "/files/{id}", "files.get", files.get, "files", None),
    Route("DELETE", "/files/{id}", "files.delete", files.delete, "files", None),
    Route("GET", "/files/{id}/download", "files.download", files.download, "files", None, open=True),
    Route("GET", "/models", "models.list", models.list_all),
    Route("POST", "/models", "models.create", models.create),
    Route("QUERY", "/models", "models.search", models.search),
    Route("GET", _MODEL, "models.get", models.get),
    Route("PATCH", _MODEL, "models.update", models.update),
    Route("DELETE", _MODEL, "models.delete", models.delete),
    Route("GET", f"{_MODEL}/examples", "models.examples.list", models.examples),
    Route("GET", f"{_MODEL}/readme", "models.readme.get", models.readme),
    Route("POST", f"{_MODEL}/predictions", "models.predictions.create", predictions.create_for_model, "edge", "create"),
    Route("GET", f"{_MODEL}/versions", "models.versions.list", models.versions),
    Route("GET", f"{_MODEL}/versions/{{version}}", "models.versions.get", models.version),
    Route("DELETE", f"{_MODEL}/versions/{{version}}", "models.versions.delete", models.delete_version),
    Route("POST", f"{_MODEL}/versions/{{version}}/trainings", "trainings.create", trainings.create, "edge"),
    Route("GET", "/predictions", "predictions.list", predictions.list_all),
    Route("POST", "/predictions", "predictions.create", predictions.create, "edge", "create"),
    Route("GET", "/predictions/{id}", "predictions.get", predictions.get, "edge", "poll"),
    Route("POST", "/predictions/{id}/cancel", "predictions.cancel", predictions.cancel, "edge"),
    Route("GET", "/trainings", "trainings.list", trainings.list_all),
    Route("GET", "/trainings/{id}", "trainings.get", trainings.get, "edge", "poll"),
    Route("POST", "/trainings/{id}/cancel", "trainings.cancel", trainings.cancel, "edge"),
)


def allowed_methods(path: str) -> list[str]:
    """Return the methods of a path in the order of Django's `allow` header."""
    if path == "/hardware":
        return ["OPTIONS", "GET"]  # as recorded
    methods = [route.method for route in ROUTES if route.path == path and route.method != "QUERY"]
    return [*methods, *(["HEAD"] if "GET" in methods else []), "OPTIONS"]
