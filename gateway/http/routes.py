"""The routes of the public listener. Any other path is a 404."""

from functools import partial

from gateway.domain.ids import ID
from gateway.domain.links import FILE_ID
from gateway.domain.scopes import Scope
from gateway.domain.targets import NAME, OWNER
from gateway.domain.tickets import FILE_TICKET, OUTPUT_TICKET, TICKET
from gateway.http.handlers import (
    creates,
    files,
    gateway_api,
    outputs,
    passthrough,
    predictions,
    stream_check,
    team_keys,
)
from gateway.http.route import OPEN_ROUTES, Route, template
from gateway.http.route_table import RouteTable
from gateway.http.sse import handler
from gateway.predictions import upstream_webhooks
from gateway.streams.rules import probe

# Clients differ in whether their base URL includes /v1, so requests arrive with it, without it, or with it twice
# (docs/replicate-api.md, Clients).
PREFIXES = ("/v1", "", "/v1/v1")

_MODEL = rf"/models/{{owner:{OWNER}}}/{{name:{NAME}}}"
_DEPLOYMENT = rf"/deployments/{{owner:{OWNER}}}/{{name:{NAME}}}"
# Version ids are 64 hex digits; older ones had other forms (docs/replicate-api.md, Prediction object).
_VERSION = rf"{_MODEL}/versions/{{version:[0-9a-z][0-9a-z-]{{0,79}}}}"
_PREDICTION = rf"/predictions/{{id:{ID}}}"
_TRAINING = rf"/trainings/{{id:{ID}}}"
_KEY = "/gateway/keys/{id:[a-z0-9]{12}}"
_FILE = rf"/files/{{file_id:{FILE_ID}}}"

# Names as `gateway.outputs.rules.outputs.name_of` builds them.
_OUTPUT = f"/outputs/{{ticket:{OUTPUT_TICKET}}}/{{name:[A-Za-z0-9_.@=+~-]{{1,150}}}}"

_metadata = passthrough.metadata
_write = partial(passthrough.write, target_of=passthrough.path_target)


def _read(path: str, name: str) -> Route:
    return Route("GET", path, name, Scope.READ, _metadata(name, template(path)))


def _change(method: str, path: str, name: str, scope: Scope) -> Route:
    return Route(method, path, name, scope, _write(name, method, template(path)))


PUBLIC: tuple[Route, ...] = (
    Route("GET", "/account", "account.get", Scope.READ, passthrough.get_account),
    _read("/collections", "collections.list"),
    _read("/collections/{slug:[A-Za-z0-9][A-Za-z0-9_-]{0,99}}", "collections.get"),
    _read("/hardware", "hardware.list"),
    _read("/search", "search"),
    _read("/models", "models.list"),
    Route("QUERY", "/models", "models.search", Scope.READ, passthrough.search_models),
    _read(_MODEL, "models.get"),
    _read(f"{_MODEL}/examples", "models.examples.list"),
    _read(f"{_MODEL}/readme", "models.readme.get"),
    _read(f"{_MODEL}/versions", "models.versions.list"),
    _read(_VERSION, "models.versions.get"),
    Route("POST", "/models", "models.create", Scope.MANAGE, passthrough.write(
        "models.create", "POST", "/models", target_of=lambda _: None)),
    _change("PATCH", _MODEL, "models.update", Scope.MANAGE),
    _change("DELETE", _MODEL, "models.delete", Scope.MANAGE),
    _change("DELETE", _VERSION, "models.versions.delete", Scope.MANAGE),
    Route("GET", "/deployments", "deployments.list", Scope.READ, passthrough.list_deployments),
    Route("GET", _DEPLOYMENT, "deployments.get", Scope.READ, passthrough.get_deployment),
    Route("POST", "/deployments", "deployments.create", Scope.DEPLOY, passthrough.write(
        "deployments.create", "POST", "/deployments", target_of=lambda _: None)),
    _change("PATCH", _DEPLOYMENT, "deployments.update", Scope.DEPLOY),
    _change("DELETE", _DEPLOYMENT, "deployments.delete", Scope.DEPLOY),
    Route("POST", "/predictions", "predictions.create", Scope.PREDICT, creates.create_prediction),
    Route("POST", f"{_MODEL}/predictions", "models.predictions.create", Scope.PREDICT, creates.create_model_prediction),
    Route("POST", f"{_DEPLOYMENT}/predictions", "deployments.predictions.create", Scope.PREDICT,
         creates.create_deployment_prediction),
    Route("GET", "/predictions", "predictions.list", Scope.PREDICT, predictions.list_predictions),
    Route("GET", _PREDICTION, "predictions.get", Scope.PREDICT, predictions.get_prediction),
    Route("POST", f"{_PREDICTION}/cancel", "predictions.cancel", Scope.PREDICT, predictions.cancel_prediction),
    Route("POST", f"{_VERSION}/trainings", "trainings.create", Scope.TRAIN, creates.create_training),
    Route("GET", "/trainings", "trainings.list", Scope.TRAIN, predictions.list_trainings),
    Route("GET", _TRAINING, "trainings.get", Scope.TRAIN, predictions.get_training),
    Route("POST", f"{_TRAINING}/cancel", "trainings.cancel", Scope.TRAIN, predictions.cancel_training),
    # Before /files/{id}, because the first match wins; a ticket and a file's id differ in form.
    Route("GET", f"/files/{{ticket:{FILE_TICKET}}}", "streams.read_files", Scope.PREDICT, handler.read_stream),
    Route("GET", "/files", "files.list", Scope.FILES, files.list_files),
    Route("POST", "/files", "files.create", Scope.FILES, files.create_file),
    Route("GET", _FILE, "files.get", Scope.FILES, files.get_file),
    Route("DELETE", _FILE, "files.delete", Scope.FILES, files.delete_file),
    Route("GET", f"{_FILE}/download", "files.download", Scope.FILES, files.download_file),
    Route("GET", probe.PATH, "streams.check", Scope.READ, stream_check.check_stream),
    Route("GET", f"/streams/{{ticket:{TICKET}}}", "streams.read", Scope.PREDICT, handler.read_stream),
    Route("GET", "/webhooks/default/secret", "webhooks.secret", Scope.PREDICT, gateway_api.get_webhook_secret),
)  # fmt: skip
"""Replicate's routes (docs/replicate-api.md, Routes) and the streams, under each of `PREFIXES`."""

OWN: tuple[Route, ...] = (
    Route("POST", "/gateway/tokens", "gateway.tokens", Scope.TOKENS, gateway_api.mint_token),
    Route("POST", "/gateway/estimate", "gateway.estimate", Scope.PREDICT, gateway_api.estimate),
    Route("GET", "/gateway/usage", "gateway.usage", Scope.PREDICT, gateway_api.get_usage),
    Route("GET", "/gateway/limits", "gateway.limits", Scope.PREDICT, gateway_api.get_limits),
    Route("GET", "/gateway/keys", "gateway.keys.list", Scope.KEYS, team_keys.list_keys),
    Route("POST", "/gateway/keys", "gateway.keys.create", Scope.KEYS, team_keys.create_key),
    Route("PATCH", _KEY, "gateway.keys.change", Scope.KEYS, team_keys.change_key),
    Route("DELETE", _KEY, "gateway.keys.revoke", Scope.KEYS, team_keys.revoke_key),
    Route("POST", f"{_KEY}/rotate", "gateway.keys.rotate", Scope.KEYS, team_keys.rotate_key),
    Route("GET", f"/gateway/explain/{{id:{ID}}}", "gateway.explain", Scope.PREDICT, gateway_api.explain_prediction),
    Route("POST", upstream_webhooks.PATH, "upstream.webhooks", Scope.PREDICT, gateway_api.take_upstream_webhook),
    Route("GET", _OUTPUT, "outputs.read", Scope.PREDICT, outputs.read_output),
    Route("GET", "/openapi.json", "openapi", Scope.READ, gateway_api.show_description),
    Route("GET", "/healthz", "healthz", Scope.READ, gateway_api.healthz),
    Route("GET", "/readyz", "readyz", Scope.READ, gateway_api.readyz),
)
"""The gateway's own routes, without a prefix."""


def table(extra: tuple[Route, ...] = ()) -> RouteTable:
    """Return every route of the public listener. `extra` has the demo's routes."""
    return RouteTable(PUBLIC, (*OWN, *extra), PREFIXES)


__all__ = ["OPEN_ROUTES", "OWN", "PREFIXES", "PUBLIC", "table"]
