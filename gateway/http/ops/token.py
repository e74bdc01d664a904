"""The operators' token, as it is compared."""

import hmac

from aiohttp import web

from gateway.http.keys import ACCESS


def is_operators(request: web.Request, given: str) -> bool:
    """Whether this is the operators' token, found out in constant time. Where none is set, nothing is."""
    token = request.app[ACCESS].value.ops_token
    return token is not None and hmac.compare_digest(given.encode("utf-8", "surrogateescape"), token.encode())
