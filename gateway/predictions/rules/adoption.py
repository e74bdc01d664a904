"""Which run of upstream's list was started by an uncertain create (docs/architecture.md, Create)."""

import hashlib
from collections.abc import Callable
from enum import IntEnum

import msgspec
from msgspec import Raw

from gateway.domain.documents import Snapshot
from gateway.domain.records import Run
from gateway.domain.targets import TargetKind, parse_version
from gateway.models.rules import secrets
from gateway.models.rules.secrets import Digest
from gateway.sharing.rules.fingerprint import Input

CLOCK_SKEW_SECONDS = 5.0
"""By how much upstream's clock may be behind ours."""


class _Found(msgspec.Struct):
    input: Raw = Raw(b"{}")
    deployment: str | None = None
    webhook: str | None = None


class _Sent(msgspec.Struct):
    input: Raw = Raw(b"{}")
    version: str | None = None
    webhook: str | None = None


class Fit(IntEnum):
    """How sure it is that a listed run is the run of an intent."""

    NO = 0
    LIKELY = 1
    """All that can be compared is equal; secret values cannot be."""
    EXACT = 2


def fits(run: Run, listed: Snapshot, digest: Digest | None = None) -> Fit:
    """Say whether a listed run is equal to what an intent asked for, and was created since.

    `digest` is the one by which intents of an unknown schema hide their texts.
    """
    if listed.created_at is None or listed.created_at < run.intended_at - CLOCK_SKEW_SECONDS:
        return Fit.NO
    try:
        sent = msgspec.json.decode(run.request, type=_Sent)
        found = msgspec.json.decode(listed.document, type=_Found)
        if sent.webhook is not None and found.webhook is not None:
            # The gateway's own address, which is different for each run.
            return Fit.EXACT if sent.webhook == found.webhook else Fit.NO
        return (
            _compare(sent.input, found.input, digest, _is_hidden) if _same_target(run, sent, listed, found) else Fit.NO
        )
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return Fit.NO


def may_be_equal(one: bytes, other: bytes, digest: Digest | None = None) -> bool:
    """Return whether two recorded requests of one path can be equal, as far as their redacted forms say."""
    if one == other:
        return True
    if not (_hides(one) or _hides(other)):
        return False
    try:
        first, second = msgspec.json.decode(one, type=_Sent), msgspec.json.decode(other, type=_Sent)
        return (
            first.version == second.version
            and _compare(first.input, second.input, digest, _may_be_hidden) is not Fit.NO
        )
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return False


class Sought:
    """The intents whose runs are searched for, found by what a listed run shows."""

    def __init__(self) -> None:
        self._runs: dict[str, Run] = {}
        self._keys: dict[str, list[str | bytes]] = {}
        """By intent, the keys under which it is in `_by_key`."""
        self._by_key: dict[str | bytes, dict[str, Run]] = {}

    def __len__(self) -> int:
        return len(self._runs)

    def __contains__(self, run_id: str) -> bool:
        return run_id in self._runs

    def runs(self) -> list[Run]:
        """Return all intents, in the order in which they were added."""
        return list(self._runs.values())

    def add(self, run: Run, request: bytes) -> None:
        """Add an intent, which was sent as `request`. `run` may be without it."""
        self._runs[run.id] = run
        keys = self._keys[run.id] = _keys_of(request)
        for key in keys:
            self._by_key.setdefault(key, {})[run.id] = run

    def remove(self, run: Run) -> None:
        """Remove an intent."""
        self._runs.pop(run.id, None)
        for key in self._keys.pop(run.id, ()):
            del self._by_key[key][run.id]
            if not self._by_key[key]:
                del self._by_key[key]

    def hides(self, run: Run) -> bool:
        """Return whether parts of an intent's input are hidden."""
        return _HIDDEN in self._keys.get(run.id, ())

    def candidates(self, listed: Snapshot) -> list[Run]:
        """Return the intents that a listed run can fit, in the order in which they were added."""
        if not self._runs:
            return []
        keys = _keys_of(listed.document)
        # What upstream shows may be redacted although the intent is not.
        found = self._runs if keys[:1] == [_HIDDEN] else {}
        for key in (*keys, _HIDDEN):
            found = found | self._by_key.get(key, {})
        return sorted(found.values(), key=lambda run: run.intended_at)


_HIDDEN = b""


def _keys_of(body: bytes) -> list[str | bytes]:
    """Return the digest of a body's input, or `_HIDDEN` if parts of it are, and its webhook."""
    try:
        parts = msgspec.json.decode(body, type=_Sent)
        hidden = _hides(bytes(parts.input))
        digest = _HIDDEN if hidden else hashlib.sha256(_canonical(parts.input)).digest()
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return [_HIDDEN]
    return [digest] if parts.webhook is None else [digest, parts.webhook]


def _hides(request: bytes) -> bool:
    return secrets.REDACTED.encode() in request or secrets.DIGEST_PREFIX.encode() in request


def _is_hidden(sent: Raw | None, shown: Raw | None) -> bool:
    """Whether upstream hides a value. A caller can send the redaction text as a value, so only what is shown counts.

    Upstream may leave out what it does not show.
    """
    return secrets.is_redacted(shown) if shown is not None else sent is not None and secrets.is_redacted(sent)


def _may_be_hidden(one: Raw | None, other: Raw | None) -> bool:
    """Whether one of two recorded values is, or may be, a secret that is not recorded."""
    return any(value is not None and secrets.is_redacted(value) for value in (one, other))


def _compare(one: Raw, other: Raw, digest: Digest | None, is_hidden: Callable[[Raw | None, Raw | None], bool]) -> Fit:
    """Compare two inputs of which parts may be redacted, or replaced by digests."""
    if not (_hides(bytes(one)) or _hides(bytes(other))):
        return Fit.EXACT if _canonical(one) == _canonical(other) else Fit.NO
    first, second = (msgspec.json.decode(each, type=dict[str, Raw]) for each in (one, other))
    fit = Fit.EXACT
    for name in first.keys() | second.keys():
        pair = first.get(name), second.get(name)
        if is_hidden(*pair):
            fit = Fit.LIKELY
        elif pair[0] is None or pair[1] is None or not _same_value(pair[0], pair[1], digest):
            return Fit.NO
    return fit


def _same_value(one: Raw, other: Raw, digest: Digest | None) -> bool:
    if bytes(one) == bytes(other):
        return True
    if digest is not None and secrets.is_digest(one) != secrets.is_digest(other):
        hidden, plain = (one, other) if secrets.is_digest(one) else (other, one)
        return bool(msgspec.json.decode(hidden, type=str) == secrets.digest_of(plain, digest))
    return _canonical(Raw(b'{"_":' + bytes(one) + b"}")) == _canonical(Raw(b'{"_":' + bytes(other) + b"}"))


def _canonical(given: Raw) -> bytes:
    # Upstream sorts the keys of an input and fills in no defaults (docs/replicate-api.md, Prediction object).
    return Input(bytes(given), {}).canonical(None)


def _same_target(run: Run, sent: _Sent, listed: Snapshot, found: _Found) -> bool:
    if run.path.startswith("/deployments/"):
        return found.deployment is None or run.path == f"/deployments/{found.deployment}/predictions"
    if sent.version is not None:
        target = parse_version(sent.version)
        if target.kind is TargetKind.MODEL:
            return listed.model == target.model
        # An override of upstream's shows another version of the model (docs/replicate-api.md, Prediction object).
        return listed.version == target.version or (target.model is not None and listed.model == target.model)
    _, owner, name, *rest = run.path.removeprefix("/models").split("/")
    if rest[:1] == ["versions"]:
        return listed.version == rest[1] or listed.model == f"{owner}/{name}"
    return listed.model == f"{owner}/{name}"
