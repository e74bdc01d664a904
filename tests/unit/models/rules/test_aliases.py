"""Aliases: what their targets may be, and which one a name stands for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.targets import Target, TargetKind
from gateway.models.rules.aliases import parse_target, target_of_create

VERSION = "0123456789abcdef" * 4
MODEL = Target(TargetKind.MODEL, "meta/llama")
PINNED = Target(TargetKind.VERSION, "meta/llama", VERSION)
SERVICE = Target(TargetKind.DEPLOYMENT, "acme/service")
NAMES = st.sampled_from(["acme/a", "acme/b", "acme/c"])
TARGETS = st.sampled_from([MODEL, PINNED, SERVICE])
TABLES = st.dictionaries(NAMES, TARGETS)


@pytest.mark.parametrize(
    ("text", "target"),
    [("meta/llama", MODEL), (f"meta/llama:{VERSION}", PINNED), ("deployments/acme/service", SERVICE)],
)
def test_target_is_a_model_a_version_or_a_deployment(text: str, target: Target):
    """The three things that can be run."""
    assert parse_target(text) == target


@pytest.mark.parametrize(
    "text",
    ["", "llama", VERSION, "meta/*", "*", "meta/llama:latest", "deployments/", "models/meta/llama",
     f"deployments/acme/service:{VERSION}", "meta/llama/x", " meta/llama"],
)  # fmt: skip
def test_anything_else_is_refused(text: str):
    """A bare version id names no model, so an alias of it would have no metadata."""
    with pytest.raises(ValueError, match=r"."):
        parse_target(text)


@given(TABLES, NAMES, st.sampled_from([VERSION, None]))
def test_version_of_a_request_stays(aliases: dict[str, Target], name: str, version: str | None):
    """A client that pinned a version gets it, as one of the model that the alias stands for."""
    kind = TargetKind.MODEL if version is None else TargetKind.VERSION
    found, target = target_of_create(aliases, Target(kind, name, version)), aliases.get(name)
    if version is None:
        assert found == target
    elif target is None or target.kind is TargetKind.DEPLOYMENT:
        assert found is None
    else:
        assert found == Target(TargetKind.VERSION, target.model, version)


def test_bare_version_is_no_alias():
    """It has no name."""
    assert target_of_create({"acme/a": MODEL}, Target(TargetKind.VERSION, None, VERSION)) is None
