"""Find model, version and deployment of a request, for faults that select by target."""

import msgspec

from gateway.simulator.api.call import Call
from gateway.simulator.catalog import Model, Version
from gateway.simulator.registry import targets_of


def targets(call: Call) -> tuple[str, ...]:
    """Return the names by which faults can select the request. Empty if it has no target."""
    params, registry = call.params, call.world.registry
    if "id" in params:
        prediction = call.world.predictions.get(params["id"])
        return () if prediction is None else targets_of(prediction.model, prediction.version, prediction.deployment)
    if "owner" not in params:
        return _posted(call)
    ref = f"{params['owner']}/{params['name']}"
    if call.operation.startswith("deployments."):
        deployment = registry.deployments.get(ref)
        return (ref,) if deployment is None else _names(registry.versions.get(deployment.version), ref)
    if "version" in params:
        return (ref, params["version"], f"{ref}:{params['version']}")
    model = registry.models.get(ref)
    return (ref,) if model is None or model.latest is None else targets_of(model, model.latest)


def _posted(call: Call) -> tuple[str, ...]:
    """Read the version from the body of a create."""
    try:
        body = msgspec.json.decode(call.body) if call.body else None
    except (msgspec.DecodeError, RecursionError):
        return ()
    version = body.get("version") if isinstance(body, dict) else None
    if not isinstance(version, str):
        return ()
    ref, _, version_id = version.rpartition(":")
    found = call.world.registry.versions.get(version_id)
    model = call.world.registry.models.get(version)
    if found is None and model is not None and model.latest is not None:
        found = (model, model.latest)
    return (version, *_names(found, None), *([ref] if ref else []))


def _names(found: tuple[Model, Version] | None, deployment: str | None) -> tuple[str, ...]:
    if found is None:
        return () if deployment is None else (deployment,)
    return targets_of(*found, deployment)
