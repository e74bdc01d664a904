"""The cost tags of a request."""

from aiohttp import web

from gateway.domain import tags
from gateway.domain.teams import Caller
from gateway.errors import Unprocessable
from gateway.http.keys import SETTINGS


def tags_of(request: web.Request, caller: Caller) -> str:
    """Return the cost tags of a request, as `gateway.domain.tags` writes them.

    Those of a page come from its token: its header is ignored. Raise `Unprocessable` if the header is not valid.
    """
    if caller.is_public or tags.HEADER not in request.headers:
        return caller.tags
    try:
        return tags.parse(",".join(request.headers.getall(tags.HEADER)), request.app[SETTINGS].value.tag_keys)
    except ValueError as exc:
        raise Unprocessable.field(tags.HEADER, f"{tags.HEADER} is not valid: {exc}") from exc
