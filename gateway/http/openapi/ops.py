"""The description of the operators' listener, without the console."""

from functools import cache
from typing import Final

from gateway.http.openapi import answers
from gateway.http.openapi.document import RouteDescription, document
from gateway.http.openapi.shared import CSV, PROBES, TEXT, key_routes
from gateway.http.ops.audit import AuditQuery
from gateway.http.ops.cache import CacheAnswer, CacheQuery, Purged, PurgeQuery
from gateway.http.ops.keys import KeyQuery
from gateway.http.ops.nodes import NodeQuery
from gateway.http.ops.predictions import PredictionQuery
from gateway.http.ops.usage import UsageQuery
from gateway.http.ops.webhooks import DeliveryPage, DeliveryQuery, Redelivered
from gateway.operations.prediction_log import PredictionPage
from gateway.operations.rules.audit_rows import AuditRows

OPERATIONS: Final = (
    RouteDescription(
        method="GET",
        path="/admin/predictions",
        summary="Search predictions and trainings",
        description=(
            "Newest first. A page looks at a bounded number of predictions, so one that finds few or none can have a "
            "`next`: ask again with it as `cursor`. CSV has the address of the next page in the header `Link`."
        ),
        query=PredictionQuery,
        answer=PredictionPage,
        others=CSV,
        errors=(422,),
    ),
    RouteDescription(
        method="GET",
        path="/admin/predictions/{id}",
        summary="A prediction with its explanation and its data",
        answer=answers.DetailAnswer,
        errors=(404,),
    ),
    RouteDescription(
        method="GET",
        path="/admin/teams",
        summary="Teams with their limits as used",
        answer=answers.TeamsAnswer,
    ),
    RouteDescription(
        method="GET",
        path="/admin/usage",
        summary="Usage of all teams, or of one",
        description="From a UTC day to a day, both included. Default: this month so far.",
        query=UsageQuery,
        answer=answers.UsageReport,
        others=CSV,
        errors=(422,),
    ),
    RouteDescription(
        method="GET",
        path="/admin/webhooks",
        summary="Webhooks that their receivers have not accepted",
        description="In order of id.",
        query=DeliveryQuery,
        answer=DeliveryPage,
        others=CSV,
        errors=(422,),
    ),
    RouteDescription(
        method="POST",
        path="/admin/webhooks/{id}/redeliver",
        summary="Deliver a webhook again, now",
        description="404 if there is no such delivery, and while it is being sent.",
        answer=Redelivered,
        errors=(404,),
    ),
    RouteDescription(
        method="GET",
        path="/admin/cache",
        summary="Number and size of cached results",
        query=CacheQuery,
        answer=CacheAnswer,
        errors=(422,),
    ),
    RouteDescription(
        method="DELETE",
        path="/admin/cache",
        summary="Drop cached results",
        description="Of a team, of a target, or all of them. Existing predictions stay.",
        query=PurgeQuery,
        answer=Purged,
        errors=(422,),
    ),
    RouteDescription(
        method="GET",
        path="/admin/audit",
        summary="Who changed what, and when",
        description="Newest first.",
        query=AuditQuery,
        answer=AuditRows,
        others=CSV,
        errors=(422,),
    ),
    *key_routes("/admin/keys", query=KeyQuery, of_whom="all teams, or of one", a_key="a key"),
    RouteDescription(
        method="GET", path="/admin/config", summary="The state of the config", answer=answers.ConfigAnswer
    ),
    RouteDescription(
        method="GET",
        path="/admin/nodes",
        summary="Nodes that serve from the store",
        description="Newest first: those that are alive, and those that ended within a day.",
        query=NodeQuery,
        answer=answers.NodeList,
        errors=(422,),
    ),
    RouteDescription(
        method="GET",
        path="/metrics",
        summary="Metrics for Prometheus",
        others={"text/plain": TEXT, "application/openmetrics-text": TEXT},
    ),
    *PROBES,
    RouteDescription(
        method="GET",
        path="/openapi.json",
        summary="This description",
        others={"application/json": {"type": "object"}},
    ),
)


@cache
def body() -> bytes:
    """Return the document."""
    return document(
        "Replicate gateway, for operators",
        "Administration, metrics and probes. Lists are pages: `next` is the address of the next one.",
        OPERATIONS,
        every=(401, 403, 429, 503),
        credential="The operators' token. Without one, the listener answers on loopback only.",
    )
