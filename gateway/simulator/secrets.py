"""Secret inputs: the model gets the value, and responses show a text in its place."""

from collections.abc import Mapping
from typing import Any

REDACTED = "This value was redacted after being sent to the model."


def redacted(given: Mapping[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return an input as responses show it. `fields` are the schema's properties."""
    return {name: _shown(value, fields.get(name, {})) for name, value in given.items()}


def _shown(value: Any, schema: Mapping[str, Any]) -> Any:
    if value is None:
        return None
    if schema.get("x-cog-secret") is True:
        return REDACTED
    if isinstance(value, list) and "items" in schema:
        return [_shown(each, schema["items"]) for each in value]
    return value
