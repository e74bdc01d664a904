"""`gateway check --stream`: output and exit code."""

import pytest
from click.testing import CliRunner, Result

from gateway.cli import main
from gateway.commands import stream_check
from gateway.streams.rules.probe_findings import Finding, Level

WELL = Finding(Level.WELL, "arrival", "6 events")
NOTE = Finding(Level.NOTE, "version", "HTTP/2 is not offered")
BAD = Finding(Level.BAD, "buffered", "6 events came in one piece")


def check(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["check", *arguments], env={"GATEWAY_CONFIG": "/nowhere"}, prog_name="gateway")


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> list[Finding]:
    """Set the findings of the check."""
    findings: list[Finding] = []

    async def check_stream(url: str, silence: int | None) -> list[Finding]:
        assert (url, silence) == ("https://g.example.com", 30)
        return findings

    monkeypatch.setattr(stream_check, "check_stream", check_stream)
    return findings


def test_good_findings_end_with_ok(found):
    """No config is needed."""
    found += [WELL, NOTE]
    result = check("--stream", "https://g.example.com", "--seconds", "30")
    assert result.exit_code == 0
    assert result.stdout == "arrival    6 events\nok\n"
    assert result.stderr == "warning: version: HTTP/2 is not offered\n"


def test_bad_finding_fails(found):
    """Exit code 1 and no ok."""
    found += [BAD, WELL]
    result = check("--stream", "https://g.example.com", "--seconds", "30")
    assert result.exit_code == 1
    assert result.stdout == "arrival    6 events\n"
    assert result.stderr == "buffered: 6 events came in one piece\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--seconds", "5"), "--seconds requires --stream"),
        (("--stream", "https://g", "--upstream"), "cannot be combined"),
        (("--stream", "https://g", "--seconds", "601"), "601 is not in the range"),
        (("--stream", "https://g", "--seconds", "0"), "0 is not in the range"),
    ],
)
def test_conflicting_options_are_refused(arguments, words):
    """Before any request."""
    result = check(*arguments)
    assert result.exit_code == 2
    assert words in result.stderr


@pytest.mark.parametrize(
    ("url", "words"), [("g.example.com", "expected a URL"), ("http://127.0.0.1:1", "Cannot connect")]
)
def test_invalid_url_is_reported_in_a_sentence(url, words):
    """Typos, and gateways that are down."""
    result = check("--stream", url)
    assert result.exit_code == 1
    assert words in result.stderr
    assert "Traceback" not in result.output
