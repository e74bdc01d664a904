"""The gateway's exceptions, as one tree.

    GatewayError
    ├── BadRequest             the request is malformed (400)
    │   ├── Unprocessable      the request is well formed, but its content is invalid (422)
    │   ├── BodyTooLarge       the body exceeds the size limit (413)
    │   ├── HeadTooLarge       the header fields exceed their size limit (431)
    │   ├── BodyTooSlow        the body stopped arriving, or arrives below the minimum rate (400)
    │   └── UnsupportedMedia   unsupported content type or encoding (415)
    ├── Unauthenticated        no valid key (401)
    ├── IssuerUnavailable      the keys that verify a token cannot be read at the moment (503)
    ├── Forbidden              the key is valid, but may not do this (403)
    │   └── PriceUnknown       the target has no price, and `prices.unknown` is `refuse` (403)
    ├── NotFound               unknown, or owned by another team: the caller cannot tell which (404)
    │   └── OutputLost         a stored copy is missing or incomplete (404)
    ├── Conflict               the request conflicts with one in progress (409)
    ├── CallerLeft             the caller disconnected while its create was held (499)
    ├── LimitReached           a limit was exceeded (429)
    │   ├── RateLimited        too many requests, or too many at a time (429)
    │   └── BudgetExceeded     the budget of a day or month is used up or reserved (402)
    ├── Overloaded             the gateway has no memory for this request now (503)
    ├── NotCached              the caller asked for a cached result only, and there is none (504)
    ├── UpstreamError          Replicate gave no response that can be passed on
    │   ├── UpstreamUnavailable   Replicate is unreachable, or the circuit breaker is open: nothing was sent (503)
    │   ├── UpstreamBroken        an invalid response (502)
    │   │   └── UpstreamUnreadable   a response that is not used, such as one with the gateway's own token (502)
    │   │       └── UpstreamTooLarge   a response that is too large (502)
    │   ├── UpstreamUncertain     the request was sent and its outcome is unknown (504)
    │   │   └── RunTakenOver      another node has taken over the run (504)
    │   ├── UpstreamTimeout       a read timed out (504)
    │   └── UpstreamTokenRefused  Replicate refused the account's token (502)
    └── StoreUnavailable       the gateway's store is unavailable (503)
        ├── StoreAway          its database cannot be used at the moment (503)
        └── StoreTaken         another process serves from it (503)

The detail of an error is a sentence for the caller: what happened, and what to do about it. Only `gateway.http.errors`
maps errors to HTTP statuses. Replicate's own error responses are not exceptions: they are passed on unchanged.
"""

from collections.abc import Mapping
from typing import NamedTuple


class InvalidField(NamedTuple):
    """One entry of Replicate's `invalid_fields`: `type` is `required`, `enum`, `invalid_type`, …

    See docs/replicate-api.md, Errors.
    """

    type: str
    field: str
    description: str


class GatewayError(Exception):
    """The base class. It is never raised itself."""

    title = "Internal server error"

    def __init__(self, detail: str, *, title: str | None = None, retry_after: int | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.title = title or type(self).title
        self.retry_after = retry_after
        """Seconds after which to retry; `None` if unknown."""


class BadRequest(GatewayError):
    """The request is malformed."""

    title = "Bad request"


class Unprocessable(BadRequest):
    """The request is well formed, but its content is invalid.

    The detail has Replicate's format, one `- ` line per field (docs/replicate-api.md, Errors).
    """

    title = "Input validation failed"

    def __init__(self, fields: list[InvalidField] | None = None, *, detail: str = "", title: str | None = None) -> None:
        self.fields = fields or []
        super().__init__(detail or "".join(f"- {_where(f)}{f.description}\n" for f in self.fields), title=title)

    @classmethod
    def field(cls, field: str, description: str, kind: str = "invalid_value") -> "Unprocessable":
        """Return the error for one invalid field."""
        return cls([InvalidField(kind, field, description)])


def _where(field: InvalidField) -> str:
    return f"{field.field}: " if field.field else ""


class HeadTooLarge(BadRequest):
    """The header fields exceed their size limit."""

    title = "Request header fields too large"


class BodyTooSlow(BadRequest):
    """The body stopped arriving, or arrives below the minimum rate."""


class CallerLeft(GatewayError):
    """The caller disconnected while its create was held, so nothing was created. Nobody receives this response."""

    title = "Client closed request"


class BodyTooLarge(BadRequest):
    """The body, or a part of it, exceeds the size limit."""

    title = "Request entity too large"


class UnsupportedMedia(BadRequest):
    """The route does not support the content type or encoding."""

    title = "Unsupported media type"


class Unauthenticated(GatewayError):
    """The request has no valid key."""

    title = "Unauthenticated"


class IssuerUnavailable(GatewayError):
    """The keys of a token's issuer cannot be read at the moment, so nobody can say whether the token is valid."""

    title = "Issuer unavailable"


class Forbidden(GatewayError):
    """The key is valid, but may not do this."""

    title = "Forbidden"


class PriceUnknown(Forbidden):
    """The target has no price, and `prices.unknown` refuses runs without one."""

    title = "Price unknown"


class NotFound(GatewayError):
    """The resource is unknown, or belongs to another team. The caller cannot tell which."""

    title = "Not found"

    def __init__(self, detail: str = "The requested resource could not be found.") -> None:
        super().__init__(detail)


class OutputLost(NotFound):
    """A stored copy is missing or incomplete."""


class Conflict(GatewayError):
    """The request conflicts with one in progress."""

    title = "Conflict"


class LimitReached(GatewayError):
    """A limit was exceeded.

    `limit` is shown to the caller: name, of, limit, used, held, remaining, resets_at.
    """

    def __init__(
        self,
        detail: str,
        *,
        title: str | None = None,
        retry_after: int | None = None,
        limit: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(detail, title=title, retry_after=retry_after)
        self.limit = limit


class RateLimited(LimitReached):
    """Too many requests, or too many at a time. `retry_after` has the time to retry."""

    title = "Too many requests"


class BudgetExceeded(LimitReached):
    """The budget of a day or month (money or compute time) is used up, or reserved for predictions in progress."""

    title = "Budget exceeded"


class Overloaded(GatewayError):
    """The gateway has no memory for this request now."""

    title = "Overloaded"


class NotCached(GatewayError):
    """The caller asked for a cached result only (`only-if-cached`), and there is none."""

    title = "Not cached"


class UpstreamError(GatewayError):
    """Replicate gave no response that can be passed on."""

    title = "Upstream error"


class UpstreamUnavailable(UpstreamError):
    """Nothing was sent: Replicate is unreachable, the circuit breaker is open, or the gateway is shutting down."""

    title = "Upstream unavailable"


class UpstreamBroken(UpstreamError):
    """Replicate, or a proxy in front of it, sent an invalid response."""

    title = "Bad gateway"


class UpstreamUnreadable(UpstreamBroken):
    """Replicate's response is not used for what it is: too large, a redirect, or with the gateway's own token.

    The next one is likely to be the same.
    """


class UpstreamTooLarge(UpstreamUnreadable):
    """Replicate's response is larger than the gateway accepts."""


class UpstreamUncertain(UpstreamError):
    """The request was sent and its outcome is unknown. It must not be retried."""

    title = "Gateway timeout"


class RunTakenOver(UpstreamUncertain):
    """Another node has taken over the run, because this one lost its lease. This one may not record anything of it."""


class UpstreamTimeout(UpstreamError):
    """A read timed out. It is safe to retry."""

    title = "Gateway timeout"


class UpstreamTokenRefused(UpstreamError):
    """Replicate refused the account's token. Only an operator can fix it."""

    title = "Bad gateway"


class StoreUnavailable(GatewayError):
    """The gateway's store is unavailable or did not respond in time.

    A write may have been carried out if its deadline passed (docs/architecture.md).
    """

    title = "Store unavailable"


class StoreAway(StoreUnavailable):
    """The store's database cannot be used at the moment: a start waits for it."""


class StoreTaken(StoreUnavailable):
    """Another process serves from the store, so this one may not."""
