"""The OpenAPI documents of both listeners: they have every route, and every answer is as they say."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import jsonschema
import pytest
import schemathesis
from aiohttp import web
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance

from gateway.http.openapi import ops, public
from gateway.http.openapi.document import RouteDescription
from gateway.http.ops.app import add_routes
from gateway.http.ops.dashboard_access import PATH as PAGE
from gateway.http.route import OPEN_ROUTES
from gateway.http.routes import OWN
from tests.support.http_calls import Reply, ask
from tests.support.polling import SECONDS, attempts
from tests.support.session_calls import STORY, create, finished, open_session
from tests.support.spending import PRICES, named
from tests.support.stack import OpenGateway, Stack
from tests.support.system_clocks import ShiftedClock
from tests.support.webhook_receiver import answering, start_receiver

TOKEN = {"token_env": "KEY_OPERATOR"}
"""The operators' token is the operator's key, which a stack knows."""
EXAMPLES = 2
UNGUESSABLE = ("/outputs/{ticket}/{name}", "/gateway/webhooks/{run_id}/{proof}")
Document = dict[str, Any]


class Listener(NamedTuple):
    """A listener's description, and who may use it."""

    body: bytes
    operations: tuple[RouteDescription, ...]
    key: str


LISTENERS = (
    Listener(public.body(), public.OPERATIONS, "alpha"),
    Listener(ops.body(), ops.OPERATIONS, "operator"),
)
DOCUMENTS: dict[str, Document] = {"public": json.loads(public.body()), "ops": json.loads(ops.body())}


def described(document: Document) -> set[tuple[str, str]]:
    return {(method.upper(), path) for path, item in document["paths"].items() for method in item}


def test_every_route_of_the_public_listener_is_described():
    """A route of the gateway's own without a description fails here: see `gateway/http/openapi/public.py`."""
    of_replicate = {(each.method, each.path) for each in public.OPERATIONS if each.is_internal}
    assert of_replicate == {("POST", "/gateway/webhooks/{run_id}/{proof}")}
    assert {(each.method, each.path) for each in public.OPERATIONS} == {(route.method, route.template) for route in OWN}
    assert described(DOCUMENTS["public"]) == {(route.method, route.template) for route in OWN} - of_replicate
    is_open = {(each.method, each.path) for each in public.OPERATIONS if each.is_open}
    assert is_open == {(route.method, route.template) for route in OWN if route.name in OPEN_ROUTES}


def test_every_route_of_the_ops_listener_is_described():
    """A route of operators without a description fails here: see `gateway/http/openapi/ops.py`."""
    app = web.Application()
    add_routes(app)
    routes = {(each.method, each.resource.canonical) for each in app.router.routes() if each.resource is not None}
    assert described(DOCUMENTS["ops"]) == {
        (method, path) for method, path in routes if method != "HEAD" and path != "/" and not path.startswith(PAGE)
    }


@pytest.mark.parametrize("listener", ["public", "ops"])
def test_documents_are_openapi(listener: str):
    """Schemas are those of JSON Schema, and every reference leads to one."""
    document = DOCUMENTS[listener]
    for reference in references(document):
        at: Any = document
        for part in reference.removeprefix("#/").split("/"):
            at = at[part]
    for schema in document["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)


def references(part: Any) -> Iterator[str]:
    for value in part.values() if isinstance(part, dict) else part if isinstance(part, list) else ():
        yield from references(value)
    if isinstance(part, dict) and "$ref" in part:
        yield part["$ref"]


def closed(part: Any) -> Any:
    """Return a schema that allows no fields but those it names, so that an undescribed field of an answer is found."""
    if isinstance(part, list):
        return [closed(each) for each in part]
    if not isinstance(part, dict):
        return part
    return {name: closed(value) for name, value in part.items()} | (
        {"additionalProperties": False} if isinstance(part.get("properties"), dict) else {}
    )


def check(document: Document, operation: RouteDescription, reply: Reply) -> None:
    """Hold an answer to the description of its operation."""
    answer = document["paths"][operation.path][operation.method.lower()]["responses"][str(reply.status)]
    content = answer.get("content", {})
    media_type = reply.headers["Content-Type"].partition(";")[0]
    assert media_type in content, operation.path
    if media_type.endswith("json"):
        root = {**closed(content[media_type]["schema"]), "components": closed(document["components"])}
        jsonschema.Draft202012Validator(root).validate(reply.json)


@asynccontextmanager
async def full_gateway(
    open_gateway: OpenGateway, clock: ShiftedClock | None = None
) -> AsyncIterator[tuple[Stack, dict[str, str]]]:
    """Open a gateway that has something of everything; yield it with ids by the part of the path before them."""
    limits = {"budget_usd_per_day": 5, "concurrent_predictions": 9, "predictions_per_minute": 600}
    hooks = {"allow_http": True, "allow_private_addresses": True}
    async with (
        start_receiver() as receiver,
        open_gateway(ops=TOKEN, prices=PRICES, teams={"alpha": limits}, webhooks=hooks, clock=clock) as stack,
        open_session(stack) as alpha,
    ):
        receiver.answer = answering(500)
        body = {"version": named(stack), "input": STORY, "webhook": receiver.url}
        made = (await ask(stack, "POST", "/v1/predictions", json=body, headers={"Gateway-User": "ann"})).json["id"]
        await finished(alpha, made)
        assert (await create(alpha, named(stack), STORY)).is_hit
        await create(alpha, named(stack), {"prompt": "long", "max_tokens": 60})
        tried: list[str] = []
        async for _ in attempts():
            listed = await ask(stack, "GET", "/admin/webhooks", base=stack.ops_url, key="operator")
            tried = [each["id"] for each in listed.json["results"] if each["next_at"]]
            if tried:
                break
        issued = await ask(
            stack, "POST", "/admin/keys", base=stack.ops_url, key="operator", json={"team": "alpha", "scopes": ["read"]}
        )
        assert issued.status == 201, issued.text
        yield stack, {"webhooks": tried[0], "keys": issued.json["id"], "predictions": made, "explain": made}


async def test_answers_are_as_described(open_gateway: OpenGateway):
    """Each operation is asked; each answer fits its schema, with no field that is not described."""
    async with full_gateway(open_gateway) as (stack, ids):
        bodies = {
            "/gateway/tokens": {"ttl_seconds": 60},
            "/gateway/estimate": {"version": named(stack), "input": STORY},
            "/admin/keys": {"team": "alpha"},
            "/gateway/keys": {"scopes": ["read"]},
            "/admin/keys/{id}": {"name": "one", "limits": {"requests_per_minute": 60}},
            "/gateway/keys/{id}": {"name": "two"},
        }
        asked = [(listener, operation) for listener in LISTENERS for operation in listener.operations]
        # What is deleted is needed before.
        for listener, operation in sorted(asked, key=lambda each: each[1].method == "DELETE"):
            if operation.path in UNGUESSABLE:
                continue
            base = stack.ops_url if listener.key == "operator" else stack.origin
            before, _, after = operation.path.partition("/{id}")
            path = f"{before}/{ids[before.rpartition('/')[2]]}{after}" if "{id}" in operation.path else before
            body = None if operation.body is None else bodies.get(operation.path, {})
            for accept in ("application/json", *operation.others):
                reply = await ask(
                    stack, operation.method, path, base=base, key=listener.key, headers={"Accept": accept}, json=body
                )
                assert reply.status == operation.status, (operation.method, path, reply.text)
                check(json.loads(listener.body), operation, reply)
                if path == "/openapi.json":
                    assert reply.body == listener.body


_BETWEEN_CASES = 20.0


def fuzz(listener: Listener, base: str, key: str, clock: ShiftedClock) -> None:
    """Ask every operation what its description allows, and what it does not; hold the answers to it."""
    schema = schemathesis.openapi.from_dict(json.loads(listener.body))
    for found in schema.get_all_operations():
        operation = found.ok()
        for mode in GenerationMode:
            try:
                cases = operation.as_strategy(generation_mode=mode)

                @settings(
                    max_examples=EXAMPLES,
                    deadline=None,
                    derandomize=True,
                    database=None,
                    phases=[Phase.generate],
                    suppress_health_check=list(HealthCheck),
                )
                @given(case=cases)
                def ask_case(case: schemathesis.Case) -> None:
                    # Each case is also asked with wrong credentials, which are limited by address.
                    clock.shift += _BETWEEN_CASES
                    case.call_and_validate(
                        base_url=base,
                        headers={"Authorization": f"Bearer {key}"},
                        # A text of a valid form can still name a version, a scope or a time that does not exist.
                        excluded_checks=[positive_data_acceptance],
                        timeout=SECONDS,
                    )

                ask_case()
            except Unsatisfiable:
                # Nothing about it can be wrong.
                assert mode is GenerationMode.NEGATIVE


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", ["public", "ops"])
async def test_answers_to_generated_requests_are_as_described(open_gateway: OpenGateway, name: str):
    """Requests that fit the description are answered, others are refused, and both as described; nothing is a 500."""
    listener = LISTENERS[name == "ops"]
    clock = ShiftedClock()
    async with full_gateway(open_gateway, clock) as (stack, _):
        base = stack.ops_url if name == "ops" else stack.origin
        await asyncio.to_thread(fuzz, listener, base, stack.keys[listener.key], clock)
