"""Validate bodies and inputs against JSON schemas, with the messages of the API's validator (gojsonschema).

Supports what Cog's schemas use: required, type, enum, bounds, lengths, uri, `allOf`, `$ref`, and arrays of these.
"""

import re
from collections.abc import Mapping
from typing import Any

_EVENTS = ["start", "output", "logs", "completed"]
_COMMON: dict[str, Any] = {
    "input": {"type": "object"},
    "stream": {"type": "boolean"},
    "webhook": {"type": "string"},
    "webhook_completed": {"type": "string"},
    "webhook_events_filter": {"type": "array", "items": {"type": "string", "enum": _EVENTS}},
}
PREDICTION_BODY: dict[str, Any] = {
    "type": "object",
    "required": ["input"],
    "additionalProperties": False,
    "properties": _COMMON,
}
VERSION_PREDICTION_BODY: dict[str, Any] = {
    "type": "object",
    "required": ["version", "input"],
    "additionalProperties": False,
    "properties": {**_COMMON, "version": {"type": "string"}},
}
TRAINING_BODY: dict[str, Any] = {
    "type": "object",
    "required": ["destination", "input"],
    "properties": {**{k: v for k, v in _COMMON.items() if k != "stream"}, "destination": {"type": "string"}},
}
_INSTANCES = {
    "hardware": {"type": "string"},
    "min_instances": {"type": "integer", "minimum": 0, "maximum": 5},
    "max_instances": {"type": "integer", "minimum": 0, "maximum": 20},
    "version": {"type": "string"},
}
DEPLOYMENT_BODY: dict[str, Any] = {
    "type": "object",
    "required": ["name", "model", "version", "hardware", "min_instances", "max_instances"],
    "properties": {**_INSTANCES, "name": {"type": "string"}, "model": {"type": "string"}},
}
DEPLOYMENT_PATCH: dict[str, Any] = {"type": "object", "properties": _INSTANCES}
_TEXT = {"type": "string"}
MODEL_BODY: dict[str, Any] = {
    "type": "object",
    "required": ["owner", "name", "visibility", "hardware"],
    "properties": {
        **dict.fromkeys(
            ("owner", "name", "hardware", "description", "github_url", "paper_url", "license_url", "cover_image_url"),
            _TEXT,
        ),
        "visibility": {"type": "string", "enum": ["public", "private"]},
    },
}
MODEL_PATCH: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "properties": dict.fromkeys(
        ("description", "readme", "github_url", "paper_url", "weights_url", "license_url"), _TEXT
    ),
}

_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int, float),
    "number": (int, float),
    "boolean": (bool,),
    "object": (dict,),
    "array": (list,),
}
_URI = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]*:")


def check(
    value: Any, schema: Mapping[str, Any], root: Mapping[str, Any] | None = None, field: str = ""
) -> list[dict[str, str]]:
    """Return the errors of `value` in the format of `invalid_fields`. `root` resolves `$ref`s."""
    schema = _resolve(schema, root or {})
    kind = schema.get("type")
    if kind is not None and not _is_a(value, kind):
        return [_field("invalid_type", field, f"Invalid type. Expected: {kind}, given: {_name_of(value)}")]
    wrong: list[dict[str, str]] = []
    if "enum" in schema and value not in schema["enum"]:
        choices = ", ".join(f'"{choice}"' if isinstance(choice, str) else str(choice) for choice in schema["enum"])
        wrong.append(_field("enum", field, f"{field.rsplit('.', 1)[-1]} must be one of the following: {choices}"))
    if isinstance(value, dict):
        wrong += _check_object(value, schema, root or {}, field)
    elif isinstance(value, list):
        for number, item in enumerate(value):
            wrong += check(item, schema.get("items", {}), root, f"{field}.{number}")
    elif isinstance(value, str):
        wrong += _check_text(value, schema, field)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        wrong += _check_number(value, schema, field)
    return wrong


def with_defaults(value: Mapping[str, Any], schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return the input with the schema's defaults for missing and null values."""
    full = {name: each["default"] for name, each in schema.get("properties", {}).items() if "default" in each}
    full.update({name: given for name, given in value.items() if given is not None})
    return full


def _check_object(
    value: dict[str, Any], schema: Mapping[str, Any], root: Mapping[str, Any], field: str
) -> list[dict[str, str]]:
    properties: Mapping[str, Any] = schema.get("properties", {})
    wrong = [
        _field("required", field, f"{name} is required") for name in schema.get("required", []) if name not in value
    ]
    if schema.get("additionalProperties") is False:
        wrong += [
            _field("additional_property_not_allowed", field, f"Additional property {name} is not allowed")
            for name in value
            if name not in properties
        ]
    required = schema.get("required", [])
    for name, each in properties.items():
        if name in value and (value[name] is not None or name in required):
            wrong += check(value[name], each, root, f"{field}.{name}" if field else name)
    return wrong


def _check_text(value: str, schema: Mapping[str, Any], field: str) -> list[dict[str, str]]:
    if schema.get("format") == "uri" and not _URI.match(value):
        return [_field("format", field, "Does not match format 'uri'")]
    if len(value) < schema.get("minLength", 0):
        return [_field("string_gte", field, f"String length must be greater than or equal to {schema['minLength']}")]
    if len(value) > schema.get("maxLength", len(value)):
        return [_field("string_lte", field, f"String length must be less than or equal to {schema['maxLength']}")]
    return []


def _check_number(value: float, schema: Mapping[str, Any], field: str) -> list[dict[str, str]]:
    if value < schema.get("minimum", value):
        return [_field("number_gte", field, f"Must be greater than or equal to {schema['minimum']}")]
    if value > schema.get("maximum", value):
        return [_field("number_lte", field, f"Must be less than or equal to {schema['maximum']}")]
    return []


def _resolve(schema: Mapping[str, Any], root: Mapping[str, Any]) -> Mapping[str, Any]:
    if "$ref" in schema:
        found: Any = root
        for part in str(schema["$ref"]).removeprefix("#/").split("/"):
            found = found.get(part, {})
        return _resolve(found, root)
    if "allOf" in schema:
        merged: dict[str, Any] = {}
        for part in schema["allOf"]:
            merged.update(_resolve(part, root))
        return merged
    return schema


def _is_a(value: Any, kind: str) -> bool:
    if isinstance(value, bool):
        return kind == "boolean"
    if kind == "integer" and isinstance(value, float):
        return value.is_integer()
    return isinstance(value, _TYPES[kind])


def _name_of(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        return "integer"
    return next(name for name, types in _TYPES.items() if isinstance(value, types) and name != "integer")


def _field(kind: str, field: str, description: str) -> dict[str, str]:
    return {"type": kind, "field": field, "description": description}
