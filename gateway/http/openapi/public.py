"""The description of the gateway's own routes on the public listener. Replicate describes its routes itself."""

from functools import cache
from typing import Annotated, Final

import msgspec

from gateway.access.browser_tokens import TokenRequest
from gateway.domain.ids import ID
from gateway.domain.tickets import OUTPUT_TICKET
from gateway.http.handlers.team_keys import TeamKeyQuery
from gateway.http.openapi import answers
from gateway.http.openapi.document import RouteDescription, document
from gateway.http.openapi.shared import CSV, PROBES, key_routes

_BYTES: Final = {"*/*": {"type": "string", "format": "binary"}}
_KEY_ID: Final = {"type": "string", "pattern": "^[a-z0-9]{12}$"}
_ID: Final = {"type": "string", "pattern": f"^{ID}$"}


class TeamUsageQuery(msgspec.Struct, frozen=True, kw_only=True, rename={"since": "from", "until": "to"}):
    """The window of days, and the grouping."""

    since: str | None = None
    until: str | None = None
    by: Annotated[str, msgspec.Meta(pattern=r"^(day|key|model|user|tag:[a-z][a-z0-9_-]{0,31})$")] = "day"


OPERATIONS: Final = (
    RouteDescription(
        method="POST",
        path="/gateway/tokens",
        summary="Mint a browser token",
        description="A short-lived key with fewer rights, for a web page. Scope: tokens.",
        body=TokenRequest,
        answer=answers.Token,
        status=201,
        errors=(400, 413, 415, 422),
    ),
    RouteDescription(
        method="POST",
        path="/gateway/estimate",
        summary="Tell how a create would be answered, and its cost",
        description="Creates nothing. Scope: predict.",
        body=answers.EstimateRequest,
        answer=answers.EstimateAnswer,
        errors=(400, 404, 413, 415, 422, 502, 504),
    ),
    RouteDescription(
        method="GET",
        path="/gateway/usage",
        summary="Usage of the team",
        description="From a UTC day to a day, both included. Default: this month so far. Scope: predict.",
        query=TeamUsageQuery,
        answer=answers.UsageReport,
        others=CSV,
        errors=(422,),
    ),
    RouteDescription(
        method="GET",
        path="/gateway/limits",
        summary="Limits that apply to the caller, as used",
        description="Of the user in Gateway-User and the cost tags in Gateway-Tags too. Scope: predict.",
        answer=answers.LimitList,
        errors=(400, 422),
    ),
    RouteDescription(
        method="GET",
        path="/gateway/explain/{id}",
        summary="Explain a prediction",
        description="How it was answered, why it was shared or not, its cost and its timeline. Scope: predict.",
        answer=answers.Explanation,
        errors=(404,),
        parameters={"id": _ID},
    ),
    *key_routes(
        "/gateway/keys",
        query=TeamKeyQuery,
        of_whom="the team",
        a_key="a key of the team",
        limits="With at most the caller's rights and limits.",
        scope="Scope: keys.",
        parameters={"id": _KEY_ID},
    ),
    RouteDescription(
        method="POST",
        path="/gateway/webhooks/{run_id}/{proof}",
        summary="Webhooks of Replicate",
        description="For Replicate alone, at an address that the gateway gave it: 204 if the signature is valid.",
        status=204,
        errors=(400, 404, 413),
        further={401: None},
        is_internal=True,
        is_open=True,
    ),
    RouteDescription(
        method="GET",
        path="/outputs/{ticket}/{name}",
        summary="A stored copy of an output file",
        description="The link is the permission.",
        others=_BYTES,
        further={206: None, 304: None},
        errors=(400, 404, 416),
        is_open=True,
        parameters={"ticket": {"type": "string", "pattern": f"^{OUTPUT_TICKET}$"}},
    ),
    *PROBES,
    RouteDescription(
        method="GET",
        path="/openapi.json",
        summary="This description",
        others={"application/json": {"type": "object"}},
        is_open=True,
    ),
)


@cache
def body() -> bytes:
    """Return the document."""
    return document(
        "Replicate gateway",
        "The gateway's own routes. Replicate's API is served under /v1, as Replicate describes it.",
        OPERATIONS,
        every=(401, 403, 429, 503),
        credential="A key of a team (rgw_…), or a browser token (rgt_…).",
    )
