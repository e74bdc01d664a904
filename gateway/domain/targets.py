"""Targets: parse what a create asks to run, and match targets against globs.

A create names its target by its route (an official model, a deployment) or by `version`, which has three forms: 64 hex
digits, `owner/name`, `owner/name:<64 hex>` (docs/replicate-api.md, Routes).
"""

import re
from collections.abc import Iterable, Sequence
from enum import StrEnum
from fnmatch import fnmatchcase
from functools import cached_property, lru_cache

import msgspec

OWNER = r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}"
NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}"
VERSION = r"[0-9a-f]{64}"

_MODEL = re.compile(rf"({OWNER})/({NAME})(?::({VERSION}))?")
_BARE = re.compile(VERSION)


class TargetKind(StrEnum):
    """The kind of a target."""

    VERSION = "version"
    MODEL = "model"
    DEPLOYMENT = "deployment"


class Target(msgspec.Struct, frozen=True, dict=True):
    """What a create asks to run. `model` is `None` for a bare version id, until it is resolved."""

    kind: TargetKind
    model: str | None
    """`owner/name` of the model or of the deployment."""
    version: str | None = None

    @cached_property
    def name(self) -> str:
        """The target as a text: `owner/name`, `owner/name:version`, or the bare version id."""
        if self.model is None:
            return self.version or ""
        return f"{self.model}:{self.version}" if self.version else self.model


@lru_cache(maxsize=1024)
def parse_version(text: str) -> Target:
    """Parse the `version` of a create. Raise `ValueError` if it has none of the three forms."""
    if _BARE.fullmatch(text):
        return Target(TargetKind.VERSION, None, text)
    if match := _MODEL.fullmatch(text):
        owner, name, version = match.groups()
        return Target(TargetKind.VERSION if version else TargetKind.MODEL, f"{owner}/{name}", version)
    raise ValueError("not a version id, owner/name, or owner/name:version")


def is_model_name(text: str) -> bool:
    """Return whether a text has the form `owner/name`."""
    match = _MODEL.fullmatch(text)
    return match is not None and match[3] is None


def allows(globs: Sequence[str], model: str) -> bool:
    """Return whether an allow-list contains `owner/name`. `*` matches any text without a slash; alone, everything."""
    owner, _, name = model.partition("/")
    for glob in globs:
        if glob == "*":
            return True
        glob_owner, _, glob_name = glob.partition("/")
        if "/" not in name and fnmatchcase(owner, glob_owner) and fnmatchcase(name, glob_name):
            return True
    return False


def is_named_by(glob: str, model: str | None) -> bool:
    """Return whether a rule's glob matches a model. An unknown model (`None`) only matches `*`."""
    return glob == "*" or (model is not None and allows((glob,), model))


def exact_models(globs: Iterable[str]) -> list[str]:
    """Return the entries without wildcards: the models that upstream can be asked about."""
    return [glob for glob in globs if is_model_name(glob)]


@lru_cache(maxsize=1024)
def target_identity(target: Target) -> str:
    """Return a target's canonical name. A version is named by its id alone, also if a model was given with it."""
    match target.kind:
        case TargetKind.VERSION:
            return f"version:{target.version}"
        case TargetKind.MODEL | TargetKind.DEPLOYMENT:
            return f"{target.kind.value}:{target.model}"
