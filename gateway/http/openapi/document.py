"""Makes an OpenAPI 3.1 document of operations. Schemas are those of msgspec types."""

import re
from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final

import msgspec

from gateway import __version__
from gateway.domain.problems import CONTENT_TYPE

_JSON: Final = "application/json"
_SCHEMAS: Final = "#/components/schemas/{name}"
_PARAMETER: Final = re.compile(r"{(\w+)}")
_KEY: Final = "key"


class ErrorField(msgspec.Struct, frozen=True):
    """A part of a request that is wrong."""

    type: str
    field: str
    description: str


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """A refusal or an error, in Replicate's form."""

    title: str
    detail: str
    status: int
    request_id: str | msgspec.UnsetType = msgspec.UNSET
    invalid_fields: list[ErrorField] | msgspec.UnsetType = msgspec.UNSET
    retry_after: int | msgspec.UnsetType = msgspec.UNSET
    """Seconds after which to retry."""
    limit: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET
    """The limit that refused the request."""


class RouteDescription(msgspec.Struct, frozen=True, kw_only=True):
    """A route as callers see it."""

    method: str
    path: str
    """Its template: `/admin/keys/{id}`."""
    summary: str
    description: str = ""
    query: type[msgspec.Struct] | None = None
    body: Any = None
    """The type of the request's body; `None` if it has none."""
    answer: Any = None
    """The type of the answer's body; `None` if it has none, or is not JSON."""
    status: int = 200
    others: Mapping[str, Mapping[str, Any]] = {}
    """Other forms of the answer: schemas by media type."""
    further: Mapping[int, Any] = {}
    """Types of answers with other statuses that are not problems."""
    errors: Sequence[int] = ()
    is_internal: bool = False
    """Whether only Replicate calls it, so that the document leaves it out."""
    is_open: bool = False
    """Whether it needs no credential."""
    parameters: Mapping[str, Mapping[str, Any]] = {}
    """Schemas of parts of the path that are not any text."""


def document(
    title: str, description: str, operations: Iterable[RouteDescription], *, every: Sequence[int], credential: str
) -> bytes:
    """Return the document. `every` has statuses of errors that each operation can answer; `credential` says which
    credential goes into the header `Authorization`.
    """
    shown = (each for each in operations if not each.is_internal)
    described = sorted(shown, key=lambda each: (each.path, each.method))
    types = dict.fromkeys([Problem, *(kind for each in described for kind in _types_of(each))])
    schemas, components = msgspec.json.schema_components(types, ref_template=_SCHEMAS)
    by_type = dict(zip(types, schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for each in described:
        paths.setdefault(each.path, {})[each.method.lower()] = _operation(each, by_type, components, every)
    return msgspec.json.encode(
        {
            "openapi": "3.1.0",
            "info": {"title": title, "description": description, "version": __version__},
            "security": [{_KEY: []}],
            "paths": paths,
            "components": {
                "schemas": components,
                "securitySchemes": {_KEY: {"type": "http", "scheme": "bearer", "description": credential}},
            },
        }
    )


def _types_of(operation: RouteDescription) -> list[Any]:
    given = (operation.query, operation.body, operation.answer, *operation.further.values())
    return [each for each in given if each is not None]


def _operation(
    operation: RouteDescription, schemas: Mapping[Any, Any], components: Mapping[str, Any], every: Sequence[int]
) -> dict[str, Any]:
    made: dict[str, Any] = {"summary": operation.summary}
    if operation.description:
        made["description"] = operation.description
    if parameters := [*_path(operation), *_query(operation, schemas, components)]:
        made["parameters"] = parameters
    if operation.body is not None:
        made["requestBody"] = {"required": True, "content": {_JSON: {"schema": schemas[operation.body]}}}
    if operation.is_open:
        made["security"] = []
    answers = {operation.status: operation.answer, **operation.further}
    made["responses"] = {
        **{str(status): _answer(status, kind, schemas) for status, kind in answers.items()},
        **{str(status): _problem(status, schemas) for status in sorted({*operation.errors, *every})},
    }
    if operation.others:
        first = made["responses"][str(operation.status)]
        first["content"] = first.get("content", {}) | {
            media_type: {"schema": schema} for media_type, schema in operation.others.items()
        }
    return made


def _answer(status: int, kind: Any, schemas: Mapping[Any, Any]) -> dict[str, Any]:
    described: dict[str, Any] = {"description": HTTPStatus(status).phrase}
    return described if kind is None else described | {"content": {_JSON: {"schema": schemas[kind]}}}


def _problem(status: int, schemas: Mapping[Any, Any]) -> dict[str, Any]:
    return {"description": HTTPStatus(status).phrase, "content": {CONTENT_TYPE: {"schema": schemas[Problem]}}}


def _path(operation: RouteDescription) -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "path", "required": True, "schema": operation.parameters.get(name, {"type": "string"})}
        for name in _PARAMETER.findall(operation.path)
    ]


def _query(
    operation: RouteDescription, schemas: Mapping[Any, Any], components: Mapping[str, Any]
) -> list[dict[str, Any]]:
    if operation.query is None:
        return []
    described = components[schemas[operation.query]["$ref"].rpartition("/")[2]]
    required = described.get("required", [])
    return [
        {"name": name, "in": "query", "required": name in required, "schema": _given(schema)}
        for name, schema in described["properties"].items()
    ]


def _given(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schema of a parameter that is given: it is never null, and no text is empty."""
    schema = {name: value for name, value in schema.items() if not (name == "default" and value is None)}
    if "anyOf" in schema:
        (given,) = (each for each in schema.pop("anyOf") if each.get("type") != "null")
        schema |= given
    elif "enum" in schema:
        schema["enum"] = [each for each in schema["enum"] if each is not None]
    return schema | ({"minLength": 1} if schema.get("type") == "string" else {})
