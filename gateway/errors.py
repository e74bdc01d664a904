"""What can go wrong, as one tree.

    GatewayError
    ├── BadRequest             the request cannot be understood (400)
    │   ├── Unprocessable      it can, but its content is not acceptable (422); names the fields
    │   ├── BodyTooLarge       more bytes than allowed (413)
    │   └── UnsupportedMedia   a content type that the route does not take (415)
    ├── Unauthenticated        no key, or none that is valid (401)
    ├── Forbidden              a valid key that may not do this (403)
    │   └── PriceUnknown       nobody has said what the target costs, and such runs are refused (403)
    ├── NotFound               unknown, or somebody else's: the caller cannot tell which (404)
    │   └── OutputLost         a stored copy is not there, or not whole (404)
    ├── Conflict               the request contradicts one that is under way (409)
    ├── LimitReached           a limit is in the way; names it (429)
    │   ├── RateLimited        too many; says when to come again (429)
    │   └── BudgetExceeded     no more money or time for this day or month (402)
    ├── NotCached              the caller wanted nothing but what is there, and it is not (504)
    ├── UpstreamError          Replicate did not give an answer that can be passed on
    │   ├── UpstreamUnavailable   it could not be reached, or is kept from being asked: nothing was sent (503)
    │   ├── UpstreamBroken        it answered with something that is not an API answer (502)
    │   ├── UpstreamUncertain     the request was sent and its outcome is unknown (504)
    │   ├── UpstreamTimeout       a read took too long (504)
    │   └── UpstreamTokenRefused  it refused the account's token: not the caller's fault (502)
    └── StoreUnavailable       the gateway's own memory is away (503)

An error says what happened in a sentence fit for the caller. Which status it becomes is known to `gateway.http.errors`
alone. Answers of Replicate itself, errors too, are not exceptions: they are passed on as they are.
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
    """The root; never raised itself."""

    title = "Internal server error"

    def __init__(self, detail: str, *, title: str | None = None, retry_after: int | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.title = title or type(self).title
        self.retry_after = retry_after
        """Whole seconds after which another try makes sense; `None` where that is not known."""


class BadRequest(GatewayError):
    """The request cannot be understood."""

    title = "Bad request"


class Unprocessable(BadRequest):
    """The request is well formed, but its content is not acceptable.

    The detail is built as Replicate builds it, one `- ` line for each field (docs/replicate-api.md, Errors).
    """

    title = "Input validation failed"

    def __init__(self, fields: list[InvalidField] | None = None, *, detail: str = "", title: str | None = None) -> None:
        self.fields = fields or []
        super().__init__(detail or "".join(f"- {_where(f)}{f.description}\n" for f in self.fields), title=title)

    @classmethod
    def field(cls, field: str, description: str, kind: str = "invalid_value") -> "Unprocessable":
        """Build the error for one field."""
        return cls([InvalidField(kind, field, description)])


def _where(field: InvalidField) -> str:
    return f"{field.field}: " if field.field else ""


class BodyTooLarge(BadRequest):
    """The body, or a part of it, has more bytes than allowed."""

    title = "Request entity too large"


class UnsupportedMedia(BadRequest):
    """The content type or encoding is not one that the route takes."""

    title = "Unsupported media type"


class Unauthenticated(GatewayError):
    """There is no key, or none that is valid."""

    title = "Unauthenticated"


class Forbidden(GatewayError):
    """The key is valid, but may not do this."""

    title = "Forbidden"


class PriceUnknown(Forbidden):
    """Nobody has said what the target costs, and such runs are refused."""

    title = "Price unknown"


class NotFound(GatewayError):
    """Unknown, or somebody else's: the caller cannot tell which."""

    title = "Not found"

    def __init__(self, detail: str = "The requested resource could not be found.") -> None:
        super().__init__(detail)


class OutputLost(NotFound):
    """A stored copy is not there, or not whole."""


class Conflict(GatewayError):
    """The request contradicts one that is under way."""

    title = "Conflict"


class LimitReached(GatewayError):
    """A limit is in the way. `limit` is it as the caller is told: name, of, limit, used, held, remaining, resets_at."""

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
    """Too many of something; `retry_after` says when to come again."""

    title = "Too many requests"


class BudgetExceeded(LimitReached):
    """The money or the time of a day or month is spent, or held for predictions under way."""

    title = "Budget exceeded"


class NotCached(GatewayError):
    """The caller wanted no new run (`only-if-cached`), and there is none to share."""

    title = "Not cached"


class UpstreamError(GatewayError):
    """Replicate gave no answer that can be passed on."""

    title = "Upstream error"


class UpstreamUnavailable(UpstreamError):
    """Replicate could not be reached, or is kept from being asked for the moment. Nothing was sent."""

    title = "Upstream unavailable"


class UpstreamBroken(UpstreamError):
    """Replicate, or something in front of it, answered with what is not an API answer."""

    title = "Bad gateway"


class UpstreamUncertain(UpstreamError):
    """The request was sent, its outcome is unknown. It must not be sent again."""

    title = "Gateway timeout"


class UpstreamTimeout(UpstreamError):
    """A read took longer than its deadline."""

    title = "Gateway timeout"


class UpstreamTokenRefused(UpstreamError):
    """Replicate refused the account's token. Callers can do nothing about it; operators must."""

    title = "Bad gateway"


class StoreUnavailable(GatewayError):
    """The gateway's own memory is away; nothing was changed."""

    title = "Store unavailable"
