"""Hit, join, miss, bypass or refusal."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.caching import (
    LINKS_LIVE_SECONDS,
    Bypass,
    Entry,
    Flight,
    Hit,
    Join,
    Miss,
    Refused,
    cache_status,
    decide,
    has_links,
    ttl_of,
    usable_until,
)
from gateway.core.determinism import Deterministic, NotDeterministic, Proof, Reason
from gateway.core.directives import Directives, parse_gateway_cache

NOW = 1_764_000_000.0
PROVEN = Deterministic(Proof.SEED)
DAY = 86_400


def entry(age=100.0, *, links=False, ttl=DAY) -> Entry:
    return Entry(completed_at=NOW - age, expires_at=NOW - age + ttl, has_links=links)


def decided(asked="", found=None, flight=None, *, judgement=PROVEN, ttl=DAY, persisted=False):
    flight = None if flight is None else Flight(joinable=flight)
    wishes = parse_gateway_cache(asked)
    return decide(wishes, judgement, found, flight, now=NOW, ttl_seconds=ttl, outputs_persisted=persisted)


OLD, YOUNG = entry(100), entry(5)


@pytest.mark.parametrize(
    ("asked", "found", "flight", "expected"),
    [
        ("", None, None, Miss(stored=True)),
        ("", OLD, None, Hit(DAY - 100)),
        ("", OLD, True, Hit(DAY - 100)),
        ("", None, True, Join()),
        ("", None, False, Miss(stored=True)),
        ("no-cache", OLD, None, Miss(stored=True)),
        ("no-cache", OLD, True, Join()),
        ("no-cache", OLD, False, Miss(stored=True)),
        ("no-store", OLD, True, Bypass(Reason.NO_STORE)),
        ("no-store", None, None, Bypass(Reason.NO_STORE)),
        ("max-age=50", OLD, None, Miss(stored=True)),
        ("max-age=50", OLD, True, Join()),
        ("max-age=50", YOUNG, None, Hit(DAY - 5)),
        ("max-age=5", YOUNG, None, Hit(DAY - 5)),
        ("max-age=4", YOUNG, None, Miss(stored=True)),
        ("max-age=0", YOUNG, None, Miss(stored=True)),
        ("only-if-cached", OLD, None, Hit(DAY - 100)),
        ("only-if-cached", None, True, Join()),
        ("only-if-cached", None, False, Refused(Reason.NOT_CACHED)),
        ("only-if-cached", None, None, Refused(Reason.NOT_CACHED)),
        ("only-if-cached, max-age=50", OLD, None, Refused(Reason.NOT_CACHED)),
        ("only-if-cached, no-cache", OLD, None, Refused(Reason.NOT_CACHED)),
        ("only-if-cached, no-cache", OLD, True, Join()),
        ("only-if-cached, no-store", OLD, True, Refused(Reason.NO_STORE)),
    ],
)
def test_each_wish_gets_what_it_asks_for(asked, found, flight, expected):
    """The table of `Gateway-Cache` in the documentation."""
    assert decided(asked, found, flight) == expected


@pytest.mark.parametrize("reason", list(Reason))
def test_what_is_not_proven_gets_a_run_of_its_own(reason):
    """Chance is never shared, and the caller reads why."""
    judgement = NotDeterministic(reason)
    assert decided("", OLD, True, judgement=judgement) == Bypass(reason)
    assert decided("only-if-cached", OLD, True, judgement=judgement) == Refused(reason)
    assert decided("no-store", OLD, True, judgement=judgement) == Bypass(Reason.NO_STORE)


def test_an_entry_that_has_expired_is_not_used():
    """At its last moment, and after it, a new run is made."""
    assert decided("", entry(DAY - 1)) == Hit(1)
    assert decided("", entry(DAY - 0.5)) == Hit(0)
    assert decided("", entry(DAY)) == Miss(stored=True)
    assert decided("", entry(DAY + 1), True) == Join()


def test_a_shorter_life_in_the_config_counts_at_once():
    """An operator who lowers the age need not purge; one who raises it does not wake the dead."""
    assert decided("", entry(100), ttl=60) == Miss(stored=True)
    assert decided("", entry(100, ttl=60), ttl=DAY) == Miss(stored=True)
    assert decided("", entry(10, ttl=60), ttl=DAY) == Hit(50)


def test_where_nothing_is_kept_runs_are_joined_only():
    """`ttl_seconds = 0` shares what happens at once, and no more."""
    assert decided("", entry(0), ttl=0) == Miss(stored=False)
    assert decided("", entry(0), True, ttl=0) == Join()


def test_links_that_upstream_lets_die_are_not_handed_out():
    """A hit's pictures can be fetched: without a store of its own the gateway stops after 55 minutes."""
    fresh, dead = entry(3299, links=True), entry(3300, links=True)
    assert decided("", fresh) == Hit(1)
    assert decided("", dead) == Miss(stored=True)
    assert decided("", dead, persisted=True) == Hit(DAY - 3300)


@pytest.mark.parametrize(
    ("ttl", "links", "persisted", "seconds"),
    [
        (DAY, False, False, DAY),
        (DAY, True, True, DAY),
        (DAY, True, False, 3300),
        (60, True, False, 60),
        (0, True, False, 0),
        (0, False, True, 0),
    ],
)
def test_how_long_a_result_may_be_shared(ttl, links, persisted, seconds):
    """As the config says, but no longer than its files can be had."""
    assert usable_until(NOW, ttl, has_links=links, outputs_persisted=persisted) == NOW + seconds
    assert LINKS_LIVE_SECONDS < 3600


def test_a_rules_age_goes_before_that_of_the_cache():
    """Also where it says 0."""
    assert ttl_of(None, 60) == 60
    assert ttl_of(5, 60) == 5
    assert ttl_of(0, 60) == 0


@given(
    st.builds(Directives, st.booleans(), st.booleans(), st.none() | st.integers(0, 200), st.booleans()),
    st.none() | st.builds(entry, st.floats(-5, 200), links=st.booleans(), ttl=st.integers(0, 200)),
    st.none() | st.builds(Flight, st.booleans()),
    st.integers(0, 200),
    st.sampled_from([PROVEN, NotDeterministic(Reason.NO_SEED)]),
)
def test_no_combination_breaks_a_promise(wishes, found, flight, ttl, judgement):
    """What was excluded is not done, whatever else was asked; a run that may be joined is not made twice."""
    what = decide(wishes, judgement, found, flight, now=NOW, ttl_seconds=ttl, outputs_persisted=False)
    private = wishes.no_store or judgement is not PROVEN
    assert private == (isinstance(what, Bypass) or (isinstance(what, Refused) and what.reason is not Reason.NOT_CACHED))
    assert not (wishes.only_if_cached and isinstance(what, Miss | Bypass))
    if isinstance(what, Hit):
        assert not wishes.no_cache
        assert 0 <= what.ttl_seconds <= ttl + 5
        assert wishes.max_age is None or NOW - found.completed_at <= wishes.max_age
    if isinstance(what, Join):
        assert flight.joinable
    if isinstance(what, Miss | Refused) and not private:
        assert flight is None or not flight.joinable


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        (None, False),
        (3.5, False),
        ("", False),
        ("a text about http and https", False),
        ("see https://example.com for more", False),
        ("data:image/png;base64,QQ==", False),
        (["Hello", " world"], False),
        ({"https://replicate.delivery/x": 1}, False),
        ("https://replicate.delivery/pbxt/x/out.png", True),
        (" HTTPS://pbxt.replicate.delivery/out.png\n", True),
        ("http://127.0.0.1:9091/out.png", True),
        (["Hello", "https://example.com/a.png"], True),
        ({"a": [{"b": "https://example.com/a.png"}]}, True),
        ("![a](https://replicate.delivery/x/a.png)", True),
        ('{"url":"https://replicate.delivery/x/a.png"}', True),
    ],
)
def test_links_to_files_are_found_wherever_they_stand(output, expected):
    """Pictures, lists of them, and objects that hold them."""
    assert has_links(json.dumps(output).encode()) is expected


def test_links_are_found_however_they_are_escaped():
    """Go writes `&` as an escape; others escape the slashes, or everything."""
    assert has_links(b'"https:\\/\\/replicate.delivery\\/a.png"')
    assert has_links('"{}"'.format("".join(f"\\u{ord(c):04x}" for c in "https://replicate.delivery/a")).encode())
    assert not has_links(b'"\\u0041"')


def test_in_doubt_an_output_has_links():
    """What cannot be read is shared for the shorter time."""
    assert has_links(b'"http://x')
    assert has_links(b'["http"' + b"," + b"[" * 5000 + b"]" * 5000 + b"]")
    assert not has_links(b"[" * 900 + b"1" + b"]" * 900)


@pytest.mark.parametrize(
    ("decision", "text"),
    [
        (Hit(3541), "replicate-gateway; hit; ttl=3541"),
        (Join(), "replicate-gateway; fwd=miss; collapsed"),
        (Miss(stored=True), "replicate-gateway; fwd=miss; stored"),
        (Miss(stored=False), "replicate-gateway; fwd=miss"),
        (Bypass(Reason.RULE_NEVER), "replicate-gateway; fwd=bypass; detail=rule-never"),
        (Refused(Reason.NOT_CACHED), "replicate-gateway; detail=not-cached"),
    ],
)
def test_cache_status_tells_what_was_done(decision, text):
    """RFC 9211, as the documentation shows it."""
    assert cache_status(decision) == text
