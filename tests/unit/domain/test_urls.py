"""URLs in the form in which they are sent."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from gateway.domain.urls import MAX_SENT_LENGTH, as_sent

ALLOWED = frozenset(string.ascii_letters + string.digits + "-._~:/?#[]@!$&'()*+,;=%")


@pytest.mark.parametrize(
    ("url", "sent"),
    [
        ("https://a.example", "https://a.example"),
        ("http://A.example:8080/x", "http://A.example:8080/x"),
        ("https://a.example:/", "https://a.example/"),
        ("https://[::1]:8080/", "https://[::1]:8080/"),
        ("https://a.example/%zz%C3%BC/ü", "https://a.example/%zz%C3%BC/%C3%BC"),
        ('https://a.example/"<>\\^`{|}', "https://a.example/%22%3C%3E%5C%5E%60%7B%7C%7D"),
        ("https://a.example?q=1 2#ü", "https://a.example?q=1%202#%C3%BC"),
        ("https://faß.example/", "https://xn--fa-hia.example/"),
        ("https://💩.example/", "https://xn--ls8h.example/"),
        ("https://a_ü.example/", "https://xn--a_-yka.example/"),
        ("https://a。b.example/", "https://a.b.example/"),
    ],
)
def test_url_is_sent_as_a_browser_would(url: str, sent: str):
    """What is encoded stays as it is."""
    assert as_sent(url) == sent


@pytest.mark.parametrize(
    "url",
    [
        "", "x", "//a.example", "ftp://a.example/", "https:a.example", "https:///x", "https://@a.example/",
        "https://a.example:65536/", "https://a.example:0/", "https://a.example:-1/", "https://a:b:c/", "https://[x]/",
        "https://[::1/", "https://a b/", "https://a\\b/", "https://a.example/\x00", "https://a.example/\t",
        "https://a.example/\u2028", "https://a.example/\ud800", "https://" + "ü" * 64 + ".example/",
        "https://a.example/" + "x" * MAX_SENT_LENGTH, "https://" + "\u0301\u0327" * 4000 + "/",
    ],
)  # fmt: skip
def test_what_cannot_be_sent_is_refused(url: str):
    """With a reason that is a part of a sentence."""
    with pytest.raises(ValueError, match=r"^must "):
        as_sent(url)


@pytest.mark.parametrize(
    "url", ["ftp://10.0.0.1/x", "FTP://a.example/", "file:///etc/x", "mailto:a@b.example", "ws://a/"]
)
def test_another_scheme_is_named(url: str):
    """The URL is an absolute one: its author learns what is wrong with it."""
    scheme = url.partition(":")[0].lower()
    with pytest.raises(ValueError, match=rf"^must be an https or http URL, not {scheme}$"):
        as_sent(url)


@given(st.text(max_size=60), st.text(max_size=60))
def test_sent_form_is_ascii_and_final(host: str, rest: str):
    """Whatever was given: it needs no more encoding, and the URL library agrees on its parts."""
    try:
        sent = as_sent(f"https://{host}/{rest}")
    except ValueError:
        return
    assert set(sent) <= ALLOWED
    assert as_sent(sent) == sent
    assert str(URL(sent, encoded=True).raw_path_qs)
