"""Every door of the public listener. What is not in here is a 404."""

from collections.abc import Iterator
from functools import partial

from aiohttp import web

from gateway.domain.ids import ID
from gateway.domain.links import FILE_ID
from gateway.domain.scopes import Scope
from gateway.domain.targets import NAME, OWNER
from gateway.domain.tickets import FILE_TICKET, OUTPUT_TICKET, TICKET
from gateway.http.handlers import creates, explain, files, gateway_api, outputs, passthrough, predictions, stream_check
from gateway.http.route import DOORS, OPEN_ROUTES, Door, template
from gateway.http.sse import handler
from gateway.predictions import upstream_webhooks
from gateway.streams.rules import probe

# Clients read the same variable as a base with and without /v1, so both come, and doubled (ref 8).
PREFIXES = ("/v1", "", "/v1/v1")

_MODEL = rf"/models/{{owner:{OWNER}}}/{{name:{NAME}}}"
_DEPLOYMENT = rf"/deployments/{{owner:{OWNER}}}/{{name:{NAME}}}"
# Version ids are 64 hex digits today; older ones had other forms (ref 2).
_VERSION = rf"{_MODEL}/versions/{{version:[0-9a-z][0-9a-z-]{{0,79}}}}"
_PREDICTION = rf"/predictions/{{id:{ID}}}"
_TRAINING = rf"/trainings/{{id:{ID}}}"
_FILE = rf"/files/{{file_id:{FILE_ID}}}"

# As `gateway.outputs.rules.outputs.name_of` writes names.
_OUTPUT = f"/outputs/{{ticket:{OUTPUT_TICKET}}}/{{name:[A-Za-z0-9_.@=+~-]{{1,150}}}}"

_metadata = passthrough.metadata
_write = partial(passthrough.write, named=passthrough.path_target)


def _read(path: str, name: str) -> Door:
    return Door("GET", path, name, Scope.READ, _metadata(name, template(path)))


def _change(method: str, path: str, name: str, scope: Scope) -> Door:
    return Door(method, path, name, scope, _write(name, method, template(path)))


PUBLIC: tuple[Door, ...] = (
    Door("GET", "/account", "account.get", Scope.READ, passthrough.get_account),
    _read("/collections", "collections.list"),
    _read("/collections/{slug:[A-Za-z0-9][A-Za-z0-9_-]{0,99}}", "collections.get"),
    _read("/hardware", "hardware.list"),
    _read("/search", "search"),
    _read("/models", "models.list"),
    Door("QUERY", "/models", "models.search", Scope.READ, passthrough.search_models),
    _read(_MODEL, "models.get"),
    _read(f"{_MODEL}/examples", "models.examples.list"),
    _read(f"{_MODEL}/readme", "models.readme.get"),
    _read(f"{_MODEL}/versions", "models.versions.list"),
    _read(_VERSION, "models.versions.get"),
    Door("POST", "/models", "models.create", Scope.MANAGE, passthrough.write(
        "models.create", "POST", "/models", named=lambda _: None)),
    _change("PATCH", _MODEL, "models.update", Scope.MANAGE),
    _change("DELETE", _MODEL, "models.delete", Scope.MANAGE),
    _change("DELETE", _VERSION, "models.versions.delete", Scope.MANAGE),
    Door("GET", "/deployments", "deployments.list", Scope.READ, passthrough.list_deployments),
    Door("GET", _DEPLOYMENT, "deployments.get", Scope.READ, passthrough.get_deployment),
    Door("POST", "/deployments", "deployments.create", Scope.DEPLOY, passthrough.write(
        "deployments.create", "POST", "/deployments", named=lambda _: None)),
    _change("PATCH", _DEPLOYMENT, "deployments.update", Scope.DEPLOY),
    _change("DELETE", _DEPLOYMENT, "deployments.delete", Scope.DEPLOY),
    Door("POST", "/predictions", "predictions.create", Scope.PREDICT, creates.create_prediction),
    Door("POST", f"{_MODEL}/predictions", "models.predictions.create", Scope.PREDICT, creates.create_model_prediction),
    Door("POST", f"{_DEPLOYMENT}/predictions", "deployments.predictions.create", Scope.PREDICT,
         creates.create_deployment_prediction),
    Door("GET", "/predictions", "predictions.list", Scope.PREDICT, predictions.list_predictions),
    Door("GET", _PREDICTION, "predictions.get", Scope.PREDICT, predictions.get_prediction),
    Door("POST", f"{_PREDICTION}/cancel", "predictions.cancel", Scope.PREDICT, predictions.cancel_prediction),
    Door("POST", f"{_VERSION}/trainings", "trainings.create", Scope.TRAIN, creates.create_training),
    Door("GET", "/trainings", "trainings.list", Scope.TRAIN, predictions.list_trainings),
    Door("GET", _TRAINING, "trainings.get", Scope.TRAIN, predictions.get_training),
    Door("POST", f"{_TRAINING}/cancel", "trainings.cancel", Scope.TRAIN, predictions.cancel_training),
    # Before /files/{id}: a ticket is told from a file's id by its form.
    Door("GET", f"/files/{{ticket:{FILE_TICKET}}}", "streams.read_files", Scope.PREDICT, handler.read_stream),
    Door("GET", "/files", "files.list", Scope.FILES, files.list_files),
    Door("POST", "/files", "files.create", Scope.FILES, files.create_file),
    Door("GET", _FILE, "files.get", Scope.FILES, files.get_file),
    Door("DELETE", _FILE, "files.delete", Scope.FILES, files.delete_file),
    Door("GET", f"{_FILE}/download", "files.download", Scope.FILES, files.download_file),
    Door("GET", probe.PATH, "streams.check", Scope.READ, stream_check.check_stream),
    Door("GET", f"/streams/{{ticket:{TICKET}}}", "streams.read", Scope.PREDICT, handler.read_stream),
    Door("GET", "/webhooks/default/secret", "webhooks.secret", Scope.PREDICT, gateway_api.get_webhook_secret),
)  # fmt: skip
"""Replicate's routes (ref 1) and the streams, below each of `PREFIXES`."""

OWN: tuple[Door, ...] = (
    Door("POST", "/gateway/tokens", "gateway.tokens", Scope.TOKENS, gateway_api.mint_token),
    Door("POST", "/gateway/estimate", "gateway.estimate", Scope.PREDICT, gateway_api.estimate),
    Door("GET", "/gateway/usage", "gateway.usage", Scope.PREDICT, gateway_api.get_usage),
    Door("GET", "/gateway/limits", "gateway.limits", Scope.PREDICT, gateway_api.get_limits),
    Door("GET", f"/gateway/explain/{{id:{ID}}}", "gateway.explain", Scope.PREDICT, explain.explain_prediction),
    Door("POST", upstream_webhooks.PATH, "upstream.webhooks", Scope.PREDICT, gateway_api.take_upstream_webhook),
    Door("GET", _OUTPUT, "outputs.read", Scope.PREDICT, outputs.read_output),
    Door("HEAD", _OUTPUT, "outputs.read", Scope.PREDICT, outputs.read_output),
    Door("GET", "/healthz", "healthz", Scope.READ, gateway_api.healthz),
    Door("GET", "/readyz", "readyz", Scope.READ, gateway_api.readyz),
)
"""The gateway's own, which have no prefix."""


def add_doors(app: web.Application, extra: tuple[Door, ...] = ()) -> None:
    """Register every door. `extra` are open ones: the demo's."""
    doors: dict[web.AbstractRoute, Door] = {}
    for path, door in _placed(extra):
        doors[app.router.add_route(door.method, path, door.handler)] = door
    app[DOORS] = doors


def _placed(extra: tuple[Door, ...]) -> Iterator[tuple[str, Door]]:
    for prefix in PREFIXES:
        for door in PUBLIC:
            yield prefix + door.path, door
    for door in (*OWN, *extra):
        yield door.path, door


__all__ = ["OPEN_ROUTES", "OWN", "PREFIXES", "PUBLIC", "add_doors"]
