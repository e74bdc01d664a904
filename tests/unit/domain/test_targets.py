"""Targets and the globs that allow them."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.targets import (
    Target,
    TargetKind,
    allows,
    exact_models,
    is_model_name,
    is_named_by,
    parse_version,
)

VERSION = "39ed52f2a78e934b3ba6e2a89f5b1c712de7dfea535525255b1aa35c5565e08b"
WORD = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,9}", fullmatch=True)
GLOB_PART = st.from_regex(r"[a-c*?.]{1,5}", fullmatch=True)
PART = st.from_regex(r"[a-c.]{1,5}", fullmatch=True)


@pytest.mark.parametrize(
    ("text", "target", "name"),
    [
        (VERSION, Target(TargetKind.VERSION, None, VERSION), VERSION),
        ("acme/flux", Target(TargetKind.MODEL, "acme/flux"), "acme/flux"),
        (f"acme/flux:{VERSION}", Target(TargetKind.VERSION, "acme/flux", VERSION), f"acme/flux:{VERSION}"),
        ("black-forest-labs/flux-1.1-pro", Target(TargetKind.MODEL, "black-forest-labs/flux-1.1-pro"), None),
    ],
)
def test_version_has_three_forms(text, target, name):
    """What `run()` of any client sends is understood."""
    assert parse_version(text) == target
    assert target.name == (name or text)


@pytest.mark.parametrize(
    "text",
    [
        "", "acme", "acme/", "/flux", "acme/flux/x", "acme/flux:", "acme/flux:latest", f"acme/flux:{VERSION}0",
        VERSION[:-1], VERSION.upper(), VERSION + "\n", "acme/../x", "../flux", "acme/flux?x", "acme/fl ux",
        ".acme/flux", "acme/.flux", "acmé/flux", "acme/" + "x" * 201, "a" * 101 + "/flux", "acme/%2e%2e", "*/flux",
    ],
)  # fmt: skip
def test_other_forms_are_refused(text):
    """Nothing that could leave a path upstream is ever a target."""
    with pytest.raises(ValueError, match="not a version id"):
        parse_version(text)


@given(WORD, WORD, st.none() | st.just(VERSION))
def test_target_reads_back_from_its_name(owner, name, version):
    """What is stored of a run names what was asked for."""
    text = f"{owner}/{name}" + (f":{version}" if version else "")
    target = parse_version(text)
    assert target.name == text
    assert parse_version(target.name) == target
    assert target.model == f"{owner}/{name}"
    assert is_model_name(target.model)


@given(st.text(max_size=80))
def test_any_text_is_a_target_or_refused(text):
    """A target is made of letters that are safe in a path, whatever the caller wrote."""
    try:
        target = parse_version(text)
    except ValueError:
        return
    assert re.fullmatch(r"[A-Za-z0-9._:/-]+", target.name)


def test_target_without_model_and_version_has_no_name():
    """There is none such, but nothing breaks on it."""
    assert Target(TargetKind.VERSION, None).name == ""


@pytest.mark.parametrize(
    ("globs", "model", "allowed"),
    [
        (["*"], "acme/flux", True),
        (["*"], "anything", True),
        ([], "acme/flux", False),
        (["acme/*"], "acme/flux", True),
        (["acme/*"], "acme2/flux", False),
        (["acme/*"], "acme/flux/dev", False),
        (["*/flux"], "acme/flux", True),
        (["*/*"], "acme/flux", True),
        (["a*e/f*x"], "acme/flux", True),
        (["acme*"], "acme/flux", False),
        (["acme/flu?"], "acme/flux", True),
        (["acme/flu?"], "acme/fluxx", False),
        (["Acme/flux"], "acme/flux", False),
        (["other/x", "acme/flux"], "acme/flux", True),
        (["acme/flux.1"], "acme/flux-1", False),
    ],
)
def test_globs_match_what_they_name(globs, model, allowed):
    """`*` alone is everything; within a name it never crosses the slash."""
    assert allows(globs, model) is allowed


@given(GLOB_PART, GLOB_PART, PART, PART)
def test_owner_and_name_are_matched_separately(glob_owner, glob_name, owner, name):
    """A glob for owners says nothing about names, and the other way round."""

    def matches(glob: str, text: str) -> bool:
        return bool(re.fullmatch(re.escape(glob).replace(r"\*", ".*").replace(r"\?", "."), text))

    expected = matches(glob_owner, owner) and matches(glob_name, name)
    assert allows([f"{glob_owner}/{glob_name}"], f"{owner}/{name}") is expected


@given(st.lists(st.tuples(GLOB_PART, GLOB_PART).map("/".join), max_size=4), GLOB_PART, PART, PART)
def test_longer_list_allows_no_less(globs, extra, owner, name):
    """Adding a line to a list takes nothing away."""
    model = f"{owner}/{name}"
    assert allows([*globs, f"{extra}/*"], model) >= allows(globs, model)


def test_glob_of_many_stars_is_fast():
    """A list cannot stop the gateway."""
    assert allows(["acme/" + "*a" * 50 + "b"], "acme/" + "a" * 200) is False


def test_entries_without_wildcards_name_one_model():
    """Upstream can be asked about those."""
    assert exact_models(["*", "acme/*", "acme/flux", "acme/flu?", "b/c.d"]) == ["acme/flux", "b/c.d"]
    assert not is_model_name(f"acme/flux:{VERSION}")


@pytest.mark.parametrize(
    ("glob", "model", "is_named"),
    [
        ("*", None, True), ("*", "acme/flux", True), ("*/*", None, False), ("*/*", "acme/flux", True),
        ("acme/f*", "acme/flux", True), ("acme/f*", "acme/sdxl", False), ("acme/*", None, False), ("*", "", True),
        ("acme/*", "", False),
    ],
)  # fmt: skip
def test_only_a_star_rule_matches_an_unknown_model(glob, model, is_named):
    """Any narrower rule might be for another model."""
    assert is_named_by(glob, model) is is_named
