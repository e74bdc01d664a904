"""The demo's request log, from records of the access log to lines."""

import io
import logging
import re
from typing import Any

import pytest

from gateway.demo.request_log import RequestLog, request_log
from gateway.logs.sink import DirectSink

REQUEST = {
    "route": "models.predictions.create", "path": "/models/{owner}/{name}/predictions", "method": "POST",
    "status": 201, "cache": "miss", "target": "meta/llama", "seconds": 1.2345, "prediction": "p1", "run": "r1",
}  # fmt: skip
ENDED = {"run": "r1", "status": "succeeded", "target": "meta/llama", "microusd": 1200}


@pytest.fixture
def written() -> io.StringIO:
    return io.StringIO()


def lines(written: io.StringIO) -> list[str]:
    """Return the lines without their times."""
    return [re.sub(r"^\d\d:\d\d:\d\d  ", "", line) for line in written.getvalue().splitlines()]


def record(name: str, message: str, fields: dict[str, Any]) -> logging.LogRecord:
    made = logging.LogRecord(f"gateway.{name}", logging.INFO, "", 0, message, (), None)
    vars(made).update(fields)
    return made


def request(handler: logging.Handler, **changed: Any) -> None:
    handler.emit(record("access", "request", REQUEST | changed))


def ended(handler: logging.Handler, **changed: Any) -> None:
    handler.emit(record("predictions.tracker", "run ended", ENDED | changed))


def test_create_that_waited_shows_its_cost(written: io.StringIO):
    """Hits and joined ones cost nothing. A poll shows the prediction, without the cost."""
    handler = RequestLog(DirectSink(written), has_colours=False)
    ended(handler)
    request(handler)
    request(handler, cache="hit", seconds=0.0042)
    request(handler, cache="joined", seconds=0.5)
    request(handler, method="GET", path="/predictions/{id}", status=200, cache=None, seconds=0.001)
    create = "POST    /models/{owner}/{name}/predictions  201"
    assert lines(written) == [
        f"{create}  run  meta/llama  $0.0012  1.23 s",
        f"{create}  hit  meta/llama  $0.00  4 ms",
        f"{create}  joined  meta/llama  $0.00  500 ms",
        "GET     /predictions/p1  200  meta/llama  1 ms",
    ]


def test_run_that_ends_after_its_create_has_a_line(written: io.StringIO):
    """Once, and only runs whose create is in the log."""
    handler = RequestLog(DirectSink(written), has_colours=False)
    request(handler)
    ended(handler, status="failed", microusd=0)
    ended(handler, run="r2")
    assert lines(written)[0].endswith("  run  meta/llama  1.23 s")
    assert lines(written)[1:] == ["run ended  failed  meta/llama  $0.00"]


def test_request_without_a_route_or_model(written: io.StringIO):
    """Nothing of its path is written."""
    handler = RequestLog(DirectSink(written), has_colours=False)
    request(handler, path=None, status=404, cache=None, target=None, method="GET")
    handler.emit(record("access", "something else", {}))
    assert lines(written) == ["GET     (no such route)  404  1.23 s"]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("stream", "environ", "coloured"),
    [(Terminal(), {}, True), (Terminal(), {"NO_COLOR": "1"}, False), (io.StringIO(), {}, False)],
)
def test_only_a_terminal_has_colours(
    stream: io.StringIO, environ: dict[str, str], coloured: bool, monkeypatch: pytest.MonkeyPatch
):
    """And none whose user wants none. The log itself has nothing of it, and its level is as before."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    access = logging.getLogger("gateway.access")
    level = access.level
    with request_log(stream):
        access.info("request", extra=REQUEST)
    access.info("request", extra=REQUEST)
    assert access.level == level
    assert ("\x1b[" in stream.getvalue()) is coloured
    assert len(stream.getvalue().splitlines()) == 1
