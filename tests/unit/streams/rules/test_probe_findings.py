"""What the arrival of probe streams tells."""

from typing import Any

import pytest

from gateway.streams.rules import probe_findings
from gateway.streams.rules.probe import EVENTS, SPACING_SECONDS, Hello
from gateway.streams.rules.probe_findings import Arrival, Finding, Level, Reading

BASE = "https://g.example.com/v1"
HEADERS = {
    "Content-Type": "text/event-stream",
    "Cache-Control": "no-store, no-transform",
    "Referrer-Policy": "no-referrer",
}
SENT = [number * SPACING_SECONDS for number in range(EVENTS)]


def reading(
    nonce: str = "one", *, came: list[float] | None = None, changes: dict[str, Any] | None = None, **fields: Any
) -> Reading:
    """Make a reading to which nothing was done, but for what is given."""
    hello: dict[str, Any] = {"base": BASE, "http": "1.1", "after": nonce, "heartbeat_seconds": 15.0}
    arrivals = [Arrival(*each) for each in zip(SENT, came or [0.03 + at for at in SENT], strict=True)]
    given = {"status": 200, "headers": list(HEADERS.items()), "arrivals": arrivals, "is_complete": True, "seconds": 1.3}
    return Reading(nonce=nonce, hello=Hello(**hello | (changes or {})), **given | fields)


def judged(first: Reading | None = None, second: Reading | None = None, asked: str = BASE) -> dict[str, Finding]:
    found = list(probe_findings.judge(first or reading(), second or reading("two"), asked))
    return {each.name: each for each in found}


def without(*names: str, **more: str) -> list[tuple[str, str]]:
    return [(name, value) for name, value in HEADERS.items() if name not in names] + list(more.items())


def test_unchanged_stream_passes():
    """Nothing to fix, and the checks are listed."""
    found = judged()
    assert list(found) == ["arrival", "headers", "links"]
    assert {each.level for each in found.values()} == {Level.WELL}
    assert found["arrival"].text == "6 events, 250 ms apart, none more than 0 ms late"


@pytest.mark.parametrize(
    ("came", "pieces"),
    [
        ([1.3] * EVENTS, "one piece"),
        ([1.3 + n / 1000 for n in range(EVENTS)], "one piece"),
        ([0.6, 0.6, 0.6, 1.3, 1.3, 1.3], "2 pieces"),
    ],
)
def test_events_that_arrive_together_were_buffered(came: list[float], pieces: str):
    """A buffering proxy is named, with what to do about it."""
    found = judged(reading(came=came), reading("two", came=came))["buffered"]
    assert found.level is Level.BAD
    assert f"arrived in {pieces}, the first after {came[0]:.1f} s" in found.text
    assert "proxy_buffering off" in found.text


@pytest.mark.parametrize(
    "came",
    [
        [0.03, 0.28, 0.9, 0.91, 1.03, 1.28],  # a second's hiccup
        [2.0 + at for at in SENT],  # far away
        [0.03 + 1.2 * at for at in SENT],
        [0.5, 0.5, 0.6, 0.85, 1.1, 1.35],  # slow to begin
    ],
)
def test_slow_network_is_no_buffer(came: list[float]):
    """Distance and a hiccup delay events; they do not hold them back."""
    assert judged(reading(came=came), reading("two", came=came))["arrival"].level is Level.WELL


def test_one_late_reading_is_a_hiccup():
    """The machine was busy; the other reading shows that nothing is held back."""
    late = [1.3] * EVENTS
    for first, second in ((reading(came=late), reading("two")), (reading(), reading("two", came=late))):
        assert judged(first, second)["arrival"].level is Level.WELL


def test_copy_of_the_first_response_is_a_cache():
    """The second reader got what the first had sent; that it came at once is no buffer."""
    copy = reading("two", changes={"after": "one"}, came=[0.01] * EVENTS)
    found = judged(reading(), copy)
    assert found["cached"].level is Level.BAD
    assert found["arrival"].level is Level.WELL
    found = judged(reading(came=[1.3] * EVENTS), copy)
    assert {"cached", "buffered"} <= set(found)
    aged = reading("two", headers=without(Age="3"))
    assert "`Age: 3`" in judged(second=aged)["cached"].text


@pytest.mark.parametrize(
    ("headers", "name", "words"),
    [
        (without(**{"Content-Encoding": "gzip"}), "compressed", "gzip_types"),
        (without(**{"content-encoding": "br"}), "compressed", "(br)"),
        (without(**{"Content-Length": "700"}), "content-length", "proxy_buffering off"),
        (without("Cache-Control"), "cache-control", "it is missing"),
        (without("Cache-Control", **{"Cache-Control": "public, max-age=60"}), "cache-control", "max-age=60"),
        (without(**{"Access-Control-Allow-Origin": "*"}), "cors", "browsers reject"),
    ],
)
def test_changed_response_headers_are_named(headers: list[tuple[str, str]], name: str, words: str):
    """Each with what to do about it."""
    found = judged(reading(headers=headers))
    assert found[name].level is Level.BAD
    assert words in found[name].text
    assert "headers" not in found


def test_equivalent_headers_are_no_change():
    """HTTP/2 has lower-case names, and a proxy may add values."""
    headers = [("content-type", "text/event-stream; charset=utf-8"), ("cache-control", "No-Store,no-transform,private"),
               ("content-encoding", "identity"), ("via", "1.1 proxy")]  # fmt: skip
    assert "headers" in judged(reading(headers=headers))


def test_lost_request_header_is_named():
    """Without Last-Event-ID a browser that reconnects gets everything again."""
    found = judged(*(reading(each, changes={"after": None}) for each in ("one", "two")))
    assert found["last-event-id"].level is Level.BAD
    assert "cached" not in found


@pytest.mark.parametrize(
    ("base", "asked", "level"),
    [
        (BASE, BASE, Level.WELL),
        ("https://G.example.com:443/v1", BASE, Level.WELL),
        ("http://g.example.com/v1", BASE, Level.BAD),
        ("http://127.0.0.1:8080/v1", BASE, Level.BAD),
        (BASE, "http://127.0.0.1:8080/v1", Level.NOTE),
        ("https://other.example.com/v1", BASE, Level.NOTE),
    ],
)
def test_wrong_links_are_reported(base: str, asked: str, level: Level):
    """A page on https cannot follow a link to http; from inside, links to the public address are right."""
    found = judged(reading(changes={"base": base}), asked=asked)["links"]
    assert found.level is level
    assert ("public_url" in found.text) == (level is not Level.WELL)


def test_http_1_0_is_reported():
    """It works, and a cut looks like an end."""
    found = judged(reading(changes={"http": "1.0"}))["http"]
    assert found.level is Level.NOTE
    assert "proxy_http_version 1.1" in found.text


def test_broken_stream_is_a_cut():
    """Whatever came before it."""
    cut = reading(is_complete=False, seconds=0.7, error="Response payload is not completed")
    for first, second in ((cut, reading("two")), (reading(), cut)):
        found = judged(first, second)["cut"]
        assert found.level is Level.BAD
        assert found.text == "it was cut after 0.7 s, before its end (Response payload is not completed)"


@pytest.mark.parametrize(
    ("reading_", "name", "words"),
    [
        (reading(status=None, error="Cannot connect"), "unreachable", "Cannot connect"),
        (reading(status=301, headers=[("Location", "https://g/v1")]), "redirect", "check https://g/v1 instead"),
        (reading(status=302, headers=[]), "redirect", "check elsewhere"),
        (reading(status=404), "status", "no gateway at that address"),
        (reading(status=429), "status", "try again"),
        (reading(status=418), "status", "it responded with 418; an event stream was expected"),
        (reading(headers=[("Content-Type", "text/html")]), "content-type", "text/html, not text/event-stream"),
        (reading(headers=[]), "content-type", "no type"),
    ],
)
def test_response_that_is_no_event_stream_is_refused(reading_: Reading, name: str, words: str):
    """There is nothing to judge, but something to report."""
    found = probe_findings.refused(reading_)
    assert found is not None
    assert (found.level, found.name) == (Level.BAD, name)
    assert words in found.text
    assert probe_findings.refused(reading()) is None


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(14.9, "before the first heartbeat (15 s)"), (60.0, "a heartbeat was sent every 15 s")],
)
def test_cut_silence_says_what_to_change(seconds: float, words: str):
    """An idle timeout, or a limit on the whole response."""
    found = probe_findings.outlasted(reading(is_complete=False, seconds=SENT[-1] + 0.03 + seconds), 90)
    assert found.level is Level.BAD
    assert f"after {seconds:.0f} of 90 seconds" in found.text
    assert words in found.text


def test_survived_silence_passes():
    """Heartbeats are enough to keep it open."""
    assert probe_findings.outlasted(reading(seconds=91.0), 90).level is Level.WELL
