"""The queue of the log, and lines of a form."""

import io
import json
import logging
import subprocess
import sys
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import logs
from gateway.logs.sink import QueuedSink
from tests.support.log_lines import REGISTERED


class Jammed(io.StringIO):
    """A stream whose reader stalls until it is released."""

    def __init__(self) -> None:
        super().__init__()
        self.reached, self.goes_on = threading.Event(), threading.Event()

    def write(self, text: str) -> int:
        self.reached.set()
        assert self.goes_on.wait(10)
        return super().write(text)


def queued(stream: io.StringIO, max_lines: int = 5) -> QueuedSink:
    return QueuedSink(stream, "{} are missing\n".format, max_lines=max_lines)


def test_stalled_reader_blocks_nothing():
    """Lines beyond the limit are dropped and counted, and the gap is reported later."""
    stream = Jammed()
    sink = queued(stream)
    sink.write("first\n")
    assert stream.reached.wait(10)
    for number in range(8):
        sink.write(f"{number}\n")
    assert sink.dropped == 3
    stream.goes_on.set()
    sink.flush(10)
    assert stream.getvalue() == "first\n0\n1\n2\n3\n4\n3 are missing\n"
    assert sink.dropped == 3


def test_close_does_not_wait_for_a_stalled_reader():
    """A process can stop although its log is blocked."""
    stream = Jammed()
    sink = queued(stream)
    sink.write("first\n")
    assert stream.reached.wait(10)
    sink.write("second\n")
    sink.flush(0.0)
    assert stream.getvalue() == ""
    stream.goes_on.set()


def test_queued_lines_are_written_in_order_and_none_is_lost():
    """Many threads, one stream: lines stay whole and in the order of each thread."""
    stream = io.StringIO()
    sink = queued(stream, max_lines=100_000)
    threads = [
        threading.Thread(target=lambda mine=mine: [sink.write(f"{mine} {n}\n") for n in range(2000)])
        for mine in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sink.close()
    lines = [tuple(map(int, line.split())) for line in stream.getvalue().splitlines()]
    assert len(lines) == 8000
    for mine in range(4):
        assert [n for who, n in lines if who == mine] == list(range(2000))


def test_lines_for_a_closed_stream_count_as_dropped():
    """A closed pipe stops nothing and shows in the metrics."""
    stream = io.StringIO()
    stream.close()
    sink = queued(stream)
    sink.write("x\n")
    sink.flush(10)
    assert sink.dropped == 1


def test_servers_log_through_the_queue():
    """Lines are redacted and formatted as usual; dropped lines are counted for the process."""
    stream = io.StringIO()
    logs.configure("json", "info", [REGISTERED], stream, queued=True)
    logging.getLogger("gateway.test").info(
        "x", extra={"field": f"data:image/png;base64,{'A' * 40}", "other": REGISTERED}
    )
    logs.flush(10)
    line = json.loads(stream.getvalue())
    assert line["field"] == "data:image/png;base64,[redacted]"
    assert line["other"] == "[redacted]"
    assert logs.dropped() == 0
    (handler,) = logging.getLogger().handlers
    assert isinstance(handler, logs.Handler)
    handler.sink.dropped = 2  # type: ignore[attr-defined]
    logging.getLogger("gateway.test").info("y")
    handler.flush()
    missing = json.loads(stream.getvalue().splitlines()[-1])
    assert (missing["message"], missing["lines"], missing["level"]) == ("log lines were dropped", 2, "WARNING")
    assert logs.dropped() == 2


def test_crashes_that_python_prints_by_itself_are_lines_of_the_log():
    """A thread, or a finalizer: with JSON logs every line of stderr is JSON."""
    code = (
        "import threading\n"
        "from gateway import logs\n"
        "logs.configure('json', 'info', queued=True)\n"
        "class Broken:\n"
        "    def __del__(self): raise ValueError('in a finalizer')\n"
        "def crash(): raise ValueError('in a thread')\n"
        "Broken()\n"
        "thread = threading.Thread(target=crash, name='worker'); thread.start(); thread.join()\n"
        "logs.flush(2)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert [("in a finalizer" in line["exc_info"], "in a thread" in line["exc_info"]) for line in lines] == [
        (True, False), (False, True)
    ]  # fmt: skip
    assert lines[1]["thread_name"] == "worker"


def test_what_is_printed_is_in_the_format_of_the_log():
    """Text as it is; JSON as an object with time, level, logger and message."""
    assert logs.line("console", "serves http://x") == "serves http://x"
    line = json.loads(logs.line("json", "serves http://x"))
    assert (line["level"], line["logger"], line["message"]) == ("INFO", "gateway", "serves http://x")


FORM = logs.Form(recurring=("team", "status"), ids=("request_id",), numbers=("seconds", "bytes"))
VALUES = st.one_of(st.none(), st.text(max_size=20), st.sampled_from(["rgw_abcdefgh1234", "sesame2024", "alpha"]))


@pytest.mark.parametrize("style", ["console", "json"])
@given(
    team=VALUES,
    request_id=st.one_of(st.text(max_size=20), st.sampled_from(["rgw_abcdefgh1234", "xsesame2024x", "0af1"])),
    size=st.one_of(st.none(), st.integers(0, 2**70)),
    more=st.dictionaries(st.sampled_from(["origin", "events"]), VALUES),
)
def test_line_of_a_form_says_what_a_record_says(style, team, request_id, size, more):
    """The fast way redacts and escapes like the other, and falls back to it where it cannot."""
    line = logs.Line(FORM, (team, 200), (request_id,), (0.25, size), more)
    shown = []
    for write in (
        lambda logger: logs.info(logger, "request", line),
        lambda logger: logger.info("request", extra=line.fields()),
    ):
        stream = io.StringIO()
        logs.configure(style, "info", ["sesame2024"], stream)
        write(logging.getLogger("gateway.access"))
        text = stream.getvalue()
        assert "sesame2024" not in text
        shown.append({**json.loads(text), "time": ""} if style == "json" else text.partition(" ")[2])
    assert shown[0] == shown[1]


def test_line_of_a_form_reaches_other_handlers_as_a_record(caplog):
    """What an operator attaches to the log gets the fields too."""
    with caplog.at_level(logging.INFO, "gateway.access"):
        logs.info(logging.getLogger("gateway.access"), "request", logs.Line(FORM, ("alpha", 200), ("x",), (1, 2), {}))
    (record,) = caplog.records
    assert (record.team, record.status, record.request_id, record.bytes) == ("alpha", 200, "x", 2)


def test_secret_that_is_registered_later_is_redacted_in_kept_text():
    """The text of recurring values is made again when there is one more secret."""
    stream = io.StringIO()
    logs.configure("json", "info", [], stream)
    line = logs.Line(FORM, ("latersecret", 200), ("x",), (1, 2), {})
    logs.info(logging.getLogger("gateway.access"), "request", line)
    logs.register_secret("latersecret")
    logs.info(logging.getLogger("gateway.access"), "request", line)
    first, second = stream.getvalue().splitlines()
    assert "latersecret" in first
    assert "latersecret" not in second
