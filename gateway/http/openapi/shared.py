"""What both listeners serve: the routes of keys, and the probes."""

from typing import Any, Final

import msgspec

from gateway.access.rules.key_requests import KeyRequest, RotateRequest
from gateway.access.rules.key_rows import IssuedRow, KeyPage, KeyRow, RevokedRow
from gateway.http.openapi import answers
from gateway.http.openapi.document import RouteDescription

TEXT: Final = {"type": "string"}
CSV: Final = {"text/csv": TEXT}
_OF_BODIES: Final = (400, 409, 413, 415, 422)

PROBES: Final = (
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
)


def key_routes(
    path: str,
    *,
    query: type[msgspec.Struct],
    of_whom: str,
    a_key: str,
    limits: str = "",
    scope: str = "",
    parameters: dict[str, Any] | None = None,
) -> tuple[RouteDescription, ...]:
    """Describe the routes of keys below `path`.

    `of_whom` is whose keys are listed, `a_key` which ones can be changed, `limits` what a new key is bound to, `scope`
    what a caller needs.
    """
    one, in_path = f"{path}/{{id}}", parameters or {}

    def text(*sentences: str) -> str:
        return " ".join(filter(None, (*sentences, scope)))

    return (
        RouteDescription(
            method="GET",
            path=path,
            summary=f"Keys of {of_whom}",
            description=text("Newest first; keys of the config come last. Without their secrets."),
            query=query,
            answer=KeyPage,
            errors=(422,),
        ),
        RouteDescription(
            method="POST",
            path=path,
            summary=f"Create {a_key}",
            description=text(limits, "The answer alone has the key itself."),
            body=KeyRequest,
            answer=IssuedRow,
            status=201,
            errors=_OF_BODIES,
        ),
        RouteDescription(
            method="PATCH",
            path=one,
            summary=f"Change {a_key}",
            description=text("What is left out stays as it is; null takes a restriction away."),
            body=KeyRequest,
            answer=KeyRow,
            errors=(404, *_OF_BODIES),
            parameters=in_path,
        ),
        RouteDescription(
            method="DELETE",
            path=one,
            summary=f"Revoke {a_key}",
            description=text("The keys that were created with it stay valid."),
            answer=RevokedRow,
            errors=(404, 409, 422),
            parameters=in_path,
        ),
        RouteDescription(
            method="POST",
            path=f"{one}/rotate",
            summary=f"Replace {a_key}",
            description=text("The old one works for the overlap. The answer has the new one."),
            body=RotateRequest,
            answer=IssuedRow,
            status=201,
            errors=(404, *_OF_BODIES),
            parameters=in_path,
        ),
    )
