"""What callers may ask of the cache, and how."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.cache_directives import (
    Directives,
    parse_cache_control,
    parse_deterministic,
    parse_gateway_cache,
    read,
)

WORDS = [
    ("no-cache", Directives(no_cache=True)),
    ("no-store", Directives(no_store=True)),
    ("only-if-cached", Directives(only_if_cached=True)),
    ("max-age=0", Directives(max_age=0)),
    ("max-age=60", Directives(max_age=60)),
    ("max-age=0060", Directives(max_age=60)),
    ("max-age=99999999999999999999", Directives(max_age=2**31)),
    ("max-age=" + "9" * 5000, Directives(max_age=2**31)),
    ("max-age=2147483647", Directives(max_age=2**31 - 1)),
    ("", Directives()),
    (" , ,", Directives()),
    ("NO-CACHE , Max-Age=60", Directives(no_cache=True, max_age=60)),
    ("max-age=60,max-age=5,no-store,no-store", Directives(no_store=True, max_age=5)),
    ("only-if-cached,no-cache", Directives(no_cache=True, only_if_cached=True)),
]


@pytest.mark.parametrize(("text", "expected"), WORDS)
def test_four_directives_mean_the_same_in_both_headers(text, expected):
    """`Gateway-Cache` is learned once."""
    assert parse_gateway_cache(text) == expected
    assert parse_cache_control(text) == expected


@pytest.mark.parametrize(
    "word",
    [
        "nocache", "no_cache", "max-age", "max-age=", "max-age=-1", "max-age=1.5", "max-age=ten", 'max-age="5"',
        "max-age=٣", "no-cache=x", "no-store=", "only-if-cached=1", "max-stale", "private", "public",
        "no-cache;no-store", "no-cache no-store", "=", "=5", "max-age=5=5", "max-age==5", "\x00", "é",
    ],
)  # fmt: skip
def test_misspelled_directive_is_refused_by_name(word):
    """A caller who writes `nocache` learns it, and does not get a cached result after all."""
    with pytest.raises(
        ValueError, match=r"^Gateway-Cache: .* is not one of no-cache, no-store, max-age=<seconds>, only-if"
    ) as e:
        parse_gateway_cache(f"no-cache, {word}")
    assert repr(word) in str(e.value)


def test_long_directive_is_truncated_in_the_error():
    """An error does not repeat kilobytes."""
    with pytest.raises(ValueError, match="Gateway-Cache") as error:
        parse_gateway_cache("x" * 5000)
    assert len(str(error.value)) < 200


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("no-cache, private, must-revalidate", Directives(no_cache=True)),
        ("max-stale=5, no-store, min-fresh=3, stale-if-error=6", Directives(no_store=True)),
        ('max-age="60"', Directives(max_age=60)),
        ("max-age = 60", Directives(max_age=60)),
        ("max-age=ten, no-store", Directives(no_store=True)),
        ("max-age", Directives()),
        ("max-age=-1", Directives()),
        ('no-cache="Set-Cookie"', Directives(no_cache=True)),
        ('ext="a, no-store, b"', Directives()),
        ('ext="a\\", no-store, b", no-cache', Directives(no_cache=True)),
        ('ext="no end, no-store', Directives(no_store=True)),
        ("no-storey, xno-cache", Directives()),
        (";;=,\x00,no-store", Directives(no_store=True)),
        ("proxy-revalidate,,no-cache,", Directives(no_cache=True)),
    ],
)
def test_cache_control_is_read_leniently(text, expected):
    """It is written for caches of all kinds: unknown directives are skipped."""
    assert parse_cache_control(text) == expected


@given(
    st.text(max_size=40)
    | st.lists(st.sampled_from(['"', ",", "=", "\\", " ", "no-store", "max-age", "5"]), max_size=12).map("".join)
)
def test_any_cache_control_is_accepted(text):
    """A browser extension's header never fails a request."""
    assert isinstance(parse_cache_control(text), Directives)
    assert parse_cache_control(f"{text.replace(chr(34), '')},no-store").no_store


@given(st.lists(st.sampled_from(WORDS), max_size=4))
def test_directives_combine_in_any_order(words):
    """The stricter of two counts, whichever came first."""
    text = ",".join(word for word, _ in words)
    turned = ",".join(word for word, _ in reversed(words))
    assert parse_gateway_cache(text) == parse_gateway_cache(turned) == parse_cache_control(text)


@given(st.text(max_size=10).filter(lambda text: text.strip(" ,\t\r\n")))
def test_any_other_gateway_cache_value_is_refused(junk):
    """No value of the gateway's own header is silently ignored."""
    known = ("no-cache", "no-store", "only-if-cached", "max-age")
    if not any(word.strip().lower().startswith(known) for word in junk.split(",")) and any(
        map(str.strip, junk.split(","))
    ):
        with pytest.raises(ValueError, match="Gateway-Cache"):
            parse_gateway_cache(junk)


def test_cache_control_counts_only_where_enabled():
    """Pages poll with `cache: "no-store"`, which must not disable the cache for their team."""
    headers = {"gateway_cache": "max-age=60", "cache_control": "no-store, max-age=5"}
    assert read(**headers) == Directives(max_age=60)
    assert read(**headers, honor_cache_control=True) == Directives(no_store=True, max_age=5)
    assert read() == Directives()
    assert read(None, None, "no-cache", honor_cache_control=True) == Directives(no_cache=True)


@pytest.mark.parametrize("text", ["true", " True ", "TRUE"])
def test_deterministic_header_is_true(text):
    """`Gateway-Deterministic: true` is the only value."""
    assert parse_deterministic(text)
    assert read("no-cache", text) == Directives(no_cache=True, deterministic=True)


@pytest.mark.parametrize("text", ["", "false", "1", "yes", "?1", "true, true", "x" * 5000])
def test_any_other_deterministic_header_is_refused(text):
    """A caller who writes `false` to opt out gets an error with the right spelling."""
    with pytest.raises(ValueError, match=r"^Gateway-Deterministic: .*no-store") as error:
        read(deterministic=text)
    assert len(str(error.value)) < 200
