"""The probe stream."""

import msgspec
import pytest

from gateway.commands import check
from gateway.streams.rules import probe
from gateway.streams.rules.probe import Hello, Tick, base_at
from gateway.streams.rules.sse import EventSplitter


@pytest.mark.parametrize(
    ("url", "base"),
    [
        ("https://g.example.com", "https://g.example.com/v1"),
        ("https://G.example.com:443/", "https://g.example.com/v1"),
        ("http://127.0.0.1:8080/v1", "http://127.0.0.1:8080/v1"),
        ("https://example.com/replicate/v1/", "https://example.com/replicate/v1"),
        ("https://example.com/replicate", "https://example.com/replicate/v1"),
        ("http://[::1]:80/v1", "http://[::1]/v1"),
    ],
)
def test_base_has_one_spelling(url, base):
    """An operator may paste the origin or the clients' base."""
    assert base_at(url) == base


@pytest.mark.parametrize(
    "url", ["g.example.com", "ftp://g.example.com", "https://", "", "https://g/?a=b", "https://g/#x"]
)
def test_invalid_base_is_refused(url):
    """A typing error is reported before any request."""
    with pytest.raises(ValueError, match="expected a URL"):
        base_at(url)


def test_events_can_be_read_by_any_client():
    """A name, an id and JSON on one line, as the gateway's other events; the last one is `done`."""
    content = Hello(base="https://g/v1", http="1.1", after='x"y', heartbeat_seconds=15.0)
    raw = b"".join(each.raw for each in (probe.hello(content), probe.tick(3, 0.75049), probe.done()))
    events = EventSplitter(1000).feed(raw)
    assert [(each.name, each.id) for each in events] == [("hello", "0"), ("tick", "3"), ("done", "end")]
    assert msgspec.json.decode(events[0].data(), type=Hello) == content
    assert msgspec.json.decode(events[1].data(), type=Tick) == Tick(0.75)


def test_command_line_knows_the_longest_silence():
    """It says so before any request, without importing the HTTP stack."""
    assert check._LONGEST_SILENCE == probe.MAX_SECONDS
