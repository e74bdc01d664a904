"""`gateway check --stream`: what is said, and with which exit code."""

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
    """What the check is to find."""
    findings: list[Finding] = []

    async def check_stream(url: str, silence: int | None) -> list[Finding]:
        assert (url, silence) == ("https://g.example.com", 30)
        return findings

    monkeypatch.setattr(stream_check, "check_stream", check_stream)
    return findings


def test_passing_check_prints_ok(found):
    """No config is needed: it runs from anywhere."""
    found += [WELL, NOTE]
    result = check("--stream", "https://g.example.com", "--seconds", "30")
    assert result.exit_code == 0
    assert result.stdout == "arrival    6 events\nok\n"
    assert result.stderr == "warning: version: HTTP/2 is not offered\n"


def test_failing_check_exits_1(found):
    """And prints no ok."""
    found += [BAD, WELL]
    result = check("--stream", "https://g.example.com", "--seconds", "30")
    assert result.exit_code == 1
    assert result.stdout == "arrival    6 events\n"
    assert result.stderr == "buffered: 6 events came in one piece\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--seconds", "5"), "--seconds goes with --stream"),
        (("--stream", "https://g", "--upstream"), "use one of them"),
        (("--stream", "https://g", "--seconds", "601"), "601 is not in the range"),
        (("--stream", "https://g", "--seconds", "0"), "0 is not in the range"),
    ],
)
def test_conflicting_options_are_refused(arguments, words):
    """Before any request."""
    result = check(*arguments)
    assert result.exit_code == 2
    assert words in result.stderr


@pytest.mark.parametrize(("url", "words"), [("g.example.com", "is wanted"), ("http://127.0.0.1:1", "Cannot connect")])
def test_invalid_address_is_one_sentence(url, words):
    """Typing errors, and gateways that are not there."""
    result = check("--stream", url)
    assert result.exit_code == 1
    assert words in result.stderr
    assert "Traceback" not in result.output
