"""The check of the operators' token."""

import hmac

from aiohttp import web

from gateway.http.keys import ACCESS


def is_ops_token(request: web.Request, given: str) -> bool:
    """Return whether `given` is the operators' token, compared in constant time. False if none is configured."""
    token = request.app[ACCESS].value.ops_token
    return token is not None and hmac.compare_digest(given.encode("utf-8", "surrogateescape"), token.encode())
