"""Targets: what can be run, in every way that it can be named, and the globs that allow them.

A create names its target by its route (an official model, a deployment) or by `version`, which has three forms: 64 hex
digits, `owner/name`, `owner/name:<64 hex>` (docs/replicate-api.md, Routes).
"""

import re
from collections.abc import Iterable, Sequence
from enum import StrEnum
from fnmatch import fnmatchcase

import msgspec

OWNER = r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}"
NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}"
VERSION = r"[0-9a-f]{64}"

_MODEL = re.compile(rf"({OWNER})/({NAME})(?::({VERSION}))?")
_BARE = re.compile(VERSION)


class TargetKind(StrEnum):
    """How a target is reached."""

    VERSION = "version"
    MODEL = "model"
    DEPLOYMENT = "deployment"


class Target(msgspec.Struct, frozen=True):
    """What a create asks to run. A bare version names no model: its `model` is `None` until it is resolved."""

    kind: TargetKind
    model: str | None
    """`owner/name` of the model or of the deployment."""
    version: str | None = None

    @property
    def name(self) -> str:
        """The target as one text: `owner/name`, `owner/name:version`, or the bare version."""
        if self.model is None:
            return self.version or ""
        return f"{self.model}:{self.version}" if self.version else self.model


def parse_version(text: str) -> Target:
    """Read the `version` of a create. Raise `ValueError` for what is in none of the three forms."""
    if _BARE.fullmatch(text):
        return Target(TargetKind.VERSION, None, text)
    if match := _MODEL.fullmatch(text):
        owner, name, version = match.groups()
        return Target(TargetKind.VERSION if version else TargetKind.MODEL, f"{owner}/{name}", version)
    raise ValueError("not a version id, owner/name, or owner/name:version")


def is_model_name(text: str) -> bool:
    """Whether the text is `owner/name`."""
    match = _MODEL.fullmatch(text)
    return match is not None and match[3] is None


def allows(globs: Sequence[str], model: str) -> bool:
    """Whether `owner/name` is on an allow-list. `*` stands for any text without a slash; alone, for everything."""
    owner, _, name = model.partition("/")
    for glob in globs:
        if glob == "*":
            return True
        glob_owner, _, glob_name = glob.partition("/")
        if "/" not in name and fnmatchcase(owner, glob_owner) and fnmatchcase(name, glob_name):
            return True
    return False


def is_named_by(glob: str, model: str | None) -> bool:
    """Whether a rule's glob names a target. One whose model is unknown is named by `*` alone."""
    return glob == "*" or (model is not None and allows((glob,), model))


def allows_everything(globs: Sequence[str]) -> bool:
    """Whether the list keeps nothing out, so that a target need not even be known by name."""
    return "*" in globs


def exact_models(globs: Iterable[str]) -> list[str]:
    """Return the entries that name one model, so that upstream can be asked whether a version is that model's."""
    return [glob for glob in globs if is_model_name(glob)]


def target_identity(target: Target) -> str:
    """Name a target in one form: a version by its id however it was posted."""
    match target.kind:
        case TargetKind.VERSION:
            return f"version:{target.version}"
        case TargetKind.MODEL | TargetKind.DEPLOYMENT:
            return f"{target.kind.value}:{target.model}"
