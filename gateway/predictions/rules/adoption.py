"""Which run of upstream's list was started by an uncertain create (docs/architecture.md, Create)."""

import msgspec
from msgspec import Raw

from gateway.domain.documents import Snapshot
from gateway.domain.records import Run
from gateway.domain.targets import TargetKind, parse_version
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


def fits(run: Run, news: Snapshot) -> bool:
    """Say whether a listed run is equal to what an intent asked for, and was created since."""
    if news.created_at is None or news.created_at < run.intended_at - CLOCK_SKEW_SECONDS:
        return False
    try:
        sent = msgspec.json.decode(run.request, type=_Sent)
        found = msgspec.json.decode(news.document, type=_Found)
        if sent.webhook is not None and found.webhook is not None:
            # The gateway's own address, which is different for each run.
            return sent.webhook == found.webhook
        return _same_target(run, sent, news, found) and _canonical(sent.input) == _canonical(found.input)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return False


def _canonical(given: Raw) -> bytes:
    # Upstream sorts the keys of an input and fills in no defaults (docs/replicate-api.md, Prediction object).
    return Input(bytes(given), {}).canonical(None)


def _same_target(run: Run, sent: _Sent, news: Snapshot, found: _Found) -> bool:
    if run.path.startswith("/deployments/"):
        return found.deployment is None or run.path == f"/deployments/{found.deployment}/predictions"
    if sent.version is not None:
        target = parse_version(sent.version)
        if target.kind is TargetKind.MODEL:
            return news.model == target.model
        # An override of upstream's shows another version of the model (docs/replicate-api.md, Prediction object).
        return news.version == target.version or (target.model is not None and news.model == target.model)
    _, owner, name, *rest = run.path.removeprefix("/models").split("/")
    if rest[:1] == ["versions"]:
        return news.version == rest[1] or news.model == f"{owner}/{name}"
    return news.model == f"{owner}/{name}"
