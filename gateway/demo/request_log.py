"""The demo's request log: one short line in the terminal for each request, and for each run that ends later.

It reads the records of the access log, which have no key, no query and no ticket, and writes a part of them.
"""

import logging
import os
import re
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, TextIO

import click

from gateway import logs
from gateway.domain.money import usd
from gateway.logs.sink import QueuedSink, Sink

_REQUESTS: Final = "gateway.access"
_RUNS: Final = "gateway.predictions.tracker"
_RUN_ENDED: Final = "run ended"
_MOST_RUNS: Final = 1000
"""Runs whose cost, or whose missing cost, is remembered."""
_VERSION: Final = re.compile(r"([0-9a-f]{8})[0-9a-f]{56}")
_SHARED_COLOURS: Final = {"hit": "green", "joined": "cyan"}


@contextmanager
def request_log(stream: TextIO) -> Iterator[None]:
    """Write the request log to a stream, with colours if it is a terminal. At the end, wait until it is written."""
    sink = QueuedSink(stream, lambda lines: f"({lines} lines of the request log were left out)\n")
    try:
        with attached(RequestLog(sink, has_colours=stream.isatty() and "NO_COLOR" not in os.environ)):
            yield
    finally:
        sink.close()


@contextmanager
def attached(handler: "RequestLog") -> Iterator[None]:
    """Pass the records of requests and of ends of runs to a request log."""
    loggers = [logging.getLogger(name) for name in (_REQUESTS, _RUNS)]
    levels = [logger.level for logger in loggers]
    with logs.watched(handler):
        for logger in loggers:
            logger.setLevel(logging.INFO)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


class RequestLog(logging.Handler):
    """Writes a line for each record of the access log."""

    def __init__(self, sink: Sink, *, has_colours: bool) -> None:
        super().__init__(logging.INFO)
        self._sink = sink
        self._has_colours = has_colours
        self._costs: OrderedDict[str, int] = OrderedDict()
        """What runs cost that have ended, by run."""
        self._unpriced: OrderedDict[str, None] = OrderedDict()
        """Runs that have not ended when their create was answered."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line, if the record is a request or the end of a run."""
        fields = vars(record)
        if record.name == _REQUESTS and "route" in fields:
            self._write(record.created, *self._request(fields))
        elif record.name == _RUNS and record.msg == _RUN_ENDED:
            self._note_end(record.created, fields)

    def _note_end(self, at: float, fields: dict[str, Any]) -> None:
        run, microusd = fields["run"], fields["microusd"]
        _remember(self._costs, run, microusd)
        if run in self._unpriced:
            del self._unpriced[run]
            self._write(at, _RUN_ENDED, str(fields["status"]), "", _short(fields["target"]), _dollars(microusd), "")

    def _request(self, fields: dict[str, Any]) -> tuple[str, str, str, str, str, str]:
        path = fields["path"] or "(no such route)"
        if "prediction" in fields:
            path = path.replace("{id}", fields["prediction"])
        return (
            f"{fields['method']:<7} {path}",
            str(fields["status"]),
            _shared(fields),
            _short(fields["target"] or ""),
            self._cost(fields),
            _duration(fields["seconds"]),
        )

    def _cost(self, fields: dict[str, Any]) -> str:
        """Return what a create cost; nothing for other requests, and for a run that has not ended."""
        run, shared = fields.get("run"), _shared(fields)
        if run is None or not shared or fields["method"] != "POST":
            return ""
        if shared != "run":
            return _dollars(0)
        if run in self._costs:
            return _dollars(self._costs[run])
        _remember(self._unpriced, run, None)
        return ""

    def _write(self, at: float, what: str, status: str, shared: str, target: str, cost: str, duration: str) -> None:
        paint = self._paint
        words = [
            paint(time.strftime("%H:%M:%S", time.localtime(at)), dim=True),
            what,
            paint(status, fg=_status_colour(status)),
            paint(shared, fg=_SHARED_COLOURS.get(shared)),
            target,
            cost,
            paint(duration, dim=True),
        ]
        self._sink.write(logs.redact("  ".join(word for word in words if word)) + "\n")

    def _paint(self, text: str, **style: Any) -> str:
        return click.style(text, **style) if text and self._has_colours else text


def _shared(fields: dict[str, Any]) -> str:
    """Return where an answer is from: the cache (`hit`), a run in progress (`joined`) or a run of its own (`run`)."""
    if fields["cache"] in ("hit", "joined"):
        return str(fields["cache"])
    return "run" if fields["cache"] is not None and "run" in fields else ""


def _remember(known: OrderedDict[str, Any], run: str, value: int | None) -> None:
    known[run] = value
    if len(known) > _MOST_RUNS:
        known.popitem(last=False)


def _short(target: str) -> str:
    """Return a target with the first digits of its version only."""
    return _VERSION.sub(r"\1", target)


def _status_colour(status: str) -> str:
    return {"4": "yellow", "5": "red", "f": "red"}.get(status[0], "green")


def _dollars(microusd: int) -> str:
    """Return an amount with at least cents, without the zeros after them."""
    whole, _, places = usd(microusd).partition(".")
    return f"${whole}.{places[:2]}{places[2:].rstrip('0')}"


def _duration(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.2f} s"
