"""The description of the gateway's own routes on the public listener. Replicate describes its routes itself."""

from functools import cache
from typing import Annotated, Final

import msgspec

from gateway.access.browser_tokens import TokenRequest
from gateway.access.rules.key_requests import KeyRequest, RotateRequest
from gateway.access.rules.key_rows import IssuedRow, KeyPage, KeyRow, RevokedRow
from gateway.domain.ids import ID
from gateway.domain.tickets import OUTPUT_TICKET
from gateway.http.handlers.team_keys import TeamKeyQuery
from gateway.http.openapi import answers
from gateway.http.openapi.document import RouteDescription, document

_BYTES: Final = {"*/*": {"type": "string", "format": "binary"}}
_KEY_ID: Final = {"type": "string", "pattern": "^[a-z0-9]{12}$"}
_OF_BODIES: Final = (400, 409, 413, 415, 422)
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
        errors=(422,),
    ),
    RouteDescription(
        method="GET",
        path="/gateway/limits",
        summary="Limits that apply to the caller, as used",
        description="Scope: predict.",
        answer=answers.LimitList,
        errors=(400,),
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
    RouteDescription(
        method="GET",
        path="/gateway/keys",
        summary="Keys of the team",
        description="Newest first; keys of the config come last. Without their secrets. Scope: keys.",
        query=TeamKeyQuery,
        answer=KeyPage,
        errors=(422,),
    ),
    RouteDescription(
        method="POST",
        path="/gateway/keys",
        summary="Create a key of the team",
        description="With at most the caller's rights and limits. The answer alone has the key itself. Scope: keys.",
        body=KeyRequest,
        answer=IssuedRow,
        status=201,
        errors=_OF_BODIES,
    ),
    RouteDescription(
        method="PATCH",
        path="/gateway/keys/{id}",
        summary="Change a key of the team",
        description="What is left out stays as it is; null takes a restriction away. Scope: keys.",
        body=KeyRequest,
        answer=KeyRow,
        errors=(404, *_OF_BODIES),
        parameters={"id": _KEY_ID},
    ),
    RouteDescription(
        method="DELETE",
        path="/gateway/keys/{id}",
        summary="Revoke a key of the team",
        description="The keys that were created with it stay valid. Scope: keys.",
        answer=RevokedRow,
        errors=(404, 409, 422),
        parameters={"id": _KEY_ID},
    ),
    RouteDescription(
        method="POST",
        path="/gateway/keys/{id}/rotate",
        summary="Replace a key of the team",
        description="The old one works for the overlap. The answer has the new one. Scope: keys.",
        body=RotateRequest,
        answer=IssuedRow,
        status=201,
        errors=(404, *_OF_BODIES),
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
    RouteDescription(
        method="GET", path="/healthz", summary="Whether the process runs", answer=answers.Liveness, is_open=True
    ),
    RouteDescription(
        method="GET",
        path="/readyz",
        summary="Whether the process can serve",
        answer=answers.Readiness,
        further={503: answers.Readiness},
        is_open=True,
    ),
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
