"""Scopes, patterns and origins, and how keys narrow teams."""

from fnmatch import fnmatchcase

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.scopes import (
    DEFAULT_SCOPES,
    Scope,
    covers,
    is_pattern,
    narrow,
    normal_origin,
    origins_outside,
    patterns_of,
    patterns_outside,
    scopes_outside,
)

SCOPES = st.lists(st.sampled_from(list(Scope)))


def test_scopes_are_stable():
    """Configs and keys of today are read by later versions."""
    assert [str(scope) for scope in Scope] == [
        "read", "predict", "files", "train", "deploy", "manage", "tokens", "keys", "account", "admin",
    ]  # fmt: skip
    assert DEFAULT_SCOPES == ("read", "predict", "files")


@given(SCOPES, SCOPES)
def test_key_never_exceeds_its_team(team, key):
    """A key that asks for more than its team has does not get it."""
    assert narrow(team, key) == set(team) & set(key)


def test_key_without_scopes_has_its_teams():
    """No list restricts nothing; an empty list leaves nothing."""
    assert narrow(DEFAULT_SCOPES, None) == set(DEFAULT_SCOPES)
    assert narrow(DEFAULT_SCOPES, ()) == frozenset()


def test_unknown_scopes_grant_nothing():
    """A record from another version with a new scope grants nothing."""
    assert narrow(["read", "fly"], ["fly", "read"]) == {Scope.READ}


def test_scopes_that_the_team_lacks_are_named():
    """The operator learns which ones to remove."""
    assert scopes_outside(["read"], ["read", "train", "admin"]) == ["train", "admin"]


@pytest.mark.parametrize("text", ["*", "acme/*", "*/flux", "acme/my-deployment", "a_b.c/d?e*", "acme/**"])
def test_patterns_are_owner_and_name(text):
    """Lists of targets read as Replicate's names do."""
    assert is_pattern(text)


@pytest.mark.parametrize(
    "text", ["", "acme", "a*", "acme/", "/x", "a/b/c", "acme/x:" + "0" * 64, "a b/c", "acme/[ab]", "acme/x\n", "ä/b"]
)
def test_invalid_pattern_is_refused(text):
    """A typing error in a list is reported and does not silently match nothing."""
    assert not is_pattern(text)


@pytest.mark.parametrize(
    ("wider", "narrower", "does"),
    [
        ("*", "*", True),
        ("*", "acme/x", True),
        ("*", "acme/*", True),
        ("acme/*", "*", False),
        ("*/*", "*", False),
        ("acme/*", "acme/x", True),
        ("acme/*", "acme/x*", True),
        ("acme/*", "acme/**", True),
        ("acme/**", "acme/*", True),
        ("acme/x*", "acme/*", False),
        ("acme/?", "acme/*", False),
        ("acme/?", "acme/?", True),
        ("acme/*", "acme/?", True),
        ("acme/a", "acme/?", False),
        ("acme/x", "acme/X", False),
        ("acme/x", "acme/xy", False),
        ("a.b/*", "axb/c", False),
        ("acme/*-dev", "acme/*-x-dev", True),
        ("acme/*-dev", "acme/*", False),
    ],
)
def test_pattern_covers_only_narrower_patterns(wider, narrower, does):
    """A key for `acme/*` is refused to a team that has `acme/x*`."""
    assert covers(wider, narrower) is does


_LETTERS = "ab*?"
_PARTS, _PLAIN_PARTS = st.text(_LETTERS, min_size=1, max_size=5), st.text("abc", min_size=1, max_size=5)
_PATTERNS = st.builds("{}/{}".format, _PARTS, _PARTS)
_NAMES = st.builds("{}/{}".format, _PLAIN_PARTS, _PLAIN_PARTS)


@given(_PATTERNS, _PATTERNS, st.lists(_NAMES, max_size=30))
def test_covers_is_never_wrongly_true(wider, narrower, names):
    """No key reaches a target that its team cannot."""
    if covers(wider, narrower):
        for name in names:
            assert fnmatchcase(name, wider) or not fnmatchcase(name, narrower)


@given(_PATTERNS)
def test_pattern_with_many_stars_is_matched_at_once(pattern):
    """A server's key chooses the text, and some patterns of a team take exponential time if each `*` is tried anew."""
    assert not covers("*a" * 30 + "*c/" + pattern, "a" * 128 + "/" + "a" * 128)


@given(_PATTERNS)
def test_pattern_covers_itself(pattern):
    """A key may repeat what its team has."""
    assert covers(pattern, pattern)


@given(_PATTERNS, _NAMES)
def test_pattern_covers_a_name_that_it_matches(pattern, name):
    """Names are patterns without wildcards."""
    assert covers(pattern, name) == fnmatchcase(name, pattern)


def test_uncovered_patterns_are_named():
    """A team without a list is not limited; an empty list covers nothing."""
    assert patterns_outside(None, ["*"]) == []
    assert patterns_outside(["acme/*", "meta/llama"], ["acme/x", "meta/*", "*"]) == ["meta/*", "*"]
    assert patterns_outside([], ["acme/x"]) == ["acme/x"]


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("*", "*"),
        ("https://app.example.com", "https://app.example.com"),
        ("HTTPS://App.Example.COM", "https://app.example.com"),
        ("https://app.example.com:443", "https://app.example.com"),
        ("http://app.example.com:80", "http://app.example.com"),
        ("http://app.example.com:443", "http://app.example.com:443"),
        ("http://localhost:5173", "http://localhost:5173"),
        ("http://[::1]:3000", "http://[::1]:3000"),
        ("https://*.Example.com:443", "https://*.example.com"),
        ("http://*.localhost:5173", "http://*.localhost:5173"),
        ("capacitor://localhost", "capacitor://localhost"),
        ("chrome-extension://abcdefghijklmnop", "chrome-extension://abcdefghijklmnop"),
    ],
)
def test_origins_are_normalised_as_browsers_send_them(text, normal):
    """An origin with its default port written out is the one without."""
    assert normal_origin(text) == normal


@pytest.mark.parametrize(
    "text",
    [
        "", "null", "example.com", "https://", "https://a.com/", "https://a.com/x", "https://a.com?x", "https://a.com#x",
        "https://u:p@a.com", "https://*", "https://*.", "https://a.*.com", "https://*a.com", "https://*.*.com",
        "https://*.127.0.0.1", "https://*.[::1]", "*.example.com", "https://*.a.com:99999",
        "https://a.com:99999", "https://a.com:", "https://a b.com",
        "https://a.com\n", "https://[::1", "https://[zz]", "https://[1:2:3]", "https://ä.com", "**",
    ],
)  # fmt: skip
def test_invalid_origin_is_refused(text):
    """A path, a wildcard or a typing error would never match what a browser sends."""
    with pytest.raises(ValueError, match="expected an origin"):
        normal_origin(text)


@pytest.mark.parametrize(
    ("origin", "is_matched"),
    [
        ("https://app.example.com", True),
        ("https://a.b.c.example.com", True),
        ("https://example.com", False),
        ("https://badexample.com", False),
        ("http://app.example.com", False),
        ("https://app.example.com:8443", False),
        ("https://app.example.com.evil.net", False),
        ("https://.example.com", False),
        ("https://evil.net/.example.com", False),
        ("https://evil.net#.example.com", False),
        ("https://u@app.example.com", False),
        ("https://app.example.com:99999999", False),
        ("https://" + "a." * 200 + "example.com", False),
        ("null", False),
        ("", False),
    ],
)
def test_pattern_matches_any_labels_before_its_domain(origin, is_matched):
    """Exactly its scheme and port, and not the domain itself."""
    assert ("https://*.example.com" in list(patterns_of(origin))) == is_matched


def test_pattern_with_a_port_matches_that_port():
    """Ports are part of an origin."""
    assert "http://*.localhost:5173" in list(patterns_of("http://app.localhost:5173"))
    assert "http://*.localhost:5173" not in list(patterns_of("http://app.localhost:5174"))


def test_origins_outside_the_team_are_named():
    """A team that lists none, or all, leaves it to its keys."""
    assert origins_outside((), ["https://a.com"]) == []
    assert origins_outside(("*",), ["https://a.com", "*"]) == []
    assert origins_outside(("https://a.com",), ["https://a.com", "https://b.com", "*"]) == ["https://b.com", "*"]
    wanted = ["https://x.a.com", "https://*.x.a.com", "https://a.com", "https://*.com", "https://x.a.com:1"]
    assert origins_outside(("https://*.a.com",), wanted) == ["https://a.com", "https://*.com", "https://x.a.com:1"]
