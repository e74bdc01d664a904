"""Aliases: names of the operators' own for a model, a version or a deployment (docs/aliases.md).

A name is looked up once, before anything else looks at the target: an alias never leads to another alias.
"""

from collections.abc import Mapping

from gateway.domain.targets import Target, TargetKind, is_model_name, parse_version

_DEPLOYMENTS = "deployments/"


def parse_target(text: str) -> Target:
    """Parse the target of an alias. Raise `ValueError` unless it is a model, a version of one, or a deployment."""
    name = text.removeprefix(_DEPLOYMENTS)
    if name != text and is_model_name(name):
        return Target(TargetKind.DEPLOYMENT, name)
    target = parse_version(text)
    if target.model is None:
        raise ValueError("the model of a version id is unknown")
    return target


def target_of_create(aliases: Mapping[str, Target], given: Target) -> Target | None:
    """Return what a create runs that names `given`; `None` if that is no alias.

    A version that the create names itself stays, as one of the model that the alias stands for. A deployment has no
    versions: there, the name is none of an alias.
    """
    target = None if given.model is None else aliases.get(given.model)
    if target is None or given.version is None:
        return target
    if target.kind is TargetKind.DEPLOYMENT:
        return None
    return Target(TargetKind.VERSION, target.model, given.version)
