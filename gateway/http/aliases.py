"""Aliases in requests: replace them by their targets, and note them for the access log."""

from collections.abc import Collection
from typing import Final, NamedTuple

from aiohttp import web
from msgspec.structs import replace

from gateway.domain.create_body import CreateBody
from gateway.domain.create_request import NamedBy
from gateway.domain.records import Kind
from gateway.domain.targets import Target, TargetKind
from gateway.http.keys import ALIAS, CALLER
from gateway.models.rules.aliases import target_of_create

MODELS: Final = (TargetKind.MODEL, TargetKind.VERSION)
DEPLOYMENTS: Final = (TargetKind.DEPLOYMENT,)


class CreateRoute(NamedTuple):
    """Where a create goes upstream, and with which target and body."""

    operation: str
    path: str
    target: Target
    body: CreateBody
    named_by: NamedBy | None = None
    """How the caller named the target, if by an alias."""


def route_create(request: web.Request, kind: Kind, given: CreateRoute) -> CreateRoute:
    """Return the route of a create with its alias replaced, or the same route if it names none."""
    aliases = request[CALLER].team.aliases
    target = target_of_create(aliases, given.target) if aliases else None
    if target is None:
        return given
    request[ALIAS] = given.target.name, target.name
    body, version = given.body, given.body.version
    named_by = NamedBy(given.path, version)
    if kind is Kind.TRAINING:
        path = f"/models/{target.model}/versions/{target.version}/trainings"
        return CreateRoute(given.operation, path, target, body, named_by)
    if target.kind is TargetKind.DEPLOYMENT:
        operation, path = "deployments.predictions.create", f"/deployments/{target.model}/predictions"
        return CreateRoute(operation, path, target, replace(body, version=None), named_by)
    if target.kind is TargetKind.VERSION or version is not None:
        body = replace(body, version=target.name)
        return CreateRoute("predictions.create", "/predictions", target, body, named_by)
    return CreateRoute("models.predictions.create", f"/models/{target.model}/predictions", target, body, named_by)


def follow_path(request: web.Request, kinds: Collection[TargetKind]) -> None:
    """Replace an alias in the path by the name of its model or deployment, if its target is of one of these kinds."""
    parts = request.match_info
    given = f"{parts['owner']}/{parts['name']}"
    target = request[CALLER].team.aliases.get(given)
    if target is None or target.kind not in kinds or target.model is None:
        return
    request[ALIAS] = given, target.name
    owner, _, name = target.model.partition("/")
    request.match_info = {**parts, "owner": owner, "name": name}  # type: ignore[assignment]  # ours is a variable
