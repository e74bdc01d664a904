"""Why a create has failed, as the store keeps it for other nodes, where predictions have joined its run."""

import base64
from collections.abc import Mapping

import msgspec

from gateway.domain.upstream_response import Answer
from gateway.errors import (
    CallerLeft,
    GatewayError,
    LimitReached,
    RateLimited,
    StoreUnavailable,
    UpstreamTokenRefused,
    UpstreamUnavailable,
)

_KINDS: Mapping[str, type[GatewayError]] = {
    kind.__name__: kind
    for kind in (CallerLeft, RateLimited, StoreUnavailable, UpstreamTokenRefused, UpstreamUnavailable)
}
"""What keeps a create from being sent."""


class _Outcome(msgspec.Struct, omit_defaults=True):
    """Either an answer of upstream, or an error of the gateway."""

    status: int | None = None
    headers: dict[str, str] = {}
    body: str = ""
    error: str = ""
    detail: str = ""
    title: str = ""
    retry_after: int | None = None
    limit: dict[str, object] | None = None


def encode_answer(answer: Answer) -> bytes:
    """Return upstream's refusal as text."""
    body = base64.b64encode(answer.body).decode()
    return msgspec.json.encode(_Outcome(status=answer.status, headers=dict(answer.headers), body=body))


def encode_error(error: GatewayError) -> bytes:
    """Return what kept a create from being sent as text."""
    limit: Mapping[str, object] | None = error.limit if isinstance(error, LimitReached) else None
    return msgspec.json.encode(
        _Outcome(
            error=type(error).__name__,
            detail=error.detail,
            title=error.title,
            retry_after=error.retry_after,
            limit=None if limit is None else dict(limit),
        )
    )


def decode(text: bytes) -> Answer | GatewayError:
    """Return what was encoded. An error of another kind becomes `UpstreamUnavailable`."""
    said = msgspec.json.decode(text, type=_Outcome)
    if said.status is not None:
        return Answer(said.status, said.headers, base64.b64decode(said.body))
    kind = _KINDS.get(said.error, UpstreamUnavailable)
    if issubclass(kind, LimitReached):
        return kind(said.detail, title=said.title, retry_after=said.retry_after, limit=said.limit)
    return kind(said.detail, title=said.title, retry_after=said.retry_after)
