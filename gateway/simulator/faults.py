"""Fault injection. A fault is data that is set in Python, over HTTP, or from a file.

A fault applies to each request, webhook delivery or stream that it matches, at most `times` times.
"""

import asyncio
import contextlib
import json
import random
import tomllib
from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import msgspec

from gateway.simulator.operations import CREATES, OPERATIONS

SHAPES = ("edge", "database")


class FaultKind(msgspec.Struct, frozen=True):
    """A kind of fault: description, default operations, and parameters with their defaults."""

    description: str
    operation: str = "*"
    parameters: dict[str, Any] = {}


FAULT_KINDS: dict[str, FaultKind] = {
    # Before the request is processed: nothing is created.
    "delay": FaultKind("wait `seconds` before the request, or until the fault is removed", parameters={"seconds": 1.0}),
    "drop_before": FaultKind("close the connection without a response; nothing is created"),
    "html_error": FaultKind("respond with an HTML page and `status`; nothing is created", parameters={"status": 502}),
    "error": FaultKind(
        "respond with a JSON error, `status` and `value`", parameters={"status": 500, "value": "Internal server error"}
    ),
    "throttle": FaultKind("respond with the usual 429", parameters={"retry_after": 30}),
    "throttle_low_credit": FaultKind("respond with the 429 of accounts low on credit", parameters={"retry_after": 5}),
    "insufficient_credit": FaultKind("respond with 402", operation="*predictions.create"),
    "token_revoked": FaultKind(
        "respond with the 401 of a revoked token, with `value` as detail",
        parameters={"value": "You did not pass a valid authentication token"},
    ),
    "redirect": FaultKind(
        "respond with `status`, and `value` as Location",
        parameters={"status": 307, "value": "https://elsewhere.invalid/v1/predictions"},
    ),
    # After the request was processed: its effects have happened.
    "drop_after": FaultKind("process the request, then close the connection without a response"),
    "html_error_after": FaultKind(
        "process the request, then respond with an HTML page and `status`, after at most `seconds`",
        parameters={"status": 502, "seconds": None},
    ),
    "malformed_json": FaultKind("respond with the usual status and half of the body"),
    "delay_headers": FaultKind(
        "process the request, then wait `seconds`, or until the fault is removed, before responding",
        parameters={"seconds": 1.0},
    ),
    "slow_body": FaultKind("send the headers at once and the body slowly, over `seconds`", parameters={"seconds": 1.0}),
    "gzip": FaultKind("compress the response if the client accepts gzip"),
    # Content of responses.
    "shape": FaultKind("render predictions in the `value` format, edge or database", parameters={"value": "database"}),
    "time_digits": FaultKind(
        "render times with exactly `count` fractional digits: 0, 3, 6 or 9", parameters={"count": 9}
    ),
    "sync_processing": FaultKind(
        "answer an expired sync wait with 201, status processing and partial output", operation="*predictions.create"
    ),
    "sync_succeeded": FaultKind(
        "answer a finished sync wait with status succeeded and metrics", operation="*predictions.create"
    ),
    "version_override": FaultKind(
        "record a different version than requested", operation="*predictions.create", parameters={"value": "5" * 64}
    ),
    "hidden_version": FaultKind("record the version as hidden", operation="*predictions.create"),
    "model_override": FaultKind(
        "record a different model than requested",
        operation="*predictions.create",
        parameters={"value": "replicate-internal/x"},
    ),
    "not_found_after_create": FaultKind(
        "answer the first `count` reads of the created prediction with 404",
        operation=",".join(CREATES),
        parameters={"count": 1},
    ),
    # Progress of a prediction.
    "cold_boot": FaultKind(
        "stay in status starting for `seconds` more", operation=",".join(CREATES), parameters={"seconds": 30.0}
    ),
    "interrupted": FaultKind(
        "fail with `value` once running",
        operation=",".join(CREATES),
        parameters={"value": "Prediction interrupted; please retry (code: PA)"},
    ),
    "hang": FaultKind("run until canceled", operation=",".join(CREATES)),
    "cancel_race": FaultKind("answer a cancel with status processing, and finish anyway", operation="*.cancel"),
    "cancel_late": FaultKind(
        "answer a cancel with status processing, and end `seconds` later",
        operation="*.cancel",
        parameters={"seconds": 1.0},
    ),
    # Streams and outputs, on the second origin.
    "stream_idle": FaultKind(
        "send `count` events, then nothing for `seconds`, then the time-out comment",
        operation="streams.get",
        parameters={"count": 0, "seconds": None},
    ),
    "stream_cut": FaultKind(
        "abort the connection after `count` events", operation="streams.get", parameters={"count": 1}
    ),
    "stream_end": FaultKind(
        "end the body after `count` events, without done", operation="streams.get", parameters={"count": 1}
    ),
    "stream_content_type": FaultKind(
        "respond with content type `value`", operation="streams.get", parameters={"value": "text/html"}
    ),
    "output_missing": FaultKind("respond with 404, as for an expired output", operation="outputs.get"),
    "output_cut": FaultKind(
        "abort the connection after `count` bytes of an output", operation="outputs.get", parameters={"count": 1}
    ),
    # Webhooks.
    "webhook_double": FaultKind("send a webhook twice", operation="webhooks.deliver"),
    "webhook_disorder": FaultKind("send progress events after the completed event", operation="webhooks.deliver"),
    "webhook_lost": FaultKind("do not send the webhook", operation="webhooks.deliver"),
    "webhook_late": FaultKind(
        "send the webhook `seconds` late", operation="webhooks.deliver", parameters={"seconds": 1.0}
    ),
    "webhook_bad_signature": FaultKind("sign with a wrong secret", operation="webhooks.deliver"),
}

_PARAMETERS = ("seconds", "status", "count", "retry_after", "value")


class Fault(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A fault. Globs select requests; `operation` may have several, separated by commas.

    `target` is matched against model, version and deployment. The first `after` matches pass. `probability` uses a
    separate generator with `seed`. `seconds` are real time for faults of connections, and simulated time (shortened by
    `speed`) for cold_boot, cancel_late and webhook_late.
    """

    name: str
    operation: str | None = None
    path: str = "*"
    target: str = "*"
    times: int | None = None
    after: int = 0
    probability: float = 1.0
    seed: int = 0
    seconds: float | None = None
    status: int | None = None
    count: int | None = None
    retry_after: int | None = None
    value: str | None = None

    def __post_init__(self) -> None:
        kind = FAULT_KINDS.get(self.name)
        if kind is None:
            raise ValueError(f"unknown fault {self.name!r}; known faults: {', '.join(sorted(FAULT_KINDS))}")
        for parameter in _PARAMETERS:
            if getattr(self, parameter) is not None and parameter not in kind.parameters:
                known = ", ".join(kind.parameters) or "none"
                raise ValueError(f"fault {self.name!r} has no parameter {parameter!r}; its parameters: {known}")
        for pattern in (self.operation or "*").split(","):
            if not any(fnmatchcase(operation, pattern) for operation in OPERATIONS):
                raise ValueError(f"unknown operation {pattern!r}; known operations: {', '.join(OPERATIONS)}")
        if not 0.0 <= self.probability <= 1.0:
            raise ValueError(f"fault {self.name!r}: probability must be between 0 and 1, got {self.probability:g}")
        if (self.times is not None and self.times < 0) or self.after < 0:
            raise ValueError(f"fault {self.name!r}: times and after must be 0 or more")
        if self.name == "shape" and self.value not in {None, *SHAPES}:
            raise ValueError(f"fault 'shape': value must be one of {', '.join(SHAPES)}, got {self.value!r}")
        if self.name == "time_digits" and self.count not in {None, 0, 3, 6, 9}:
            raise ValueError(f"fault 'time_digits': count must be 0, 3, 6 or 9, got {self.count}")

    def get(self, parameter: str) -> Any:
        """Return a parameter or its default."""
        value = getattr(self, parameter)
        return FAULT_KINDS[self.name].parameters.get(parameter) if value is None else value

    def fits(self, operation: str, path: str) -> bool:
        """Say whether it matches operation and path. The target is checked separately: finding it costs more."""
        patterns = (self.operation or FAULT_KINDS[self.name].operation).split(",")
        return any(fnmatchcase(operation, pattern) for pattern in patterns) and fnmatchcase(path, self.path)


class FaultBook:
    """The active faults, with the number of times that each was applied."""

    def __init__(self, faults: Iterable[Fault] = ()) -> None:
        self._entries: list[_Entry] = []
        self._replaced = asyncio.Event()
        self.set(*faults)

    def set(self, *faults: Fault) -> None:
        """Replace the active faults."""
        self._replace([_Entry(fault) for fault in faults])

    def add(self, *faults: Fault) -> None:
        """Add active faults."""
        self._entries.extend(_Entry(fault) for fault in faults)

    def clear(self) -> None:
        """Remove all faults."""
        self._replace([])

    def _replace(self, entries: list["_Entry"]) -> None:
        self._entries = entries
        self._replaced.set()
        self._replaced = asyncio.Event()

    async def delay(self, fault: Fault) -> None:
        """Wait for the seconds of a fault, or until it is removed."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(fault.get("seconds")):
                while any(entry.fault is fault for entry in self._entries):
                    await self._replaced.wait()

    def __bool__(self) -> bool:
        return bool(self._entries)

    def needs_target(self, operation: str, path: str) -> bool:
        """Say whether a fault for such a request depends on its target."""
        return any(entry.fault.target != "*" and entry.fault.fits(operation, path) for entry in self._entries)

    def strike(self, operation: str, path: str, targets: Iterable[str] = ()) -> dict[str, Fault]:
        """Return the faults to apply to a request, by name, and count them. The first of a name wins."""
        struck: dict[str, Fault] = {}
        known = tuple(targets)
        for entry in self._entries:
            fault = entry.fault
            if fault.name in struck or not fault.fits(operation, path):
                continue
            if fault.target != "*" and not any(fnmatchcase(target, fault.target) for target in known):
                continue
            if entry.take():
                struck[fault.name] = fault
        return struck

    def show(self) -> list[dict[str, Any]]:
        """List the active faults, with the number of times that each was applied."""
        return [{**msgspec.to_builtins(entry.fault), "struck": entry.struck} for entry in self._entries]


class _Entry:
    """An active fault, its count and its random generator."""

    __slots__ = ("_random", "_seen", "fault", "struck")

    def __init__(self, fault: Fault) -> None:
        self.fault = fault
        self.struck = 0
        self._seen = 0
        self._random = random.Random(fault.seed)  # noqa: S311 - not for secrets

    def take(self) -> bool:
        """Count a match, and say whether the fault applies to it."""
        fault = self.fault
        if fault.times is not None and self.struck >= fault.times:
            return False
        if fault.probability < 1.0 and self._random.random() >= fault.probability:
            return False
        self._seen += 1
        if self._seen <= fault.after:
            return False
        self.struck += 1
        return True


def read_faults(data: Any) -> tuple[Fault, ...]:
    """Read faults from parsed JSON or TOML: a list, or a table with the key `faults`. Raise `ValueError` if invalid."""
    entries = data.get("faults", None) if isinstance(data, dict) else data
    if not isinstance(entries, list):
        raise ValueError("expected a list of faults, or a table with the key `faults`")  # noqa: TRY004 - it is data
    if isinstance(data, dict) and set(data) != {"faults"}:
        raise ValueError(f"unknown keys next to `faults`: {', '.join(sorted(set(data) - {'faults'}))}")
    faults = []
    for number, entry in enumerate(entries):
        try:
            faults.append(msgspec.convert(entry, Fault))
        except (msgspec.ValidationError, ValueError) as error:
            raise ValueError(f"faults[{number}]: {error}") from error
    return tuple(faults)


def load_faults(path: Path) -> tuple[Fault, ...]:
    """Read a file of faults: JSON if its suffix is .json, else TOML. Raise `ValueError` that names file and entry."""
    try:
        text = path.read_text(encoding="utf-8")
        data = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
        return read_faults(data)
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
