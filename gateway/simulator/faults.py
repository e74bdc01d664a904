"""What can go wrong upstream, by name. A fault is data: set in Python, over HTTP, or read from a file.

A fault waits for requests (or deliveries, or streams) that it fits, and strikes each of them, `times` at most.
"""

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
    """What one name does: its story, the operations it strikes unless told otherwise, its parameters' defaults."""

    story: str
    operation: str = "*"
    parameters: dict[str, Any] = {}


FAULT_KINDS: dict[str, FaultKind] = {
    # Before the request is taken: nothing is created.
    "delay": FaultKind("wait `seconds` before the request is looked at", parameters={"seconds": 1.0}),
    "drop_before": FaultKind("close the connection without an answer; nothing was created"),
    "html_error": FaultKind("answer an HTML page with `status`; nothing was created", parameters={"status": 502}),
    "error": FaultKind(
        "answer a JSON error with `status` and `value`", parameters={"status": 500, "value": "Internal server error"}
    ),
    "throttle": FaultKind("answer 429 in the usual words", parameters={"retry_after": 30}),
    "throttle_low_credit": FaultKind(
        "answer 429 in the words for accounts low on credit", parameters={"retry_after": 5}
    ),
    "insufficient_credit": FaultKind("answer 402", operation="*predictions.create"),
    "token_revoked": FaultKind(
        "answer 401 as for a token that was revoked, with `value` as detail",
        parameters={"value": "You did not pass a valid authentication token"},
    ),
    "redirect": FaultKind(
        "answer `status` with `value` as Location",
        parameters={"status": 307, "value": "https://elsewhere.invalid/v1/predictions"},
    ),
    # After the request was taken: what it asked for has happened.
    "drop_after": FaultKind("take the request, then close the connection without an answer"),
    "html_error_after": FaultKind(
        "take the request, then answer an HTML page with `status`, after `seconds` if the answer takes longer",
        parameters={"status": 502, "seconds": None},
    ),
    "malformed_json": FaultKind("answer with the usual status and a body cut in half"),
    "delay_headers": FaultKind(
        "take the request, then wait `seconds` before the answer begins", parameters={"seconds": 1.0}
    ),
    "slow_body": FaultKind(
        "send the headers at once and the body drop by drop over `seconds`", parameters={"seconds": 1.0}
    ),
    "gzip": FaultKind("compress the answer if the client takes gzip"),
    # What an answer says.
    "shape": FaultKind("write predictions in the `value` form, edge or database", parameters={"value": "database"}),
    "time_digits": FaultKind(
        "write times with exactly `count` digits of a fraction: 0, 3, 6 or 9", parameters={"count": 9}
    ),
    "sync_processing": FaultKind(
        "answer an expired sync wait as 201 and processing, with what output there is", operation="*predictions.create"
    ),
    "sync_succeeded": FaultKind(
        "answer a finished sync wait as succeeded, metrics included", operation="*predictions.create"
    ),
    "version_override": FaultKind(
        "record another version than the one posted", operation="*predictions.create", parameters={"value": "5" * 64}
    ),
    "hidden_version": FaultKind("record the version as hidden", operation="*predictions.create"),
    "model_override": FaultKind(
        "record another model than the one posted",
        operation="*predictions.create",
        parameters={"value": "replicate-internal/x"},
    ),
    "not_found_after_create": FaultKind(
        "answer 404 to the first `count` reads of what was created",
        operation=",".join(CREATES),
        parameters={"count": 1},
    ),
    # How a prediction fares.
    "cold_boot": FaultKind(
        "stay starting for `seconds` more", operation=",".join(CREATES), parameters={"seconds": 30.0}
    ),
    "interrupted": FaultKind(
        "fail with `value` once running",
        operation=",".join(CREATES),
        parameters={"value": "Prediction interrupted; please retry (code: PA)"},
    ),
    "hang": FaultKind("run for ever, until cancelled", operation=",".join(CREATES)),
    "cancel_race": FaultKind("answer a cancel as processing, and finish all the same", operation="*.cancel"),
    "cancel_late": FaultKind(
        "answer a cancel as processing, and end `seconds` later", operation="*.cancel", parameters={"seconds": 1.0}
    ),
    # Streams and outputs, on the second origin.
    "stream_idle": FaultKind(
        "send `count` events, then nothing for `seconds`, then the time-out comment",
        operation="streams.get",
        parameters={"count": 0, "seconds": None},
    ),
    "stream_cut": FaultKind(
        "cut the connection after `count` events", operation="streams.get", parameters={"count": 1}
    ),
    "stream_end": FaultKind(
        "end the body after `count` events, without done", operation="streams.get", parameters={"count": 1}
    ),
    "stream_content_type": FaultKind(
        "answer with another content type", operation="streams.get", parameters={"value": "text/html"}
    ),
    "output_missing": FaultKind("answer 404 as for an output an hour old", operation="outputs.get"),
    "output_cut": FaultKind(
        "cut the connection after `count` bytes of an output", operation="outputs.get", parameters={"count": 1}
    ),
    # Webhooks.
    "webhook_double": FaultKind("send a webhook twice", operation="webhooks.deliver"),
    "webhook_disorder": FaultKind("send what is not the end after the end", operation="webhooks.deliver"),
    "webhook_lost": FaultKind("send nothing", operation="webhooks.deliver"),
    "webhook_late": FaultKind("send `seconds` late", operation="webhooks.deliver", parameters={"seconds": 1.0}),
    "webhook_bad_signature": FaultKind("sign with another secret", operation="webhooks.deliver"),
}

_PARAMETERS = ("seconds", "status", "count", "retry_after", "value")


class Fault(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One fault to come. Globs choose whom it strikes; `operation` may hold several, parted by commas.

    `target` is held against the model, the version and the deployment; `after` lets that many pass first;
    `probability` is drawn from a generator of its own, started with `seed`. `seconds` are plain ones for what happens
    to a connection, and the service's (shortened by `speed`) for cold_boot, cancel_late and webhook_late.
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
            raise ValueError(f"no fault is called {self.name!r}; known are {', '.join(sorted(FAULT_KINDS))}")
        for parameter in _PARAMETERS:
            if getattr(self, parameter) is not None and parameter not in kind.parameters:
                takes = ", ".join(kind.parameters) or "none"
                raise ValueError(f"fault {self.name!r} takes no {parameter!r}; its parameters: {takes}")
        for pattern in (self.operation or "*").split(","):
            if not any(fnmatchcase(operation, pattern) for operation in OPERATIONS):
                raise ValueError(f"no operation is called {pattern!r}; known are {', '.join(OPERATIONS)}")
        if not 0.0 <= self.probability <= 1.0:
            raise ValueError(f"fault {self.name!r}: probability must be between 0 and 1, got {self.probability:g}")
        if (self.times is not None and self.times < 0) or self.after < 0:
            raise ValueError(f"fault {self.name!r}: times and after must be 0 or more")
        if self.name == "shape" and self.value not in {None, *SHAPES}:
            raise ValueError(f"fault 'shape': value must be one of {', '.join(SHAPES)}, got {self.value!r}")
        if self.name == "time_digits" and self.count not in {None, 0, 3, 6, 9}:
            raise ValueError(f"fault 'time_digits': count must be 0, 3, 6 or 9, got {self.count}")

    def get(self, parameter: str) -> Any:
        """Give a parameter, or the kind's default for it."""
        value = getattr(self, parameter)
        return FAULT_KINDS[self.name].parameters.get(parameter) if value is None else value

    def fits(self, operation: str, path: str) -> bool:
        """Tell whether it is meant for such a request; the target is looked at apart, since it takes more to know."""
        patterns = (self.operation or FAULT_KINDS[self.name].operation).split(",")
        return any(fnmatchcase(operation, pattern) for pattern in patterns) and fnmatchcase(path, self.path)


class FaultBook:
    """The faults in force, and how often each has struck."""

    def __init__(self, faults: Iterable[Fault] = ()) -> None:
        self._entries: list[_Entry] = []
        self.set(*faults)

    def set(self, *faults: Fault) -> None:
        """Put these faults in force, and no others."""
        self._entries = [_Entry(fault) for fault in faults]

    def add(self, *faults: Fault) -> None:
        """Put these faults in force beside the others."""
        self._entries.extend(_Entry(fault) for fault in faults)

    def clear(self) -> None:
        """Put no fault in force."""
        self._entries = []

    def __bool__(self) -> bool:
        return bool(self._entries)

    def needs_target(self, operation: str, path: str) -> bool:
        """Tell whether a fault for such a request looks at its target."""
        return any(entry.fault.target != "*" and entry.fault.fits(operation, path) for entry in self._entries)

    def strike(self, operation: str, path: str, targets: Iterable[str] = ()) -> dict[str, Fault]:
        """Take the faults that strike a request, by name; the first of a name wins and each one taken counts."""
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
        """List the faults in force, with how often each has struck."""
        return [{**msgspec.to_builtins(entry.fault), "struck": entry.struck} for entry in self._entries]


class _Entry:
    """A fault in force, its count and its dice."""

    __slots__ = ("_dice", "_seen", "fault", "struck")

    def __init__(self, fault: Fault) -> None:
        self.fault = fault
        self.struck = 0
        self._seen = 0
        self._dice = random.Random(fault.seed)  # noqa: S311 - a test's dice, not a secret

    def take(self) -> bool:
        """Count one that fits; say whether it is struck."""
        fault = self.fault
        if fault.times is not None and self.struck >= fault.times:
            return False
        if fault.probability < 1.0 and self._dice.random() >= fault.probability:
            return False
        self._seen += 1
        if self._seen <= fault.after:
            return False
        self.struck += 1
        return True


def read_faults(data: Any) -> tuple[Fault, ...]:
    """Read faults from parsed JSON or TOML: a list, or a table with it under `faults`. ValueError tells why not."""
    entries = data.get("faults", None) if isinstance(data, dict) else data
    if not isinstance(entries, list):
        raise ValueError("expected a list of faults, or a table with one under `faults`")  # noqa: TRY004 - it is data
    if isinstance(data, dict) and set(data) != {"faults"}:
        raise ValueError(f"unknown keys beside `faults`: {', '.join(sorted(set(data) - {'faults'}))}")
    faults = []
    for number, entry in enumerate(entries):
        try:
            faults.append(msgspec.convert(entry, Fault))
        except (msgspec.ValidationError, ValueError) as error:
            raise ValueError(f"faults[{number}]: {error}") from error
    return tuple(faults)


def load_faults(path: Path) -> tuple[Fault, ...]:
    """Read a file of faults, TOML or (by its suffix) JSON. ValueError names file, entry and what is wrong."""
    try:
        text = path.read_text(encoding="utf-8")
        data = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
        return read_faults(data)
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
