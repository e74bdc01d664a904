"""Logging as text and JSON, without secrets."""

import io
import json
import logging
import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import logs
from gateway.access.rules.api_keys import mint
from gateway.logs.formats import FORMATS
from gateway.logs.sink import DirectSink
from tests.support.log_lines import REGISTERED

KEY = mint(bytes(range(48))).key
TOKEN = "r8_0123456789abcdefghijklmnopqrstuvwxyz0"
TICKET = "abcdefghijklmnopqrstuvwxyz234567abcdefghijklmnopqrst"
SECRETS = [KEY, TOKEN, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", f"Bearer {KEY}", "Bearer abcdef", TICKET]
SECRETS += [
    f"https://gateway.example.com/v1/streams/{TICKET}",
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAAB",
]


def reported(style: str, level: str = "debug") -> tuple[logging.Logger, io.StringIO]:
    stream = io.StringIO()
    logs.configure(style, level, [REGISTERED, TOKEN], stream)
    return logging.getLogger("gateway.test"), stream


def test_text_line_has_time_level_logger_message_and_fields():
    """One event, one line."""
    logger, stream = reported("console")
    logger.info("prediction finished", extra={"prediction": "abc", "seconds": 1.5, "why": "two words", "none": None})
    time, rest = stream.getvalue().split(" ", 1)
    assert rest == 'INFO    gateway.test: prediction finished prediction=abc seconds=1.5 why="two words"\n'
    assert time.endswith("Z")
    assert len(time) == len("2026-01-31T12:00:00.000Z")


def test_json_line_is_one_object():
    """Each line can be parsed alone."""
    logger, stream = reported("json")
    logger.warning("prediction %s", "finished", extra={"prediction": "abc", "seconds": 1.5, "tags": ["a", "b"]})
    line = json.loads(stream.getvalue())
    assert line.pop("time").endswith("Z")
    assert line == {
        "level": "WARNING",
        "logger": "gateway.test",
        "message": "prediction finished",
        "prediction": "abc",
        "seconds": 1.5,
        "tags": ["a", "b"],
    }


def test_times_are_utc(monkeypatch):
    """Logs of machines in different time zones can be combined."""
    logger, stream = reported("json")
    record = logger.makeRecord("gateway.test", logging.INFO, "f", 1, "x", (), None)
    record.created = 1_800_000_000.25
    logger.handle(record)
    assert json.loads(stream.getvalue())["time"] == "2027-01-15T08:00:00.250Z"


@pytest.mark.parametrize("style", ["console", "json"])
@pytest.mark.parametrize("secret", [*SECRETS, REGISTERED])
def test_secrets_are_redacted_everywhere(style, secret):
    """Message, arguments, fields, nested fields, exceptions with causes, and stacks."""
    logger, stream = reported(style)
    logger.info(f"text {secret} text")  # noqa: G004
    logger.info("text %s", secret)
    logger.info("text %(a)s", {"a": secret})
    logger.info("text %s", ValueError(secret))
    logger.info("x", extra={"field": secret})
    logger.info("x", extra={"field": {"inner": [secret, (secret,), {secret}, {secret: 1}, secret.encode()]}})
    logger.info("x", extra={"field": ValueError(secret), "other": Shown(secret)})
    try:
        try:
            raise ValueError(secret)
        except ValueError as cause:
            raise RuntimeError(f"because {secret}") from cause
    except RuntimeError:
        logger.exception("failed")
        logger.warning("failed", exc_info=True, stack_info=True)
    text = stream.getvalue()
    assert secret.removeprefix("Bearer ") not in text
    assert json.dumps(secret)[1:-1].removeprefix("Bearer ") not in text
    assert text.count("[redacted]") >= 12
    assert "RuntimeError" in text
    if style == "json":
        assert len([json.loads(line) for line in text.splitlines()]) == 9


class Shown:
    def __init__(self, text: str) -> None:
        self.text = text

    def __str__(self) -> str:
        return self.text


def test_fields_with_secret_names_are_redacted():
    """For any value and type."""
    logger, stream = reported("json")
    logger.info(
        "x", extra={"authorization": "plain", "headers": {"Authorization": "plain", "Cookie": "plain", "A": "b"}}
    )
    assert "plain" not in stream.getvalue()
    assert json.loads(stream.getvalue())["headers"]["A"] == "b"


def test_registered_secret_is_redacted_in_url_encoding_too():
    """A password with special characters appears neither plain nor encoded."""
    logger, stream = reported("console")
    logger.info("connecting to redis://:%s@h", "p%40ss%20%22word%22%5Cn%2Fx")
    assert "p%40ss" not in stream.getvalue()


def test_very_short_secret_is_not_registered():
    """It would match parts of ordinary words."""
    redactor = logs.Redactor(["a", "ab", "abcdef"])
    assert redactor.text("cab abcdef") == "cab [redacted]"


def test_longest_matching_secret_is_redacted():
    """A secret that is a prefix of another leaves no rest."""
    redactor = logs.Redactor(["secret", "secret-longer"])
    assert redactor.text("a secret-longer b secret c") == "a [redacted] b [redacted] c"


def test_records_are_not_modified_for_other_handlers():
    """Tests and tools that capture records are not affected."""
    logger, _ = reported("console")
    seen = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.append(record)

    keep = Keep()
    logger.addHandler(keep)
    try:
        logger.info("text %s", TOKEN, extra={"field": TOKEN})
    finally:
        logger.removeHandler(keep)
    assert seen[0].getMessage() == f"text {TOKEN}"
    assert seen[0].field == TOKEN


def test_formatting_error_does_not_print_the_arguments(capsys):
    """Logging's own error report would print them unredacted."""
    logger, stream = reported("console")
    logger.info("text %d", TOKEN)
    line = stream.getvalue()
    assert line.endswith("ERROR   gateway.logs: a log line could not be written of=gateway.test\n")
    assert line.count("\n") == 1
    assert TOKEN not in capsys.readouterr().err


def test_closed_stream_is_ignored():
    """The stderr of a daemon may be closed."""
    logger, stream = reported("console")
    stream.close()
    logger.info("x")


def test_newline_in_a_text_cannot_forge_a_line():
    """A newline in a caller's text starts no new line."""
    logger, stream = reported("console")
    logger.info("text\nINFO forged\x1b[31m", extra={"field": "a\nINFO forged", "eq": "a=b"})
    assert stream.getvalue().count("\n") == 1
    assert "\x1b" not in stream.getvalue()
    assert 'eq="a=b"' in stream.getvalue()


@given(st.text(), st.text(), st.dictionaries(st.text(), st.text() | st.integers() | st.floats(allow_nan=False)))
def test_any_text_makes_one_valid_json_line(message, field, nested):
    """Redaction never breaks the JSON."""
    stream = io.StringIO()
    handler = logs.Handler(DirectSink(stream), logs.Redactor([REGISTERED]), FORMATS["json"])
    text = f'"Bearer {message}" {message}"{KEY}\\'
    record = logging.LogRecord("gateway", logging.INFO, "f", 1, text, None, None)
    record.field, record.nested = field, nested
    handler.emit(record)
    line = json.loads(stream.getvalue())
    assert KEY not in line["message"]
    assert stream.getvalue().count("\n") == 1


def test_deep_fields_are_truncated():
    """A recursive structure makes no endless line."""
    logger, stream = reported("json")
    endless: dict[str, object] = {}
    endless["again"] = endless
    logger.info("x", extra={"field": endless})
    assert (
        "…"
        in json.loads(stream.getvalue())["field"]["again"]["again"]["again"]["again"]["again"]["again"]["again"][
            "again"
        ]
    )


def test_level_applies_to_the_gateway_and_libraries_log_warnings():
    """At debug, libraries do not flood the log."""
    logger, stream = reported("console", "debug")
    logger.debug("mine")
    logging.getLogger("asyncio").info("theirs")
    logging.getLogger("asyncio").warning("their warning")
    assert "mine" in stream.getvalue()
    assert "theirs" not in stream.getvalue()
    assert "their warning" in stream.getvalue()


def test_records_below_the_level_are_dropped():
    """At error, warnings of libraries are dropped too."""
    logger, stream = reported("console", "error")
    logger.warning("mine")
    logging.getLogger("asyncio").warning("theirs")
    assert stream.getvalue() == ""


def test_python_warnings_are_logged():
    """Nothing bypasses the format on stderr."""
    _, stream = reported("json")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logs.logging.captureWarnings(capture=True)
        warnings.warn(f"old {KEY}", stacklevel=1)
    assert json.loads(stream.getvalue())["logger"] == "py.warnings"
    assert KEY not in stream.getvalue()


def test_configuring_twice_logs_each_line_once():
    """The second configuration replaces the first."""
    _, first = reported("console")
    logger, second = reported("console")
    logger.info("x")
    assert first.getvalue() == ""
    assert second.getvalue().count("\n") == 1


def test_redact_masks_secrets_in_terminal_output():
    """Messages of the command line contain no secrets either."""
    logs.register_secret("registered-secret")
    assert logs.redact(f"a registered-secret and {KEY}") == "a [redacted] and [redacted]"


def test_surrogates_and_huge_numbers_are_logged():
    """Header bytes that are not UTF-8, and numbers of any size, break no line."""
    logger, stream = reported("json")
    logger.info("x", extra={"bad": b"\xff".decode("utf-8", "surrogateescape"), "big": 2**200, "nan": float("nan")})
    line = json.loads(stream.getvalue())
    assert line["big"] == 2**200
    assert line["bad"] == "\udcff"
